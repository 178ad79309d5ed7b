//! Conditions and verdicts as the expressions that a rule is made of, written, and compared with what was read.

use super::{IPV4, IPV6};
use crate::message::{Attributes, Message};
use ipnet::{Ipv4Net, Ipv6Net};
use model::address::Family;
use model::ruleset::{BURST, Condition, ForwardMap, Keyed, Meter, RATE, Verdict};
use model::survey::DYING_GROUPS;

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// `NFTA_DYNSET_EXPR`.
const NESTED_EXPRESSION: u16 = 7;
/// `NFT_REG_1`; register 0 takes verdicts.
const REGISTER: u32 = 1;
/// `NFT_REG32_00`: the first 4 bytes of `NFT_REG_1`.
const FIRST_PART: u32 = 8;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
/// Offsets of the addresses in a header (RFC 791, section 3.1; RFC 8200, section 3), and their length.
const ADDRESSES_V4: (u32, u32, u32) = (12, 16, 4);
const ADDRESSES_V6: (u32, u32, u32) = (8, 24, 16);

fn expression(list: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    list.nest(1, |element| element.text(1, name).nest(2, data))
}

pub(super) fn condition(list: Message, condition: &Condition) -> Message {
    match *condition {
        Condition::FromGroup(group) => equal(meta(list, 21), &group.to_ne_bytes()),
        Condition::FromOtherGroup(group) => compare(meta(list, 21), 1, &group.to_ne_bytes()),
        Condition::FromDying => {
            let list = masked(meta(list, 21), &0xffff_0000_u32.to_ne_bytes());
            equal(list, &DYING_GROUPS.start().to_ne_bytes())
        }
        Condition::ToGroup(group) => equal(meta(list, 22), &group.to_ne_bytes()),
        Condition::Of(family) => of(list, family),
        Condition::Source4(net) => inside_v4(list, ADDRESSES_V4.0, net),
        Condition::Destination4(net) => inside_v4(list, ADDRESSES_V4.1, net),
        Condition::Fragment => {
            // Flags and offset in an IPv4 header (RFC 791, section 3.1), without the flag that forbids pieces.
            let list = payload(of(list, Family::V4), 1, 6, 2);
            compare(masked(list, &0x3fff_u16.to_be_bytes()), 1, &[0; 2])
        }
        Condition::DestinationElsewhere => {
            // NFT_FIB_RESULT_ADDRTYPE; DADDR.
            let list = expression(list, "fib", |e| e.be32(1, REGISTER).be32(2, 3).be32(3, 2));
            compare(list, 1, &LOCAL.to_ne_bytes())
        }
        Condition::BothIn(set) => {
            let list = key(list, set);
            expression(list, "lookup", |e| e.text(1, set.name).be32(2, REGISTER))
        }
        Condition::ToOtherGroup(group) => compare(meta(list, 22), 1, &group.to_ne_bytes()),
        Condition::Icmpv6Type(kind) => transport_type(list, ICMPV6, kind),
        // Type and code (RFC 792): destination unreachable, fragmentation needed and DF set.
        Condition::FragmentationNeeded => {
            let list = equal(meta(list, 16), &[ICMP]);
            equal(payload(list, 2, 0, 2), &[3, 4])
        }
        Condition::IcmpType(kind) => transport_type(list, ICMP, kind),
        // Offsets of the addresses in an IPv6 header (RFC 8200, section 3).
        Condition::Source6(net) => inside(list, 8, net),
        Condition::Destination6(net) => inside(list, 24, net),
        Condition::DestinationIn(set) => {
            // Offsets and lengths of the address in the header (RFC 791, section 3.1).
            let (family, offset, length) = match set.family {
                Family::V4 => (IPV4, 16, 4),
                Family::V6 => (IPV6, 24, 16),
            };
            let list = payload(equal(meta(list, 15), &[family]), 1, offset, length);
            // NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG.
            expression(list, "lookup", |e| e.text(1, set.name).be32(2, REGISTER))
        }
        Condition::Carries(number) => equal(meta(list, 16), &[number]),
        // The destination port in a UDP header (RFC 768).
        Condition::UdpTo(port) => {
            let list = equal(meta(list, 16), &[UDP]);
            equal(payload(list, 2, 2, 2), &port.to_be_bytes())
        }
        // The operation in an ARP packet (RFC 826).
        Condition::ArpRequest => equal(payload(list, 1, 6, 2), &1_u16.to_be_bytes()),
        Condition::OverRate(meter) => over_rate(list, meter),
        Condition::SourceRoutedBack => source_routed_back(list, true),
        Condition::SourceNotRoutedBack => source_routed_back(list, false),
    }
}

fn source_routed_back(list: Message, is: bool) -> Message {
    // NFT_FIB_RESULT_OIF; SADDR, IIF, PRESENT.
    let list = expression(list, "fib", |e| {
        e.be32(1, REGISTER).be32(2, 1).be32(3, 1 | 8 | 32)
    });
    // A boolean in a register of 32 bits.
    equal(list, &u32::from(is).to_ne_bytes())
}

fn of(list: Message, family: Family) -> Message {
    let number = match family {
        Family::V4 => IPV4,
        Family::V6 => IPV6,
    };
    equal(meta(list, 15), &[number])
}

/// Only whole bytes, which need no mask.
fn inside_v4(list: Message, offset: u32, net: Ipv4Net) -> Message {
    debug_assert!(net.prefix_len().is_multiple_of(8), "whole bytes");
    let bytes = net.prefix_len() / 8;
    let list = payload(of(list, Family::V4), 1, offset, bytes.into());
    equal(list, &net.network().octets()[..bytes.into()])
}

/// What a set or map is asked for, in registers from the first on.
fn key(list: Message, set: ForwardMap) -> Message {
    let (source, destination, length) = match set.family {
        Family::V4 => ADDRESSES_V4,
        Family::V6 => ADDRESSES_V6,
    };
    let address = length / 4;
    // NFT_META_L4PROTO; the destination port is where UDP has it (RFC 768).
    let port = |list, at: u32| {
        let list = meta_into(list, 16, register(at));
        payload_into(list, 2, 2, 2, register(at + 1))
    };
    match set.keyed {
        Keyed::Ports => port(list, 0),
        Keyed::Addresses => {
            let list = of(list, set.family);
            port(payload(list, 1, destination, length), address)
        }
        Keyed::Pairs => {
            let list = payload(of(list, set.family), 1, source, length);
            payload_into(list, 1, destination, length, register(address))
        }
    }
}

/// The number of a register of 4 bytes as the kernel tells it: what begins one of 16 has that one's.
fn register(part: u32) -> u32 {
    match part % 4 {
        0 => REGISTER + part / 4,
        _ => FIRST_PART + part,
    }
}

fn transport_type(list: Message, protocol: u8, kind: u8) -> Message {
    let list = equal(meta(list, 16), &[protocol]);
    equal(payload(list, 2, 0, 1), &[kind])
}

fn inside(list: Message, offset: u32, net: Ipv6Net) -> Message {
    let list = equal(meta(list, 15), &[IPV6]);
    match net.prefix_len() {
        128 => equal(payload(list, 1, offset, 16), &net.network().octets()),
        // Whole bytes need no mask; nft does the same, and prints it as a prefix again.
        length if length % 8 == 0 => {
            let bytes = usize::from(length / 8);
            equal(
                payload(list, 1, offset, u32::from(length / 8)),
                &net.network().octets()[..bytes],
            )
        }
        _ => {
            let list = masked(payload(list, 1, offset, 16), &net.netmask().octets());
            equal(list, &net.network().octets())
        }
    }
}

fn masked(list: Message, mask: &[u8]) -> Message {
    let length = u32::try_from(mask.len()).expect("a register is short");
    expression(list, "bitwise", |e| {
        e.be32(1, REGISTER)
            .be32(2, REGISTER)
            .be32(3, length)
            .nest(4, |data| data.bytes(1, mask))
            .nest(5, |xor| xor.bytes(1, &vec![0; mask.len()]))
    })
}

/// `NFT_DYNSET_OP_UPDATE`; `NFT_LIMIT_F_INV`: beyond the limit.
fn over_rate(list: Message, meter: Meter) -> Message {
    expression(meta(list, 4), "dynset", |e| {
        e.text(1, meter.name)
            .be32(3, 1)
            .be32(4, REGISTER)
            .nest(NESTED_EXPRESSION, |limit| {
                limit.text(1, "limit").nest(2, |e| {
                    e.bytes(1, &RATE.to_be_bytes())
                        .bytes(2, &1_u64.to_be_bytes())
                        .be32(3, BURST)
                        .be32(4, 0)
                        .be32(5, 1)
                })
            })
    })
}

fn meta(list: Message, key: u32) -> Message {
    meta_into(list, key, REGISTER)
}

fn meta_into(list: Message, key: u32, register: u32) -> Message {
    expression(list, "meta", |e| e.be32(2, key).be32(1, register))
}

fn payload(list: Message, base: u32, offset: u32, length: u32) -> Message {
    payload_into(list, base, offset, length, REGISTER)
}

fn payload_into(list: Message, base: u32, offset: u32, length: u32, register: u32) -> Message {
    expression(list, "payload", |e| {
        e.be32(1, register).be32(2, base).be32(3, offset).be32(4, length)
    })
}

fn equal(list: Message, value: &[u8]) -> Message {
    compare(list, 0, value)
}

fn compare(list: Message, operator: u32, value: &[u8]) -> Message {
    expression(list, "cmp", |e| {
        e.be32(1, REGISTER)
            .be32(2, operator)
            .nest(3, |data| data.bytes(1, value))
    })
}

/// `NF_DROP`, `NF_ACCEPT`.
pub(super) const DROP: u32 = 0;
pub(super) const ACCEPT: u32 = 1;

pub(super) fn verdict(list: Message, verdict: Verdict) -> Message {
    let immediate = |list, code| {
        expression(list, "immediate", |e| {
            e.be32(1, 0).nest(2, |data| data.nest(2, |v| v.be32(1, code)))
        })
    };
    match verdict {
        Verdict::Accept => immediate(list, ACCEPT),
        Verdict::Drop => immediate(list, DROP),
        Verdict::Masquerade => expression(list, "masq", |e| e),
        Verdict::Dnat(set) => {
            let (family, port) = match set.family {
                Family::V4 => (IPV4, register(1)),
                Family::V6 => (IPV6, register(4)),
            };
            // NFTA_LOOKUP_SET, SREG, DREG.
            let list = expression(key(list, set), "lookup", |e| {
                e.text(1, set.name).be32(2, REGISTER).be32(3, REGISTER)
            });
            // NFTA_NAT_TYPE (NFT_NAT_DNAT), FAMILY, REG_ADDR_MIN, REG_PROTO_MIN.
            expression(list, "nat", |e| {
                e.be32(1, 1)
                    .be32(2, family.into())
                    .be32(3, REGISTER)
                    .be32(5, port)
            })
        }
    }
}

/// Whether a rule that was read has the expressions of the one that would be written. The kernel may tell more of each than
/// was written, but of one that was written without anything (masq) that more is a difference.
pub(super) fn holds(found: &[u8], written: &Message) -> bool {
    let expressions = |payload| -> Vec<_> {
        let list = Attributes::after(payload, 4).inside(4);
        list.map(|(_, element)| {
            let element = Attributes::after(element, 0);
            let (name, data) = (element.text(1).map(str::to_owned), element.inside(2));
            let inner = match name.as_deref() {
                Some("dynset") => data.inside(NESTED_EXPRESSION).inside(2),
                _ => Attributes::after(&[], 0),
            };
            // That of an expression within one is told with the flag for nesting, or without.
            let mut all = leaves(data);
            all.retain(|(kind, _)| name.as_deref() != Some("dynset") || *kind != NESTED_EXPRESSION);
            all.extend(inner.map(|(kind, value)| (NESTED_EXPRESSION << 8 | kind, value.to_vec())));
            (name, all)
        })
        .collect()
    };
    let (found, written) = (expressions(found), expressions(written.payload()));
    found.len() == written.len()
        && found
            .iter()
            .zip(&written)
            .all(|((found_name, found), (name, written))| {
                found_name == name
                    && written.is_empty() == found.is_empty()
                    && written.iter().all(|attribute| found.contains(attribute))
            })
}

/// Attributes with the values of nested ones laid flat, so that the nesting flag, which the kernel leaves out, does not
/// matter. Nested here are only data: kind 1 (value) and kind 2 (verdict) of up to 4 bytes of header each.
fn leaves(attributes: Attributes<'_>) -> Vec<(u16, Vec<u8>)> {
    attributes
        .map(|(kind, value)| {
            let mut value = value.to_vec();
            let mut at = 0;
            while value.len() >= at + 8
                && usize::from(u16::from_ne_bytes([value[at], value[at + 1]])) == value.len() - at
            {
                value[at + 3] &= 0x3f;
                at += 4;
            }
            (kind, value)
        })
        .collect()
}
