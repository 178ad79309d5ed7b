//! Addresses as the datapath uses them: the first hop, MACs, and what a workload holds per family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where every workload sends its IPv4 packets to (RFC 3927, link-local).
pub const FIRST_HOP_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
/// Where every workload sends its IPv6 packets to (RFC 4291, link-local).
pub const FIRST_HOP_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// MAC of every host end, so that a workload's neighbour entry for the first hop never changes.
pub const FIRST_HOP_MAC: Mac = Mac([0x02, 0x9c, 0x52, 0xfe, 0x6d, 0x0a]);

/// Without at least this MTU a link has no IPv6 in it (RFC 8200, section 5; `addrconf_notify`, net/ipv6/addrconf.c).
pub const IPV6_MTU: u16 = 1280;

/// Whether an address is of those that are each link's own (RFC 3927, RFC 4291).
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first, which is the order of every list here.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Where workloads send to.
    pub fn first_hop(self) -> IpAddr {
        match self {
            Self::V4 => FIRST_HOP_V4.into(),
            Self::V6 => FIRST_HOP_V6.into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a text or a MAC is none that a workload's end can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six bytes in hexadecimal.
    #[error("{0:?} is not a MAC such as 02:00:00:00:00:05")]
    Malformed(String),
    /// A group of receivers (IEEE 802, the lowest bit of the first byte), or nobody.
    #[error("{0} is not the address of one interface")]
    NotUnicast(Mac),
    /// The link's other end has it.
    #[error("{0} is the first hop's")]
    FirstHop(Mac),
}

impl Mac {
    /// A MAC that a workload's end can have.
    pub fn of_a_workload(self) -> Result<Self, MacError> {
        match self {
            FIRST_HOP_MAC => Err(MacError::FirstHop(self)),
            Self([first, ..]) if first & 1 == 1 || self.0 == [0; 6] => Err(MacError::NotUnicast(self)),
            mac => Ok(mac),
        }
    }
}

impl FromStr for Mac {
    type Err = MacError;

    /// Six bytes in hexadecimal, two digits each, with colons between them.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let malformed = || MacError::Malformed(text.to_owned());
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(malformed)?;
            let digits = part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = digits
                .then(|| u8::from_str_radix(part, 16).ok())
                .flatten()
                .ok_or_else(malformed)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(malformed()),
        }
    }
}

/// The addresses of one workload: at most one per family, and at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Addresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// `None` where both are missing: nothing is attached without an address.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<Self> {
        (v4.is_some() || v6.is_some()).then_some(Self { v4, v6 })
    }

    /// From a list; `None` where it is empty or has two of a family.
    pub fn from_list(list: impl IntoIterator<Item = IpAddr>) -> Option<Self> {
        let (mut v4, mut v6) = (None, None);
        for address in list {
            let twice = match address {
                IpAddr::V4(a) => v4.replace(a).is_some(),
                IpAddr::V6(a) => v6.replace(a).is_some(),
            };
            if twice {
                return None;
            }
        }
        Self::new(v4, v6)
    }

    /// The IPv4 address.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.v4
    }

    /// The IPv6 address.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.v6
    }

    /// IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let Self { v4, v6 } = *self;
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6))
    }

    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for address in self.iter() {
            write!(f, "{comma}{address}")?;
            comma = ",";
        }
        Ok(())
    }
}

/// An address as messages have it: 4 or 16 bytes in network order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_may_have_any_mac_of_one_interface_but_the_first_hops() {
        let text = |text: &str| {
            let mac = text.parse::<Mac>().and_then(Mac::of_a_workload);
            mac.map_or_else(|error| error.to_string(), |mac| mac.to_string())
        };
        let table = [
            ("02:00:00:00:00:05", "02:00:00:00:00:05"),
            ("AC:de:48:00:11:22", "ac:de:48:00:11:22"),
            (
                "01:00:5e:00:00:01",
                "01:00:5e:00:00:01 is not the address of one interface",
            ),
            (
                "00:00:00:00:00:00",
                "00:00:00:00:00:00 is not the address of one interface",
            ),
            ("02:9c:52:fe:6d:0a", "02:9c:52:fe:6d:0a is the first hop's"),
            (
                "02:00:00:00:00",
                "\"02:00:00:00:00\" is not a MAC such as 02:00:00:00:00:05",
            ),
            (
                "02:00:00:00:00:+5",
                "\"02:00:00:00:00:+5\" is not a MAC such as 02:00:00:00:00:05",
            ),
            (
                "02:00:00:00:00:05:06",
                "\"02:00:00:00:00:05:06\" is not a MAC such as 02:00:00:00:00:05",
            ),
        ];
        for (given, expected) in table {
            assert_eq!(text(given), expected);
        }
    }
}
