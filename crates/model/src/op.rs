//! One change of one end of a link, as a value; prints itself as the `ip` or `sysctl` command that it stands for.

use crate::address::{Family, Mac};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

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

/// Packets that come in over the link are passed on.
pub const FORWARDING_V6: Sysctl = Sysctl::v6("forwarding", 1);

/// The link takes IPv6 addresses.
pub const IPV6_ON: Sysctl = Sysctl::v6("disable_ipv6", 0);

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

    /// The command without its program.
    pub(crate) fn arguments<'a>(&'a self, link: &'a str) -> impl fmt::Display + 'a {
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
