//! Settings: the embedded defaults, a TOML file over them, flags over both. What is unknown or wrong is an error with its
//! place, and nothing is started.

use crate::account::Account;
use crate::desk;
use crate::door::Bounds;
use crate::door::peer::Allowed;
use crate::metrics::Listen;
use crate::source::{Kind, kubernetes};
use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;
use model::peer::Peer;
use model::prefix::Prefix;
use model::routes;
use model::survey::DYING_GROUPS;
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
    /// Whether packets for the world get the node's address.
    pub masquerade: bool,
    /// Where packets keep their workload's address, beside the prefixes of this node and of its peers.
    pub no_masquerade: Vec<String>,
    /// Seconds that a freed address rests.
    pub cool_down_seconds: u64,
    /// File for labels and cooling addresses.
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

    /// Whether every value can be used.
    pub fn check(&self) -> anyhow::Result<()> {
        self.prefixes()?;
        self.no_masquerade()?;
        self.check_source()?;
        self.socket_ids()?;
        self.allowed()?;
        if !self.socket.path.is_absolute() {
            bail!("socket.path {:?}: must be absolute", self.socket.path);
        }
        let Network {
            state, proc_sys_net, ..
        } = &self.network;
        for (name, path) in [("state", state), ("proc_sys_net", proc_sys_net)] {
            if !path.is_absolute() {
                bail!("network.{name} {path:?}: must be absolute");
            }
        }
        let group = self.network.group;
        if group == 0 || DYING_GROUPS.contains(&group) {
            bail!(
                "network.group {group}: must not be 0, which every link has, nor {} to {}, where links are moved to be deleted",
                DYING_GROUPS.start(),
                DYING_GROUPS.end()
            );
        }
        if let Some(mtu) = self.network.mtu
            && mtu < 1280
        {
            bail!("network.mtu {mtu}: must be 1280 to 65535");
        }
        if self.network.cool_down_seconds > 86_400 {
            bail!(
                "network.cool_down_seconds {}: must be at most 86400",
                self.network.cool_down_seconds
            );
        }
        if !(1..1 << 24).contains(&self.routes.vxlan_id) {
            bail!("routes.vxlan_id {}: must be 1 to 16777215", self.routes.vxlan_id);
        }
        if self.routes.vxlan_port == 0 {
            bail!("routes.vxlan_port 0: must be 1 to 65535");
        }
        Peer::new("this node", self.routes.addresses.clone(), Vec::new()).context("routes.addresses")?;
        if let Some(path) = self.routes.peers.as_ref().filter(|path| !path.is_absolute()) {
            bail!("routes.peers {path:?}: must be absolute");
        }
        if let Some(Listen::Unix(path)) = &self.metrics.listen
            && *path == self.socket.path
        {
            bail!(
                "metrics.listen \"unix:{}\": is socket.path already",
                path.display()
            );
        }
        if self.limits.max_queued == 0 {
            bail!("limits.max_queued 0: must be at least 1");
        }
        if self.limits.max_connections == 0 {
            bail!("limits.max_connections 0: must be at least 1");
        }
        Ok(())
    }

    /// Settings of one source with another one chosen would be overlooked.
    fn check_source(&self) -> anyhow::Result<()> {
        let source = self.prefixes.source;
        if source != Kind::Fixed && self.network.prefixes.is_some() {
            bail!(
                "network.prefixes: prefixes.source is {source:?}, and these are used only with \"fixed\"",
                source = source.to_string()
            );
        }
        match &self.prefixes.file {
            None if source == Kind::File => {
                bail!("prefixes.file: must be set where prefixes.source is \"file\"")
            }
            Some(file) if source != Kind::File => {
                bail!("prefixes.file {file:?}: is used only where prefixes.source is \"file\"")
            }
            Some(file) if !file.is_absolute() => bail!("prefixes.file {file:?}: must be absolute"),
            _ => {}
        }
        if source != Kind::Kubernetes && self.kubernetes != Kubernetes::default() {
            bail!("kubernetes: is used only where prefixes.source is \"kubernetes\"");
        }
        if let Some(node) = self
            .kubernetes
            .node
            .as_ref()
            .filter(|node| !kubernetes::is_name(node))
        {
            bail!("kubernetes.node {node:?}: is no name of a Node");
        }
        if let Some(file) = self.routes.peers.as_ref().filter(|_| source == Kind::Kubernetes) {
            bail!(
                "routes.peers {file:?}: with prefixes.source \"kubernetes\" the other nodes are known from Kubernetes"
            );
        }
        if let Some(path) = &self.kubernetes.kubeconfig
            && !path.is_absolute()
        {
            bail!("kubernetes.kubeconfig {path:?}: must be absolute");
        }
        Ok(())
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

    /// As TOML.
    pub fn to_toml(&self) -> String {
        let mut all = self.clone();
        if all.prefixes.source == Kind::Fixed && all.network.prefixes.is_none() {
            all.network.prefixes = Some(FIXED.map(str::to_owned).to_vec());
        }
        toml::to_string_pretty(&all).expect("every setting has a form in TOML")
    }

    /// What the desk goes by.
    pub fn desk(&self) -> anyhow::Result<desk::Settings> {
        Ok(desk::Settings {
            group: self.network.group,
            source: self.prefixes.source,
            prefixes: self.prefixes()?,
            mtu: self.network.mtu,
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
            memory: Some(self.network.state.clone()),
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
        let all = self.limits.max_connections + 2 * self.limits.max_queued + 100;
        all as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commented_example_says_every_default() {
        let example = include_str!("../../../packaging/workloadnetd.toml");
        assert_eq!(Config::parse(example).unwrap(), Config::default());
        // With every setting that is commented out put in, it still is one.
        let all: String = example
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        // Not all of them go together, but each of them is one.
        let mut all: Config = toml::from_str(&all).unwrap();
        assert!(all.prefixes.file.take().is_some());
        let kubernetes = std::mem::take(&mut all.kubernetes);
        assert!(kubernetes.node.is_some() && kubernetes.kubeconfig.is_some());
        all = Config::parse(&all.to_toml()).unwrap();
        assert!(
            all.socket.owner.is_some()
                && all.socket.group.is_some()
                && all.network.mtu.is_some()
                && all.routes.peers.is_some()
                && all.metrics.listen.is_some()
        );
        assert_eq!(Config::parse(&all.to_toml()).unwrap(), all);
    }

    #[test]
    fn users_and_groups_are_ids_or_names_and_the_daemons_own_user_may_always_speak() {
        let text =
            "[socket]\nowner = \"root\"\ngroup = 7\nallowed_uids = [1, \"root\"]\nallowed_gids = [\"root\"]";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.socket_ids().unwrap(), (Some(0), Some(7)));
        let own = rustix::process::geteuid().as_raw();
        let allowed = config.allowed().unwrap();
        assert_eq!((allowed.uids, allowed.gids), (vec![1, 0, own], vec![0]));
        assert_eq!(Config::parse(&config.to_toml()).unwrap(), config);
        let nobody = Config::parse("[socket]\nallowed_uids = []").unwrap();
        assert_eq!(nobody.allowed().unwrap().uids, [own]);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let table = [
            ("[network]\nprefix = []", "line 2, column 1"),
            ("[network]\nprefix = []", "unknown field `prefix`"),
            ("[socket]\npath = 3", "line 2, column 8"),
            (
                "[network]\nprefixes = [\"10.0.0.0/33\"]",
                "\"10.0.0.0/33\" is not a prefix",
            ),
            (
                "[network]\nprefixes = [\"10.0.0.0/8\", \"10.1.0.0/16\"]",
                "10.0.0.0/8 and 10.1.0.0/16 overlap",
            ),
            ("[network]\ngroup = 0", "network.group 0: must not be 0"),
            ("[network]\nmtu = 1279", "network.mtu 1279: must be 1280 to 65535"),
            (
                "[socket]\npath = \"x.sock\"",
                "socket.path \"x.sock\": must be absolute",
            ),
            (
                "[metrics]\nlisten = \"localhost:4777\"",
                "metrics.listen \"localhost:4777\": must be an address and a port",
            ),
            (
                "[socket]\npath = \"/a\"\n[metrics]\nlisten = \"unix:/a\"",
                "metrics.listen \"unix:/a\": is socket.path already",
            ),
            (
                "[limits]\nmax_queued = 0",
                "limits.max_queued 0: must be at least 1",
            ),
            (
                "[limits]\nmax_connections = 0",
                "limits.max_connections 0: must be at least 1",
            ),
            ("nonsense", "line 1, column"),
            ("[routes]\nmode = \"bgp\"", "unknown variant `bgp`"),
            (
                "[routes]\nvxlan_id = 16777216",
                "routes.vxlan_id 16777216: must be 1 to 16777215",
            ),
            ("[routes]\nvxlan_port = 0", "routes.vxlan_port 0: must be"),
            (
                "[routes]\npeers = \"peers.toml\"",
                "routes.peers \"peers.toml\": must be absolute",
            ),
            (
                "[routes]\naddresses = [\"127.0.0.1\"]",
                "routes.addresses: peer this node: 127.0.0.1 is no address",
            ),
            (
                "[network]\nno_masquerade = [\"x\"]",
                "network.no_masquerade \"x\": is not a prefix",
            ),
            (
                "[socket]\nowner = \"no one here\"",
                "socket.owner \"no one here\": /etc/passwd has no such name",
            ),
            (
                "[socket]\nallowed_gids = [0, \"no one here\"]",
                "socket.allowed_gids \"no one here\": /etc/group has no such name",
            ),
            ("[socket]\ngroup = -1", "line 2, column 9"),
            (
                "[socket]\ngroup = -1",
                "expected an id such as 0 or a name such as",
            ),
            ("[network]\nmtu = 65536", "line 2, column 7"),
            (
                "[network]\ngroup = 2003501056",
                "network.group 2003501056: must not be 0",
            ),
            (
                "[network]\nstate = \"state.json\"",
                "network.state \"state.json\": must be absolute",
            ),
            (
                "[network]\nproc_sys_net = \"net\"",
                "network.proc_sys_net \"net\": must be absolute",
            ),
            (
                "[network]\ncool_down_seconds = 86401",
                "network.cool_down_seconds 86401: must be at most 86400",
            ),
            ("[network]\ngroup = 8\ngroup = 9", "line 3, column 1"),
            (
                "[prefixes]\nsource = \"file\"",
                "prefixes.file: must be set where prefixes.source is \"file\"",
            ),
            (
                "[prefixes]\nfile = \"/x\"",
                "prefixes.file \"/x\": is used only where prefixes.source is \"file\"",
            ),
            (
                "[prefixes]\nsource = \"file\"\nfile = \"x\"",
                "prefixes.file \"x\": must be absolute",
            ),
            (
                "[prefixes]\nsource = \"api\"\n[network]\nprefixes = [\"10.77.0.0/24\", \"fd77:77:77::/64\"]",
                "network.prefixes: prefixes.source is \"api\"",
            ),
            ("[prefixes]\nsource = \"etcd\"", "unknown variant `etcd`"),
            (
                "[kubernetes]\nnode = \"a\"",
                "kubernetes: is used only where prefixes.source is \"kubernetes\"",
            ),
            (
                "[prefixes]\nsource = \"kubernetes\"\n[kubernetes]\nkubeconfig = \"x\"",
                "kubernetes.kubeconfig \"x\": must be absolute",
            ),
            (
                "[prefixes]\nsource = \"kubernetes\"\n[routes]\npeers = \"/x\"",
                "routes.peers \"/x\": with prefixes.source \"kubernetes\" the other nodes are known",
            ),
            (
                "[prefixes]\nsource = \"kubernetes\"\n[kubernetes]\nnode = \"a b\"",
                "kubernetes.node \"a b\": is no name of a Node",
            ),
            ("[network]\nprefixes = [\"224.0.0.0/4\"]", "it touches multicast"),
            (
                &format!("[network]\nprefixes = {:?}", vec!["10.0.0.0/24"; 257]),
                "network.prefixes: 257 prefixes are too many: a node serves at most 256",
            ),
        ];
        for (text, expected) in table {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
