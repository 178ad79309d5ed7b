//! Routes to other nodes: from a list of peers, and what the kernel says of their addresses, to what the kernel is to hold.
//!
//! ```text
//!  peers, own prefixes, reach ---> plan() ---> Held, wanted ---.
//!  the kernel, dumped ----------------------> Held, found -----+--> steps_to() ---> Step, Step, ...
//! ```
//! A peer on a shared link is routed to by its own address (direct). Any other is routed to over one VXLAN device (RFC 7348),
//! with a hop of its own there: a permanent neighbour gives the hop's MAC, and a forwarding entry the MAC's node. The MAC is a
//! hash of the node's address, so every node knows every other one's without asking.
//!
//! Beside them the own prefixes are unreachable as such, behind the route to each workload: what nobody has stays here.

mod held;
mod planner;
mod unreachable;

pub use held::{Held, Hop, Odd, Step, Tunnel};

use crate::address::{Family, Mac};
use crate::key::Key;
use crate::peer::Peer;
use crate::prefix::Prefix;
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// `rtm_protocol` of our routes and `IFA_PROTO` of our addresses: only what carries it is changed or taken away.
/// It is in none of iproute2's lists.
pub const PROTOCOL: u8 = 77;
/// The metric of our routes. Somebody else's route to the same prefix, which usually has a lower one, comes first, and
/// neither replaces the other. One of the same metric, which the kernel would replace whatever its protocol is, stays alone.
pub const METRIC: u32 = 2048;
/// That of the routes by which addresses of this node that nobody has are unreachable: behind every other route to the same prefix.
pub const UNREACHABLE_METRIC: u32 = 4_000_000_000;

/// How other nodes are routed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Others do it; what we had that leads to other nodes is taken away.
    None,
    /// Directly where a peer shares a link, else over VXLAN.
    Auto,
    /// Only where a peer shares a link.
    Direct,
    /// Always over VXLAN.
    Vxlan,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
        })
    }
}

/// What is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How.
    pub mode: Mode,
    /// The VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u16,
    /// Where the other nodes reach this one; empty: as its own entry among the peers says, or else the address that the kernel
    /// sends to them from.
    pub addresses: Vec<IpAddr>,
}

impl Settings {
    /// The UDP port that other nodes' packets may come to, where VXLAN may be used.
    pub fn tunnel(&self) -> Option<u16> {
        matches!(self.mode, Mode::Auto | Mode::Vxlan).then_some(self.port)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::None,
            vni: 8,
            port: 4789,
            addresses: Vec::new(),
        }
    }
}

/// What the kernel says of an address (RTM_GETROUTE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It is this node's own.
    Own,
    /// Packets go there.
    Over {
        /// The device's index.
        index: u32,
        /// The device's name.
        device: String,
        /// The device's MTU, in bytes.
        mtu: u32,
        /// Without a gateway, over a device that resolves addresses (neither NOARP nor POINTOPOINT).
        shared: bool,
        /// Without a gateway.
        on_link: bool,
        /// Where they come from.
        source: Option<IpAddr>,
    },
    /// They do not, in words.
    Nowhere(String),
}

/// How a peer's prefixes of a family are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The peer's name.
    pub peer: String,
    /// Of its prefixes.
    pub family: Family,
    /// `direct via eth0`, `vxlan`, or why not at all.
    pub how: Result<How, String>,
}

/// One that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// By its own address on a shared link.
    Direct {
        /// The device's name.
        device: String,
        /// The address.
        via: IpAddr,
    },
    /// Over VXLAN to this address.
    Vxlan {
        /// The address.
        to: IpAddr,
    },
}

/// What follows from the peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planned {
    /// What the kernel is to hold.
    pub held: Held,
    /// One per peer and family that it has prefixes of.
    pub ways: Vec<Way>,
    /// What is wrong with the peers, in words.
    pub warnings: Vec<String>,
    /// The smallest MTU of a way in use, and which that is.
    pub mtu: Option<(u16, String)>,
    /// Of the peers' prefixes, routed to or not, those that are the cluster's and nobody else's: none with a node's address or
    /// a prefix of this node in it. Packets go there with their workload's address.
    pub spared: Vec<IpNet>,
}

/// The MAC that a node's VXLAN device has: the first bytes of a hash of its address, as a local one (IEEE 802).
pub fn mac_of(address: IpAddr) -> Mac {
    let hash = match address {
        IpAddr::V4(a) => Sha256::digest(a.octets()),
        IpAddr::V6(a) => Sha256::digest(a.octets()),
    };
    Mac([hash[0] & 0xfc | 2, hash[1], hash[2], hash[3], hash[4], hash[5]])
}

/// The address that a MAC's node has on the VXLAN device: link-local, so that no route of another device can be meant.
fn hop_of(Mac(m): Mac) -> IpAddr {
    let [a, b, c] = [[m[0], m[1]], [m[2], m[3]], [m[4], m[5]]].map(u16::from_be_bytes);
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x776b, a, b, c).into()
}

/// The node's own address in a prefix, which no workload gets; none in one that is all workload.
pub fn node_address(prefix: &Prefix) -> Option<IpAddr> {
    let (first, _) = prefix.usable();
    first.checked_sub(1).map(|offset| prefix.at(offset))
}

/// What this node has of the cluster's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Prefixes that it serves or drains.
    pub prefixes: Vec<Prefix>,
    /// The node's own addresses in them that workloads hold, which got them from wider prefixes.
    pub lent: BTreeMap<IpAddr, Key>,
}

/// What a plan goes by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// This node's.
    pub own: &'a Own,
    /// The other nodes; this one may be among them.
    pub peers: &'a [Peer],
    /// How the peers' addresses are reached.
    pub reach: &'a HashMap<IpAddr, Reach>,
    /// What others have on this node.
    pub found: &'a FoundRoutes,
    /// Whether the kernel has IPv6 at all.
    pub ipv6: bool,
}

/// What there is of routes to other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundRoutes {
    /// Of ours.
    pub held: Held,
    /// Where others' routes of the main table go to.
    pub other_routes: HashSet<IpNet>,
    /// Those of them that have the metric of ours: in the kernel's eyes ours are the same routes.
    pub same_metric: HashSet<IpNet>,
    /// The same of those by which this node's prefixes are unreachable.
    pub same_unreachable: HashSet<IpNet>,
    /// Nets that others have on a link of this node.
    pub on_link: HashSet<IpNet>,
    /// Others' addresses of this node.
    pub other_addresses: HashSet<IpAddr>,
    /// Those of them that are on the loopback as ours are, without anybody's protocol: a kernel before 5.18 does not keep
    /// that of ours.
    pub unmarked: HashSet<IpAddr>,
}

/// What the node's kernel is to hold for its peers: routes, the VXLAN device, what is unreachable; how each peer is reached, and
/// warnings. The same facts give the same plan.
pub fn plan(settings: &Settings, facts: Facts<'_>) -> Planned {
    let mut planned = planner::to_others(settings, facts);
    let (nets, warnings) = unreachable::unreachable(settings, facts);
    planned.held.unreachable = nets;
    planned.warnings.extend(warnings);
    planned
}
