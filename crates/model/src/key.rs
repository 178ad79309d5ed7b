//! What an attachment is known by: owner, workload id and interface name, each checked once, at the door.
//!
//! The host end's name is a function of the key alone, so that the link can be found again from the key, with no
//! table in between: creating the link *is* the claim.

use crate::address::Mac;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;

/// Bytes that an owner may have.
pub const OWNER_BYTES: usize = 63;
/// Bytes that a workload id may have.
pub const WORKLOAD_ID_BYTES: usize = 128;
/// Bytes that owner and workload id may have together, so that a record always fits into a link's alias.
pub const IDENTITY_BYTES: usize = 140;
/// Bytes of an interface name without the trailing NUL (`IFNAMSIZ - 1`, linux/if.h).
pub const INTERFACE_NAME_BYTES: usize = 15;

/// Why a text is not a part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A workload id or an interface name has to be given.
    #[error("must not be empty")]
    Empty,
    /// Too many bytes.
    #[error("has {length} bytes, {limit} is the most")]
    TooLong {
        /// What it has.
        length: usize,
        /// What it may have.
        limit: usize,
    },
    /// A control character, which would break records, logs and tables.
    #[error("has the control character {0:?}")]
    Control(char),
    /// What the kernel refuses in an interface name (`dev_valid_name`, net/core/dev.c), or a reserved one.
    #[error("is not an interface name: {0}")]
    NotAnInterfaceName(&'static str),
    /// Owner and workload id do not fit into a link's alias together.
    #[error("owner and workload_id have {length} bytes together, {IDENTITY_BYTES} is the most")]
    IdentityTooLong {
        /// What they have.
        length: usize,
    },
}

fn checked(text: &str, limit: usize) -> Result<(), KeyError> {
    if text.len() > limit {
        return Err(KeyError::TooLong {
            length: text.len(),
            limit,
        });
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(KeyError::Control(c)),
        None => Ok(()),
    }
}

/// A runtime's namespace of ids: 0 to 63 bytes without control characters; empty for a client that names none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(String);

impl Owner {
    /// Checks the text.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        checked(text, OWNER_BYTES)?;
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The identity of what is attached: 1 to 128 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId(String);

impl WorkloadId {
    /// Checks the text.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        checked(text, WORKLOAD_ID_BYTES)?;
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of the workload's end of the link, inside the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks the text by the kernel's rules, and refuses `lo` and the names of sysctl folders.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        checked(text, INTERFACE_NAME_BYTES)?;
        if text.contains(['/', ':', '%']) || text.contains(char::is_whitespace) {
            return Err(KeyError::NotAnInterfaceName(
                "it has a '/', ':', '%' or white space",
            ));
        }
        if !text.is_ascii() {
            return Err(KeyError::NotAnInterfaceName("it is not ASCII"));
        }
        if matches!(text, "." | ".." | "lo" | "all" | "default") {
            return Err(KeyError::NotAnInterfaceName("the name is reserved"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an attachment is known by. Many know one attachment, so its parts are kept once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    owner: Owner,
    workload: WorkloadId,
    interface: InterfaceName,
}

impl Key {
    /// Puts checked parts together; only their length together can still be wrong.
    pub fn new(owner: Owner, workload: WorkloadId, interface: InterfaceName) -> Result<Self, KeyError> {
        let length = owner.0.len() + workload.0.len();
        if length > IDENTITY_BYTES {
            return Err(KeyError::IdentityTooLong { length });
        }
        Ok(Self(Arc::new(Parts {
            owner,
            workload,
            interface,
        })))
    }

    /// The owner.
    pub fn owner(&self) -> &Owner {
        &self.0.owner
    }

    /// The workload id.
    pub fn workload(&self) -> &WorkloadId {
        &self.0.workload
    }

    /// The interface name.
    pub fn interface(&self) -> &InterfaceName {
        &self.0.interface
    }

    /// The name of the host end: `wk` and the first 52 bits of SHA-256 over the parts, as 13 hex digits.
    pub fn host_link(&self) -> HostLink {
        let digest = self.digest();
        let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let (prefix, mut name) = (HostLink::PREFIX.as_bytes(), [0; HostLink::BYTES]);
        name[..prefix.len()].copy_from_slice(prefix);
        for (byte, digit) in name[prefix.len()..].iter_mut().zip(digits) {
            *byte = hex_byte(digit);
        }
        HostLink(name)
    }

    /// The MAC of the workload's end: a function of the key, locally administered, unicast, and never the first
    /// hop's.
    pub fn workload_mac(&self) -> Mac {
        let digest = self.digest();
        let mut mac = [0; 6];
        mac.copy_from_slice(&digest[16..22]);
        // Locally administered, unicast (IEEE 802, section 8.2).
        mac[0] = mac[0] & 0xfc | 0x02;
        if mac == crate::address::FIRST_HOP_MAC.0 {
            mac[5] ^= 1;
        }
        Mac(mac)
    }

    /// The link's second name for people, `wk-` and the workload id, where the id makes a plain word of at most 127
    /// bytes (`ALTIFNAMSIZ - 1`, linux/if.h).
    pub fn altname(&self) -> Option<String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let id = &self.0.workload.0;
        let name = format!("wk-{id}");
        (name.len() < 128 && id.bytes().all(plain)).then_some(name)
    }

    fn parts(&self) -> [&str; 3] {
        let Parts {
            owner,
            workload,
            interface,
        } = &*self.0;
        [&owner.0, &workload.0, &interface.0]
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in self.parts() {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }
}

impl fmt::Display for Key {
    /// `owner/workload/interface`, for logs and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [owner, workload, interface] = self.parts();
        write!(f, "{owner}/{workload}/{interface}")
    }
}

pub(crate) fn hex_digit(nibble: u8) -> char {
    hex_byte(nibble).into()
}

/// Of a nibble.
fn hex_byte(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

/// The name of a host end: `wk` and 13 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostLink([u8; Self::BYTES]);

impl HostLink {
    /// What every host end's name begins with.
    pub const PREFIX: &str = "wk";
    /// As many as a name may have.
    const BYTES: usize = INTERFACE_NAME_BYTES;

    /// A name that was read from the kernel, if it has the form of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix(Self::PREFIX)?;
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let name = name.as_bytes().try_into().ok()?;
        digits.bytes().all(hex).then_some(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it is ASCII")
    }
}

impl fmt::Debug for HostLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostLink").field(&self.as_str()).finish()
    }
}

impl fmt::Display for HostLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(owner: &str, workload: &str, interface: &str) -> Key {
        Key::new(
            Owner::new(owner).unwrap(),
            WorkloadId::new(workload).unwrap(),
            InterfaceName::new(interface).unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn a_host_link_is_named_by_the_whole_key() {
        let name = key("k8s.io", "a1", "eth0").host_link();
        assert_eq!(HostLink::parse(name.as_str()), Some(name));
        assert_eq!(name.as_str().len(), INTERFACE_NAME_BYTES);
        for other in [
            key("", "a1", "eth0"),
            key("k8s.io", "a2", "eth0"),
            key("k8s.io", "a1", "eth1"),
        ] {
            assert_ne!(other.host_link(), name, "{other}");
        }
        // The border between the parts counts.
        assert_ne!(
            key("a", "bc", "eth0").host_link(),
            key("ab", "c", "eth0").host_link()
        );
    }

    #[test]
    fn a_host_link_name_never_changes() {
        // Links made by one release are found by every later one.
        assert_eq!(
            key("k8s.io", "a1", "eth0").host_link().as_str(),
            "wk5eaa439cb4443"
        );
    }

    #[test]
    fn bad_parts_are_refused_with_the_reason() {
        let text = |r: Result<_, KeyError>| r.map(|_: ()| ()).unwrap_err().to_string();
        assert_eq!(text(WorkloadId::new("").map(drop)), "must not be empty");
        assert_eq!(
            text(WorkloadId::new(&"x".repeat(129)).map(drop)),
            "has 129 bytes, 128 is the most"
        );
        assert_eq!(
            text(WorkloadId::new("a\nb").map(drop)),
            "has the control character '\\n'"
        );
        assert_eq!(
            text(Owner::new(&"x".repeat(64)).map(drop)),
            "has 64 bytes, 63 is the most"
        );
        for name in ["a/b", "a:b", "a b", "..", ".", "lo", "all", "default", "é", "a%d"] {
            let text = text(InterfaceName::new(name).map(drop));
            assert!(text.starts_with("is not an interface name: "), "{name}: {text}");
        }
        let long = Key::new(
            Owner::new(&"o".repeat(63)).unwrap(),
            WorkloadId::new(&"w".repeat(78)).unwrap(),
            InterfaceName::new("eth0").unwrap(),
        );
        assert_eq!(long, Err(KeyError::IdentityTooLong { length: 141 }));
    }

    #[test]
    fn names_of_others_are_not_taken_for_ours() {
        for name in [
            "wk",
            "wk0123456789ab",
            "wk0123456789abcd",
            "wk0123456789abC",
            "eth0",
            "wk-1234567890ab",
        ] {
            assert_eq!(HostLink::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_workload_mac_is_unicast_and_local() {
        for n in 0..1000 {
            let mac = key("", &format!("w{n}"), "eth0").workload_mac();
            assert_eq!(mac.0[0] & 3, 2, "{mac}");
            assert_ne!(mac, crate::address::FIRST_HOP_MAC);
        }
    }

    #[test]
    fn only_plain_ids_become_altnames() {
        assert_eq!(key("", "a1", "eth0").altname().as_deref(), Some("wk-a1"));
        assert_eq!(key("", "a b", "eth0").altname(), None);
        assert_eq!(key("", &"x".repeat(125), "eth0").altname(), None);
    }
}
