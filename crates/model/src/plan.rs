//! Everything that one attach puts into the kernel, as data; prints itself as the `ip` commands it stands for.
//!
//! ```text
//!  create    both ends in one message, down
//!  sysctls   of the host end, which nothing can reach yet
//!  workload  inside the namespace: loopback and link up, addresses, first hop, default routes
//!  host      further names that tell of ports, the record, link up, first hop's addresses, host routes, neighbours
//!  forwards  ports of the node lead there, once the table has them
//! ```
//! The record is written when the inside is complete, so that a crash before it leaves a link that says of itself that
//! it is half-made; a crash after it leaves one whose missing rest is known from the record.

use crate::address::{Family, Mac};
use crate::key::{HostLink, InterfaceName};
use crate::ports::PortForward;
use crate::record::Record;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// The interface index that the workload's end gets where it is free (loopback has 1).
pub const WORKLOAD_INDEX: u32 = 2;

/// The MTU of a link with a large one inside the node: the largest that a veth takes. A packet has 65535 bytes at most, too.
pub const LARGE_MTU: u16 = 65535;

/// What a plan needs beside the key and the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSettings {
    /// Link group that marks our links.
    pub group: u32,
    /// MTU of both ends, in bytes, where the record does not say that it is [`LARGE_MTU`].
    pub mtu: u16,
}

/// Everything that one attach puts into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is written on the link.
    pub record: Record,
    /// Both ends.
    pub link: LinkPlan,
    /// Settings of the host end that only /proc takes, written before it is up.
    pub sysctls: Vec<Sysctl>,
    /// In order, inside the workload's namespace.
    pub workload: Vec<Op>,
    /// In order, in the daemon's namespace.
    pub host: Vec<Op>,
    /// What leads to it in the table, once the rest is there.
    pub forwards: Vec<PortForward>,
}

/// Both ends of a link, as the creating message describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPlan {
    /// Name of the host end.
    pub host: HostLink,
    /// Name of the workload's end.
    pub workload: InterfaceName,
    /// The host end's interface index.
    pub host_index: u32,
    /// The workload end's interface index.
    pub workload_index: u32,
    /// MAC of the host end.
    pub host_mac: Mac,
    /// MAC of the workload's end.
    pub workload_mac: Mac,
    /// Of both ends, in bytes.
    pub mtu: u16,
    /// Of both ends' creation, and what the host end keeps.
    pub group: u32,
}

/// One setting below /proc/sys/net/ipv4/conf/LINK/ or /proc/sys/net/ipv6/conf/LINK/.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sysctl {
    /// Whose.
    pub family: Family,
    /// File name.
    pub name: &'static str,
    /// What is written.
    pub value: i32,
}

impl Sysctl {
    /// One of IPv6.
    pub const fn v6(name: &'static str, value: i32) -> Self {
        let family = Family::V6;
        Self { family, name, value }
    }

    /// As `sysctl` takes it, of a link.
    pub fn of<'a>(&'a self, link: &'a str) -> impl fmt::Display + 'a {
        let Self { family, name, value } = self;
        let version = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        fmt::from_fn(move |f| write!(f, "net.{version}.conf.{link}.{name}={value}"))
    }
}

/// One message to the kernel about one end of the link (or the namespace's loopback).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The record, no link-local autoconfiguration, IPv4 forwarding, a strict reverse-path check, no redirects taken from
    /// the workload, and none sent to it where the node's `all.send_redirects` is off, too.
    /// First for a host end that is down: on one that is up, each change walks the whole IPv6 FIB.
    Describe {
        /// The record's text.
        alias: String,
        /// Settings of IPv4.
        v4: Ipv4Conf,
    },
    /// What makes somebody else's link one of ours, and back again, at once: its alias, its group, and settings of IPv4.
    Mark(Mark),
    /// The name that the attachment is claimed by, as a second name of a link that has another first one. Unlike
    /// [`Op::AltName`] it may not be another link's.
    Claim(String),
    /// Takes a second name away. What is not there is gone.
    DropName(String),
    /// The link group that marks our links. Made with the link.
    Group(u32),
    /// The link is a port of no bridge, and in no VRF.
    NoMaster,
    /// The link's own MAC. Made with the link.
    Mac(Mac),
    /// In bytes. Made with the link.
    Mtu(u16),
    /// A setting that only /proc takes.
    Set(Sysctl),
    /// A second name for people. What has the name already keeps it: this op may fail with EEXIST.
    AltName(String),
    /// A further name that tells of the ports of the node: see [`crate::ports`]. It is this link's alone.
    PortName(String),
    /// Packets from and to the node's own 127.0.0.0/8 may pass, which a port of the node needs that is reached there. The
    /// table drops what a workload sends to such an address.
    RouteLocalnet,
    /// The link goes up.
    Up,
    /// The namespace's loopback goes up.
    LoopbackUp,
    /// An address, usable at once: IPv6 without duplicate address detection (RFC 4862 section 5.4).
    Address {
        /// With its prefix length.
        address: IpNet,
        /// Whether it stays on the link (scope link) or is for everywhere.
        scope: Scope,
    },
    /// A route over this link. Never replaces another one.
    Route {
        /// Where to.
        destination: IpNet,
        /// By way of; on the link itself where there is none.
        gateway: Option<IpAddr>,
        /// Preferred source address.
        source: Option<IpAddr>,
        /// Of packets to there, in bytes; the link's where there is none.
        mtu: Option<u16>,
    },
    /// A permanent neighbour.
    Neighbour {
        /// Its address.
        address: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
}

/// What [`Op::Mark`] writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The record's text; empty: none.
    pub alias: String,
    /// The link group.
    pub group: u32,
    /// Settings of IPv4.
    pub v4: Ipv4Conf,
}

/// Settings of IPv4 that come with a link's record (Documentation/networking/ip-sysctl.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Conf {
    /// Whether packets that come in over the link are passed on.
    pub forwarding: i32,
    /// The reverse-path check (RFC 3704): 0 none, 1 the strict one, 2 the loose one.
    pub rp_filter: i32,
    /// Whether redirects are believed.
    pub accept_redirects: i32,
    /// Whether redirects are sent.
    pub send_redirects: i32,
}

impl Ipv4Conf {
    /// Those of our links, whatever the node's defaults were when they were made.
    pub const OURS: Self = Self {
        forwarding: 1,
        rp_filter: 1,
        accept_redirects: 0,
        send_redirects: 0,
    };
}

/// How far an address or a route reaches (rt_scope_t, linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// This link.
    Link,
}

impl Plan {
    /// Decides everything that an attachment is in the kernel. `host_index` is the caller's choice of a free one.
    pub fn new(record: Record, settings: &PlanSettings, host_index: u32) -> Self {
        Self {
            sysctls: sysctls(&record),
            workload: workload_ops(&record),
            host: host_ops(&record),
            forwards: record.asked.ports.forwards(record.addresses),
            link: LinkPlan::new(&record, settings, host_index),
            record,
        }
    }
}

impl LinkPlan {
    /// As a [`Plan`] has it.
    pub fn new(record: &Record, settings: &PlanSettings, host_index: u32) -> Self {
        Self {
            host: record.key.host_link(),
            workload: record.key.interface().clone(),
            host_index,
            workload_index: WORKLOAD_INDEX,
            host_mac: record.host_mac(),
            workload_mac: record.workload_mac(),
            mtu: match record.outward_mtu {
                Some(_) => LARGE_MTU,
                None => settings.mtu,
            },
            group: settings.group,
        }
    }
}

/// Where the link's MTU is large: what the workload sends to these prefixes of the node, it may send in packets as large. It goes
/// by way of the first hop as everything else, whose route has the real MTU.
pub fn routes_inside(record: &Record, own: impl Iterator<Item = IpNet>) -> Vec<Op> {
    let to = |destination: IpNet| {
        let family = Family::of(destination.addr());
        Some(Op::Route {
            destination,
            gateway: Some(record.first_hop(family)),
            source: Some(record.addresses.of(family)?),
            mtu: None,
        })
    };
    match record.outward_mtu {
        Some(_) => own.filter_map(to).collect(),
        None => Vec::new(),
    }
}

/// Settings of the host end. Where the workload has no IPv6 address, the link needs no IPv6 at all.
///
/// A workload that can send router advertisements must not be able to change the node's routes (CVE-2020-10749);
/// `all.accept_ra` does not reach links that are made later, so each link gets its own.
fn sysctls(record: &Record) -> Vec<Sysctl> {
    match record.addresses.v6() {
        Some(_) => ["accept_ra", "autoconf", "accept_redirects"]
            .map(|name| Sysctl::v6(name, 0))
            .to_vec(),
        None => vec![Sysctl::v6("disable_ipv6", 1)],
    }
}

/// All that the host end of an attachment is: what [`Plan`] has of it, and what a link has from its creation, or from the
/// namespace's defaults unless those say otherwise.
pub fn host_end(record: &Record, link: &LinkPlan) -> Vec<Op> {
    if let Some(adopted) = &record.adopted {
        return crate::adopt::host_end(record, adopted, link);
    }
    let mut ops = vec![
        Op::Group(link.group),
        Op::NoMaster,
        Op::Mac(link.host_mac),
        Op::Mtu(link.mtu),
    ];
    ops.extend(sysctls(record).into_iter().map(Op::Set));
    if record.addresses.v6().is_some() {
        // Whatever the namespace's defaults were when the link was made; IPv6 itself last, once the others are safe.
        ops.extend([FORWARDING_V6, IPV6_ON].map(Op::Set));
    }
    ops.extend(host_ops(record));
    ops
}

/// Packets that come in over the link are passed on.
pub const FORWARDING_V6: Sysctl = Sysctl::v6("forwarding", 1);
/// The link takes IPv6 addresses.
pub const IPV6_ON: Sysctl = Sysctl::v6("disable_ipv6", 0);

/// The inside. Routes to the first hop come before those by way of it, and are routes, not the onlink flag, which gVisor
/// does not read. At most one default route per family, which is all that gVisor takes.
pub fn workload_ops(record: &Record) -> Vec<Op> {
    let mut ops = vec![Op::LoopbackUp, Op::Up];
    for address in record.addresses.iter() {
        let first_hop = record.first_hop(Family::of(address));
        ops.extend([
            Op::Address {
                address: host_net(address),
                scope: Scope::Global,
            },
            Op::Route {
                destination: host_net(first_hop),
                gateway: None,
                // By scope the workload would choose its link-local address, to which the node has no route.
                source: address.is_ipv6().then_some(address),
                mtu: None,
            },
            Op::Route {
                destination: default_net(Family::of(address)),
                gateway: Some(first_hop),
                source: Some(address),
                mtu: record.outward_mtu,
            },
            Op::Neighbour {
                address: first_hop,
                mac: record.host_mac(),
            },
        ]);
    }
    ops
}

/// What the daemon's namespace holds of an attachment. Sweep puts back what is missing of it.
pub fn host_ops(record: &Record) -> Vec<Op> {
    // Before the record: who finds that finds all ports.
    let names = record.asked.ports.names(&record.key.host_link());
    let mut ops: Vec<Op> = names.into_iter().map(Op::PortName).collect();
    ops.push(Op::Describe {
        alias: record.to_string(),
        v4: Ipv4Conf::OURS,
    });
    if record.asked.ports.from_loopback(record.addresses) {
        ops.push(Op::RouteLocalnet);
    }
    ops.extend(record.key.altname().map(Op::AltName));
    ops.push(Op::Up);
    for address in record.addresses.iter() {
        ops.extend([
            Op::Address {
                address: first_hop_net(Family::of(address)),
                scope: Scope::Link,
            },
            Op::Route {
                destination: host_net(address),
                gateway: None,
                source: None,
                mtu: None,
            },
            Op::Neighbour {
                address,
                mac: record.workload_mac(),
            },
        ]);
    }
    ops
}

/// An address alone, as /32 or /128.
pub fn host_net(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn default_net(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// The first hop's address on a host end.
///
/// IPv4: with prefix length 0 and without a prefix route, so that it is answered under every `arp_ignore`: 2 answers only
/// senders inside an address's own subnet (`inet_confirm_addr`, net/ipv4/devinet.c). IPv6: /128, because a /64 adds an
/// anycast address whose release costs each deletion a second RCU grace period.
pub fn first_hop_net(family: Family) -> IpNet {
    let length = match family {
        Family::V4 => 0,
        Family::V6 => 128,
    };
    IpNet::new(family.first_hop(), length).expect("the length fits the family")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LinkPlan {
            host,
            workload,
            host_index,
            workload_index,
            host_mac,
            workload_mac,
            mtu,
            group,
        } = &self.link;
        writeln!(
            f,
            "ip link add {host} index {host_index} address {host_mac} mtu {mtu} group {group} numtxqueues 1 numrxqueues 1 \
             type veth peer {workload} index {workload_index} address {workload_mac} mtu {mtu} numtxqueues 1 \
             numrxqueues 1 netns WORKLOAD"
        )?;
        for setting in &self.sysctls {
            writeln!(f, "sysctl {}", setting.of(host.as_str()))?;
        }
        for op in &self.workload {
            writeln!(f, "ip -n WORKLOAD {}", op.arguments(workload.as_str()))?;
        }
        for op in &self.host {
            writeln!(f, "{}", op.on(host.as_str()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Ipv4Conf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            forwarding,
            rp_filter,
            accept_redirects,
            send_redirects,
        } = self;
        write!(
            f,
            "forwarding {forwarding} rp_filter {rp_filter} accept_redirects {accept_redirects} send_redirects {send_redirects}"
        )
    }
}

impl Op {
    /// The op as a command, on a link.
    pub fn on<'a>(&'a self, link: &'a str) -> impl fmt::Display + 'a {
        let program = match self {
            Self::Set(_) => "sysctl",
            _ => "ip",
        };
        fmt::from_fn(move |f| write!(f, "{program} {}", self.arguments(link)))
    }

    fn arguments<'a>(&'a self, link: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Self::Describe { alias, v4 } => {
                write!(f, "link set {link} alias {alias:?} addrgenmode none {v4}")
            }
            Self::Mark(Mark { alias, group, v4 }) => {
                write!(f, "link set {link} alias {alias:?} group {group} {v4}")
            }
            Self::Claim(name) => write!(f, "link property add dev {link} altname {name}"),
            Self::DropName(name) => write!(f, "link property del dev {link} altname {name}"),
            Self::NoMaster => write!(f, "link set {link} nomaster"),
            Self::Mac(mac) => write!(f, "link set {link} address {mac}"),
            Self::Mtu(mtu) => write!(f, "link set {link} mtu {mtu}"),
            Self::Set(setting) => write!(f, "{}", setting.of(link)),
            Self::Group(group) => write!(f, "link set {link} group {group}"),
            Self::RouteLocalnet => write!(f, "link set {link} route_localnet on"),
            Self::AltName(name) | Self::PortName(name) => {
                write!(f, "link property add dev {link} altname {name}")
            }
            Self::Up => write!(f, "link set {link} up"),
            Self::LoopbackUp => write!(f, "link set lo up"),
            Self::Address { address, scope } => {
                let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
                match scope {
                    Scope::Global => write!(f, "address add {address} dev {link}{nodad}"),
                    Scope::Link => write!(
                        f,
                        "address add {address} dev {link} scope link noprefixroute{nodad}"
                    ),
                }
            }
            Self::Route {
                destination,
                gateway,
                source,
                mtu,
            } => {
                write!(f, "route add {destination}")?;
                if let Some(gateway) = gateway {
                    write!(f, " via {gateway}")?;
                }
                write!(f, " dev {link}")?;
                if let Some(source) = source {
                    write!(f, " src {source}")?;
                }
                if gateway.is_none() && destination.addr().is_ipv4() {
                    write!(f, " scope link")?;
                }
                if let Some(mtu) = mtu {
                    write!(f, " mtu {mtu}")?;
                }
                Ok(())
            }
            Self::Neighbour { address, mac } => {
                write!(f, "neighbour add {address} lladdr {mac} dev {link} nud permanent")
            }
        })
    }
}
