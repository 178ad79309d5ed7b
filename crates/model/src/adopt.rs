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
use crate::key::{HostLink, Key};
use crate::op::{FORWARDING_V6, IPV6_ON, Ipv4Conf, Mark, Op, Scope, Sysctl};
use crate::plan::{LinkPlan, host_net};
use crate::record::{ALIAS_BYTES, Adopted, Asked, NamespaceId, PathDigest, Record};
use crate::survey::FoundLink;
use ipnet::IpNet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Between a claim's name and how the link was.
const UNDO: &str = "_undo_";
/// What our links have of IPv6, in the order of [`Undo::v6`].
const OURS_V6: [Sysctl; 4] = [
    Sysctl::v6("accept_ra", 0),
    Sysctl::v6("autoconf", 0),
    Sysctl::v6("accept_redirects", 0),
    FORWARDING_V6,
];

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

/// How a link was before it was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undo {
    /// Its link group.
    pub group: u32,
    /// Its settings of IPv4.
    pub v4: Ipv4Conf,
    /// `accept_ra`, `autoconf`, `accept_redirects`, `forwarding` of IPv6; `None`: the link has none.
    pub v6: Option<[i32; 4]>,
}

impl Undo {
    /// How a link is; `None` where the kernel did not tell its settings.
    fn of(link: &FoundLink) -> Option<Self> {
        let (v4, v6) = (&link.conf.v4, &link.conf.v6);
        let all = |values: [Option<i32>; 4]| match values {
            [Some(a), Some(b), Some(c), Some(d)] => Some([a, b, c, d]),
            _ => None,
        };
        Some(Self {
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

    /// The second name that says how a link was.
    pub fn name(&self, claim: &HostLink) -> String {
        let Ipv4Conf {
            forwarding,
            rp_filter,
            accept_redirects,
            send_redirects,
        } = self.v4;
        let v4 = dotted([forwarding, rp_filter, accept_redirects, send_redirects]);
        let mut name = format!("{claim}{UNDO}{}_{v4}", self.group);
        if let Some(v6) = self.v6 {
            // Never fails on a String.
            let _ = write!(name, "_{}", dotted(v6));
        }
        name
    }

    /// From a second name, with the claim that it belongs to.
    pub fn parse(name: &str) -> Option<(HostLink, Self)> {
        let (claim, rest) = name.split_once(UNDO)?;
        let mut parts = rest.split('_');
        let group = parts.next()?.parse().ok()?;
        let [forwarding, rp_filter, accept_redirects, send_redirects] = numbers(parts.next()?)?;
        let undo = Self {
            group,
            v4: Ipv4Conf {
                forwarding,
                rp_filter,
                accept_redirects,
                send_redirects,
            },
            v6: match parts.next() {
                Some(text) => Some(numbers(text)?),
                None => None,
            },
        };
        parts.next().is_none().then_some((HostLink::parse(claim)?, undo))
    }

    /// What makes the link as it was, in order; all of it may have been done already. The last is to forget how it was. `key`
    /// where its name for people may be there.
    pub fn ops(&self, claim: &HostLink, key: Option<&Key>) -> Vec<Op> {
        let mut ops: Vec<Op> = key.and_then(Key::altname).map(Op::DropName).into_iter().collect();
        ops.push(Op::Mark(Mark {
            alias: String::new(),
            group: self.group,
            v4: self.v4,
        }));
        ops.extend(
            self.changed_v6()
                .map(|(ours, was)| Op::Set(Sysctl { value: was, ..ours })),
        );
        ops.extend([Op::DropName(claim.to_string()), Op::DropName(self.name(claim))]);
        ops
    }

    /// Settings of IPv6 that our links have otherwise, and how they were.
    fn changed_v6(&self) -> impl Iterator<Item = (Sysctl, i32)> {
        let pairs = OURS_V6.into_iter().zip(self.v6.into_iter().flatten());
        pairs.filter(|(ours, was)| ours.value != *was)
    }
}

fn dotted(values: [i32; 4]) -> String {
    values.map(|value| value.to_string()).join(".")
}

fn numbers(text: &str) -> Option<[i32; 4]> {
    let all: Option<Vec<i32>> = text.split('.').map(|number| number.parse().ok()).collect();
    all?.try_into().ok()
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
    let undo = Undo::of(host);
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

/// What makes the link ours.
fn ops(record: &Record, undo: &Undo, group: u32) -> Vec<Op> {
    let claim = record.key.host_link();
    let mut ops = vec![Op::Claim(undo.name(&claim)), Op::Claim(claim.to_string())];
    ops.extend(undo.changed_v6().map(|(ours, _)| Op::Set(ours)));
    ops.push(mark(record, group));
    ops.extend(record.key.altname().map(Op::AltName));
    ops
}

fn mark(record: &Record, group: u32) -> Op {
    Op::Mark(Mark {
        alias: record.to_string(),
        group,
        v4: Ipv4Conf::OURS,
    })
}

/// All that the host end of an attachment is whose link another plugin made: see [`crate::plan::host_end`].
///
/// Its neighbours are the kernel's own affair, on both ends, as the old plugin left them.
pub(crate) fn host_end(record: &Record, adopted: &Adopted, link: &LinkPlan) -> Vec<Op> {
    let mut ops = vec![Op::NoMaster, Op::Mac(link.host_mac), Op::Mtu(link.mtu)];
    ops.extend(OURS_V6.map(Op::Set));
    if record.addresses.v6().is_some() {
        ops.push(Op::Set(IPV6_ON));
    }
    ops.extend([mark(record, link.group), Op::Claim(link.host.to_string())]);
    ops.extend(record.key.altname().map(Op::AltName));
    ops.push(Op::Up);
    ops.extend(adopted.gateways.iter().map(|gateway| Op::Address {
        address: host_net(gateway),
        scope: Scope::Global,
    }));
    ops.extend(record.addresses.iter().map(|address| Op::Route {
        destination: host_net(address),
        gateway: None,
        source: None,
        mtu: None,
    }));
    ops
}
