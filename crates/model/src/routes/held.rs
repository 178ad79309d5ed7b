//! What a kernel holds of routes to other nodes, and the steps from one such state to another.

use super::{METRIC, PROTOCOL, UNREACHABLE_METRIC};
use crate::address::{Family, IPV6_MTU, Mac};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Everything of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The node's own addresses on its loopback, alone, of our protocol.
    pub addresses: BTreeSet<IpAddr>,
    /// The VXLAN device.
    pub tunnel: Option<Tunnel>,
    /// Which node has a MAC on it.
    pub forwarding: BTreeMap<Mac, IpAddr>,
    /// Which MAC a hop has on it.
    pub neighbours: BTreeMap<IpAddr, Mac>,
    /// Routes of our protocol and metric.
    pub routes: BTreeMap<IpNet, Hop>,
    /// Prefixes of this node: whoever sends to an address there that nobody has is told so.
    pub unreachable: BTreeSet<IpNet>,
    /// What somebody has changed.
    pub odd: Odd,
}

/// What has our mark and is otherwise than anything that is made; nothing of a plan is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Odd {
    /// There are several VXLAN devices with our mark, or the one has another name or other settings.
    pub tunnel: bool,
    /// It is down, takes no IPv6 though its MTU is large enough, or is strict about the reverse path.
    pub down: bool,
    /// Where routes without a next hop go to.
    pub routes: BTreeSet<IpNet>,
}

/// The VXLAN device. It learns nothing, and every packet of it has a UDP checksum, in both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// The network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// What it goes over.
    pub family: Family,
    /// Its own.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u16,
}

impl Tunnel {
    /// The device's name.
    pub fn name(&self) -> String {
        format!("wkvx{}", self.vni)
    }

    /// Below the least MTU of IPv6 the kernel takes that off the device, with all that it had.
    pub fn carries_ipv6(&self) -> bool {
        self.mtu >= IPV6_MTU
    }

    /// The link group that marks it as ours, from the message on that makes it, and tells its family, which the kernel
    /// does not: the bytes "vxw4" or "vxw6".
    pub fn group(family: Family) -> u32 {
        match family {
            Family::V4 => 0x7678_7734,
            Family::V6 => 0x7678_7736,
        }
    }
}

/// The next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// A node on a link.
    Link {
        /// Its address there.
        via: IpAddr,
        /// The link's index.
        index: u32,
        /// Preferred source address.
        source: Option<IpAddr>,
    },
    /// A node behind the VXLAN device.
    Tunnel {
        /// Its hop there.
        via: IpAddr,
        /// Preferred source address.
        source: Option<IpAddr>,
    },
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The node's own address comes.
    AddAddress(IpAddr),
    /// It goes.
    DropAddress(IpAddr),
    /// The device is made; whatever has our mark goes first.
    MakeTunnel(Tunnel),
    /// The device is up, with this MTU.
    SetTunnel(Tunnel),
    /// Every device with our mark goes, and with it all that is on it.
    DropTunnel,
    /// A MAC is at a node, instead of where it was.
    Forward(Mac, IpAddr),
    /// It is nowhere.
    DropForward(Mac, IpAddr),
    /// A hop has a MAC.
    Neighbour(IpAddr, Mac),
    /// It has none.
    DropNeighbour(IpAddr),
    /// A route where there is none with its metric.
    AddRoute(IpNet, Hop),
    /// A route, in place of ours that was there.
    Route(IpNet, Hop),
    /// No more.
    DropRoute(IpNet),
    /// Addresses that nobody has are unreachable, where there is no route with that metric.
    AddUnreachable(IpNet),
    /// They are as if there were no prefix.
    DropUnreachable(IpNet),
}

impl Held {
    /// What leads from this state to another, in an order in which no route is missing meanwhile that both have, and none
    /// leads to a hop that is not there.
    pub fn steps_to(&self, wanted: &Self) -> Vec<Step> {
        let gone = self.unreachable.difference(&wanted.unreachable).copied();
        let mut steps: Vec<Step> = gone.map(Step::DropUnreachable).collect();
        let come = wanted.addresses.difference(&self.addresses).copied();
        steps.extend(come.map(Step::AddAddress));
        let same = |a: &Tunnel, b: &Tunnel| {
            let as_made = Tunnel { mtu: 0, ..*a } == Tunnel { mtu: 0, ..*b };
            // What comes back of IPv6 with a larger MTU is the kernel's choice, as a link-local address.
            as_made && a.carries_ipv6() == b.carries_ipv6()
        };
        let mut stays = true;
        match (&self.tunnel, &wanted.tunnel) {
            (Some(is), Some(wanted)) if same(is, wanted) && !self.odd.tunnel => {
                if is != wanted || self.odd.down {
                    steps.push(Step::SetTunnel(*wanted));
                }
            }
            (_, Some(wanted)) => {
                stays = false;
                steps.push(Step::MakeTunnel(*wanted));
            }
            (_, None) => {}
        }
        if wanted.tunnel.is_some() {
            let new = beside(&wanted.forwarding, &self.forwarding)
                .filter(|(_, to, stands)| !stays || *stands != Some(*to));
            steps.extend(new.map(|(mac, to, _)| Step::Forward(*mac, *to)));
            let new = beside(&wanted.neighbours, &self.neighbours)
                .filter(|(_, mac, stands)| !stays || *stands != Some(*mac));
            steps.extend(new.map(|(hop, mac, _)| Step::Neighbour(*hop, *mac)));
        }
        for (net, hop, stands) in beside(&wanted.routes, &self.routes) {
            // With a device that is made anew, what went over an old one is gone.
            let stands = stands.filter(|hop| stays || !matches!(hop, Hop::Tunnel { .. }));
            if stands.is_some() || self.odd.routes.contains(net) {
                steps.extend((stands != Some(hop)).then_some(Step::Route(*net, *hop)));
            } else {
                steps.push(Step::AddRoute(*net, *hop));
            }
        }
        let gone = beside(&self.routes, &wanted.routes).filter(|(.., wanted)| wanted.is_none());
        steps.extend(gone.map(|(net, ..)| Step::DropRoute(*net)));
        let odd = self.odd.routes.iter();
        let gone = odd.filter(|net| !wanted.routes.contains_key(net));
        steps.extend(gone.copied().map(Step::DropRoute));
        match (&self.tunnel, &wanted.tunnel) {
            (Some(_), None) => steps.push(Step::DropTunnel),
            (Some(_), Some(_)) if stays => {
                let gone =
                    beside(&self.neighbours, &wanted.neighbours).filter(|(.., wanted)| wanted.is_none());
                steps.extend(gone.map(|(hop, ..)| Step::DropNeighbour(*hop)));
                let gone =
                    beside(&self.forwarding, &wanted.forwarding).filter(|(.., wanted)| wanted.is_none());
                steps.extend(gone.map(|(mac, to, _)| Step::DropForward(*mac, *to)));
            }
            _ => {}
        }
        steps.extend(
            self.addresses
                .difference(&wanted.addresses)
                .copied()
                .map(Step::DropAddress),
        );
        let come = wanted.unreachable.difference(&self.unreachable).copied();
        steps.extend(come.map(Step::AddUnreachable));
        steps
    }

    /// What a step makes of a state, as the kernel does it.
    pub fn apply(&mut self, step: &Step) {
        match *step {
            Step::AddAddress(address) => drop(self.addresses.insert(address)),
            Step::DropAddress(address) => {
                self.addresses.remove(&address);
                let source = |hop: &Hop| match hop {
                    Hop::Link { source, .. } | Hop::Tunnel { source, .. } => *source,
                };
                self.routes.retain(|_, hop| source(hop) != Some(address));
            }
            Step::MakeTunnel(tunnel) => {
                self.apply(&Step::DropTunnel);
                self.tunnel = Some(tunnel);
            }
            Step::SetTunnel(tunnel) => {
                self.tunnel = Some(tunnel);
                self.odd.down = false;
            }
            Step::DropTunnel => {
                self.tunnel = None;
                (self.odd.tunnel, self.odd.down) = (false, false);
                (self.forwarding, self.neighbours) = (BTreeMap::new(), BTreeMap::new());
                self.routes.retain(|_, hop| !matches!(hop, Hop::Tunnel { .. }));
            }
            Step::Forward(mac, to) => drop(self.forwarding.insert(mac, to)),
            Step::DropForward(mac, _) => drop(self.forwarding.remove(&mac)),
            Step::Neighbour(hop, mac) => drop(self.neighbours.insert(hop, mac)),
            Step::DropNeighbour(hop) => drop(self.neighbours.remove(&hop)),
            Step::AddRoute(net, hop) | Step::Route(net, hop) => {
                self.routes.insert(net, hop);
                self.odd.routes.remove(&net);
            }
            Step::DropRoute(net) => {
                self.routes.remove(&net);
                self.odd.routes.remove(&net);
            }
            Step::AddUnreachable(net) => drop(self.unreachable.insert(net)),
            Step::DropUnreachable(net) => drop(self.unreachable.remove(&net)),
        }
    }
}

/// What is in one map, each with what another one has in its place: one walk along both, which are in their order.
fn beside<'a, K: Ord, V>(
    map: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V, Option<&'a V>)> {
    let mut others = other.iter().peekable();
    map.iter().map(move |(key, value)| {
        while others.next_if(|(other, _)| *other < key).is_some() {}
        let beside = others.peek().filter(|(other, _)| *other == key);
        (key, value, beside.map(|(_, value)| *value))
    })
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { via, index, .. } => write!(f, "via {via} on link {index}"),
            Self::Tunnel { via, .. } => write!(f, "via {via} on the VXLAN device"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddAddress(address) => write!(f, "ip address add {address} dev lo proto {PROTOCOL}"),
            Self::DropAddress(address) => write!(f, "ip address delete {address} dev lo"),
            Self::MakeTunnel(t) => write!(
                f,
                "ip link add {} type vxlan id {} dstport {} over {}, mtu {}, address {}",
                t.name(),
                t.vni,
                t.port,
                t.family,
                t.mtu,
                t.mac
            ),
            Self::SetTunnel(t) => write!(f, "ip link set {} up mtu {}", t.name(), t.mtu),
            Self::DropTunnel => f.write_str("ip link delete the VXLAN device"),
            Self::Forward(mac, to) => write!(f, "bridge fdb replace {mac} dst {to} on the VXLAN device"),
            Self::DropForward(mac, to) => write!(f, "bridge fdb delete {mac} dst {to} on the VXLAN device"),
            Self::Neighbour(hop, mac) => {
                write!(f, "ip neighbour replace {hop} lladdr {mac} on the VXLAN device")
            }
            Self::DropNeighbour(hop) => write!(f, "ip neighbour delete {hop} on the VXLAN device"),
            Self::AddRoute(net, hop) => {
                write!(f, "ip route add {net} {hop} proto {PROTOCOL} metric {METRIC}")
            }
            Self::Route(net, hop) => {
                write!(f, "ip route replace {net} {hop} proto {PROTOCOL} metric {METRIC}")
            }
            Self::DropRoute(net) => write!(f, "ip route delete {net} proto {PROTOCOL} metric {METRIC}"),
            Self::AddUnreachable(net) => write!(
                f,
                "ip route add unreachable {net} proto {PROTOCOL} metric {UNREACHABLE_METRIC}"
            ),
            Self::DropUnreachable(net) => write!(
                f,
                "ip route delete unreachable {net} proto {PROTOCOL} metric {UNREACHABLE_METRIC}"
            ),
        }
    }
}
