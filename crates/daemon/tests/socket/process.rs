//! The daemon as a process in a network namespace, started by a path or with a socket that is listened on already.

use stage::Namespace;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What takes this long does not happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until it is true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let began = Instant::now();
    while !look() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// A folder for what daemons of a test have.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn log(&self, name: &str) -> File {
        let path = self.path(&format!("{name}.log"));
        OpenOptions::new().create(true).append(true).open(path).unwrap()
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workloadnetd"));
        command
            .arg("--socket")
            .arg(self.path(&format!("{name}.sock")))
            .arg("--state")
            .arg(self.path(&format!("{name}.json")))
            .env("RUST_LOG", "info")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC");
        command
    }

    /// Listens on NAME.sock.
    pub(crate) fn start(&self, name: &str, network: &Namespace, more: &[&str]) -> Daemon {
        let mut command = self.command(name);
        command.args(more).stdin(Stdio::null());
        self.spawn(name, network, command)
    }

    /// With this in the environment's RUST_LOG.
    pub(crate) fn start_logging(&self, name: &str, network: &Namespace, filter: &str) -> Daemon {
        let mut command = self.command(name);
        command.env("RUST_LOG", filter).stdin(Stdio::null());
        self.spawn(name, network, command)
    }

    /// With limits of open files, as ulimit(1) takes them.
    pub(crate) fn start_limited(&self, name: &str, network: &Namespace, limits: &str) -> Daemon {
        let product = self.command(name);
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("{limits}; exec \"$0\" \"$@\""))
            .arg(product.get_program())
            .args(product.get_args())
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null());
        self.spawn(name, network, command)
    }

    /// Tells a service manager on a socket (sd_notify(3)), whose watchdog has this much patience.
    pub(crate) fn start_notifying(
        &self,
        name: &str,
        network: &Namespace,
        manager: &Path,
        watchdog: Duration,
    ) -> Daemon {
        let mut command = self.command(name);
        command
            .env("NOTIFY_SOCKET", manager)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .stdin(Stdio::null());
        self.spawn(name, network, command)
    }

    /// Gets a socket as the service manager gives it (sd_listen_fds(3)): it is descriptor 3, and LISTEN_PID is the id of the
    /// process itself, which a shell knows before it becomes the daemon.
    pub(crate) fn activate(&self, name: &str, network: &Namespace, listener: &UnixListener) -> Daemon {
        let product = self.command(name);
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null")
            .arg(product.get_program())
            .args(product.get_args())
            .env("RUST_LOG", "info")
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
        self.spawn(name, network, command)
    }

    fn spawn(&self, name: &str, network: &Namespace, mut command: Command) -> Daemon {
        command.stdout(Stdio::null()).stderr(self.log(name));
        Daemon {
            child: network.within(|| command.spawn()).unwrap().unwrap(),
            log: self.path(&format!("{name}.log")),
        }
    }
}

/// A daemon, which ends with this value.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    pub(crate) fn logs(&self, text: &str) {
        eventually(text, || self.log().contains(text));
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM, without waiting.
    pub(crate) fn ask_to_stop(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually("the daemon ends", || !self.runs());
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}

/// Whether somebody listens.
pub(crate) fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}
