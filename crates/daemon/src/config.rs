//! Settings: the embedded defaults, a TOML file over them, flags over both. What is unknown or wrong is an error with its
//! place, and nothing is started.

mod check;
#[cfg(test)]
mod tests;

use crate::account::Account;
use crate::desk;
use crate::door::Bounds;
use crate::door::peer::Allowed;
use crate::metrics::Listen;
use crate::source::Kind;
use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;
use model::key::Owner;
use model::prefix::Prefix;
use model::routes;
use queue::Queue;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long opening a namespace may take. It takes microseconds, unless a file system hangs.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// What no notification tells of is found after this time.
const ROUND: Duration = Duration::from_secs(60);
/// Bytes of a file.
const FILE_LIMIT: u64 = 1 << 20;

/// Prefixes where nobody names any.
pub const FIXED: [&str; 2] = ["10.77.0.0/24", "fd77:77:77::/64"];

/// Everything that can be set. `packaging/workloadnetd.toml` describes each setting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where and to whom the daemon listens.
    pub socket: Socket,
    /// What workloads get.
    pub network: Network,
    /// How other nodes are routed to.
    pub routes: Routes,
    /// Where prefixes come from.
    pub prefixes: Prefixes,
    /// Which cluster, and which node of it.
    pub kubernetes: Kubernetes,
    /// Where the daemon tells how it is.
    pub metrics: Metrics,
    /// How much at once.
    pub limits: Limits,
}

/// Where the daemon tells how it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where HTTP is spoken; not set: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
}

/// Where prefixes come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prefixes {
    /// Which source.
    pub source: Kind,
    /// The file of the source `file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Which cluster, and which node of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// Name of the own Node; not set: `$NODE_NAME`, else the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How to reach the API server; not set: the pod's service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
}

/// Where and to whom the daemon listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Socket {
    /// Path of the socket.
    pub path: PathBuf,
    /// User that owns the socket; not set: the daemon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Account>,
    /// Group of the socket; not set: the daemon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Account>,
    /// Users that may speak. The daemon's own always may.
    pub allowed_uids: Vec<Account>,
    /// Groups that may speak.
    pub allowed_gids: Vec<Account>,
}

/// What workloads get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Prefixes to give addresses from, with the source `fixed`; not set: [`FIXED`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<Vec<String>>,
    /// Link group that marks our links.
    pub group: u32,
    /// MTU of every link; not set: the uplink's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Whose workloads get the largest MTU for the node's own prefixes.
    pub large_mtu_owners: Vec<String>,
    /// Whether packets for the world get the node's address.
    pub masquerade: bool,
    /// Where packets keep their workload's address, beside the prefixes of this node and of its peers.
    pub no_masquerade: Vec<String>,
    /// Seconds that a freed address rests.
    pub cool_down_seconds: u64,
    /// File for labels, addresses that are held or cool down, and what was told of prefixes.
    pub state: PathBuf,
    /// Where the kernel's settings of networks are written.
    pub proc_sys_net: PathBuf,
}

/// How other nodes are routed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routes {
    /// Who does it, and how.
    pub mode: Mode,
    /// The file that lists the other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<PathBuf>,
    /// The VXLAN network identifier.
    pub vxlan_id: u32,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Where the other nodes reach this one.
    pub addresses: Vec<std::net::IpAddr>,
}

/// See [`routes::Mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Others route.
    None,
    /// Per peer.
    Auto,
    /// On shared links.
    Direct,
    /// Over VXLAN.
    Vxlan,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            mode: Mode::None,
            peers: None,
            vxlan_id: 8,
            vxlan_port: 4789,
            addresses: Vec::new(),
        }
    }
}

/// How much at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Orders that may wait.
    pub max_queued: usize,
    /// Connections that may be open.
    pub max_connections: usize,
}

impl Default for Socket {
    fn default() -> Self {
        Self {
            path: "/run/workloadnet/workloadnet.sock".into(),
            owner: None,
            group: None,
            allowed_uids: vec![Account::Id(0)],
            allowed_gids: Vec::new(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            prefixes: None,
            group: 8,
            mtu: None,
            large_mtu_owners: Vec::new(),
            masquerade: true,
            no_masquerade: Vec::new(),
            cool_down_seconds: 150,
            state: "/run/workloadnet/state.json".into(),
            proc_sys_net: "/proc/sys/net".into(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queued: 1024,
            max_connections: 1024,
        }
    }
}

impl Config {
    /// Reads a file. Its errors name line and column.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text))
            .with_context(|| format!("cannot read {shown}"))?;
        if text.len() as u64 > FILE_LIMIT {
            bail!("{shown} has more than {FILE_LIMIT} bytes: it is no file of settings");
        }
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Reads a text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut config: Self = toml::from_str(text)?;
        config.check()?;
        // Said or not said, they are the same settings.
        config.network.prefixes = config.network.prefixes.filter(|all| all != &FIXED);
        Ok(config)
    }

    fn prefixes(&self) -> anyhow::Result<Vec<Prefix>> {
        if self.prefixes.source != Kind::Fixed {
            return Ok(Vec::new());
        }
        let texts = self.network.prefixes.clone();
        let texts = texts.unwrap_or_else(|| FIXED.map(str::to_owned).to_vec());
        let prefixes: Vec<Prefix> = texts
            .iter()
            .map(|text| text.parse().with_context(|| format!("network.prefixes {text:?}")))
            .collect::<Result<_, _>>()?;
        Prefix::servable(&prefixes).context("network.prefixes")?;
        Ok(prefixes)
    }

    fn no_masquerade(&self) -> anyhow::Result<Vec<IpNet>> {
        let net = |text: &String| {
            text.parse()
                .map_err(|_| anyhow!("network.no_masquerade {text:?}: is not a prefix such as 10.0.0.0/8"))
        };
        self.network.no_masquerade.iter().map(net).collect()
    }

    fn large_mtu_owners(&self) -> anyhow::Result<Vec<Owner>> {
        let owner =
            |name: &String| Owner::new(name).with_context(|| format!("network.large_mtu_owners {name:?}"));
        self.network.large_mtu_owners.iter().map(owner).collect()
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        let mut all = self.clone();
        if all.prefixes.source == Kind::Fixed && all.network.prefixes.is_none() {
            all.network.prefixes = Some(FIXED.map(str::to_owned).to_vec());
        }
        toml::to_string_pretty(&all).expect("every setting has a form in TOML")
    }

    /// Whether Kubernetes tells the other nodes. Where others route, they are needed for what is not masqueraded.
    pub(crate) fn follows_nodes(&self) -> bool {
        let is_needed = self.routes.mode != Mode::None || self.network.masquerade;
        self.prefixes.source == Kind::Kubernetes && is_needed
    }

    /// What the desk goes by.
    pub fn desk(&self) -> anyhow::Result<desk::Settings> {
        Ok(desk::Settings {
            group: self.network.group,
            source: self.prefixes.source,
            prefixes: self.prefixes()?,
            mtu: self.network.mtu,
            large_mtu_owners: self.large_mtu_owners()?,
            cool_down: Duration::from_secs(self.network.cool_down_seconds),
            max_queued: self.limits.max_queued,
            masquerade: self.network.masquerade,
            no_masquerade: self.no_masquerade()?,
            routes: routes::Settings {
                mode: match self.routes.mode {
                    Mode::None => routes::Mode::None,
                    Mode::Auto => routes::Mode::Auto,
                    Mode::Direct => routes::Mode::Direct,
                    Mode::Vxlan => routes::Mode::Vxlan,
                },
                vni: self.routes.vxlan_id,
                port: self.routes.vxlan_port,
                addresses: self.routes.addresses.clone(),
            },
            peers_are_told: self.routes.mode != Mode::None
                || self.routes.peers.is_some()
                || self.follows_nodes(),
            state_file: Some(self.network.state.clone()),
            queue: Some(Queue::beside(&self.socket.path)),
            open_limit: OPEN_LIMIT,
            round: ROUND,
        })
    }

    /// How much the door takes upon itself.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            connections: self.limits.max_connections,
            ..Bounds::default()
        }
    }

    /// File descriptors that are in use at once, at most: one for each connection, up to two for each order (its namespace
    /// and a socket in it), and our own.
    pub fn open_files(&self) -> u64 {
        let Limits {
            max_queued,
            max_connections,
        } = self.limits;
        let orders = max_queued.saturating_mul(2);
        max_connections.saturating_add(orders).saturating_add(100) as u64
    }

    /// User and group id that the socket gets.
    pub fn socket_ids(&self) -> anyhow::Result<(Option<u32>, Option<u32>)> {
        let Socket { owner, group, .. } = &self.socket;
        let owner = owner
            .as_ref()
            .map(|owner| owner.uid().with_context(|| format!("socket.owner {owner}")))
            .transpose()?;
        let group = group
            .as_ref()
            .map(|group| group.gid().with_context(|| format!("socket.group {group}")))
            .transpose()?;
        Ok((owner, group))
    }

    /// Who may speak.
    pub fn allowed(&self) -> anyhow::Result<Allowed> {
        let uids = self
            .socket
            .allowed_uids
            .iter()
            .map(|user| user.uid().with_context(|| format!("socket.allowed_uids {user}")));
        let gids = self.socket.allowed_gids.iter().map(|group| {
            group
                .gid()
                .with_context(|| format!("socket.allowed_gids {group}"))
        });
        let own = rustix::process::geteuid().as_raw();
        Ok(Allowed {
            uids: uids.chain([Ok(own)]).collect::<Result<_, _>>()?,
            gids: gids.collect::<Result<_, _>>()?,
        })
    }
}
