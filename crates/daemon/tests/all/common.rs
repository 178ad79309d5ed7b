//! The daemon under test, in a node namespace of its own.

use client::{Client, Error, workload};
use stage::{Namespace, Node};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// A node with a daemon on it.
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) folder: PathBuf,
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
    pub(crate) program: PathBuf,
    args: Vec<String>,
    daemon: Option<Child>,
    _folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Host {
    /// With a daemon that is ready.
    pub(crate) fn new(args: &[&str]) -> Self {
        let mut host = Self::without_daemon(args);
        host.start(None);
        host
    }

    pub(crate) fn without_daemon(args: &[&str]) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("workloadnet-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async { Client::new(folder.join("socket")).unwrap() });
        Self {
            node: Node::new().unwrap(),
            _folder: Folder(folder.clone()),
            folder,
            runtime,
            client,
            program: env!("CARGO_BIN_EXE_workloadnetd").into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            daemon: None,
        }
    }

    /// Starts the daemon and waits until it is ready, or until it has killed itself.
    pub(crate) fn start(&mut self, crash_after: Option<u32>) {
        self.spawn(crash_after);
        self.wait_until_ready();
    }

    pub(crate) fn spawn(&mut self, crash_after: Option<u32>) {
        let spawn = || {
            let mut command = Command::new(&self.program);
            command.arg("--socket").arg(self.folder.join("socket"));
            command
                .arg("--state")
                .arg(self.folder.join("state.json"))
                .args(&self.args);
            command.env("RUST_LOG", "error").stdin(Stdio::null());
            if let Some(step) = crash_after {
                command.env("WORKLOADNET_CRASH_AFTER", step.to_string());
            }
            command.spawn().unwrap()
        };
        self.daemon = Some(self.node.node.within(spawn).unwrap());
    }

    pub(crate) fn wait_until_ready(&mut self) {
        let began = Instant::now();
        while let Err(error) = self.runtime.block_on(self.client.status()) {
            if self.daemon.as_mut().unwrap().try_wait().unwrap().is_some() {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{error}");
            nap();
        }
    }

    /// kill -9.
    pub(crate) fn crash(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Waits for a daemon that ends by itself.
    pub(crate) fn has_crashed(&mut self) -> bool {
        eventually("the daemon has ended", || {
            self.daemon.as_mut().unwrap().try_wait().unwrap().is_some()
        });
        self.daemon = None;
        true
    }

    /// Whether the daemon kills itself within a moment.
    pub(crate) fn crashes_soon(&mut self) -> bool {
        let began = Instant::now();
        let daemon = self.daemon.as_mut().unwrap();
        while daemon.try_wait().unwrap().is_none() {
            if began.elapsed() > Duration::from_millis(500) {
                return false;
            }
            nap();
        }
        true
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().unwrap();
        run(&format!("kill -TERM {}", daemon.id()));
        daemon.wait().unwrap().code()
    }

    pub(crate) fn attach(&self, id: &str, namespace: &Namespace) -> Result<Vec<String>, Error> {
        self.attach_request(request(id, &namespace.path()))
    }

    pub(crate) fn attach_request(&self, request: workload::AttachRequest) -> Result<Vec<String>, Error> {
        let answer = self.runtime.block_on(self.client.attach(request))?;
        Ok(answer.ip.iter().map(|bytes| show(bytes)).collect())
    }

    pub(crate) fn detach(&self, id: &str, path: &str) -> Result<(), Error> {
        self.runtime
            .block_on(self.client.detach(detach_request(id, path)))
    }

    /// Ids of what is attached.
    pub(crate) fn listed(&self) -> Vec<String> {
        let all = self.runtime.block_on(self.client.list(None)).unwrap();
        all.into_iter()
            .map(|attachment| attachment.key.unwrap().workload_id)
            .collect()
    }

    /// Used and cooling addresses of the first prefix.
    pub(crate) fn pool(&self) -> (u64, u64) {
        let node = self.runtime.block_on(self.client.node()).unwrap();
        (node.prefix[0].used, node.prefix[0].cooling)
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        let all = self.runtime.block_on(self.client.check(None)).unwrap();
        all.into_iter().map(|finding| finding.text).collect()
    }

    /// Runs a program on the node.
    pub(crate) fn on_node(&self, line: &str) -> String {
        self.node.node.within(|| run(line)).unwrap()
    }

    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(self.listed(), Vec::<String>::new());
        assert_eq!(self.node.node.links("wk").unwrap(), Vec::<String>::new());
        for family in ["-4", "-6"] {
            let routes = self.on_node(&format!("ip {family} route show"));
            assert!(!routes.contains("wk"), "{routes}");
        }
        assert_eq!(self.pool().0, 0);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            self.crash();
        }
    }
}

pub(crate) fn request(id: &str, path: &str) -> workload::AttachRequest {
    workload::AttachRequest {
        workload_id: id.to_owned(),
        netns: Some(workload::NetNsAttachment {
            netns_path: path.to_owned(),
            if_name: "eth0".to_owned(),
        }),
        ..workload::AttachRequest::default()
    }
}

pub(crate) fn detach_request(id: &str, path: &str) -> workload::DetachRequest {
    workload::DetachRequest {
        workload_id: id.to_owned(),
        netns: Some(workload::NetNsAttachment {
            netns_path: path.to_owned(),
            if_name: "eth0".to_owned(),
        }),
        owner: String::new(),
    }
}

pub(crate) fn show(bytes: &[u8]) -> String {
    match bytes.len() {
        4 => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap()).to_string(),
        _ => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string(),
    }
}

/// Code, reason and text of a refusal.
pub(crate) fn refusal<T: Debug>(outcome: Result<T, Error>) -> (String, String, String) {
    match outcome.unwrap_err() {
        Error::Refused(refused) => (
            format!("{:?}", refused.code),
            refused.reason.clone(),
            refused.message.clone(),
        ),
        other => panic!("not a refusal: {other}"),
    }
}

pub(crate) fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a test waits for a value"
)]
fn nap() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        nap();
    }
}

/// The daemon's build that kills itself after the n-th kernel step.
pub(crate) fn crashing_daemon() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/crash-points/debug/workloadnetd");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "workloadnet-daemon",
            "--features",
            "crash-points",
            "--target-dir",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/crash-points"))
        .status()
        .unwrap();
    assert!(status.success());
    program
}
