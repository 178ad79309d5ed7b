//! Ports of the node that lead to a workload: what was asked for, how its link remembers it, and what stands in the table.
//!
//! The record has no room for them, so they are written as further names of the host end, before the record:
//! ```text
//! wk0123456789abc-1of2-t8080-80,u53-5353,t443-443-192.0.2.1
//! |               | |  | |    |                   the node's address, where not all are meant
//! |               | |  | |    the workload's port
//! |               | |  | the node's port
//! |               | |  protocol: t(cp) u(dp) s(ctp)
//! |               which one of how many
//! the link's name: no other link can have the same
//! ```
//! They are read as strictly as they are written: in order, nothing twice, nothing left out.

use crate::address::{Addresses, Family};
use crate::key::HostLink;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Bytes that a further name may have (`ALTIFNAMSIZ` with its NUL, linux/if.h).
pub const NAME_BYTES: usize = 127;
/// Ports that one attachment may have.
pub const MOST: usize = 128;
/// Names that they may take. Each message about a link carries all of its names, and Go's `net.Interfaces` reads 4096 bytes at
/// a time: what is longer is cut off there, and with it all links that follow. The rest of a message is below 2000 bytes.
pub const MOST_NAMES: usize = 12;
/// What stands before the ports in a name at most: link, place, two dashes.
const HEAD_BYTES: usize = 15 + 1 + 6 + 1;

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// IANA's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Tcp => 't',
            Self::Udp => 'u',
            Self::Sctp => 's',
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the node that leads to one of the workload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Of both.
    pub protocol: Protocol,
    /// The node's, not 0.
    pub port: u16,
    /// The node's address; unspecified: all of its family; `None`: all of both.
    pub address: Option<IpAddr>,
    /// The workload's, not 0.
    pub to: u16,
}

impl HostPort {
    /// Whether it is for addresses of a family.
    pub fn is_for(&self, family: Family) -> bool {
        self.address.is_none_or(|address| Family::of(address) == family)
    }

    /// Whether a packet could be meant for both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let same_address = match (self.address, other.address) {
            (Some(a), Some(b)) if Family::of(a) != Family::of(b) => false,
            (Some(a), Some(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
            _ => true,
        };
        self.protocol == other.protocol && self.port == other.port && same_address
    }

    fn one_address(&self) -> Option<IpAddr> {
        self.address.filter(|address| !address.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    /// `192.0.2.1:8080:80/tcp`, as people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        write!(f, "{}:{}/{}", self.port, self.to, self.protocol)
    }
}

/// All ports of one attachment; no two overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ports(BTreeSet<HostPort>);

/// Why ports are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// Two for the same packet.
    #[error("{0} and {1} overlap")]
    Overlap(HostPort, HostPort),
    /// Port 0.
    #[error("{0}: port 0 is none")]
    Zero(HostPort),
    /// More than [`MOST`].
    #[error("there are {0}, {MOST} is the most")]
    TooMany(usize),
    /// More than fit into [`MOST_NAMES`].
    #[error(
        "they take {0} further names of the link, {MOST_NAMES} are the most: fewer ports, or fewer with an address"
    )]
    TooLong(usize),
    /// The names of a link are not as they were written.
    #[error("the name {0:?} cannot be read")]
    Unreadable(String),
    /// One is not there.
    #[error("{found} of {of} names that tell them are there")]
    Missing {
        /// There.
        found: usize,
        /// Written.
        of: usize,
    },
}

impl Ports {
    /// Checks them.
    pub fn new(all: impl IntoIterator<Item = HostPort>) -> Result<Self, PortsError> {
        let mut ports: Vec<HostPort> = Vec::new();
        for port in all {
            if port.port == 0 || port.to == 0 {
                return Err(PortsError::Zero(port));
            }
            if let Some(other) = ports.iter().find(|other| other.overlaps(&port)) {
                return Err(PortsError::Overlap(*other, port));
            }
            ports.push(port);
        }
        if ports.len() > MOST {
            return Err(PortsError::TooMany(ports.len()));
        }
        let ports = Self(ports.into_iter().collect());
        match ports.bodies().len() {
            n if n > MOST_NAMES => Err(PortsError::TooLong(n)),
            _ => Ok(ports),
        }
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &HostPort> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of these and one of the others that a packet could be meant for both.
    pub fn overlap(&self, others: &Self) -> Option<HostPort> {
        let taken = |port: &&HostPort| others.iter().any(|other| other.overlaps(port));
        self.iter().find(taken).copied()
    }

    /// The first that leads to none of these addresses. One for all addresses of a family that the workload lacks is none
    /// where the same port leads to it in the other family: runtimes ask for `0.0.0.0` and `::` without knowing.
    pub fn astray(&self, addresses: Addresses) -> Option<HostPort> {
        let leads = |port: &HostPort| addresses.iter().any(|to| port.is_for(Family::of(to)));
        let led_beside = |port: &HostPort| {
            let same = |other: &HostPort| {
                (other.protocol, other.port, other.to) == (port.protocol, port.port, port.to)
            };
            port.one_address().is_none() && self.iter().any(|other| same(other) && leads(other))
        };
        let is_astray = |port: &&HostPort| !leads(port) && !led_beside(port);
        self.iter().find(is_astray).copied()
    }

    /// Whether the node's own loopback address leads to a workload of these addresses.
    pub fn from_loopback(&self, addresses: Addresses) -> bool {
        let reaches = |port: &HostPort| match port.address {
            Some(IpAddr::V4(address)) => address.is_unspecified() || address.is_loopback(),
            Some(IpAddr::V6(_)) => false,
            None => true,
        };
        addresses.v4().is_some() && self.iter().any(reaches)
    }

    /// What stands in each name behind the link and the place.
    fn bodies(&self) -> Vec<String> {
        let mut bodies: Vec<String> = Vec::new();
        for port in self.iter().map(|port| Written(*port).to_string()) {
            match bodies.last_mut() {
                Some(body) if HEAD_BYTES + body.len() + 1 + port.len() <= NAME_BYTES => {
                    body.push(',');
                    body.push_str(&port);
                }
                _ => bodies.push(port),
            }
        }
        bodies
    }

    /// The further names of a link that has them.
    pub fn names(&self, link: &HostLink) -> Vec<String> {
        let bodies = self.bodies();
        let of = bodies.len();
        let name = |(n, body)| format!("{link}-{n}of{of}-{body}");
        (1..).zip(bodies).map(name).collect()
    }

    /// From all further names of a link; those of another form are somebody else's.
    pub fn read(link: &HostLink, names: &[String]) -> Result<Self, PortsError> {
        let head = format!("{link}-");
        let ours: BTreeSet<&String> = names.iter().filter(|name| name.starts_with(&head)).collect();
        let (mut of, mut all) = (0, Vec::new());
        for name in &ours {
            let unreadable = || PortsError::Unreadable((*name).clone());
            let (place, body) = name[head.len()..].split_once('-').ok_or_else(unreadable)?;
            let (_, total) = place.split_once("of").ok_or_else(unreadable)?;
            of = total.parse().map_err(|_| unreadable())?;
            for port in body.split(',') {
                all.push(port.parse::<Written>().map_err(|()| unreadable())?.0);
            }
        }
        if ours.len() < of {
            let found = ours.len();
            return Err(PortsError::Missing { found, of });
        }
        let ports = Self::new(all)?;
        let written = ports.names(link);
        // What reads the same and is written otherwise was not written by us.
        match ours.iter().find(|name| !written.contains(name)) {
            Some(other) => Err(PortsError::Unreadable((*other).clone())),
            None => Ok(ports),
        }
    }

    /// What stands in the table for a workload of these addresses.
    pub fn forwards(&self, addresses: Addresses) -> Vec<PortForward> {
        let each = |port: &HostPort| {
            let to = addresses.iter().filter(|to| port.is_for(Family::of(*to)));
            let forward = |to| PortForward {
                place: Place {
                    family: Family::of(to),
                    protocol: port.protocol,
                    port: port.port,
                    address: port.one_address(),
                },
                to: (to, port.to),
            };
            to.map(forward).collect::<Vec<_>>()
        };
        self.iter().flat_map(each).collect()
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, port) in self.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{port}")?;
        }
        Ok(())
    }
}

/// One element of the table's maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortForward {
    /// What a packet is meant for.
    pub place: Place,
    /// Where it goes: the workload's address, of the place's family, and port.
    pub to: (IpAddr, u16),
}

/// What a packet is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The packet's.
    pub protocol: Protocol,
    /// The node's.
    pub port: u16,
    /// The node's address; `None`: any of its own.
    pub address: Option<IpAddr>,
}

/// A port as a name tells it.
struct Written(HostPort);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort {
            protocol,
            port,
            address,
            to,
        } = self.0;
        write!(f, "{}{port}-{to}", protocol.letter())?;
        match address {
            Some(address) => write!(f, "-{address}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Written {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let of = |protocol: &Protocol| text.starts_with(protocol.letter());
        let protocol = Protocol::ALL.into_iter().find(of).ok_or(())?;
        let mut fields = text[1..].splitn(3, '-');
        let mut number = || fields.next().ok_or(())?.parse::<u16>().map_err(|_| ());
        let (port, to) = (number()?, number()?);
        let address = fields.next().map(str::parse).transpose().map_err(|_| ())?;
        Ok(Self(HostPort {
            protocol,
            port,
            address,
            to,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link() -> HostLink {
        HostLink::parse("wk0123456789abc").unwrap()
    }

    fn port(text: &str) -> HostPort {
        text.parse::<Written>().unwrap().0
    }

    fn any_port() -> impl Strategy<Value = HostPort> {
        let protocol = prop::sample::select(Protocol::ALL.to_vec());
        (
            protocol,
            1..=u16::MAX,
            prop::option::of(any::<IpAddr>()),
            1..=u16::MAX,
        )
            .prop_map(|(protocol, port, address, to)| HostPort {
                protocol,
                port,
                address,
                to,
            })
    }

    #[test]
    fn ports_read_as_documented() {
        let ports = Ports::new(["u53-5353", "t8080-80", "t443-443-192.0.2.1"].map(port)).unwrap();
        let names = ports.names(&link());
        assert_eq!(
            names,
            ["wk0123456789abc-1of1-t443-443-192.0.2.1,t8080-80,u53-5353"]
        );
        assert_eq!(
            ports.to_string(),
            "192.0.2.1:443:443/tcp, 8080:80/tcp, 53:5353/udp"
        );
        assert_eq!(Ports::read(&link(), &names), Ok(ports));
        assert_eq!(
            Ports::read(&link(), &["wk-other".to_owned()]),
            Ok(Ports::default())
        );
    }

    #[test]
    fn names_that_are_not_as_written_are_refused() {
        for (names, why) in [
            (
                &["wk0123456789abc-1of2-t80-80"][..],
                "1 of 2 names that tell them are there",
            ),
            (
                &["wk0123456789abc-x"],
                "the name \"wk0123456789abc-x\" cannot be read",
            ),
            (
                &["wk0123456789abc-1of1-t080-80"],
                "the name \"wk0123456789abc-1of1-t080-80\" cannot be read",
            ),
            (
                &["wk0123456789abc-1of1-t80-80", "wk0123456789abc-1of1-t81-80"],
                "the name \"wk0123456789abc-1of1-t80-80\" cannot be read",
            ),
            (&["wk0123456789abc-1of1-t0-80"], "0:80/tcp: port 0 is none"),
            (
                &["wk0123456789abc-1of1-t80-80,t80-81"],
                "80:80/tcp and 80:81/tcp overlap",
            ),
            (
                &["wk0123456789abc-1of1-é"],
                "the name \"wk0123456789abc-1of1-é\" cannot be read",
            ),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(Ports::read(&link(), &names).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn an_unspecified_address_overlaps_all_of_its_family() {
        let table = [
            ("t80-1", "t80-2-192.0.2.1", true),
            ("t80-1-0.0.0.0", "t80-2-192.0.2.1", true),
            ("t80-1-0.0.0.0", "t80-2-::", false),
            ("t80-1-192.0.2.1", "t80-2-192.0.2.2", false),
            ("t80-1", "u80-2", false),
            ("t80-1", "t81-2", false),
        ];
        for (one, other, overlap) in table {
            assert_eq!(port(one).overlaps(&port(other)), overlap, "{one} {other}");
            assert_eq!(port(other).overlaps(&port(one)), overlap, "{other} {one}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_told() {
        let addresses = |all: &[&str]| Addresses::from_list(all.iter().map(|a| a.parse().unwrap())).unwrap();
        let (v4, both) = (addresses(&["10.77.0.2"]), addresses(&["10.77.0.2", "fd77::2"]));
        let table = [
            (&["t80-80"][..], None),
            (&["t80-80-0.0.0.0", "t80-80-::"], None),
            (&["t80-80-::"], Some("t80-80-::")),
            (&["t80-80-0.0.0.0", "t80-81-::"], Some("t80-81-::")),
            (&["t80-80-0.0.0.0", "t80-80-fd00::1"], Some("t80-80-fd00::1")),
        ];
        for (ports, astray) in table {
            let ports = Ports::new(ports.iter().map(|text| port(text))).unwrap();
            assert_eq!(ports.astray(v4), astray.map(port), "{ports}");
            assert_eq!(ports.astray(both), None, "{ports}");
        }
    }

    #[test]
    fn the_most_ports_fit_into_the_names_of_a_link() {
        let with = |address: &str, n: usize| {
            let all = (0..n).map(|n| port(&format!("s{}-65535{address}", 60_000 + n)));
            Ports::new(all)
        };
        let longest = "-fdaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa";
        for (address, most) in [("", 96), ("-192.168.100.200", 36), (longest, 12)] {
            let ports = with(address, most).unwrap();
            let names = ports.names(&link());
            assert_eq!(names.len(), MOST_NAMES);
            assert!(names.iter().all(|name| name.len() <= NAME_BYTES));
            assert_eq!(Ports::read(&link(), &names), Ok(ports));
            assert_eq!(with(address, most + 1), Err(PortsError::TooLong(MOST_NAMES + 1)));
        }
        let short = (1..=MOST + 1).map(|n| port(&format!("t{n}-1")));
        assert_eq!(Ports::new(short.clone().take(MOST)).unwrap().iter().count(), MOST);
        assert_eq!(Ports::new(short), Err(PortsError::TooMany(MOST + 1)));
    }

    proptest! {
        #[test]
        fn any_ports_survive_being_written_and_read(all in prop::collection::vec(any_port(), 0..40), turn in 0..5usize) {
            if let Ok(ports) = Ports::new(all) {
                let mut names = ports.names(&link());
                prop_assert!(names.iter().all(|name| name.len() <= NAME_BYTES));
                let turn = turn % names.len().max(1);
                names.rotate_left(turn);
                names.push("wk-another".to_owned());
                prop_assert_eq!(Ports::read(&link(), &names), Ok(ports));
            }
        }

        #[test]
        fn no_name_makes_the_reader_panic(body in "\\PC*") {
            let _ = Ports::read(&link(), &[format!("{}-{body}", link()), format!("{}-1of1-{body}", link())]);
        }
    }
}
