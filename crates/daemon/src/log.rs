//! Where the log goes: standard error, which holds nobody up. The thread that has something to say writes it, and a journal that
//! hangs would keep it, and who waits for it, for as long as it hangs. So a line for which there is no room is left out, and how
//! many were is said when there is room again.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, Stderr, StderrLock, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
/// Bytes that a pipe with room has room for (pipe(7), PIPE_BUF); a socket has more.
const PIECE: usize = 4096;

/// Standard error, for a subscriber of `tracing`.
#[derive(Debug, Default)]
pub struct Log {
    /// Lines are JSON.
    is_json: bool,
    /// Lines since there was no room.
    left_out: AtomicU64,
    /// The last one that was written lacks its end.
    is_cut: AtomicBool,
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
    /// A subscriber writes each line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Log {
            is_json,
            left_out: all,
            is_cut,
        } = self.of;
        let left_out = all.load(Ordering::Relaxed);
        let patience = if left_out == 0 { PATIENCE } else { AT_ONCE };
        let mut text = match is_cut.load(Ordering::Relaxed) {
            true => b"\n".to_vec(),
            false => Vec::new(),
        };
        if left_out > 0 {
            let what = format!("{left_out} lines were left out here: nobody read the log");
            match is_json {
                true => writeln!(text, r#"{{"level":"WARN","fields":{{"message":"{what}"}}}}"#)?,
                false => writeln!(text, "WARN {what}")?,
            }
        }
        text.extend(line);
        for (n, piece) in text.chunks(PIECE).enumerate() {
            if !has_room(self.to.as_fd(), patience) {
                match n {
                    0 => all.store(left_out + 1, Ordering::Relaxed),
                    _ => {
                        all.store(1, Ordering::Relaxed);
                        is_cut.store(true, Ordering::Relaxed);
                    }
                }
                return Ok(line.len());
            }
            self.to.write_all(piece)?;
        }
        all.store(0, Ordering::Relaxed);
        is_cut.store(false, Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Whether something can be written without waiting for longer. Where that cannot be told, it is tried.
fn has_room(to: BorrowedFd<'_>, patience: Timespec) -> bool {
    let mut asked = [PollFd::new(&to, PollFlags::OUT)];
    loop {
        match poll(&mut asked, Some(&patience)) {
            // A signal, whose handler may be what ends the daemon.
            Err(Errno::INTR) => {}
            Ok(0) => return false,
            _ => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stage::pipe::fill;
    use std::io::{PipeReader, PipeWriter, Read as _};
    use std::time::{Duration, Instant};

    fn say(to: &PipeWriter, of: &Log, text: &str) {
        Line { to, of }.write_all(text.as_bytes()).unwrap();
    }

    fn rest(mut reader: PipeReader, writer: PipeWriter) -> String {
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        rest
    }

    /// What there is to read where nobody read for a thousand lines.
    fn left(log: &Log) -> String {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut filled = vec![0; fill(&writer).unwrap()];
        let began = Instant::now();
        for n in 0..1000 {
            say(&writer, log, &format!("lost {n}\n"));
        }
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "only the first one waits"
        );
        reader.read_exact(&mut filled).unwrap();
        say(&writer, log, "heard\n");
        say(&writer, log, "heard, too\n");
        rest(reader, writer)
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

    /// There is room for a piece of it.
    #[test]
    fn of_a_line_longer_than_there_is_room_for_the_end_is_left_out_and_nobody_waits() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut filled = vec![0; fill(&writer).unwrap()];
        let log = Log::new(false);
        reader.read_exact(&mut [0; PIECE]).unwrap();
        say(&writer, &log, &format!("{}\n", "x".repeat(3 * PIECE)));
        reader.read_exact(&mut filled).unwrap();
        assert!(filled.ends_with(b"xxx"));
        say(&writer, &log, "heard\n");
        say(&writer, &log, &format!("{}\n", "y".repeat(3 * PIECE)));
        let rest = rest(reader, writer);
        let (first, second) = rest.split_at(rest.len() - 3 * PIECE - 1);
        assert_eq!(
            first,
            "\nWARN 1 lines were left out here: nobody read the log\nheard\n"
        );
        assert!(second.starts_with("yyy") && second.ends_with("y\n"));
    }
}
