//! Links that another plugin made, taken over where they stand: whether one can be, and what that changes of it.
//!
//! Nothing that a packet goes by is changed: both ends keep their names, MACs, addresses and routes. What makes a link
//! ours is said beside them, and can be taken back until the adoption is committed:
//! ```text
//!  1  second name   wk0123456789abc_undo_...   how the link was; the mark of an adoption that is not committed
//!  2  second name   wk0123456789abc            the claim, as a link of our own has it for its first name
//!  3  settings      of IPv6
//!  4  alias, group, settings of IPv4           in one message: from here on it is ours
//!  5  second name   wk-<workload id>           for people
//! ```
//! Undone in reverse. A crash before the fourth step leaves a link that is not ours, and says how it was; one after it
//! leaves an attachment. To commit is to drop the first name.

use crate::address::{Addresses, Family, Mac, is_link_local};
use crate::host_end::mark;
use crate::key::Key;
use crate::op::{Ipv4Conf, Op};
use crate::plan::host_net;
use crate::record::{ALIAS_BYTES, Adopted, Asked, NamespaceId, PathDigest, Record};
use crate::survey::FoundLink;
use crate::undo::Undo;
use ipnet::IpNet;
use std::net::IpAddr;

/// What another plugin is said to have attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What the attachment is to be known by.
    pub key: Key,
    /// Where its namespace is, as the old plugin was told.
    pub path: String,
    /// What the old plugin gave it.
    pub addresses: Addresses,
}

/// What was found where a candidate is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The namespace has no link of the name.
    NoLink,
    /// The link is of another kind, e.g. `macvlan`.
    NotVeth {
        /// Which.
        kind: String,
    },
    /// The link's other end is not in the daemon's namespace.
    Elsewhere,
    /// Both ends of a veth.
    Pair(Box<Pair>),
}

/// A veth whose one end is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The end in the daemon's namespace, with all that belongs to it.
    pub host: FoundLink,
    /// MAC of the other end.
    pub workload_mac: Option<Mac>,
    /// Addresses of the other end with their prefix lengths.
    pub inside: Vec<IpNet>,
}

/// A rule by which another plugin gives packets for the world the node's address, where it is in nftables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasqueradeRule {
    /// The kernel's number for it.
    pub handle: u64,
    /// By which the plugin knows it.
    pub comment: String,
}

/// A link that can be taken over, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// What is to be written on it.
    pub record: Record,
    /// In order; what was done when one fails is taken back by [`Undo::ops`].
    pub ops: Vec<Op>,
    /// How the link was.
    pub undo: Undo,
}

/// Whether what was found can be taken over by a daemon whose links carry `group`; every reason where not, in words.
pub fn decide(
    candidate: &Candidate,
    namespace: NamespaceId,
    seen: Seen,
    group: u32,
) -> Result<Adoption, Vec<String>> {
    let interface = candidate.key.interface();
    let pair = match seen {
        Seen::NoLink => return Err(vec![format!("the namespace has no link {interface}")]),
        Seen::NotVeth { kind } => {
            return Err(vec![format!("{interface} is a {kind}, and not a veth")]);
        }
        Seen::Elsewhere => {
            return Err(vec![format!(
                "the other end of {interface} is not in the node's namespace"
            )]);
        }
        Seen::Pair(pair) => pair,
    };
    let mut reasons = against(candidate, &pair, group);
    let Pair {
        host, workload_mac, ..
    } = &*pair;
    let gateways = gateways(candidate, host).map_err(|more| reasons.extend(more));
    let undo = undo_of(host);
    if undo.is_none() {
        reasons.push(format!("the kernel does not tell the settings of {}", host.name));
    }
    let (Some(host_mac), Some(workload_mac), Some(undo), Ok(gateways), true) =
        (host.mac, *workload_mac, undo, gateways, reasons.is_empty())
    else {
        return Err(reasons);
    };
    let record = Record {
        key: candidate.key.clone(),
        addresses: candidate.addresses,
        namespace,
        path: PathDigest::of(&candidate.path),
        asked: Asked::default(),
        outward_mtu: None,
        adopted: Some(Adopted {
            host_mac,
            workload_mac,
            gateways,
        }),
    };
    let length = record.to_string().len();
    if length > ALIAS_BYTES {
        return Err(vec![format!(
            "its record has {length} bytes, and a link's alias takes {ALIAS_BYTES}: its ids are too long"
        )]);
    }
    Ok(Adoption {
        ops: ops(&record, &undo, group),
        record,
        undo,
    })
}

fn against(candidate: &Candidate, pair: &Pair, group: u32) -> Vec<String> {
    let (host, inside) = (&pair.host, &pair.inside);
    let (name, interface) = (&host.name, candidate.key.interface());
    let mut reasons = Vec::new();
    if host.master.is_some() {
        reasons.push(format!(
            "{name} is a port of a bridge: its pods have the bridge for a gateway, and reach each other without the node"
        ));
    }
    if host.group == group {
        reasons.push(format!(
            "{name} carries link group {group}, which marks this daemon's links"
        ));
    }
    if !host.alias.is_empty() {
        reasons.push(format!(
            "{name} has the alias {:?}: somebody keeps account in it",
            host.alias
        ));
    }
    if let Some(undo) = host.altnames.iter().find(|name| Undo::parse(name).is_some()) {
        reasons.push(format!(
            "{name} has the name {undo}: another adoption of it is not over"
        ));
    }
    if !host.up {
        reasons.push(format!("{name} is down"));
    }
    let has = |address: IpAddr| inside.iter().any(|net| net.addr() == address);
    for address in candidate.addresses.iter() {
        if !has(address) {
            reasons.push(format!("{interface} does not have {address}"));
        } else if !host.routes.contains(&host_net(address)) && host.master.is_none() {
            reasons.push(format!("{address} is not routed over {name}"));
        }
    }
    for net in inside.iter().filter(|net| !is_kernels_own(net)) {
        if candidate.addresses.of(Family::of(net.addr())) != Some(net.addr()) {
            reasons.push(format!(
                "{interface} has {net}, too, which the old plugin did not give it"
            ));
        }
    }
    reasons.extend(host.beyond_us());
    reasons
}

/// The one address of the host end for each family that the candidate has.
fn gateways(candidate: &Candidate, host: &FoundLink) -> Result<Addresses, Vec<String>> {
    if host.master.is_some() {
        return Err(Vec::new());
    }
    let mut reasons = Vec::new();
    let mut gateways = Vec::new();
    for family in Family::ALL {
        let of = |net: &&IpNet| Family::of(net.addr()) == family && !is_kernels_own(net);
        let all: Vec<&IpNet> = host.addresses.iter().filter(of).collect();
        match (candidate.addresses.of(family), &all[..]) {
            (None, []) => {}
            (Some(_), [one]) if one.prefix_len() == family.bits() => gateways.push(one.addr()),
            (wanted, all) => {
                let list: Vec<String> = all.iter().map(ToString::to_string).collect();
                let has = match list.is_empty() {
                    true => "no".to_owned(),
                    false => format!("{} as", list.join(", ")),
                };
                let should = match wanted {
                    Some(_) => format!("ptp gives it one, as /{}", family.bits()),
                    None => format!("the workload has no {family} address"),
                };
                reasons.push(format!("{} has {has} {family} address: {should}", host.name));
            }
        }
    }
    match Addresses::from_list(gateways) {
        Some(gateways) if reasons.is_empty() => Ok(gateways),
        _ => Err(reasons),
    }
}

/// The kernel gives a link an address of IPv6 unasked, and none of IPv4.
fn is_kernels_own(net: &IpNet) -> bool {
    net.addr().is_ipv6() && is_link_local(net.addr())
}

/// How a link is; `None` where the kernel did not tell its settings.
fn undo_of(link: &FoundLink) -> Option<Undo> {
    let (v4, v6) = (&link.conf.v4, &link.conf.v6);
    let all = |values: [Option<i32>; 4]| match values {
        [Some(a), Some(b), Some(c), Some(d)] => Some([a, b, c, d]),
        _ => None,
    };
    Some(Undo {
        group: link.group,
        v4: Ipv4Conf {
            forwarding: v4.forwarding?,
            rp_filter: v4.rp_filter?,
            accept_redirects: v4.accept_redirects?,
            send_redirects: v4.send_redirects?,
        },
        v6: all([v6.accept_ra, v6.autoconf, v6.accept_redirects, v6.forwarding]),
    })
}

/// What makes the link ours.
fn ops(record: &Record, undo: &Undo, group: u32) -> Vec<Op> {
    let claim = record.key.host_link();
    let mut ops = vec![Op::Claim(undo.name(&claim)), Op::Claim(claim.to_string())];
    ops.extend(undo.changed_v6().map(|(ours, _)| Op::Set(ours)));
    ops.push(mark(record, group));
    ops.extend(record.key.altname().map(Op::AltName));
    ops
}
