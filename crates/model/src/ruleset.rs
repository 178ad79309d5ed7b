//! Our nftables tables as a value; prints itself as `nft list ruleset` would.
//!
//! There is no rule per workload: every workload has a host route of its own, so the reverse-path look-up (`fib`) knows
//! which source belongs to which link. Loading the tables is one transaction, and costs the same for any number of
//! workloads.

mod ports;

pub use ports::{FORWARD_MAPS, ForwardMap, Keyed};

use crate::address::Family;
use crate::spared::Spared;
use crate::survey::DYING_GROUPS;
use Condition as C;
use ipnet::{Ipv4Net, Ipv6Net};
use std::fmt;

/// Name of each of our tables.
pub const TABLE: &str = "workloadnet";

/// What the tables depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Link group of our links.
    pub group: u32,
    /// Whether packets that leave our links for the world get the node's address.
    pub masquerade: bool,
    /// Where they keep their own all the same. It stands in sets, whose elements may be changed alone.
    pub spared: Spared,
    /// UDP port of the tunnel between the nodes (VXLAN, RFC 7348), where there is one: workloads do not send to it, or they
    /// could pass packets of any source into the network of another node, or of this one.
    pub tunnel: Option<u16>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: TableFamily,
    /// Its meters.
    pub meters: Vec<Meter>,
    /// Its sets of prefixes.
    pub sets: Vec<NetSet>,
    /// Its sets and maps of ports of the node.
    pub forwards: Vec<ForwardMap>,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// Which packets a table sees (`NFPROTO_*`, linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// ARP.
    Arp,
}

/// A set of links, each with what it may still send of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// Its name.
    pub name: &'static str,
}

/// A set of prefixes of one family, none inside another. It prints itself without them: they are no part of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetSet {
    /// Its name.
    pub name: &'static str,
    /// Of what.
    pub family: Family,
}

/// One chain of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Where it hangs.
    pub hook: Hook,
    /// Lower runs earlier (enum nf_ip_hook_priorities, linux/netfilter_ipv4.h).
    pub priority: i32,
    /// In order.
    pub rules: Vec<Rule>,
}

/// A hook (enum nf_inet_hooks, linux/netfilter.h; linux/netfilter_arp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// What is meant for the node.
    Input,
    /// Of the node's own.
    Output,
    /// After routing.
    Postrouting,
    /// ARP that comes in.
    ArpIn,
}

/// All conditions, then the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All have to hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub verdict: Verdict,
}

/// What a packet is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It came in over a link of the group.
    FromGroup(u32),
    /// It came in over a link that is not of the group.
    FromOtherGroup(u32),
    /// It came in over a link that is about to be deleted: of [`DYING_GROUPS`], which are all that begin with these 16 bits.
    FromDying,
    /// It goes out over a link of the group.
    ToGroup(u32),
    /// It goes out over a link that is not of the group.
    ToOtherGroup(u32),
    /// It is of this family.
    Of(Family),
    /// Its IPv4 source is inside.
    Source4(Ipv4Net),
    /// Its IPv4 destination is inside.
    Destination4(Ipv4Net),
    /// It is a piece of an IPv4 packet: more come, or it is not the first (RFC 791, section 3.1).
    Fragment,
    /// Its destination is no address of the node.
    DestinationElsewhere,
    /// Its source and destination are in the set.
    BothIn(ForwardMap),
    /// It is ICMPv6 of this type (RFC 4861, section 4).
    Icmpv6Type(u8),
    /// It is ICMP of this type (RFC 792).
    IcmpType(u8),
    /// It is ICMP that tells of a smaller MTU (RFC 1191, section 4).
    FragmentationNeeded,
    /// Its IPv6 source is inside.
    Source6(Ipv6Net),
    /// Its IPv6 destination is inside.
    Destination6(Ipv6Net),
    /// Its destination is in the set.
    DestinationIn(NetSet),
    /// It carries this protocol ([`TCP`], [`UDP`]).
    Carries(u8),
    /// It is UDP to this port (RFC 768).
    UdpTo(u16),
    /// It is an ARP request (RFC 826).
    ArpRequest,
    /// Its link has sent more of its kind than [`RATE`] and [`BURST`] allow.
    OverRate(Meter),
    /// Routing would send an answer back over the link that it came in by.
    SourceRoutedBack,
    /// Routing would not send an answer back over the link that it came in by.
    SourceNotRoutedBack,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This chain lets it pass.
    Accept,
    /// It is gone.
    Drop,
    /// It gets the address of the link that it leaves by.
    Masquerade,
    /// It gets the destination that the map has for it; what is not in it goes on to the next rule.
    Dnat(ForwardMap),
}

/// Packets a second, and at once, that a meter allows each link: a well-behaved neighbour asks once a second at most
/// (RFC 4861, section 10), and there is only the first hop to ask for.
pub const RATE: u64 = 1;
/// See [`RATE`].
pub const BURST: u32 = 10;
/// Links that a meter counts at the same time.
pub const METER_SIZE: u32 = 65535;
/// Where link-local neighbour solicitations are counted.
const SOLICITATIONS: Meter = Meter {
    name: "solicitations",
};
/// Where ARP requests are counted.
const REQUESTS: Meter = Meter { name: "requests" };

/// Where packets keep their workload's address. There also while nothing is in them.
pub const CLUSTER: [NetSet; 2] = [
    NetSet {
        name: "cluster4",
        family: Family::V4,
    },
    NetSet {
        name: "cluster6",
        family: Family::V6,
    },
];

/// TCP's number (RFC 9293), and UDP's (RFC 768).
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// ICMPv6 router solicitation.
const ROUTER_SOLICITATION: u8 = 133;
/// Report of a multicast listener (RFC 3810).
const LISTENER_REPORT: u8 = 143;
/// ICMPv6 neighbour solicitation.
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 router advertisement.
const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 that tells of a smaller MTU (RFC 4443, section 3.2).
const PACKET_TOO_BIG: u8 = 2;
/// ICMPv6 redirect.
const REDIRECT_V6: u8 = 137;
/// ICMP redirect.
const REDIRECT_V4: u8 = 5;

impl Ruleset {
    /// For links of a group; nothing is spared yet.
    pub const fn new(group: u32, masquerade: bool) -> Self {
        Self {
            group,
            masquerade,
            spared: Spared::NONE,
            tunnel: None,
        }
    }

    /// Our tables.
    pub fn tables(&self) -> Vec<Table> {
        let mut chains = vec![self.pieces(), self.guard(), self.told()];
        chains.extend(ports::chains(self.group));
        if self.masquerade {
            chains.push(self.outbound());
        }
        vec![
            Table {
                family: TableFamily::Inet,
                meters: vec![SOLICITATIONS],
                sets: match self.masquerade {
                    true => CLUSTER.to_vec(),
                    false => Vec::new(),
                },
                forwards: FORWARD_MAPS.to_vec(),
                chains,
            },
            Table {
                family: TableFamily::Arp,
                meters: vec![REQUESTS],
                sets: Vec::new(),
                forwards: Vec::new(),
                chains: vec![self.arp_guard()],
            },
        ]
    }

    /// Pieces of IPv4 packets are put together whichever links they came by, and the whole is taken for what the last one's
    /// link has sent (ip_frag_reasm, net/ipv4/ip_fragment.c; those of IPv6 are kept apart by link).
    fn pieces(&self) -> Chain {
        let from = C::FromGroup(self.group);
        Chain {
            name: "pieces",
            kind: "filter",
            hook: Hook::Prerouting,
            // Before that is done (NF_IP_PRI_RAW_BEFORE_DEFRAG).
            priority: -450,
            rules: vec![
                rule(&[C::FromDying, C::Fragment], Verdict::Drop),
                rule(&[from, C::Fragment, C::SourceNotRoutedBack], Verdict::Drop),
            ],
        }
    }

    /// What workloads may send.
    fn guard(&self) -> Chain {
        let from = C::FromGroup(self.group);
        let [link_local, link_scope, nobody] = ["fe80::/10", "ff02::/16", "::/128"].map(net);
        let mut guard = Chain {
            name: "guard",
            kind: "filter",
            hook: Hook::Prerouting,
            // raw: before connection tracking, so that a dropped packet leaves no entry.
            priority: -300,
            rules: vec![
                // Nothing below concerns a link on its way out of our group.
                rule(&[C::FromDying], Verdict::Drop),
                // Nor does it concern what others send: the shortest way for all that comes in from outside.
                rule(&[C::FromOtherGroup(self.group)], Verdict::Accept),
                // A link with ports takes such packets from the node itself (route_localnet), but never from its workload.
                rule(&[from, C::Destination4(ports::LOOPBACK)], Verdict::Drop),
                // Nearly all that workloads send: with the source checked, none of the rules below takes it, and each costs time.
                rule(&[from, C::Carries(TCP), C::SourceRoutedBack], Verdict::Accept),
                rule(&[from, C::Carries(UDP), C::SourceRoutedBack], Verdict::Accept),
                rule(&[from, C::Icmpv6Type(ROUTER_ADVERTISEMENT)], Verdict::Drop),
                rule(&[from, C::Icmpv6Type(REDIRECT_V6)], Verdict::Drop),
                rule(&[from, C::IcmpType(REDIRECT_V4)], Verdict::Drop),
                // The node advertises nothing, and would remember whoever asks.
                rule(&[from, C::Icmpv6Type(ROUTER_SOLICITATION)], Verdict::Drop),
                // It passes no multicast on either. For each such packet the kernel would look through the routes to all groups, of
                // which each link has one.
                rule(&[from, C::Icmpv6Type(LISTENER_REPORT)], Verdict::Drop),
                // Each new sender of one takes a place in the node's neighbour table, and senders can be made up.
                rule(
                    &[
                        from,
                        C::Source6(link_local),
                        C::Icmpv6Type(NEIGHBOUR_SOLICITATION),
                        C::OverRate(SOLICITATIONS),
                    ],
                    Verdict::Drop,
                ),
                // Neighbour discovery, which never leaves the link.
                rule(
                    &[from, C::Source6(link_local), C::Destination6(link_local)],
                    Verdict::Accept,
                ),
                rule(
                    &[from, C::Source6(link_local), C::Destination6(link_scope)],
                    Verdict::Accept,
                ),
                rule(
                    &[from, C::Source6(nobody), C::Destination6(link_scope)],
                    Verdict::Accept,
                ),
                rule(&[from, C::SourceNotRoutedBack], Verdict::Drop),
            ],
        };
        if let Some(port) = self.tunnel {
            // Before any that lets pass: a tunnel listens on link-local addresses, too.
            guard
                .rules
                .insert(2, rule(&[from, C::UdpTo(port)], Verdict::Drop));
        }
        guard
    }

    /// What the node itself is told, once it is clear that it is meant for the node: before, an address of the node may stand for
    /// somebody whose packets it translates.
    fn told(&self) -> Chain {
        let from = C::FromGroup(self.group);
        Chain {
            name: "told",
            kind: "filter",
            hook: Hook::Input,
            priority: 0,
            rules: vec![
                // Of a quoted answer to a ping, and of what went into the tunnel, the node believes any MTU, for all that goes that way.
                rule(&[from, C::FragmentationNeeded], Verdict::Drop),
                rule(&[from, C::Icmpv6Type(PACKET_TOO_BIG)], Verdict::Drop),
            ],
        }
    }

    /// What leaves gets the address of the node, but for what is spared.
    fn outbound(&self) -> Chain {
        let from = C::FromGroup(self.group);
        let mut rules: Vec<Rule> = CLUSTER
            .iter()
            .map(|set| rule(&[from, C::DestinationIn(*set)], Verdict::Accept))
            .collect();
        rules.push(rule(&[from, C::ToOtherGroup(self.group)], Verdict::Masquerade));
        Chain {
            name: "outbound",
            kind: "nat",
            hook: Hook::Postrouting,
            priority: 100,
            rules,
        }
    }

    /// How much workloads may ask for by ARP.
    fn arp_guard(&self) -> Chain {
        let from = C::FromGroup(self.group);
        Chain {
            name: "guard",
            kind: "filter",
            hook: Hook::ArpIn,
            priority: 0,
            rules: vec![
                rule(&[C::FromDying], Verdict::Drop),
                rule(&[from, C::ArpRequest, C::OverRate(REQUESTS)], Verdict::Drop),
            ],
        }
    }
}

fn rule(conditions: &[Condition], verdict: Verdict) -> Rule {
    Rule {
        conditions: conditions.to_vec(),
        verdict,
    }
}

fn net(text: &str) -> Ipv6Net {
    text.parse().expect("written here")
}

/// As nft prints it: a single address without its length.
fn short(net: &Ipv6Net) -> String {
    if net.prefix_len() == 128 {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

impl Chain {
    /// What it is beside its rules, as nft prints it. Every chain lets pass what no rule takes.
    pub fn base(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            let (hook, priority) = match (self.hook, self.priority) {
                (Hook::Prerouting, -300) => ("prerouting", "raw".to_owned()),
                (Hook::Prerouting, -100) => ("prerouting", "dstnat".to_owned()),
                (Hook::Postrouting, 100) => ("postrouting", "srcnat".to_owned()),
                (Hook::ArpIn, 0) => ("input", "filter".to_owned()),
                (Hook::Input, 0) => ("input", "filter".to_owned()),
                (Hook::Prerouting, n) => ("prerouting", n.to_string()),
                (Hook::Input, n) => ("input", n.to_string()),
                (Hook::Output, n) => ("output", n.to_string()),
                (Hook::Postrouting, n) => ("postrouting", n.to_string()),
                (Hook::ArpIn, n) => ("input", n.to_string()),
            };
            let kind = self.kind;
            write!(f, "type {kind} hook {hook} priority {priority}; policy accept;")
        })
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Arp => "arp",
        })
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables().iter().try_for_each(|table| table.fmt(f))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {TABLE} {{", self.family)?;
        for Meter { name } in &self.meters {
            writeln!(f, "\tset {name} {{")?;
            writeln!(f, "\t\ttype iface_index")?;
            writeln!(f, "\t\tsize {METER_SIZE}")?;
            writeln!(f, "\t\tflags dynamic,timeout")?;
            writeln!(f, "\t\ttimeout 1m")?;
            writeln!(f, "\t}}\n")?;
        }
        for NetSet { name, family } in &self.sets {
            let key = match family {
                Family::V4 => "ipv4_addr",
                Family::V6 => "ipv6_addr",
            };
            writeln!(f, "\tset {name} {{\n\t\ttype {key}\n\t\tflags interval\n\t}}\n")?;
        }
        self.forwards.iter().try_for_each(|set| set.fmt(f))?;
        for (n, chain) in self.chains.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            writeln!(f, "\tchain {} {{", chain.name)?;
            writeln!(f, "\t\t{}", chain.base())?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.conditions {
            match condition {
                Condition::FromGroup(group) => write!(f, "iifgroup {group} ")?,
                Condition::FromOtherGroup(group) => write!(f, "iifgroup != {group} ")?,
                // The 16 bits that they begin with, as nft prints a prefix of a number.
                Condition::FromDying => write!(f, "iifgroup {}/16 ", DYING_GROUPS.start())?,
                Condition::ToGroup(group) => write!(f, "oifgroup {group} ")?,
                Condition::ToOtherGroup(group) => write!(f, "oifgroup != {group} ")?,
                Condition::Of(Family::V4) => write!(f, "meta nfproto ipv4 ")?,
                Condition::Of(Family::V6) => write!(f, "meta nfproto ipv6 ")?,
                Condition::Source4(net) => write!(f, "ip saddr {net} ")?,
                Condition::Destination4(net) => write!(f, "ip daddr {net} ")?,
                // As nft prints the mask of offset and flag: 0x3fff.
                Condition::Fragment => write!(f, "ip frag-off & 16383 != 0 ")?,
                Condition::DestinationElsewhere => write!(f, "fib daddr type != local ")?,
                Condition::BothIn(set) => {
                    let ip = set.protocol();
                    write!(f, "{ip} saddr . {ip} daddr @{} ", set.name)?;
                }
                Condition::Icmpv6Type(ROUTER_ADVERTISEMENT) => write!(f, "icmpv6 type nd-router-advert ")?,
                Condition::Icmpv6Type(REDIRECT_V6) => write!(f, "icmpv6 type nd-redirect ")?,
                Condition::Icmpv6Type(ROUTER_SOLICITATION) => write!(f, "icmpv6 type nd-router-solicit ")?,
                Condition::Icmpv6Type(LISTENER_REPORT) => write!(f, "icmpv6 type mld2-listener-report ")?,
                Condition::Icmpv6Type(NEIGHBOUR_SOLICITATION) => {
                    write!(f, "icmpv6 type nd-neighbor-solicit ")?;
                }
                Condition::Icmpv6Type(PACKET_TOO_BIG) => write!(f, "icmpv6 type packet-too-big ")?,
                Condition::Icmpv6Type(n) => write!(f, "icmpv6 type {n} ")?,
                Condition::FragmentationNeeded => {
                    write!(f, "icmp type destination-unreachable icmp code frag-needed ")?;
                }
                Condition::IcmpType(REDIRECT_V4) => write!(f, "icmp type redirect ")?,
                Condition::IcmpType(n) => write!(f, "icmp type {n} ")?,
                Condition::Source6(net) => write!(f, "ip6 saddr {} ", short(net))?,
                Condition::Destination6(net) => write!(f, "ip6 daddr {} ", short(net))?,
                Condition::DestinationIn(NetSet { name, family }) => match family {
                    Family::V4 => write!(f, "ip daddr @{name} ")?,
                    Family::V6 => write!(f, "ip6 daddr @{name} ")?,
                },
                Condition::Carries(TCP) => write!(f, "meta l4proto tcp ")?,
                Condition::Carries(UDP) => write!(f, "meta l4proto udp ")?,
                Condition::Carries(number) => write!(f, "meta l4proto {number} ")?,
                Condition::UdpTo(port) => write!(f, "udp dport {port} ")?,
                Condition::ArpRequest => write!(f, "arp operation request ")?,
                Condition::OverRate(Meter { name }) => write!(
                    f,
                    "update @{name} {{ iif limit rate over {RATE}/second burst {BURST} packets }} "
                )?,
                Condition::SourceRoutedBack => write!(f, "fib saddr . iif oif exists ")?,
                Condition::SourceNotRoutedBack => write!(f, "fib saddr . iif oif missing ")?,
            }
        }
        match self.verdict {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Masquerade => f.write_str("masquerade"),
            Verdict::Dnat(set) => write!(f, "dnat {} to {} map @{}", set.protocol(), set.key(), set.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_print_as_nft_lists_them() {
        let text = Ruleset::new(8, true).to_string();
        assert_eq!(text, include_str!("../tests/golden/ruleset.nft"));
    }

    #[test]
    fn the_tunnels_port_is_refused_before_anything_is_let_pass() {
        let ruleset = Ruleset {
            tunnel: Some(4789),
            ..Ruleset::new(8, true)
        };
        let text = ruleset.to_string();
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}"));
        assert!(
            at("iifgroup 8 udp dport 4789 drop")
                < at("iifgroup 8 meta l4proto udp fib saddr . iif oif exists accept")
        );
    }
}
