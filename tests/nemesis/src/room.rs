//! The node under test: its namespace with an uplink, a small file system for the daemon's /run, namespaces for workloads at
//! paths that can be taken away, and things of strangers that nobody may touch.

use crate::history::Life;
use crate::plan::SLOTS;
use crate::witness;
use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use stage::wait::PATIENCE;
use stage::{Namespace, Node};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tempfile::TempDir;

/// Set in the environment where the mounts and processes are our own.
pub const INSIDE: &str = "WORKLOADNET_NEMESIS_INSIDE";
/// Bytes of the daemon's /run.
const RUN_BYTES: &str = "size=512k";
/// Every so many namespaces have something of a stranger's inside.
const INHABITED: usize = 4;

/// Links, a route and a table that are nobody's but a stranger's: one in our group, one with a name as ours, one with a name
/// that begins as ours.
const STRANGERS: &str = "\
link add stranger0 type ifb
link set stranger0 group 8 up
address add 198.51.100.1/24 dev stranger0
address add 2001:db8:51::1/64 dev stranger0 nodad
route add 192.0.2.0/24 dev stranger0
route add 2001:db8:2::/64 dev stranger0
neighbour add 198.51.100.7 lladdr 02:00:00:00:00:07 dev stranger0 nud permanent
link add wk0123456789abc type ifb
link set wk0123456789abc alias stranger up
link add wkstranger type ifb
link set wkstranger up
";
const STRANGE_TABLE: &str = "\
table inet stranger {
  set blocked { type ipv4_addr; elements = { 192.0.2.66 } }
  chain forward { type filter hook forward priority 10; policy accept; ip saddr @blocked drop; }
}
";
/// Inside a workload's namespace.
const STRANGERS_INSIDE: &str = "\
link add stranger1 type ifb
link set stranger1 up
address add 192.0.2.129/32 dev stranger1
";

/// The node under test.
#[derive(Debug)]
pub struct Room {
    /// The node and the host beyond its uplink.
    pub stage: Node,
    folder: TempDir,
    began: Instant,
    lives: Mutex<Vec<Life>>,
}

impl Room {
    /// A fresh one. Its mounts end with the process: see [`enter`].
    pub fn new() -> Result<Self> {
        ensure!(
            std::env::var_os(INSIDE).is_some(),
            "mounts of one's own are needed first"
        );
        let room = Self {
            stage: Node::new()?,
            folder: tempfile::tempdir()?,
            began: Instant::now(),
            lives: Mutex::default(),
        };
        std::fs::create_dir(room.run())?;
        mount(
            "nemesis",
            room.run(),
            "tmpfs",
            MountFlags::empty(),
            Some(c_text(RUN_BYTES)?.as_c_str()),
        )
        .context("mount a small /run")?;
        std::fs::create_dir(room.folder.path().join("netns"))?;
        ip(&room.stage.node, STRANGERS)?;
        fed(&room.stage.node, &["nft", "-f", "-"], STRANGE_TABLE)?;
        for slot in 0..SLOTS {
            std::fs::write(room.path(slot), "")?;
            room.open(slot)?;
        }
        // The kernel's own addresses are not there at once.
        let are_settled = || {
            room.strangers()
                .is_ok_and(|all| !all.concat().contains("tentative"))
        };
        ensure!(
            stage::wait::within(PATIENCE, are_settled),
            "the strangers' links do not come up"
        );
        Ok(room)
    }

    /// Microseconds since the room was made.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A folder for everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The daemon's small file system.
    pub fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.run().join("workloadnet/workloadnet.sock")
    }

    /// The daemon's file of what the kernel cannot hold.
    pub fn state(&self) -> PathBuf {
        self.run().join("workloadnet/state.json")
    }

    /// Where deletions wait.
    pub fn queue(&self) -> PathBuf {
        self.run().join("workloadnet/queue")
    }

    /// The path of a workload's namespace.
    pub fn path(&self, slot: usize) -> PathBuf {
        self.folder.path().join(format!("netns/s{slot}"))
    }

    /// Every namespace that there was or is.
    pub fn lives(&self) -> MutexGuard<'_, Vec<Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of those that are there, with their slots.
    pub fn living(&self) -> Vec<(usize, usize)> {
        let lives = self.lives();
        let living = lives
            .iter()
            .enumerate()
            .filter(|(_, life)| life.until == u64::MAX);
        living.map(|(number, life)| (number, life.slot)).collect()
    }

    /// Puts a fresh namespace at a path that leads to none.
    pub fn open(&self, slot: usize) -> Result<()> {
        let namespace = Namespace::new()?;
        if slot.is_multiple_of(INHABITED) {
            ip(&namespace, STRANGERS_INSIDE)?;
        }
        let inode = std::fs::metadata(namespace.path())?.ino();
        let from = self.now();
        mount_bind(namespace.path(), self.path(slot)).context("show a namespace at a path")?;
        self.lives().push(Life {
            slot,
            inode,
            from,
            until: u64::MAX,
            gone: u64::MAX,
        });
        Ok(())
    }

    /// Takes a namespace's path away, and with it the namespace, unless somebody holds it; `false` where there is none.
    pub fn close(&self, slot: usize) -> Result<bool> {
        let is_of = |life: &&mut Life| life.slot == slot && life.until == u64::MAX;
        let until = self.now();
        let found = self
            .lives()
            .iter_mut()
            .find(is_of)
            .map(|life| life.until = until)
            .is_some();
        if found {
            unmount(self.path(slot), UnmountFlags::DETACH).context("take a namespace away")?;
            let gone = self.now();
            let mut lives = self.lives();
            let ended = lives
                .iter_mut()
                .rfind(|life| life.slot == slot && life.gone == u64::MAX);
            ended.context("it was there")?.gone = gone;
        }
        Ok(found)
    }

    /// Puts a fresh namespace wherever there is none.
    pub fn reopen(&self) -> Result<()> {
        let living: Vec<usize> = self.living().into_iter().map(|(_, slot)| slot).collect();
        (0..SLOTS)
            .filter(|slot| !living.contains(slot))
            .try_for_each(|slot| self.open(slot))
    }

    /// Everything of strangers, as text.
    pub fn strangers(&self) -> Result<Vec<String>> {
        let node = &self.stage.node;
        let mut all = Vec::new();
        for name in witness::STRANGERS.into_iter().chain(["uplink"]) {
            for what in [
                format!("ip -j -d link show {name}"),
                format!("ip -j address show {name}"),
                format!("ip -j -4 route show dev {name}"),
                format!("ip -j -6 route show dev {name}"),
                format!("ip -j neighbour show dev {name} nud permanent"),
            ] {
                all.push(format!("{what}: {}", witness::run(node, &what)?.trim()));
            }
        }
        all.push(witness::run(node, "nft -s list table inet stranger")?);
        Ok(all)
    }
}

fn c_text(text: &str) -> Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(text)?)
}

/// Carries out lines of `ip` in a namespace.
pub fn ip(namespace: &Namespace, lines: &str) -> Result<()> {
    fed(namespace, &["ip", "-batch", "-"], lines)
}

/// The same, and goes on where a line cannot be carried out.
pub fn try_ip(namespace: &Namespace, lines: &str) -> Result<()> {
    // What cannot be done because something is gone is no matter.
    drop(fed(namespace, &["ip", "-force", "-batch", "-"], lines));
    Ok(())
}

/// Runs a program in a namespace, which reads a text.
pub fn fed(namespace: &Namespace, words: &[&str], text: &str) -> Result<()> {
    let output = namespace.within(|| -> Result<_> {
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("its input")?
            .write_all(text.as_bytes())?;
        Ok(child.wait_with_output()?)
    })??;
    ensure!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Starts the program anew with mounts and processes of its own, which end with it; `None` where it has them already.
pub fn enter() -> Result<Option<std::process::ExitCode>> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    let status = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("start unshare")?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(Some(code.into()))
}
