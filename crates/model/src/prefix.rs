//! A range of addresses that this node owns: masked on the way in, and with its reserved addresses left out.

use crate::address::Family;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Prefixes that a node serves, and again as many that drain beside them: who looks for an address's prefix looks at each.
pub const MOST: usize = 256;

/// Why a text or a list is no prefix of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not `address/length`.
    #[error("{0:?} is not a prefix such as 10.77.0.0/24 or fd77::/64")]
    Malformed(String),
    /// Loopback, multicast, unspecified, link-local: no workload can have such an address.
    #[error("{prefix} cannot be used for workloads: it touches {what}")]
    Unusable {
        /// The prefix.
        prefix: IpNet,
        /// What it touches, e.g. `multicast`.
        what: &'static str,
    },
    /// Two prefixes share addresses.
    #[error("{one} and {other} overlap")]
    Overlap {
        /// One of them.
        one: Prefix,
        /// The other.
        other: Prefix,
    },
    /// More than a node serves.
    #[error("{0} prefixes are too many: a node serves at most {MOST}")]
    TooMany(usize),
}

/// A masked prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpNet);

impl Prefix {
    /// Masks the host bits, and refuses ranges that no workload can live in.
    pub fn new(net: IpNet) -> Result<Self, PrefixError> {
        let net = net.trunc();
        match unusable(net) {
            Some(what) => Err(PrefixError::Unusable { prefix: net, what }),
            None => Ok(Self(net)),
        }
    }

    /// As network.
    pub fn net(&self) -> IpNet {
        self.0
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.0.addr())
    }

    /// Whether the address lies inside, reserved ones included.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Addresses inside, reserved ones included; `None` for 2^128.
    pub fn size(&self) -> Option<u128> {
        1_u128.checked_shl((self.family().bits() - self.0.prefix_len()).into())
    }

    /// The address at an offset from the prefix's first one; the offset must be below [`Self::size`].
    pub fn at(&self, offset: u128) -> IpAddr {
        match self.0.network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(offset).expect("an offset inside an IPv4 prefix has 32 bits");
                IpAddr::V4((u32::from(base) + offset).into())
            }
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) + offset).into()),
        }
    }

    /// The offset of an address from the prefix's first one; `None` outside.
    pub fn offset_of(&self, address: IpAddr) -> Option<u128> {
        if !self.contains(address) {
            return None;
        }
        match (self.0.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(a)) => Some((u32::from(a) - u32::from(base)).into()),
            (IpAddr::V6(base), IpAddr::V6(a)) => Some(u128::from(a) - u128::from(base)),
            _ => None,
        }
    }

    /// The offsets that are given out, first and last; everything between them is usable.
    ///
    /// Left out are the network address (IPv6: the subnet-router anycast address, RFC 4291 section 2.6.1), the
    /// second address, which is the node's own, and the IPv4 broadcast address. In /31 and /127 (RFC 3021,
    /// RFC 6164) there is neither network nor broadcast address and the first one is the node's; a /32 or /128
    /// is all workload.
    pub fn usable(&self) -> (u128, u128) {
        let last = match self.size() {
            Some(size) => size - 1,
            None => u128::MAX,
        };
        match (last, self.family()) {
            (0, _) => (0, 0),
            (1, _) => (1, 1),
            (_, Family::V4) => (2, last - 1),
            (_, Family::V6) => (2, last),
        }
    }

    /// Why an address inside is not given out; `None` where it is.
    pub fn reserved(&self, address: IpAddr) -> Option<&'static str> {
        let offset = self.offset_of(address)?;
        let (first, last) = self.usable();
        if offset > last {
            Some("the broadcast address")
        } else if offset >= first {
            None
        } else if offset + 1 == first {
            Some("the node's own address")
        } else {
            Some("the network address")
        }
    }

    /// Refuses what no node can serve: more than [`MOST`], or two that overlap.
    pub fn servable(prefixes: &[Self]) -> Result<(), PrefixError> {
        match prefixes.len() {
            0..=MOST => Self::disjoint(prefixes),
            number => Err(PrefixError::TooMany(number)),
        }
    }

    /// Refuses two that overlap; keeps the order otherwise.
    pub fn disjoint(prefixes: &[Self]) -> Result<(), PrefixError> {
        let mut sorted = prefixes.to_vec();
        sorted.sort_by_key(|p| (p.0.network(), p.0.prefix_len()));
        for pair in sorted.windows(2) {
            // Sorted by first address, a prefix that overlaps any earlier one overlaps its neighbour.
            if pair[0].contains(pair[1].0.network()) {
                return Err(PrefixError::Overlap {
                    one: pair[0],
                    other: pair[1],
                });
            }
        }
        Ok(())
    }
}

fn unusable(net: IpNet) -> Option<&'static str> {
    let touches = |text: &str| {
        let other: IpNet = text.parse().expect("written here");
        net.contains(&other) || other.contains(&net)
    };
    let list: &[(&str, &str)] = &[
        ("0.0.0.0/8", "0.0.0.0/8 (\"this network\")"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local addresses"),
        ("224.0.0.0/3", "multicast and reserved addresses"),
        ("::/127", "the unspecified and the loopback address"),
        ("fe80::/10", "link-local addresses"),
        ("ff00::/8", "multicast addresses"),
        ("::ffff:0:0/96", "IPv4-mapped addresses"),
    ];
    list.iter().find(|(text, _)| touches(text)).map(|&(_, what)| what)
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::new(
            text.parse()
                .map_err(|_| PrefixError::Malformed(text.to_owned()))?,
        )
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_masked() {
        assert_eq!(prefix("10.1.2.5/24").to_string(), "10.1.2.0/24");
        assert_eq!(prefix("fd77::5/64").to_string(), "fd77::/64");
    }

    #[test]
    fn reserved_addresses_are_left_out() {
        let table = [
            ("10.1.2.0/24", 2, 254),
            ("10.1.2.0/30", 2, 2),
            ("10.1.2.0/31", 1, 1),
            ("10.1.2.3/32", 0, 0),
            ("fd77::/126", 2, 3),
            ("fd77::/127", 1, 1),
            ("fd77::7/128", 0, 0),
            ("fd77::/64", 2, u64::MAX.into()),
        ];
        for (text, first, last) in table {
            assert_eq!(prefix(text).usable(), (first, last), "{text}");
        }
        let why = |p: &str, a: &str| prefix(p).reserved(a.parse().unwrap());
        assert_eq!(why("10.1.2.0/24", "10.1.2.0"), Some("the network address"));
        assert_eq!(why("10.1.2.0/24", "10.1.2.1"), Some("the node's own address"));
        assert_eq!(why("10.1.2.0/24", "10.1.2.2"), None);
        assert_eq!(why("10.1.2.0/24", "10.1.2.255"), Some("the broadcast address"));
        assert_eq!(why("10.1.2.0/31", "10.1.2.0"), Some("the node's own address"));
        assert_eq!(why("fd77::/64", "fd77::ffff:ffff:ffff:ffff"), None);
    }

    #[test]
    fn what_no_workload_can_live_in_is_refused() {
        for text in [
            "127.0.0.0/8",
            "0.0.0.0/0",
            "169.254.77.0/24",
            "240.0.0.0/4",
            "fe80::/64",
            "::/0",
            "ff02::/16",
        ] {
            assert!(
                matches!(text.parse::<Prefix>(), Err(PrefixError::Unusable { .. })),
                "{text}"
            );
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd77::/129", "nonsense/8"] {
            assert_eq!(
                text.parse::<Prefix>(),
                Err(PrefixError::Malformed(text.to_owned()))
            );
        }
    }

    #[test]
    fn overlaps_are_refused_in_any_order() {
        let (a, b, c) = (prefix("10.0.0.0/8"), prefix("10.1.0.0/16"), prefix("fd77::/64"));
        assert_eq!(
            Prefix::disjoint(&[b, c, a]),
            Err(PrefixError::Overlap { one: a, other: b })
        );
        assert_eq!(
            Prefix::disjoint(&[a, a]),
            Err(PrefixError::Overlap { one: a, other: a })
        );
        assert_eq!(Prefix::disjoint(&[a, c]), Ok(()));
    }
}
