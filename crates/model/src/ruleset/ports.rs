//! What of the table makes ports of the node lead to workloads: maps from what a packet is meant for to where it goes, and
//! the chains that read them. Without ports the maps are empty, and a packet that begins a connection is looked up in vain.

use super::{Chain, Condition as C, Hook, Rule, Verdict, rule};
use crate::address::Family;
use ipnet::{Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A set or a map of single keys of one family. It prints itself without what is in it, which is no part of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardMap {
    /// Its name.
    pub name: &'static str,
    /// Of what.
    pub family: Family,
    /// What is in it.
    pub keyed: Keyed,
}

/// What the elements of a [`ForwardMap`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyed {
    /// Protocol and port of any address of the node, each with a workload's address and port.
    Ports,
    /// Address of the node, protocol and port, each with a workload's address and port.
    Addresses,
    /// The address of a workload with ports, twice.
    Pairs,
}

const fn set(name: &'static str, family: Family, keyed: Keyed) -> ForwardMap {
    ForwardMap { name, family, keyed }
}

const ADDRESSES: [ForwardMap; 2] = [
    set("addresses4", Family::V4, Keyed::Addresses),
    set("addresses6", Family::V6, Keyed::Addresses),
];
const PORTS: [ForwardMap; 2] = [
    set("ports4", Family::V4, Keyed::Ports),
    set("ports6", Family::V6, Keyed::Ports),
];
const PAIRS: [ForwardMap; 2] = [
    set("itself4", Family::V4, Keyed::Pairs),
    set("itself6", Family::V6, Keyed::Pairs),
];

/// All of them. There also while nothing is in them.
pub const FORWARD_MAPS: [ForwardMap; 6] =
    [ADDRESSES[0], ADDRESSES[1], PORTS[0], PORTS[1], PAIRS[0], PAIRS[1]];

/// 127.0.0.0/8 (RFC 1122, section 3.2.1.3).
pub(super) const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
/// Packets to it never leave the node, be it by way of another destination: see `docs/decisions/0025`.
const LOOPBACK_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);

impl ForwardMap {
    /// The one for a place's family and kind.
    pub fn of(family: Family, keyed: Keyed) -> Self {
        let is = |set: &&Self| set.family == family && set.keyed == keyed;
        *FORWARD_MAPS.iter().find(is).expect("there is one of each")
    }

    /// As nft calls the family.
    pub(super) fn protocol(&self) -> &'static str {
        match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    /// What is looked up, as nft prints it.
    pub(super) fn key(&self) -> String {
        let ip = self.protocol();
        match self.keyed {
            Keyed::Ports => "meta l4proto . th dport".to_owned(),
            Keyed::Addresses => format!("{ip} daddr . meta l4proto . th dport"),
            Keyed::Pairs => format!("{ip} saddr . {ip} daddr"),
        }
    }
}

impl fmt::Display for ForwardMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let (word, kind) = match self.keyed {
            Keyed::Ports => (
                "map",
                format!("inet_proto . inet_service : {address} . inet_service"),
            ),
            Keyed::Addresses => (
                "map",
                format!("{address} . inet_proto . inet_service : {address} . inet_service"),
            ),
            Keyed::Pairs => ("set", format!("{address} . {address}")),
        };
        writeln!(f, "\t{word} {} {{\n\t\ttype {kind}\n\t}}\n", self.name)
    }
}

/// Destinations are changed before routing, of packets that come and of the node's own. A workload that reaches itself by
/// way of the node, or is reached from 127.0.0.0/8, answers to whom it sees, so it is to see the node.
pub(super) fn chains(group: u32) -> [Chain; 3] {
    let forwards = |mut rules: Vec<Rule>| {
        for (addresses, ports) in ADDRESSES.into_iter().zip(PORTS) {
            rules.push(rule(&[], Verdict::Dnat(addresses)));
            rules.push(rule(&[C::Of(ports.family)], Verdict::Dnat(ports)));
        }
        rules
    };
    let elsewhere = || rule(&[C::DestinationElsewhere], Verdict::Accept);
    let nat = |name, hook, priority, rules| Chain {
        name,
        kind: "nat",
        hook,
        priority,
        rules,
    };
    let masquerade = |condition| rule(&[C::ToGroup(group), condition], Verdict::Masquerade);
    [
        // What the node sends to 127.0.0.0/8 was led by the other chain. What comes from another host would never reach the
        // node itself there, and may not reach a workload.
        nat(
            "ports",
            Hook::Prerouting,
            -100,
            forwards(vec![
                elsewhere(),
                rule(&[C::Destination4(LOOPBACK)], Verdict::Accept),
            ]),
        ),
        nat(
            "own_ports",
            Hook::Output,
            -100,
            forwards(vec![
                elsewhere(),
                rule(&[C::Destination6(LOOPBACK_V6)], Verdict::Accept),
            ]),
        ),
        nat(
            "returns",
            Hook::Postrouting,
            100,
            vec![
                masquerade(C::BothIn(PAIRS[0])),
                masquerade(C::BothIn(PAIRS[1])),
                masquerade(C::Source4(LOOPBACK)),
            ],
        ),
    ]
}
