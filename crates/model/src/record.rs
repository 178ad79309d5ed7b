//! The attachment, written on its own link: what the host end's alias says.
//!
//! ```text
//! wl1 10.77.0.5 fd77::5 4:f00000d1 9c56cc51 1400 b eth0 6 k8s.io/0c5d...
//! |   |         |       |          |        |    | |    | |      workload id, to the end
//! |   |         |       |          |        |    | |    | owner
//! |   |         |       |          |        |    | |    bytes of the owner
//! |   |         |       |          |        |    | interface name
//! |   |         |       |          |        |    addresses that were asked for: - 4 6 b(oth)
//! |   |         |       |          |        MTU that was asked for, or -; l and four hexadecimal digits: large inside, and the
//! |   |         |       |          |        MTU of what leaves the node
//! |   |         |       |          digest of the namespace's path
//! |   |         |       identity of the namespace: device and inode, hexadecimal
//! |   |         IPv6 address, or -
//! |   IPv4 address, or -
//! version
//! ```
//! Where a MAC was asked for, the version is `wl2` and the MAC's twelve digits follow the MTU. So that the longest one fits,
//! its addresses are written as 8 and 32 digits then, without dots and colons.
//!
//! Where the link is another plugin's that was taken over ([`crate::adopt`]), `wla` and what the old plugin made comes before
//! all that:
//! ```text
//! wla 2a3362bf35f8 36bcb1722ab9 10.1.0.1 fd01::1 wl1 10.1.0.2 fd01::2 ...
//! |   |            |            |        IPv6 address that the workload sends to, or -
//! |   |            |            IPv4 address that the workload sends to, or -
//! |   |            MAC of the workload's end
//! |   MAC of the host end
//! taken over
//! ```
//!
//! The alias is written when the workload's end is complete and before the host end is up: a link of ours without a
//! record was half-made when a crash came. 255 bytes hold the longest one (`IFALIASZ`, linux/if.h).

use crate::address::{Addresses, FIRST_HOP_MAC, Family, Mac};
use crate::key::{InterfaceName, Key, Owner, WorkloadId, hex_digit};
use crate::ports::Ports;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::net::IpAddr;

/// Bytes that an alias may have.
pub const ALIAS_BYTES: usize = 255;

const VERSION: &str = "wl1";
const WITH_MAC: &str = "wl2";
const TAKEN_OVER: &str = "wla";
const LARGE: char = 'l';

/// Identity of a network namespace: `st_dev` and `st_ino` of its nsfs file. An inode is used again only after its
/// namespace has died, and the link with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.device, self.inode)
    }
}

/// 32 bits of SHA-256 of a namespace's path: tells an older sandbox's Detach apart when its namespace is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathDigest(u32);

impl PathDigest {
    /// Of the path's text, as the client sent it.
    pub fn of(path: &str) -> Self {
        let digest = Sha256::digest(path.as_bytes());
        Self(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }
}

impl fmt::Display for PathDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What a request asked for beyond the defaults, and what two requests must agree in to be the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Asked {
    /// An MTU, in bytes.
    pub mtu: Option<u16>,
    /// The IPv4 address was asked for.
    pub v4: bool,
    /// The IPv6 address was asked for.
    pub v6: bool,
    /// A MAC for the workload's end: see [`Mac::of_a_workload`].
    pub mac: Option<Mac>,
    /// Ports of the node. They stand in further names of the link, and not in the record: see [`crate::ports`].
    pub ports: Ports,
}

impl Asked {
    /// Whether the address of a family was asked for.
    pub fn address(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// What a link of another plugin keeps from it for as long as it lives, because the workload goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Adopted {
    /// MAC of the host end, which the workload has as its neighbour's.
    pub host_mac: Mac,
    /// MAC of the workload's end.
    pub workload_mac: Mac,
    /// Addresses of the host end that the workload sends to: one for each family that it has.
    pub gateways: Addresses,
}

/// The attachment as its link tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is known by.
    pub key: Key,
    /// What the workload holds.
    pub addresses: Addresses,
    /// Where the workload's end is.
    pub namespace: NamespaceId,
    /// By which path the namespace was named.
    pub path: PathDigest,
    /// What the request asked for.
    pub asked: Asked,
    /// Where the link has the largest MTU for the node's own prefixes ([`crate::plan::LARGE_MTU`]): that of everything else. No
    /// MTU is asked for then.
    pub outward_mtu: Option<u16>,
    /// What another plugin made; `None`: all of it is ours.
    pub adopted: Option<Adopted>,
}

/// Why an alias is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A link without an alias: half-made, or not ours.
    #[error("no record")]
    Missing,
    /// Somebody else's alias, or damaged.
    #[error("the {0} cannot be read")]
    Unreadable(&'static str),
    /// Written by another release.
    #[error("the record's version is neither {VERSION} nor {WITH_MAC}")]
    Version,
}

impl Record {
    /// Reads an alias, which does not tell of ports.
    pub fn parse(alias: &str) -> Result<Self, RecordError> {
        use RecordError::Unreadable;
        if alias.is_empty() {
            return Err(RecordError::Missing);
        }
        if let Some(rest) = alias
            .strip_prefix(TAKEN_OVER)
            .and_then(|rest| rest.strip_prefix(' '))
        {
            let (adopted, rest) = Adopted::parse(rest)?;
            let mut record = Self::parse(rest)?;
            let has_gateways = Family::ALL.iter().all(|family| {
                record.addresses.of(*family).is_some() == adopted.gateways.of(*family).is_some()
            });
            if record.adopted.is_some() || !has_gateways {
                return Err(Unreadable("gateways"));
            }
            record.adopted = Some(adopted);
            return Ok(record);
        }
        let version = alias.split(' ').next().unwrap_or_default();
        let with_mac = version == WITH_MAC;
        let mut fields = alias.splitn(if with_mac { 11 } else { 10 }, ' ').skip(1);
        let mut next = |what| fields.next().ok_or(Unreadable(what));
        if version != VERSION && !with_mac {
            let ours = version
                .strip_prefix("wl")
                .is_some_and(|n| n.parse::<u16>().is_ok());
            return Err(if ours {
                RecordError::Version
            } else {
                Unreadable("version")
            });
        }
        let v4 = address(next("IPv4 address")?, "IPv4 address", |text| {
            Some(u32::from_str_radix(text, 16).ok()?.into())
        })?;
        let v6 = address(next("IPv6 address")?, "IPv6 address", |text| {
            Some(u128::from_str_radix(text, 16).ok()?.into())
        })?;
        let (device, inode) = next("namespace")?
            .split_once(':')
            .ok_or(Unreadable("namespace"))?;
        let hex = |text, what| u64::from_str_radix(text, 16).map_err(|_| Unreadable(what));
        let namespace = NamespaceId {
            device: hex(device, "namespace")?,
            inode: hex(inode, "namespace")?,
        };
        let path = u32::from_str_radix(next("path digest")?, 16).map_err(|_| Unreadable("path digest"))?;
        let mtu = next("MTU")?;
        let (mtu, outward_mtu) = match mtu.strip_prefix(LARGE) {
            Some(digits) => {
                let outward = u16::from_str_radix(digits, 16).map_err(|_| Unreadable("MTU"))?;
                (None, Some(outward))
            }
            None => (optional(mtu, "MTU")?, None),
        };
        let mac = with_mac.then(|| mac(next("MAC")?)).transpose()?;
        let (asked_v4, asked_v6) = match next("asked addresses")? {
            "-" => (false, false),
            "4" => (true, false),
            "6" => (false, true),
            "b" => (true, true),
            _ => return Err(Unreadable("asked addresses")),
        };
        let interface =
            InterfaceName::new(next("interface name")?).map_err(|_| Unreadable("interface name"))?;
        let owner_bytes: usize = next("owner's length")?
            .parse()
            .map_err(|_| Unreadable("owner's length"))?;
        let (owner, workload) = next("owner")?
            .split_at_checked(owner_bytes)
            .ok_or(Unreadable("owner"))?;
        let workload = workload.strip_prefix('/').ok_or(Unreadable("workload id"))?;
        let key = Key::new(
            Owner::new(owner).map_err(|_| Unreadable("owner"))?,
            WorkloadId::new(workload).map_err(|_| Unreadable("workload id"))?,
            interface,
        )
        .map_err(|_| Unreadable("key"))?;
        Ok(Self {
            key,
            addresses: Addresses::new(v4, v6).ok_or(Unreadable("addresses"))?,
            namespace,
            path: PathDigest(path),
            asked: Asked {
                mtu,
                v4: asked_v4,
                v6: asked_v6,
                mac,
                ports: Ports::default(),
            },
            outward_mtu,
            adopted: None,
        })
    }

    /// The MAC of the workload's end: the one that another plugin gave it, that was asked for, or that follows from the key.
    pub fn workload_mac(&self) -> Mac {
        let given = self
            .adopted
            .map(|adopted| adopted.workload_mac)
            .or(self.asked.mac);
        given.unwrap_or_else(|| self.key.workload_mac())
    }

    /// The MAC of the host end.
    pub fn host_mac(&self) -> Mac {
        self.adopted.map_or(FIRST_HOP_MAC, |adopted| adopted.host_mac)
    }

    /// Where the workload sends what is not on its link.
    pub fn first_hop(&self, family: Family) -> IpAddr {
        let given = self.adopted.and_then(|adopted| adopted.gateways.of(family));
        given.unwrap_or_else(|| family.first_hop())
    }
}

impl Adopted {
    /// From what follows the mark, with what comes after it.
    fn parse(text: &str) -> Result<(Self, &str), RecordError> {
        use RecordError::Unreadable;
        let mut fields = text.splitn(5, ' ');
        let mut next = |what| fields.next().ok_or(Unreadable(what));
        let host_mac = six_bytes(next("host MAC")?).ok_or(Unreadable("host MAC"))?;
        let workload_mac = six_bytes(next("workload MAC")?).ok_or(Unreadable("workload MAC"))?;
        let v4 = optional(next("IPv4 gateway")?, "IPv4 gateway")?;
        let v6 = optional(next("IPv6 gateway")?, "IPv6 gateway")?;
        let adopted = Self {
            host_mac,
            workload_mac,
            gateways: Addresses::new(v4, v6).ok_or(Unreadable("gateways"))?,
        };
        Ok((adopted, next("version")?))
    }
}

impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (v4, v6) = (self.gateways.v4(), self.gateways.v6());
        let (host, workload) = (hex(&self.host_mac.0), hex(&self.workload_mac.0));
        write!(f, "{TAKEN_OVER} {host} {workload} {} {} ", Or(v4), Or(v6))
    }
}

/// As people write it, or in digits alone.
fn address<T: std::str::FromStr>(
    text: &str,
    what: &'static str,
    digits: fn(&str) -> Option<T>,
) -> Result<Option<T>, RecordError> {
    if text != "-" && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return digits(text).map(Some).ok_or(RecordError::Unreadable(what));
    }
    optional(text, what)
}

fn mac(text: &str) -> Result<Mac, RecordError> {
    let mac = six_bytes(text).and_then(|mac| mac.of_a_workload().ok());
    mac.ok_or(RecordError::Unreadable("MAC"))
}

/// Twelve digits.
fn six_bytes(text: &str) -> Option<Mac> {
    if text.len() != 12 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let [_, _, bytes @ ..] = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
    Some(Mac(bytes))
}

fn optional<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<Option<T>, RecordError> {
    match text {
        "-" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| RecordError::Unreadable(what)),
    }
}

impl fmt::Display for Record {
    /// The alias.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = match (self.asked.v4, self.asked.v6) {
            (false, false) => '-',
            (true, false) => '4',
            (false, true) => '6',
            (true, true) => 'b',
        };
        if let Some(adopted) = &self.adopted {
            adopted.fmt(f)?;
        }
        let (v4, v6) = (self.addresses.v4(), self.addresses.v6());
        match self.asked.mac {
            None => write!(f, "{VERSION} {} {}", Or(v4), Or(v6))?,
            Some(_) => {
                let v4 = v4.map(|address| hex(&address.octets()));
                let v6 = v6.map(|address| hex(&address.octets()));
                write!(f, "{WITH_MAC} {} {}", Or(v4), Or(v6))?;
            }
        }
        write!(f, " {} {} ", self.namespace, self.path)?;
        match self.outward_mtu {
            // Not longer than the longest that can be asked for, so that the longest record fits.
            Some(outward) => write!(f, "{LARGE}{outward:x}")?,
            None => Or(self.asked.mtu).fmt(f)?,
        }
        if let Some(mac) = self.asked.mac {
            write!(f, " {}", hex(&mac.0))?;
        }
        write!(
            f,
            " {asked} {} {} {}/{}",
            self.key.interface(),
            self.key.owner().as_str().len(),
            self.key.owner().as_str(),
            self.key.workload().as_str(),
        )
    }
}

struct Or<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Or<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Bytes as lower-case hexadecimal, for messages.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(hex_digit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(owner: &str, workload: &str, interface: &str, v4: bool, v6: bool) -> Record {
        Record {
            key: Key::new(
                Owner::new(owner).unwrap(),
                WorkloadId::new(workload).unwrap(),
                InterfaceName::new(interface).unwrap(),
            )
            .unwrap(),
            addresses: Addresses::new(
                v4.then(|| "110.177.110.105".parse().unwrap()),
                v6.then(|| "fdaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa".parse().unwrap()),
            )
            .unwrap(),
            namespace: NamespaceId {
                device: 0xffff_ffff,
                inode: 0xffff_ffff,
            },
            path: PathDigest::of("/run/netns/a"),
            asked: Asked {
                mtu: Some(65535),
                v4,
                v6,
                mac: None,
                ports: Ports::default(),
            },
            outward_mtu: None,
            adopted: None,
        }
    }

    const ASKED_MAC: Mac = Mac([0xac, 0xde, 0x48, 0, 0x11, 0x22]);

    #[test]
    fn the_longest_record_fits_into_an_alias() {
        let longest = record(&"o".repeat(63), &"w".repeat(77), "abcdefghijklmno", true, true);
        assert_eq!(longest.to_string().len(), ALIAS_BYTES);
        assert_eq!(Record::parse(&longest.to_string()), Ok(longest.clone()));
        let mut large = longest.clone();
        large.asked.mtu = None;
        large.outward_mtu = Some(65534);
        assert_eq!(large.to_string().len(), ALIAS_BYTES);
        assert_eq!(Record::parse(&large.to_string()), Ok(large));
        let mut with_mac = longest;
        with_mac.asked.mac = Some(ASKED_MAC);
        assert!(with_mac.to_string().len() <= ALIAS_BYTES, "{with_mac}");
        assert_eq!(Record::parse(&with_mac.to_string()), Ok(with_mac));
    }

    #[test]
    fn a_record_reads_as_documented() {
        let mut plain = record("k8s.io", "0c5d/ with a blank", "eth0", true, true);
        plain.addresses = Addresses::new(
            Some("10.77.0.5".parse().unwrap()),
            Some("fd77::5".parse().unwrap()),
        )
        .unwrap();
        plain.namespace = NamespaceId {
            device: 4,
            inode: 0xf000_00d1,
        };
        plain.asked = Asked::default();
        let text = "wl1 10.77.0.5 fd77::5 4:f00000d1 1fb23846 - - eth0 6 k8s.io/0c5d/ with a blank";
        assert_eq!(plain.to_string(), text);
        assert_eq!(Record::parse(text), Ok(plain.clone()));
        assert_eq!(plain.workload_mac(), plain.key.workload_mac());

        plain.outward_mtu = Some(1500);
        let text = "wl1 10.77.0.5 fd77::5 4:f00000d1 1fb23846 l5dc - eth0 6 k8s.io/0c5d/ with a blank";
        assert_eq!(plain.to_string(), text);
        assert_eq!(Record::parse(text), Ok(plain.clone()));
        plain.outward_mtu = None;

        plain.asked.mac = Some(ASKED_MAC);
        let text = "wl2 0a4d0005 fd770000000000000000000000000005 4:f00000d1 1fb23846 - acde48001122 - eth0 6 \
                    k8s.io/0c5d/ with a blank";
        assert_eq!(plain.to_string(), text);
        assert_eq!(Record::parse(text), Ok(plain.clone()));
        assert_eq!(plain.workload_mac(), ASKED_MAC);
    }

    #[test]
    fn a_record_of_what_was_taken_over_tells_what_the_workload_goes_by() {
        let mut taken = record("workloadnet", &"c".repeat(64), "eth0", true, true);
        taken.asked = Asked::default();
        taken.adopted = Some(Adopted {
            host_mac: Mac([0x2a, 0x33, 0x62, 0xbf, 0x35, 0xf8]),
            workload_mac: Mac([0x36, 0xbc, 0xb1, 0x72, 0x2a, 0xb9]),
            gateways: Addresses::new(
                Some("10.1.0.1".parse().unwrap()),
                Some("fd01::1".parse().unwrap()),
            )
            .unwrap(),
        });
        let text = taken.to_string();
        assert!(
            text.starts_with("wla 2a3362bf35f8 36bcb1722ab9 10.1.0.1 fd01::1 wl1 110."),
            "{text}"
        );
        assert!(text.len() <= ALIAS_BYTES, "{text}");
        assert_eq!(Record::parse(&text), Ok(taken.clone()));
        assert_eq!(taken.first_hop(Family::V6).to_string(), "fd01::1");
        assert_eq!(taken.host_mac().to_string(), "2a:33:62:bf:35:f8");
        assert_eq!(taken.workload_mac().to_string(), "36:bc:b1:72:2a:b9");
    }

    #[test]
    fn what_is_no_record_says_why() {
        let table = [
            ("", "no record"),
            ("hello", "the version cannot be read"),
            ("wl3 10.77.0.5 -", "the record's version is neither wl1 nor wl2"),
            (
                "wl2 10.77.0.5 - 4:1 00000000 - 010000000000 - eth0 0 /a",
                "the MAC cannot be read",
            ),
            (
                "wl2 10.77.0.5 - 4:1 00000000 - - - eth0 0 /a",
                "the MAC cannot be read",
            ),
            ("wl1 10.77.0.5", "the IPv6 address cannot be read"),
            ("wla 2a3362bf35f8", "the workload MAC cannot be read"),
            (
                "wla 2a3362bf35f8 36bcb1722ab9 10.1.0.1 - wl1 - fd77::5 4:1 00000000 - - eth0 0 /a",
                "the gateways cannot be read",
            ),
            (
                "wl1 - - 4:1 00000000 - - eth0 0 /a",
                "the addresses cannot be read",
            ),
            (
                "wl1 10.77.0.5 - 4:1 00000000 - - eth0 9 /a",
                "the owner cannot be read",
            ),
            (
                "wl1 10.77.0.5 - 4:1 00000000 - x eth0 0 /a",
                "the asked addresses cannot be read",
            ),
            (
                "wl1 10.77.0.5 - 4:1 00000000 - - eth0 0 /",
                "the workload id cannot be read",
            ),
        ];
        for (alias, why) in table {
            assert_eq!(Record::parse(alias).unwrap_err().to_string(), why, "{alias:?}");
        }
    }

    proptest! {
        #[test]
        fn any_key_survives_being_written_and_read(
            owner in "\\PC{0,15}", workload in "\\PC{1,30}", interface in "[a-z0-9.@-]{3,15}", families in 1..4u8,
            mac in proptest::option::of(any::<[u8; 6]>()),
        ) {
            prop_assume!(workload.len() <= WORKLOAD && owner.len() <= 63);
            prop_assume!(InterfaceName::new(&interface).is_ok());
            let mut written = record(&owner, &workload, &interface, families & 1 != 0, families & 2 != 0);
            written.asked.mac = mac.and_then(|bytes| Mac(bytes).of_a_workload().ok());
            prop_assert_eq!(Record::parse(&written.to_string()), Ok(written));
        }

        #[test]
        fn no_alias_makes_the_parser_panic(alias in "\\PC*") {
            let _ = Record::parse(&alias);
        }

        #[test]
        fn no_damaged_record_makes_the_parser_panic(at in 0..80usize, byte in any::<char>()) {
            let mut text: Vec<char> = record("k8s.io", "a", "eth0", true, true).to_string().chars().collect();
            let at = at % text.len();
            text[at] = byte;
            let _ = Record::parse(&text.into_iter().collect::<String>());
        }
    }
    const WORKLOAD: usize = crate::key::WORKLOAD_ID_BYTES;
}
