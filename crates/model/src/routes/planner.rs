//! The plan of what leads to other nodes: each peer's way, then what they share.

use super::{
    Facts, Hop, How, METRIC, Mode, Planned, Reach, Settings, Tunnel, Way, hop_of, mac_of, node_address,
};
use crate::address::{Family, IPV6_MTU, Mac};
use crate::peer::Peer;
use crate::prefix::Prefix;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// The smallest MTU that carries IPv4 (RFC 791, section 3.2).
const IPV4_MTU: u16 = 68;
/// Bytes that VXLAN adds to a packet: outer IP, UDP, VXLAN, inner Ethernet (RFC 7348, section 5).
const OVERHEAD: [u16; 2] = [50, 70];

struct Planner<'a> {
    settings: &'a Settings,
    facts: Facts<'a>,
    /// Which family VXLAN goes over.
    family: Family,
    sources: HashMap<Family, IpAddr>,
    planned: Planned,
    /// The smallest MTU of a way over VXLAN, and the peer's name.
    tunnel_mtu: Option<(u16, String)>,
    /// What goes over VXLAN, each with the place of its way.
    tunnelled: Vec<Tunnelled>,
    macs: HashMap<Mac, IpAddr>,
    /// What is routed, in the order of the nets.
    kept: Vec<Kept>,
    /// Where to, by peer and family.
    hops: Vec<[Option<Hop>; 2]>,
}

/// A peer and family that go over VXLAN.
struct Tunnelled {
    /// The place of their way.
    way: usize,
    to: IpAddr,
    mac: Mac,
    /// In the hops.
    place: (usize, usize),
}

/// A prefix that is routed to a peer.
#[derive(Debug, Clone, Copy)]
struct Kept {
    net: IpNet,
    /// Its place in [`Family::ALL`].
    family: usize,
    /// The peer's place among the others.
    peer: usize,
}

/// Addresses of nodes in their order, and whose they are.
pub(super) struct Nodes<'a>(Vec<(IpAddr, &'a str)>);

impl<'a> Nodes<'a> {
    pub(super) fn of(peers: &'a [Peer], mine: &[IpAddr]) -> Self {
        let mut all = Vec::with_capacity(2 * peers.len() + mine.len());
        all.extend(mine.iter().map(|address| (*address, "this node")));
        for family in Family::ALL {
            for peer in peers {
                let addresses = peer.addresses.iter().filter(|a| Family::of(**a) == family);
                all.extend(addresses.map(|address| (*address, peer.name.as_str())));
            }
        }
        all.sort_by_key(|(address, _)| *address);
        Self(all)
    }

    /// The first one in a net.
    pub(super) fn within(&self, net: &IpNet) -> Option<(IpAddr, &'a str)> {
        let place = self.0.partition_point(|(address, _)| *address < net.network());
        self.0
            .get(place)
            .copied()
            .filter(|(address, _)| *address <= net.broadcast())
    }
}

/// Decides how other nodes are routed to.
pub(super) fn to_others(settings: &Settings, facts: Facts<'_>) -> Planned {
    // An address may have moved here that another node still lists, or stand on each of them: a name is one node's.
    let is_named = facts.peers.iter().any(|peer| peer.is_self);
    let is_own = |peer: &&Peer| {
        let has_own = |a: &IpAddr| facts.reach.get(a) == Some(&Reach::Own);
        match is_named {
            true => peer.is_self,
            false => peer.addresses.iter().any(has_own),
        }
    };
    let (myself, others): (Vec<&Peer>, Vec<&Peer>) = facts.peers.iter().partition(is_own);
    let mine: &[IpAddr] = match (settings.addresses.as_slice(), myself.first()) {
        ([], Some(myself)) => &myself.addresses,
        (addresses, _) => addresses,
    };
    if settings.mode == Mode::None {
        return Planned {
            spared: spared(&facts, &Nodes::of(facts.peers, mine)),
            ..Planned::default()
        };
    }
    let mut planner = Planner {
        settings,
        facts,
        family: underlay(mine, &others),
        sources: HashMap::new(),
        planned: Planned::default(),
        tunnel_mtu: None,
        tunnelled: Vec::new(),
        macs: HashMap::new(),
        kept: Vec::new(),
        hops: Vec::new(),
    };
    if let [first, second, ..] = myself[..] {
        let text = format!(
            "peers {} and {} both have addresses of this node, and neither is routed to",
            first.name, second.name
        );
        planner.planned.warnings.push(text);
    }
    planner.address();
    planner.route(mine, &others);
    planner.finish(mine, &others)
}

/// Prefixes of all nodes, but for those that hold this node's own among others, or an address of a node: one that claims too
/// much is not to change how packets leave the others.
fn spared(facts: &Facts<'_>, nodes: &Nodes<'_>) -> Vec<IpNet> {
    let all = facts
        .peers
        .iter()
        .flat_map(|peer| &peer.prefixes)
        .map(Prefix::net);
    let holds_own = |net: &IpNet| {
        let mut own = facts.own.prefixes.iter().map(Prefix::net);
        own.any(|own| own != *net && net.contains(&own))
    };
    all.filter(|net| nodes.within(net).is_none() && !holds_own(net))
        .collect()
}

/// The family that every node has; IPv4 where that is both or neither. Nodes that know the same peers agree. One without an
/// address, as a Node is before a cloud's controller has seen it, has no say.
fn underlay(mine: &[IpAddr], others: &[&Peer]) -> Family {
    let lacks = |addresses: &[IpAddr], family| {
        !addresses.is_empty() && addresses.iter().all(|a| Family::of(*a) != family)
    };
    let all = |family| !lacks(mine, family) && !others.iter().any(|peer| lacks(&peer.addresses, family));
    match all(Family::V6) && !all(Family::V4) {
        true => Family::V6,
        false => Family::V4,
    }
}

impl Planner<'_> {
    /// The node's own addresses, but for those that a workload holds, and for those that others have put there.
    fn address(&mut self) {
        let Facts { own, found, ipv6, .. } = self.facts;
        for prefix in &own.prefixes {
            let Some(address) = node_address(prefix) else {
                continue;
            };
            if !ipv6 && address.is_ipv6() {
                continue;
            }
            if let Some(key) = own.lent.get(&address) {
                let text = format!(
                    "{address}, the node's own address in {prefix}, is the workload's {key}, which had it before"
                );
                self.planned.warnings.push(text);
                continue;
            }
            self.sources.entry(Family::of(address)).or_insert(address);
            if found.other_addresses.contains(&address) {
                let mut text =
                    format!("{address}, the node's own address in {prefix}, is somebody else's on this node");
                if found.unmarked.contains(&address) {
                    text.push_str(
                        ", or this kernel is older than Linux 5.18, which routes to other nodes need, and forgets whose it is",
                    );
                }
                self.planned.warnings.push(text);
            } else {
                self.planned.held.addresses.insert(address);
            }
        }
    }

    /// What two claim gets the first of them, by name; a part of what another one claims, who claims the part.
    fn route(&mut self, mine: &[IpAddr], others: &[&Peer]) {
        let mut others = others.to_vec();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        self.kept = self.keep(mine, &others);
        self.hops = vec![[None; 2]; others.len()];
        let mut has = vec![[false; 2]; others.len()];
        for kept in &self.kept {
            has[kept.peer][kept.family] = true;
        }
        for (n, peer) in others.iter().enumerate() {
            let mut far = None;
            for (place, family) in Family::ALL.into_iter().enumerate() {
                if !has[n][place] {
                    continue;
                }
                let how = self.way(peer, family, &mut far);
                let way = self.planned.ways.len();
                let how = how.map(|(how, hop)| {
                    self.hops[n][place] = hop;
                    let far = far.filter(|_| hop.is_none());
                    self.tunnelled.extend(far.map(|(to, mac)| Tunnelled {
                        way,
                        to,
                        mac,
                        place: (n, place),
                    }));
                    how
                });
                self.planned.ways.push(Way {
                    peer: peer.name.clone(),
                    family,
                    how,
                });
            }
        }
    }

    /// What is routed to each of the peers, which are in the order of their names; in the order of the nets.
    fn keep(&mut self, mine: &[IpAddr], others: &[&Peer]) -> Vec<Kept> {
        let own = &self.facts.own.prefixes;
        let mut claims: Vec<(u128, u8, Kept)> = Vec::new();
        for (family, which) in Family::ALL.into_iter().enumerate() {
            for (peer, other) in others.iter().enumerate() {
                let nets = other.prefixes.iter().filter(|prefix| prefix.family() == which);
                claims.extend(nets.map(|prefix| {
                    let net = prefix.net();
                    (first(&net), net.prefix_len(), Kept { net, family, peer })
                }));
            }
        }
        claims.sort_by_key(|(first, length, kept)| (kept.family, *first, *length, kept.peer));
        let nodes = Nodes::of(self.facts.peers, mine);
        self.planned.spared = spared(&self.facts, &nodes);
        let mut all = Vec::with_capacity(claims.len());
        let (mut last, mut wide): (Option<Kept>, Option<Kept>) = (None, None);
        for (.., claim) in claims {
            let Kept { net, peer, .. } = claim;
            let name = &others[peer].name;
            let text = if let Some(own) = own.iter().find(|own| overlap(&own.net(), &net)) {
                format!("peer {name}: {net} overlaps {own}, which is this node's")
            } else if let Some((address, whose)) = nodes.within(&net) {
                // A route to where nodes are would change how they are reached, and with that itself.
                format!("peer {name}: {net} is not routed: {address}, the address of {whose}, is in it")
            } else if self.facts.found.same_metric.contains(&net) {
                format!(
                    "peer {name}: somebody else has a route to {net} with metric {METRIC}, which one to this peer would replace: \
                     there is none"
                )
            } else if let Some(first) = last.filter(|last| last.net == net) {
                format!(
                    "peer {name}: {net} overlaps {net} of peer {}",
                    others[first.peer].name
                )
            } else {
                all.push(claim);
                last = Some(claim);
                let Some(wide) = wide.filter(|wide| wide.net.contains(&net)) else {
                    wide = Some(claim);
                    continue;
                };
                // One node that claims too much takes nothing from the others: the longest prefix counts.
                format!(
                    "peer {name}: {net} overlaps {} of peer {}, and goes to {name}",
                    wide.net, others[wide.peer].name
                )
            };
            self.planned.warnings.push(text);
        }
        all
    }

    /// How a peer is reached, and the hop where that is on a link. Where it is not, `far` has its address and MAC for VXLAN,
    /// which are the same for both families.
    fn way(
        &mut self,
        peer: &Peer,
        family: Family,
        far: &mut Option<(IpAddr, Mac)>,
    ) -> Result<(How, Option<Hop>), String> {
        if family == Family::V6 && !self.facts.ipv6 {
            return Err("this kernel has no IPv6".to_owned());
        }
        let mode = self.settings.mode;
        let source = self.sources.get(&family).copied();
        if mode != Mode::Vxlan {
            // IPv4 goes by way of either family (RTA_VIA), IPv6 only by way of its own.
            let of = |which: Family| peer.addresses.iter().filter(move |a| Family::of(**a) == which);
            let other = (family == Family::V4).then(|| of(Family::V6));
            for &via in of(family).chain(other.into_iter().flatten()) {
                let Some(Reach::Over {
                    index,
                    device,
                    mtu,
                    shared,
                    on_link,
                    ..
                }) = self.facts.reach.get(&via)
                else {
                    continue;
                };
                if *shared || *on_link && mode == Mode::Direct {
                    let mtu = u16::try_from(*mtu).unwrap_or(u16::MAX);
                    self.narrow(mtu, || format!("link {device} to peer {}", peer.name));
                    let hop = Hop::Link {
                        via,
                        index: *index,
                        source,
                    };
                    let device = device.clone();
                    return Ok((How::Direct { device, via }, Some(hop)));
                }
            }
        }
        if mode == Mode::Direct {
            return Err(format!(
                "no address of it is on a link of this node that could carry {family}{}",
                self.nowhere(peer)
            ));
        }
        let to = peer
            .addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == self.family);
        let to = to.ok_or_else(|| format!("it has no {} address, which VXLAN goes over", self.family))?;
        let mtu = match self.facts.reach.get(&to) {
            Some(Reach::Over { mtu, .. }) => u16::try_from(*mtu).unwrap_or(u16::MAX),
            _ => return Err(format!("it cannot be reached{}", self.nowhere(peer))),
        };
        let mtu = mtu.saturating_sub(OVERHEAD[usize::from(self.family == Family::V6)]);
        // A device below the least MTU of IPv6 has none at all, not even for its hops.
        let least = match family == Family::V6 || self.family == Family::V6 {
            true => IPV6_MTU,
            false => IPV4_MTU,
        };
        if mtu < least {
            return Err(format!("VXLAN to it has an MTU of {mtu}, and needs {least}"));
        }
        let (_, mac) = *far.get_or_insert_with(|| (to, mac_of(to)));
        if *self.macs.entry(mac).or_insert(to) != to {
            return Err(format!("its address {to} has the same hash as another one's"));
        }
        if self.tunnel_mtu.as_ref().is_none_or(|(least, _)| mtu < *least) {
            self.tunnel_mtu = Some((mtu, peer.name.clone()));
        }
        self.narrow(mtu, || format!("VXLAN to peer {}", peer.name));
        Ok((How::Vxlan { to }, None))
    }

    fn nowhere(&self, peer: &Peer) -> String {
        let why = peer.addresses.iter().find_map(|a| match self.facts.reach.get(a) {
            Some(Reach::Nowhere(why)) => Some(format!(": {a}: {why}")),
            Some(Reach::Own) => Some(format!(": {a} is this node's own, too")),
            _ => None,
        });
        why.unwrap_or_default()
    }

    fn narrow(&mut self, mtu: u16, which: impl Fn() -> String) {
        if self.planned.mtu.as_ref().is_none_or(|(least, _)| mtu < *least) {
            self.planned.mtu = Some((mtu, which()));
        }
    }

    fn finish(mut self, mine: &[IpAddr], others: &[&Peer]) -> Planned {
        self.settle_tunnel(mine, others);
        let hop = |kept: &Kept| Some((kept.net, self.hops[kept.peer][kept.family]?));
        self.planned.held.routes = self.kept.iter().filter_map(hop).collect();
        let routes = &self.planned.held.routes;
        let others = self.facts.found.other_routes.iter();
        let mut contested: Vec<&IpNet> = others.filter(|net| routes.contains_key(net)).collect();
        contested.sort_unstable();
        let text =
            |net| format!("somebody else has a route to {net}, too, which may come before that to its node");
        self.planned.warnings.extend(contested.into_iter().map(text));
        self.planned
    }

    fn settle_tunnel(&mut self, mine: &[IpAddr], others: &[&Peer]) {
        let Some((mtu, narrowest)) = self.tunnel_mtu.take() else {
            return;
        };
        let is_right = |a: &IpAddr| Family::of(*a) == self.family;
        let source = |peer: &&Peer| {
            peer.addresses
                .iter()
                .filter(|a| is_right(a))
                .find_map(|a| match self.facts.reach.get(a) {
                    Some(Reach::Over { source, .. }) => *source,
                    _ => None,
                })
        };
        let local = mine
            .iter()
            .copied()
            .find(is_right)
            .or_else(|| others.iter().find_map(source));
        let tunnelled = std::mem::take(&mut self.tunnelled);
        let Some(local) = local else {
            let text = format!("this node has no {} address, which VXLAN goes over", self.family);
            for Tunnelled { way, .. } in tunnelled {
                self.planned.ways[way].how = Err(text.clone());
            }
            self.planned.warnings.push(text);
            return;
        };
        let tunnel = Tunnel {
            vni: self.settings.vni,
            port: self.settings.port,
            family: self.family,
            mac: mac_of(local),
            mtu,
        };
        self.planned.held.tunnel = Some(tunnel);
        let ipv6 = self.facts.ipv6 && tunnel.carries_ipv6();
        let mut hops: Vec<(Mac, IpAddr, IpAddr)> = Vec::new();
        for Tunnelled { way, to, mac, place } in tunnelled {
            let Way { family, how, .. } = &mut self.planned.ways[way];
            if *family == Family::V6 && !ipv6 {
                *how = Err(format!(
                    "VXLAN has an MTU of {mtu}, which is that to peer {narrowest}, and IPv6 needs {IPV6_MTU}"
                ));
                continue;
            }
            let source = self.sources.get(family).copied();
            let via = if ipv6 { hop_of(mac) } else { to };
            if hops.last().is_none_or(|(last, ..)| *last != mac) {
                hops.push((mac, to, via));
            }
            self.hops[place.0][place.1] = Some(Hop::Tunnel { via, source });
        }
        let held = &mut self.planned.held;
        held.forwarding = hops.iter().map(|(mac, to, _)| (*mac, *to)).collect();
        held.neighbours = hops.into_iter().map(|(mac, _, via)| (via, mac)).collect();
    }
}

fn first(net: &IpNet) -> u128 {
    match net {
        IpNet::V4(net) => u32::from(net.network()).into(),
        IpNet::V6(net) => net.network().into(),
    }
}

pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
