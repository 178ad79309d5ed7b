//! What is measured: the daemon as a process on a node of its own, asked over gRPC, and its kernel room alone.

use anyhow::{Context as _, Result, ensure};
use client::workload::{AttachRequest, DetachRequest, NetNsAttachment};
use client::{Client, Deadlines};
use kernel::linux::Linux;
use model::address::Addresses;
use model::datapath::{Datapath as _, Target};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::plan::{Plan, PlanSettings};
use model::record::{Asked, PathDigest, Record};
use stage::{Namespace, Node};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(30);
/// How often a daemon that starts is asked whether it is ready.
const PACE: Duration = Duration::from_micros(500);

/// The daemon; ends with this value.
pub(crate) struct Daemon {
    node: Node,
    folder: TempDir,
    program: PathBuf,
    child: Option<Child>,
    /// Settings, as TOML.
    settings: String,
    prefixes: &'static [&'static str],
}

/// What workloads get addresses of.
const PREFIXES: &[&str] = &["10.64.0.0/14", "fd64::/64"];

impl Daemon {
    /// Not started yet.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            node: Node::new()?,
            folder: tempfile::tempdir().context("make a folder for the socket")?,
            program: std::env::var_os("WORKLOADNET_DAEMON")
                .context("WORKLOADNET_DAEMON has to name the daemon")?
                .into(),
            child: None,
            settings: String::new(),
            prefixes: PREFIXES,
        })
    }

    /// Gives out addresses of IPv4 only. Not started yet.
    pub(crate) fn of_ipv4() -> Result<Self> {
        let mut daemon = Self::new()?;
        daemon.prefixes = &PREFIXES[..1];
        Ok(daemon)
    }

    /// Before it is started.
    pub(crate) fn set(&mut self, settings: String) {
        self.settings = settings;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn network(&self) -> &Namespace {
        &self.node.node
    }

    /// The host beyond the node's uplink.
    pub(crate) fn outside(&self) -> &Namespace {
        &self.node.outside
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("workloadnet.sock")
    }

    /// A connection of its own.
    pub(crate) fn client(&self, runtime: &Runtime) -> Result<Client> {
        client(runtime, &self.socket())
    }

    /// Starts it; how long it took until an Attach could succeed, from before the process was made.
    pub(crate) fn start(&mut self, runtime: &Runtime) -> Result<Duration> {
        let mut command = Command::new(&self.program);
        let settings = self.folder.path().join("workloadnetd.toml");
        fs::write(&settings, &self.settings).context("write settings")?;
        command
            .arg("--config")
            .arg(settings)
            .args(self.prefixes.iter().flat_map(|prefix| ["--prefix", prefix]))
            .arg("--socket")
            .arg(self.socket())
            .arg("--state")
            .arg(self.folder.path().join("state.json"))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null());
        let client = self.client(runtime)?;
        let began = Instant::now();
        self.child = Some(
            self.node
                .node
                .within(|| command.spawn())?
                .context("start workloadnetd")?,
        );
        runtime.block_on(async {
            while let Err(error) = client.status().await {
                ensure!(
                    began.elapsed() < PATIENCE,
                    "not ready within {PATIENCE:?}: {error}"
                );
                tokio::time::sleep(PACE).await;
            }
            Ok(())
        })?;
        Ok(began.elapsed())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("kill workloadnetd")?;
            child.wait().context("wait for workloadnetd")?;
        }
        Ok(())
    }

    /// The process.
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("no daemon runs")?.id())
    }

    /// What it counts, where it was made [`Daemon::with_counts`].
    pub(crate) fn counts(&self) -> Result<Counts> {
        let path = self.folder.path().join("metrics.sock");
        let mut stream = UnixStream::connect(path).context("ask for metrics")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(Counts(page))
    }

    /// Settings with which it tells what it counts.
    pub(crate) fn with_counts(mut self) -> Self {
        let socket = self.folder.path().join("metrics.sock");
        self.settings = format!("[metrics]\nlisten = \"unix:{}\"\n", socket.display());
        self
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> Result<u64> {
        let child = self.child.as_ref().context("no daemon runs")?;
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).context("read its status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .context("its status has no VmRSS")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

/// A client that a loaded machine does not hurry.
pub(crate) fn client(runtime: &Runtime, socket: &Path) -> Result<Client> {
    let _inside = runtime.enter();
    Ok(Client::new(socket)?.with_deadlines(Deadlines {
        orders: PATIENCE,
        questions: PATIENCE,
    }))
}

/// A page of metrics.
#[derive(Debug)]
pub(crate) struct Counts(String);

impl Counts {
    /// The sum of all that begins with this.
    pub(crate) fn sum(&self, begin: &str) -> f64 {
        let of = self.0.lines().filter(|line| line.starts_with(begin));
        of.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Attach this.
pub(crate) fn attach(id: &str, path: &str) -> AttachRequest {
    AttachRequest {
        workload_id: id.to_owned(),
        netns: Some(end(path)),
        owner: "bench".to_owned(),
        ..AttachRequest::default()
    }
}

/// Take this off.
pub(crate) fn detach(id: &str) -> DetachRequest {
    DetachRequest {
        workload_id: id.to_owned(),
        netns: Some(end("")),
        owner: "bench".to_owned(),
    }
}

fn end(path: &str) -> NetNsAttachment {
    NetNsAttachment {
        netns_path: path.to_owned(),
        if_name: "eth0".to_owned(),
    }
}

/// The kernel room alone, in the namespace of the thread that made it: the product's sequence with no daemon around it.
pub(crate) struct KernelRoom {
    linux: Linux,
    made: u32,
}

impl KernelRoom {
    /// In the thread's network namespace.
    pub(crate) fn here() -> Result<Self> {
        Ok(Self {
            linux: Linux::open(GROUP)?,
            made: 0,
        })
    }

    /// Attaches the namespace at `path`.
    pub(crate) fn attach(&mut self, path: &str) -> Result<Target> {
        let n = self.made;
        self.made += 1;
        let [_, b2, b3, b4] = n.to_be_bytes();
        let own = [
            IpAddr::from([10, 32 + b2, b3, b4]),
            IpAddr::from([0xfd32, 0, 0, 0, 0, 0, (n >> 16) as u16, n as u16]),
        ];
        let (namespace, identity) = self.linux.open(path)?;
        let id = WorkloadId::new(&format!("kernel-room-{n}"))?;
        let record = Record {
            key: Key::new(Owner::new("bench")?, id, InterfaceName::new("eth0")?)?,
            addresses: Addresses::from_list(own).context("one address per family")?,
            namespace: identity,
            path: PathDigest::of(path),
            asked: Asked::default(),
            outward_mtu: None,
            adopted: None,
        };
        let plan = Plan::new(
            record,
            &PlanSettings {
                group: GROUP,
                mtu: 1500,
            },
            FIRST_INDEX + n,
        );
        let index = self.linux.wire(&namespace, &plan)?;
        Ok(Target {
            link: plan.link.host,
            index,
            group: GROUP,
        })
    }

    /// Takes a link away and waits for the kernel's acknowledgement.
    pub(crate) fn detach(&self, target: Target) -> Result<()> {
        for result in self.linux.unwire(&[target]) {
            result?;
        }
        Ok(())
    }
}

const GROUP: u32 = 9;
/// Away from the bare loop's.
const FIRST_INDEX: u32 = 10_000_000;
