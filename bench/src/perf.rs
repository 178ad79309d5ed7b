//! perf (Debian's linux-perf), started and stopped around something: what it recorded, as text.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const PATIENCE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

/// Records while something is done.
pub(crate) fn record(options: &[&str], act: impl FnOnce() -> Result<()>) -> Result<String> {
    let mut recording = Recording::start(options)?;
    let outcome = recording.enable().and_then(|()| act());
    recording.stop()?;
    outcome?;
    recording.script()
}

struct Recording {
    perf: Child,
    folder: TempDir,
    orders: File,
    answers: File,
}

impl Recording {
    /// Ready, but nothing is recorded yet.
    fn start(options: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for perf")?;
        let [orders, answers] = ["orders", "answers"].map(|name| fifo(&folder.path().join(name)));
        let (orders, answers) = (orders?, answers?);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let log = File::create(path("log")).context("make a file for what perf says")?;
        let perf = Command::new("perf")
            .args(["record", "--quiet", "--delay=-1", "--output", &path("data")])
            .arg(format!("--control=fifo:{},{}", path("orders"), path("answers")))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start perf")?;
        Ok(Self {
            perf,
            folder,
            orders,
            answers,
        })
    }

    fn enable(&mut self) -> Result<()> {
        self.orders.write_all(b"enable\n").context("tell perf to begin")?;
        let mut ready = [PollFd::new(&self.answers, PollFlags::IN)];
        if poll(&mut ready, Some(&PATIENCE)).context("wait for perf")? == 0 {
            bail!("perf does not begin: {}", self.said());
        }
        let mut answer = [0; 16];
        let length = self
            .answers
            .read(&mut answer)
            .context("hear whether perf began")?;
        ensure!(
            answer[..length].starts_with(b"ack"),
            "perf does not begin: {}",
            self.said()
        );
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        // It may have ended already, which its output then says.
        let _ = kill_process(Pid::from_child(&self.perf), Signal::INT);
        self.perf.wait().context("wait for perf")?;
        Ok(())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn script(&self) -> Result<String> {
        let output = Command::new("perf")
            .args([
                "script",
                "--no-inline",
                "--fields",
                crate::stacks::FIELDS,
                "--input",
            ])
            .arg(self.folder.path().join("data"))
            .stdin(Stdio::null())
            .output()
            .context("start perf script")?;
        ensure!(
            output.status.success(),
            "perf script: {}: {}{}",
            output.status,
            self.said(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Opened for both ways, so that nobody waits for the other.
fn fifo(path: &Path) -> Result<File> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .with_context(|| format!("make {}", path.display()))?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}
