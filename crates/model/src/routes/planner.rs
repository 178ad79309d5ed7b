//! The plan: each peer's way, then what they share.

use super::{
    Facts, Hop, How, METRIC, Mode, Planned, Reach, Settings, Tunnel, Way, hop_of, mac_of, node_address,
};
use crate::address::{Family, IPV6_MTU, Mac};
use crate::peer::Peer;
use crate::prefix::Prefix;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap, HashSet};
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
    tunnelled: Vec<(usize, IpAddr, Vec<IpNet>)>,
    hops: HashMap<Mac, IpAddr>,
}

/// Decides everything.
pub fn plan(settings: &Settings, facts: Facts<'_>) -> Planned {
    if settings.mode == Mode::None {
        return Planned::default();
    }
    let is_own = |peer: &&Peer| {
        let mut addresses = peer.addresses.iter();
        addresses.any(|a| facts.reach.get(a) == Some(&Reach::Own))
    };
    let (myself, others): (Vec<&Peer>, Vec<&Peer>) = facts.peers.iter().partition(is_own);
    let mine: &[IpAddr] = match (settings.addresses.as_slice(), myself.first()) {
        ([], Some(myself)) => &myself.addresses,
        (addresses, _) => addresses,
    };
    let mut planner = Planner {
        settings,
        facts,
        family: underlay(mine, &others),
        sources: HashMap::new(),
        planned: Planned::default(),
        tunnel_mtu: None,
        tunnelled: Vec::new(),
        hops: HashMap::new(),
    };
    planner.address();
    planner.route(mine, &others);
    planner.finish(mine, &others)
}

/// The family that every node has; IPv4 where that is both or neither. Nodes that know the same peers agree.
fn underlay(mine: &[IpAddr], others: &[&Peer]) -> Family {
    let has = |addresses: &[IpAddr], family| addresses.iter().any(|a| Family::of(*a) == family);
    let all =
        |family| (mine.is_empty() || has(mine, family)) && others.iter().all(|p| has(&p.addresses, family));
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

    /// What two claim gets the first of them, by name.
    fn route(&mut self, mine: &[IpAddr], others: &[&Peer]) {
        let own = &self.facts.own.prefixes;
        let mut claims: Vec<(IpNet, &Peer)> = Vec::new();
        let mut others = others.to_vec();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        for peer in &others {
            claims.extend(peer.prefixes.iter().map(|prefix| (prefix.net(), *peer)));
        }
        claims.sort_by_key(|(net, peer)| (net.addr().is_ipv6(), first(net), net.prefix_len(), &peer.name));
        // A route to where nodes are would change how they are reached, and with that itself.
        let mine = mine.iter().map(|address| (*address, "this node"));
        let of_peers = self.facts.peers.iter();
        let of_peers = of_peers.flat_map(|peer| peer.addresses.iter().map(|a| (*a, peer.name.as_str())));
        let nodes: BTreeMap<IpAddr, &str> = of_peers.chain(mine).collect();
        let mut kept: HashSet<(&str, IpNet)> = HashSet::new();
        let mut last: Option<(IpNet, &Peer)> = None;
        for (net, peer) in claims {
            if let Some(own) = own.iter().find(|own| overlap(&own.net(), &net)) {
                let text = format!("peer {}: {net} overlaps {own}, which is this node's", peer.name);
                self.planned.warnings.push(text);
            } else if let Some((address, whose)) = nodes.range(net.network()..=net.broadcast()).next() {
                let text = format!(
                    "peer {}: {net} is not routed: {address}, the address of {whose}, is in it",
                    peer.name
                );
                self.planned.warnings.push(text);
            } else if self.facts.found.same_metric.contains(&net) {
                let text = format!(
                    "peer {}: somebody else has a route to {net} with metric {METRIC}, which one to this peer would replace: \
                     there is none",
                    peer.name
                );
                self.planned.warnings.push(text);
            } else if let Some((wide, holder)) = last.filter(|(wide, _)| wide.contains(&net)) {
                let text = format!(
                    "peer {}: {net} overlaps {wide} of peer {}",
                    peer.name, holder.name
                );
                self.planned.warnings.push(text);
            } else {
                kept.insert((&peer.name, net));
                last = Some((net, peer));
            }
        }
        for peer in others {
            for family in Family::ALL {
                let of = |p: &&Prefix| p.family() == family && kept.contains(&(peer.name.as_str(), p.net()));
                let nets: Vec<IpNet> = peer.prefixes.iter().filter(of).map(Prefix::net).collect();
                if !nets.is_empty() {
                    let how = self.way(peer, family, &nets);
                    self.planned.ways.push(Way {
                        peer: peer.name.clone(),
                        family,
                        how,
                    });
                }
            }
        }
    }

    fn way(&mut self, peer: &Peer, family: Family, nets: &[IpNet]) -> Result<How, String> {
        if family == Family::V6 && !self.facts.ipv6 {
            return Err("this kernel has no IPv6".to_owned());
        }
        let mode = self.settings.mode;
        let source = self.sources.get(&family).copied();
        if mode != Mode::Vxlan {
            // IPv4 goes by way of either family (RTA_VIA), IPv6 only by way of its own.
            let usable = |a: &&IpAddr| Family::of(**a) == family || a.is_ipv6();
            let mut addresses: Vec<&IpAddr> = peer.addresses.iter().filter(usable).collect();
            addresses.sort_by_key(|a| Family::of(**a) != family);
            for &via in addresses {
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
                    self.planned
                        .held
                        .routes
                        .extend(nets.iter().map(|net| (*net, hop)));
                    return Ok(How::Direct {
                        device: device.clone(),
                        via,
                    });
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
        let mac = mac_of(to);
        if *self.hops.entry(mac).or_insert(to) != to {
            return Err(format!("its address {to} has the same hash as another one's"));
        }
        if self.tunnel_mtu.as_ref().is_none_or(|(least, _)| mtu < *least) {
            self.tunnel_mtu = Some((mtu, peer.name.clone()));
        }
        self.narrow(mtu, || format!("VXLAN to peer {}", peer.name));
        self.tunnelled.push((self.planned.ways.len(), to, nets.to_vec()));
        Ok(How::Vxlan { to })
    }

    fn nowhere(&self, peer: &Peer) -> String {
        let why = peer.addresses.iter().find_map(|a| match self.facts.reach.get(a) {
            Some(Reach::Nowhere(why)) => Some(format!(": {a}: {why}")),
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
        let others = &self.facts.found.other_routes;
        let contested = self.planned.held.routes.keys().filter(|net| others.contains(net));
        let text =
            |net| format!("somebody else has a route to {net}, too, which may come before that to its node");
        self.planned.warnings.extend(contested.map(text));
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
            for (way, ..) in tunnelled {
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
        for (way, to, nets) in tunnelled {
            let Way { family, how, .. } = &mut self.planned.ways[way];
            if *family == Family::V6 && !ipv6 {
                *how = Err(format!(
                    "VXLAN has an MTU of {mtu}, which is that to peer {narrowest}, and IPv6 needs {IPV6_MTU}"
                ));
                continue;
            }
            let source = self.sources.get(family).copied();
            let mac = mac_of(to);
            let via = if ipv6 { hop_of(mac) } else { to };
            let held = &mut self.planned.held;
            held.forwarding.insert(mac, to);
            held.neighbours.insert(via, mac);
            held.routes
                .extend(nets.iter().map(|net| (*net, Hop::Tunnel { via, source })));
        }
    }
}

fn first(net: &IpNet) -> u128 {
    match net {
        IpNet::V4(net) => u32::from(net.network()).into(),
        IpNet::V6(net) => net.network().into(),
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
