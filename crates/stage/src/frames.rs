//! Frames and packets byte by byte, as no well-behaved host makes them up: foreign MACs and addresses, answers that nobody
//! asked for, fragments that overlap.

use crate::Namespace;
use crate::change::Links;
use crate::traffic::checksum;
use anyhow::{Context as _, Result};
pub use kernel::frames::Frames;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// To everybody.
pub const BROADCAST: Mac = [0xff; 6];

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_V6: u16 = 0x86dd;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// IPv6's fragment header (RFC 8200, section 4.5).
const FRAGMENT: u8 = 44;

/// What comes in and goes out over a link of a namespace.
pub fn frames(namespace: &Namespace, link: &str) -> Result<Frames> {
    let index = Links::of(namespace)?.index(link)?;
    namespace
        .within(|| Frames::of(index))?
        .with_context(|| format!("a packet socket on {link}"))
}

/// A packet with its Ethernet header.
pub fn ethernet(from: Mac, to: Mac, packet: &Packet) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend(packet.kind.to_be_bytes());
    frame.extend(&packet.bytes);
    frame
}

/// What an Ethernet frame carries.
#[derive(Debug, Clone)]
pub struct Packet {
    kind: u16,
    /// From its own header on.
    pub bytes: Vec<u8>,
}

/// ARP (RFC 826): a request is 1, an answer 2.
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Packet {
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        bytes.extend(mac);
        bytes.extend(address.octets());
    }
    Packet {
        kind: ETHERTYPE_ARP,
        bytes,
    }
}

/// A datagram from port 4000 between any two addresses of a family.
pub fn datagram(from: IpAddr, to: IpAddr, port: u16, text: &[u8]) -> Packet {
    datagram_between((from, 4000).into(), (to, port).into(), text)
}

/// A datagram between any two addresses and ports of a family.
pub fn datagram_between(from: SocketAddr, to: SocketAddr, text: &[u8]) -> Packet {
    let mut udp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    udp.extend(u16::try_from(8 + text.len()).expect("short").to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(text);
    match (from.ip(), to.ip()) {
        // A sum of zero is none at all (RFC 768).
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, UDP, 0, &udp),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let sum = sum_v6(from, to, UDP, &udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            ipv6(from, to, UDP, &udp)
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// An IPv4 packet; `fragment` is where it stands and whether more follow (RFC 791, section 3.1: 0x2000, and units of 8 bytes).
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Packet {
    let length = u16::try_from(20 + payload.len()).expect("short");
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0x77, 0x6e]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    Packet {
        kind: ETHERTYPE_V4,
        bytes,
    }
}

/// An IPv6 packet with the greatest hop limit, as neighbour discovery has to have it.
pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Packet {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
    bytes.extend([next, 255]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(payload);
    Packet {
        kind: ETHERTYPE_V6,
        bytes,
    }
}

/// One fragment of an IPv6 packet, `fragment` being its place in bytes, and 1 where more follow.
pub fn ipv6_fragment(from: Ipv6Addr, to: Ipv6Addr, fragment: u16, payload: &[u8]) -> Packet {
    let mut bytes = vec![UDP, 0];
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([0, 0, 0x77, 0x6e]);
    bytes.extend(payload);
    ipv6(from, to, FRAGMENT, &bytes)
}

/// Says to everybody that an address is at a MAC (RFC 4861, section 4.4), and that this counts more than what was known.
pub fn neighbour_advertisement(from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> Packet {
    neighbour(from, to, [136, 0, 0, 0, 0x20, 0, 0, 0], target, (2, mac))
}

/// Asks who has an address, with a MAC to remember the sender by (RFC 4861, section 4.3).
pub fn neighbour_solicitation(from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr, mac: Mac) -> Packet {
    neighbour(from, to, [135, 0, 0, 0, 0, 0, 0, 0], target, (1, mac))
}

/// A target, and an option of a kind with a MAC (RFC 4861, section 4.6.1).
fn neighbour(from: Ipv6Addr, to: Ipv6Addr, head: [u8; 8], target: Ipv6Addr, option: (u8, Mac)) -> Packet {
    let (kind, mac) = option;
    let mut body = head.to_vec();
    body.extend(target.octets());
    body.extend([kind, 1]);
    body.extend(mac);
    icmpv6(from, to, body)
}

/// An ICMP message with its sum (RFC 792).
pub fn icmp(from: Ipv4Addr, to: Ipv4Addr, mut body: Vec<u8>) -> Packet {
    let sum = checksum(&body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, ICMP, 0, &body)
}

/// An ICMPv6 message with its sum (RFC 4443, section 2.3).
pub fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, mut body: Vec<u8>) -> Packet {
    let sum = sum_v6(from, to, ICMPV6, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6(from, to, ICMPV6, &body)
}

/// Over the pseudo-header, too (RFC 8200, section 8.1).
fn sum_v6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> u16 {
    let mut all = [from.octets(), to.octets()].concat();
    all.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
    all.extend([0, 0, 0, next]);
    all.extend(payload);
    checksum(&all)
}
