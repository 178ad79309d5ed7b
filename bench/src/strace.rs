//! System calls and netlink messages, as strace (Debian's) counts them: of a process that runs, and of programs that are
//! executed. What it follows is many times slower, so nothing is timed meanwhile.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where it is looked for with an empty environment, too.
const STRACE: &str = "/usr/bin/strace";
const PATIENCE: Duration = Duration::from_secs(10);
/// In the calls of a process that follows itself, what is between these counts.
const BEGIN: &str = "/workloadnet-bench-begin";
const END: &str = "/workloadnet-bench-end";

/// What was counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: BTreeMap<String, usize>,
    pub(crate) messages: usize,
}

impl Counts {
    pub(crate) fn total(&self) -> usize {
        self.calls.values().sum()
    }

    /// From strace's output with `-f -o`: a line for each call, after the thread's id.
    fn parse(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            let Some((_, line)) = line.split_once(' ') else {
                continue;
            };
            let line = line.trim_start();
            // What goes on, signals, and ends of processes are no calls.
            let Some((name, arguments)) = line.split_once('(') else {
                continue;
            };
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if name.is_empty() || !is_name {
                continue;
            }
            *counts.calls.entry(name.to_owned()).or_default() += 1;
            if name.starts_with("send") {
                counts.messages += arguments.matches("{nlmsg_len=").count();
            }
        }
        counts
    }
}

/// What a process and all of its threads do while something is asked of it.
pub(crate) fn of_process(pid: u32, act: impl FnOnce() -> Result<()>) -> Result<Counts> {
    Ok(Counts::parse(&follow(pid, act)?))
}

/// What this process does.
pub(crate) fn of_own(act: impl FnOnce() -> Result<()>) -> Result<Counts> {
    let text = follow(std::process::id(), || {
        // Nothing is there; it is the question that counts.
        let _ = Path::new(BEGIN).exists();
        act()?;
        let _ = Path::new(END).exists();
        Ok(())
    })?;
    Ok(Counts::parse(between(&text)?))
}

fn between(text: &str) -> Result<&str> {
    let begin = text.find(BEGIN).context("strace has not seen the beginning")?;
    let begin = begin
        + text[begin..]
            .find('\n')
            .context("there is more than the beginning")?;
    let end = text.find(END).context("strace has not seen the end")?;
    let end = text[..end].rfind('\n').context("the end has a line")?;
    Ok(&text[begin..=end])
}

fn follow(pid: u32, act: impl FnOnce() -> Result<()>) -> Result<String> {
    let output = tempfile::NamedTempFile::new().context("make a file for strace")?;
    let mut strace = under(output.path())
        .arg("-p")
        .arg(pid.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start strace")?;
    let outcome = followed(pid).and_then(|()| act());
    let own = Pid::from_child(&strace);
    kill_process(own, Signal::INT).context("stop strace")?;
    strace.wait().context("wait for strace")?;
    outcome?;
    std::fs::read_to_string(output.path()).context("read what strace wrote")
}

/// strace, to be followed by a program.
pub(crate) fn under(output: &Path) -> Command {
    let mut strace = Command::new(STRACE);
    // Messages beyond the 400th of one call would not be counted.
    strace.args(["-f", "-q", "-s", "400", "-o"]).arg(output);
    strace
}

/// What programs do that are executed [`under`] strace.
pub(crate) fn of_program(act: impl FnOnce(&mut Command) -> Result<()>) -> Result<Counts> {
    let output = tempfile::NamedTempFile::new().context("make a file for strace")?;
    act(&mut under(output.path()))?;
    let text = std::fs::read_to_string(output.path()).context("read what strace wrote")?;
    Ok(Counts::parse(&text))
}

/// Waits until every thread is followed.
fn followed(pid: u32) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut all = true;
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("read a process's threads")? {
            let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            all &= !status.contains("TracerPid:\t0\n");
        }
        if all {
            return Ok(());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "strace does not follow within {PATIENCE:?}"
        );
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
7 epoll_wait(3,  <unfinished ...>
8 statx(AT_FDCWD, \"/workloadnet-bench-begin\", AT_STATX_SYNC_AS_STAT, STATX_ALL, 0x7f) = -1 ENOENT
8 sendto(5, [{nlmsg_len=32, nlmsg_type=0x10 /* NLMSG_??? */}, {nlmsg_len=20}], 52, 0, NULL, 0) = 52
8 recvfrom(5, {nlmsg_len=36, nlmsg_type=NLMSG_ERROR}, 8192, 0, NULL, NULL) = 36
7 <... epoll_wait resumed>[{events=EPOLLIN}], 1024, -1) = 1
8 sendto(6, \"hello\", 5, 0, NULL, 0) = 5
8 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---
8 statx(AT_FDCWD, \"/workloadnet-bench-end\", AT_STATX_SYNC_AS_STAT, STATX_ALL, 0x7f) = -1 ENOENT
8 +++ exited with 0 +++
";

    #[test]
    fn a_call_counts_once_and_messages_are_those_that_are_sent() {
        let counts = Counts::parse(OUTPUT);
        let expected = [("epoll_wait", 1), ("recvfrom", 1), ("sendto", 2), ("statx", 2)];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(counts.calls, BTreeMap::from(expected));
        assert_eq!((counts.messages, counts.total()), (2, 6));
    }

    #[test]
    fn of_this_process_only_what_is_between_the_marks_counts() {
        let counts = Counts::parse(between(OUTPUT).unwrap());
        assert_eq!(counts.calls.keys().collect::<Vec<_>>(), ["recvfrom", "sendto"]);
        assert!(between("nothing").is_err());
    }
}
