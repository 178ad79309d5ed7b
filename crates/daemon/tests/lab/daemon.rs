//! The daemon under test: a process on a node of its own, with its socket and state in a folder of its own. Its log is
//! shown when a test fails.

use crate::sandbox::Sandbox;
use crate::witness;
use client::workload::{AttachRequest, AttachResponse, DetachRequest, NetNsAttachment, PortMapping};
use client::{Client, Error, inspection};
use stage::Node;
use stage::wait::{PATIENCE, eventually};
use std::fs::{File, OpenOptions};
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A daemon that may be running, and its node.
pub(crate) struct Daemon {
    pub(crate) node: Node,
    folder: TempDir,
    prefixes: Vec<String>,
    cool_down: u64,
    /// The rest of the settings.
    rest: String,
    child: Option<Child>,
}

/// Which daemon is started.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Build {
    /// The product.
    Usual,
    /// The one that kills itself after this many kernel steps.
    CrashingAfter(u32),
}

impl Daemon {
    /// On a fresh node, not running yet. Freed addresses rest for no time.
    pub(crate) fn new() -> Self {
        Self {
            node: Node::new().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            prefixes: vec!["10.77.0.0/24".to_owned(), "fd77::/64".to_owned()],
            cool_down: 0,
            rest: String::new(),
            child: None,
        }
    }

    pub(crate) fn started() -> Self {
        let mut daemon = Self::new();
        daemon.start();
        daemon
    }

    /// None at all: they come from elsewhere.
    pub(crate) fn set_prefixes(&mut self, prefixes: &[&str]) {
        self.prefixes = prefixes.iter().map(|&text| text.to_owned()).collect();
    }

    /// Tables of settings beside the usual ones.
    pub(crate) fn set_rest(&mut self, rest: String) {
        self.rest = rest;
    }

    /// How many seconds freed addresses rest.
    pub(crate) fn set_cool_down(&mut self, seconds: u64) {
        self.cool_down = seconds;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/workloadnet.sock")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("run/state.json")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What it has logged so far.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    /// The end of its log.
    pub(crate) fn log_file(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap()
    }

    /// How the product is started, with its log at the end of the others.
    pub(crate) fn command(&self, build: Build) -> Command {
        let settings = self.folder.path().join("workloadnetd.toml");
        let prefixes = match self.prefixes.is_empty() {
            true => String::new(),
            false => format!("prefixes = {:?}\n", self.prefixes),
        };
        let text = format!(
            "[socket]\npath = {:?}\n[network]\n{prefixes}cool_down_seconds = {}\nstate = {:?}\n{}",
            self.socket(),
            self.cool_down,
            self.state(),
            self.rest
        );
        std::fs::write(&settings, text).unwrap();
        let binary = match build {
            Build::Usual => Path::new(env!("CARGO_BIN_EXE_workloadnetd")),
            Build::CrashingAfter(_) => crashing(),
        };
        let mut command = Command::new(binary);
        command
            .arg("--config")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log_file());
        command.env("RUST_LOG", "info,daemon=debug,kernel=debug");
        // Many a node has one for its other software; nobody answers there.
        command.env("HTTPS_PROXY", "http://127.0.0.1:1");
        if let Build::CrashingAfter(step) = build {
            command.env("WORKLOADNET_CRASH_AFTER", step.to_string());
        }
        command
    }

    /// Starts a process on the node.
    pub(crate) fn spawn(&self, mut command: Command) -> Child {
        self.node.node.within(|| command.spawn()).unwrap().unwrap()
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&mut self) {
        assert!(self.try_start(Build::Usual), "the daemon ended at its start");
        self.settle();
    }

    /// Waits for what is made a little later than the daemon is ready, or has new prefixes.
    fn settle(&self) {
        eventually(
            PATIENCE,
            "prefixes are unreachable as such",
            || self.caller().findings(),
            |all| !all.iter().any(|text| text.contains("unreachable")),
        );
    }

    /// Starts it, and waits until it has read the kernel and says that it lacks this.
    pub(crate) fn start_lacking(&mut self, words: &str) {
        assert!(self.child.is_none(), "a daemon is running");
        self.child = Some(self.spawn(self.command(Build::Usual)));
        let says = || match self.caller().status() {
            Err(Error::Refused(refused)) => refused.message,
            other => format!("{other:?}"),
        };
        eventually(PATIENCE, words, says, |said| {
            said.contains(words) && !said.contains("recovering")
        });
    }

    /// Whether the daemon answers and has read the kernel. A full pool is no reason to wait.
    pub(crate) fn recovered(&self) -> bool {
        match self.caller().status() {
            Ok(()) => true,
            Err(client::Error::Refused(refused)) => {
                let said = refused.message;
                said.contains("address is left") && !said.contains("recovering")
            }
            Err(_) => false,
        }
    }

    /// Returns when a daemon that was taken over has read the kernel.
    pub(crate) fn wait_until_recovered(&self) {
        eventually(
            PATIENCE,
            "the daemon is ready",
            || self.recovered(),
            |&ready| ready,
        );
    }

    /// Starts it and waits until it is ready; `false` where it ended before.
    pub(crate) fn try_start(&mut self, build: Build) -> bool {
        assert!(self.child.is_none(), "a daemon is running");
        // Kept from the beginning: it is to end with the test, too, if it never gets ready.
        self.child = Some(self.spawn(self.command(build)));
        eventually(
            PATIENCE,
            "the daemon is ready or ends",
            || self.has_ended() || self.recovered(),
            |&over| over,
        );
        self.child.is_some()
    }

    /// Whether none is running any more.
    pub(crate) fn has_ended(&mut self) -> bool {
        let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        if self.child.as_mut().is_some_and(ended) {
            self.child = None;
        }
        self.child.is_none()
    }

    /// Takes over a process that is running already.
    pub(crate) fn adopt(&mut self, child: Child) {
        assert!(self.child.replace(child).is_none(), "a daemon is running");
    }

    /// Of the process that runs.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a daemon is running").id()
    }

    /// SIGKILL.
    pub(crate) fn crash(&mut self) {
        let mut child = self.child.take().expect("a daemon is running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, without waiting.
    pub(crate) fn ask_to_stop(&self) {
        let child = self.child.as_ref().expect("a daemon is running");
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a daemon is running");
        eventually(
            PATIENCE,
            "the daemon ends",
            || child.try_wait().unwrap(),
            Option::is_some,
        )
        .unwrap()
    }

    /// SIGTERM, and out with success.
    pub(crate) fn stop(&mut self) {
        self.ask_to_stop();
        let status = self.wait();
        assert!(status.success(), "the daemon ended with {status}");
    }

    /// Waits for the crash that was ordered; `false` where it is still running.
    pub(crate) fn has_crashed(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        let Some(status) = child.try_wait().unwrap() else {
            return false;
        };
        assert_eq!(status.signal(), Some(9), "the daemon ended with {status}");
        self.child = None;
        true
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::new(&self.socket())
    }

    /// What the kernel holds on the node.
    pub(crate) fn world(&self) -> Vec<String> {
        if self.child.is_some() {
            self.settle();
        }
        witness::world(&self.node.node)
    }

    /// How many addresses of each prefix are used and cool down.
    pub(crate) fn counts(&self) -> Vec<(u64, u64)> {
        let prefixes = self.caller().node().prefix;
        prefixes
            .iter()
            .map(|prefix| (prefix.used, prefix.cooling))
            .collect()
    }

    /// Whether every prefix has this many addresses in use.
    #[track_caller]
    pub(crate) fn expect_used(&self, used: u64) {
        let prefixes = self.caller().node().prefix;
        assert!(!prefixes.is_empty());
        assert!(
            prefixes.iter().all(|prefix| prefix.used == used),
            "not {used} in use: {prefixes:#?}"
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let world =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.world())).unwrap_or_default();
            eprintln!(
                "--- the daemon's log ---\n{log}--- the world ---\n{}\n---",
                world.join("\n")
            );
        }
    }
}

/// The daemon with crash points: the one that is named, or built once, in a folder of its own, so that the product's stays what
/// it is.
fn crashing() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = std::env::var_os("WORKLOADNET_CRASHING") {
            return built.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let target = root.join("target/crash-points");
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package",
                "workloadnet-daemon",
                "--features",
                "crash-points",
            ])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(root)
            .status()
            .unwrap();
        assert!(status.success(), "the daemon with crash points cannot be built");
        target.join("debug/workloadnetd")
    })
}

/// A client of its own, which waits for its answers.
pub(crate) struct Caller {
    runtime: Runtime,
    client: Client,
}

impl Caller {
    pub(crate) fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async { Client::new(socket) }).unwrap();
        Self { runtime, client }
    }

    /// Several calls at once, over the one connection.
    pub(crate) fn talk<T>(&self, talk: impl AsyncFnOnce(&Client) -> T) -> T {
        self.runtime.block_on(talk(&self.client))
    }

    pub(crate) fn attach(&self, request: AttachRequest) -> Result<AttachResponse, Error> {
        self.runtime.block_on(self.client.attach(request))
    }

    pub(crate) fn detach(&self, request: DetachRequest) -> Result<(), Error> {
        self.runtime.block_on(self.client.detach(request))
    }

    pub(crate) fn status(&self) -> Result<(), Error> {
        self.runtime.block_on(self.client.status())
    }

    pub(crate) fn list(&self) -> Vec<inspection::Attachment> {
        self.runtime.block_on(self.client.list(None)).unwrap()
    }

    pub(crate) fn node(&self) -> inspection::GetNodeResponse {
        self.runtime.block_on(self.client.node()).unwrap()
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        let findings = self.runtime.block_on(self.client.check(None)).unwrap();
        findings.into_iter().map(|finding| finding.text).collect()
    }
}

/// Returns when the daemon has read all that was sent before over this connection: it reads in that order.
pub(crate) async fn is_read(client: &Client) {
    let last = client.clone();
    // A task of its own has its turn after those that were begun before.
    let status = tokio::spawn(async move { last.status().await });
    status.await.unwrap().unwrap();
}

/// A request with nothing but what is needed.
pub(crate) fn attach(id: &str, namespace: &Sandbox) -> AttachRequest {
    AttachRequest {
        workload_id: id.to_owned(),
        netns: Some(NetNsAttachment {
            netns_path: namespace.path(),
            if_name: "eth0".to_owned(),
        }),
        ..AttachRequest::default()
    }
}

/// With a port of the node that leads to one of the workload's, TCP.
pub(crate) fn attach_with_port(id: &str, namespace: &Sandbox, port: u16, to: u16) -> AttachRequest {
    let mapping = PortMapping {
        host_port: port.into(),
        container_port: to.into(),
        ..PortMapping::default()
    };
    AttachRequest {
        port_mapping: vec![mapping],
        ..attach(id, namespace)
    }
}

/// A request that names no namespace.
pub(crate) fn detach(id: &str) -> DetachRequest {
    DetachRequest {
        workload_id: id.to_owned(),
        netns: Some(NetNsAttachment {
            netns_path: String::new(),
            if_name: "eth0".to_owned(),
        }),
        ..DetachRequest::default()
    }
}

/// Addresses as the contract sends them.
pub(crate) fn addresses(bytes: &[Vec<u8>]) -> Vec<IpAddr> {
    let parse = |bytes: &Vec<u8>| match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).unwrap()),
    };
    bytes.iter().map(parse).collect()
}
