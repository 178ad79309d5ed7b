//! Namespaces, a fake outside host, ping and TCP: what the demo and the tests play on.
//!
//! ```text
//!   workload --- veth, made by the daemon --- node --- uplink --- outside
//!                                             10.77/24 ...        203.0.113.1, 2001:db8:113::1
//! ```
//! The outside host has no route to the workloads: that it answers one proves that the node masquerades.

pub mod change;
pub mod frames;
mod links;
pub mod packets;
pub mod pinger;
pub mod pipe;
pub mod tcp;
mod traffic;
pub mod wait;

pub use traffic::{Echo, exchange, ping};

use anyhow::Context as _;
use kernel::netns;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long a stage may take until packets go across.
const READY: Duration = Duration::from_secs(5);
/// The outside host's addresses.
pub const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];
/// The node's addresses on its uplink.
pub const NODE: [&str; 2] = ["203.0.113.2", "2001:db8:113::2"];

/// A network namespace that ends with this value.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A fresh one.
    pub fn new() -> anyhow::Result<Self> {
        netns::create()
            .map(Self)
            .context("cannot make a network namespace")
    }

    /// One that is there, by a path of it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self(file.into()))
    }

    /// The path by which another process finds it, for as long as this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Does something inside, on a thread of its own. Processes that are started there live there.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        netns::within(self.0.as_fd(), act).context("cannot enter a network namespace")
    }

    /// Names of links that begin with a prefix.
    pub fn links(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let mut names = self.within(links::names)??;
        names.retain(|name| name.starts_with(prefix));
        Ok(names)
    }
}

/// A node with an uplink to an outside host.
#[derive(Debug)]
pub struct Node {
    /// The node itself, where the daemon runs.
    pub node: Namespace,
    /// The host beyond its uplink.
    pub outside: Namespace,
}

impl Node {
    /// Both namespaces, connected, with default routes on the node.
    pub fn new() -> anyhow::Result<Self> {
        let (node, outside) = (Namespace::new()?, Namespace::new()?);
        node.within(|| links::connect("uplink", outside.0.as_fd(), "eth0"))??;
        node.within(|| links::configure("uplink", &NODE))??;
        outside.within(|| links::configure("eth0", &OUTSIDE))??;
        node.within(|| links::default_routes("uplink", &OUTSIDE))??;
        for address in OUTSIDE {
            ping(&node, address.parse().context("an address of the stage")?, READY).context("the stage")?;
        }
        Ok(Self { node, outside })
    }
}

/// The program that stands beside the running one, or in the folder above, where cargo puts tests' binaries.
pub fn sibling(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join(name))
        .find(|path: &std::path::PathBuf| Path::new(path).is_file())
        .with_context(|| format!("{name} is not beside {}", own.display()))
}

/// Makes a process that is not root the root of namespaces of its own. It must not have a second thread.
pub fn become_root() -> anyhow::Result<()> {
    netns::become_root_in_new_user_namespace().context("cannot make a user namespace")
}
