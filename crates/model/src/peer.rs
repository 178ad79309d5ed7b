//! Another node of the cluster: where it is reached, and which addresses its workloads have.

use crate::prefix::Prefix;
use std::net::{IpAddr, Ipv6Addr};

/// Bytes of a peer's name: a DNS subdomain, as Kubernetes names nodes (RFC 1123, section 2.1).
pub const NAME_BYTES: usize = 253;

/// Another node. A list of peers may hold the node itself, too: it is marked where its name is known, and else recognised by
/// its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// What people call it, e.g. `node-b`; 1 to [`NAME_BYTES`] bytes, no control characters.
    pub name: String,
    /// Where the other nodes reach it, in the order in which they are to be tried; without repetition.
    pub addresses: Vec<IpAddr>,
    /// What its workloads' addresses come from, in any order; disjoint.
    pub prefixes: Vec<Prefix>,
    /// Whether it is this node, by its name.
    pub is_self: bool,
}

/// Why something is no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Empty, too long, or with control characters.
    #[error("{0:?} is no name of a node: 1 to {NAME_BYTES} bytes without control characters")]
    Name(String),
    /// Nobody else can be reached there.
    #[error("peer {peer}: {address} is no address of a node: it is {what}")]
    Address {
        /// The peer's name.
        peer: String,
        /// The address.
        address: IpAddr,
        /// What it is, e.g. `a loopback address`.
        what: &'static str,
    },
    /// The same address twice.
    #[error("peer {peer}: {address} is named twice")]
    Twice {
        /// The peer's name.
        peer: String,
        /// The address.
        address: IpAddr,
    },
    /// Two prefixes of one peer share addresses.
    #[error("peer {peer}: {source}")]
    Prefixes {
        /// The peer's name.
        peer: String,
        /// Which.
        source: crate::prefix::PrefixError,
    },
}

impl Peer {
    /// Checks what one peer can be checked for alone. A peer without an address or a prefix is one: nothing is routed to it
    /// yet.
    pub fn new(name: &str, addresses: Vec<IpAddr>, prefixes: Vec<Prefix>) -> Result<Self, PeerError> {
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            return Err(PeerError::Name(name.to_owned()));
        }
        let peer = name.to_owned();
        for (n, &address) in addresses.iter().enumerate() {
            if let Some(what) = unreachable(address) {
                return Err(PeerError::Address { peer, address, what });
            }
            if addresses[..n].contains(&address) {
                return Err(PeerError::Twice { peer, address });
            }
        }
        if let Err(source) = Prefix::disjoint(&prefixes) {
            return Err(PeerError::Prefixes { peer, source });
        }
        Ok(Self {
            name: peer,
            addresses,
            prefixes,
            is_self: false,
        })
    }
}

/// What an address is at which no other node can be.
fn unreachable(address: IpAddr) -> Option<&'static str> {
    let mapped = |a: Ipv6Addr| a.to_ipv4_mapped().is_some();
    match address {
        a if a.is_unspecified() => Some("the unspecified address"),
        a if a.is_loopback() => Some("a loopback address"),
        a if a.is_multicast() => Some("a multicast address"),
        IpAddr::V4(a) if a.is_broadcast() => Some("the broadcast address"),
        // It means another node on each link.
        IpAddr::V4(a) if a.is_link_local() => Some("a link-local address"),
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(a) if mapped(a) => Some("an IPv4-mapped address"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, addresses: &[&str], prefixes: &[&str]) -> Result<Peer, String> {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let prefixes = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        Peer::new(name, addresses, prefixes).map_err(|error| error.to_string())
    }

    #[test]
    fn a_peer_keeps_the_order_of_its_addresses() {
        let both = peer(
            "b",
            &["2001:db8::2", "192.0.2.2"],
            &["10.77.1.9/24", "fd77:1::/64"],
        )
        .unwrap();
        assert_eq!(both.addresses[0].to_string(), "2001:db8::2");
        assert_eq!(both.prefixes[0].to_string(), "10.77.1.0/24");
        assert_eq!(peer("b", &[], &[]).map(|b| b.addresses.len()), Ok(0));
    }

    #[test]
    fn what_is_no_peer_is_refused_by_name_and_value() {
        let long = "n".repeat(254);
        let table = [
            (peer("", &[], &[]), "\"\" is no name of a node"),
            (peer("a\nb", &[], &[]), "\"a\\nb\" is no name of a node"),
            (peer(&long, &[], &[]), "1 to 253 bytes"),
            (
                peer("b", &["127.0.0.1"], &[]),
                "peer b: 127.0.0.1 is no address of a node: it is a loopback address",
            ),
            (
                peer("b", &["::"], &[]),
                ":: is no address of a node: it is the unspecified address",
            ),
            (peer("b", &["224.0.0.1"], &[]), "a multicast address"),
            (peer("b", &["169.254.1.1"], &[]), "a link-local address"),
            (peer("b", &["fe80::1"], &[]), "a link-local address"),
            (peer("b", &["::ffff:192.0.2.1"], &[]), "an IPv4-mapped address"),
            (peer("b", &["255.255.255.255"], &[]), "the broadcast address"),
            (
                peer("b", &["192.0.2.2", "192.0.2.2"], &[]),
                "peer b: 192.0.2.2 is named twice",
            ),
            (
                peer("b", &[], &["10.0.0.0/8", "10.1.0.0/16"]),
                "peer b: 10.0.0.0/8 and 10.1.0.0/16 overlap",
            ),
        ];
        for (outcome, expected) in table {
            let error = outcome.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
