//! Where the log goes: standard error, which holds nobody up. The thread that has something to say writes it, and a journal that
//! hangs would keep it, and who waits for it, for as long as it hangs. So a line for which there is no room is left out, and how
//! many were is said when there is room again.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Stderr, StderrLock, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::fmt::MakeWriter;

/// How long there may be no room before the first line is left out: whoever reads may be busy for a moment.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Standard error, for a subscriber of `tracing`.
#[derive(Debug, Default)]
pub struct Log {
    /// Lines are JSON.
    is_json: bool,
    /// Lines since there was no room.
    left_out: AtomicU64,
}

impl Log {
    /// Of lines of text, or of JSON.
    pub fn new(is_json: bool) -> Self {
        Self {
            is_json,
            ..Self::default()
        }
    }
}

/// One line, while nobody else writes one.
#[derive(Debug)]
pub struct Line<'a, W> {
    to: W,
    of: &'a Log,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a, StderrLock<'static>>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            to: Stderr::lock(&io::stderr()),
            of: self,
        }
    }
}

impl<W: Write + AsFd> Write for Line<'_, W> {
    /// A subscriber writes each line at once. Of a pipe with room there are 4096 bytes (pipe(7)), of a socket more.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Log {
            is_json,
            left_out: all,
        } = self.of;
        let left_out = all.load(Ordering::Relaxed);
        let patience = if left_out == 0 { PATIENCE } else { AT_ONCE };
        if !has_room(self.to.as_fd(), patience) {
            all.store(left_out + 1, Ordering::Relaxed);
            return Ok(line.len());
        }
        if left_out > 0 {
            all.store(0, Ordering::Relaxed);
            let text = format!("{left_out} lines were left out here: nobody read the log");
            match is_json {
                true => writeln!(self.to, r#"{{"level":"WARN","fields":{{"message":"{text}"}}}}"#)?,
                false => writeln!(self.to, "WARN {text}")?,
            }
        }
        self.to.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Whether something can be written without waiting for longer. Where that cannot be told, it is tried.
fn has_room(to: BorrowedFd<'_>, patience: Timespec) -> bool {
    let mut asked = [PollFd::new(&to, PollFlags::OUT)];
    !matches!(poll(&mut asked, Some(&patience)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::time::{Duration, Instant};

    /// What there is to read where nobody read for a thousand lines.
    fn left(log: &Log) -> String {
        let (mut reader, mut writer) = io::pipe().unwrap();
        // As much as a pipe takes (pipe(7)).
        let full = vec![b'.'; 65536];
        writer.write_all(&full).unwrap();
        let say = |text: &str| {
            let mut line = Line { to: &writer, of: log };
            line.write_all(text.as_bytes()).unwrap();
        };
        let began = Instant::now();
        for n in 0..1000 {
            say(&format!("lost {n}\n"));
        }
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "only the first one waits"
        );
        let mut read = vec![0; full.len()];
        reader.read_exact(&mut read).unwrap();
        say("heard\n");
        say("heard, too\n");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        rest
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_later_what_is_missing() {
        assert_eq!(
            left(&Log::new(false)),
            "WARN 1000 lines were left out here: nobody read the log\nheard\nheard, too\n"
        );
        let json = left(&Log::new(true));
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        let text = "1000 lines were left out here: nobody read the log";
        assert_eq!(first["fields"]["message"], text);
    }
}
