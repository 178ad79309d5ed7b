//! Maps and sets of ports of the node: single keys, changed alone, and put back with the table.

use super::{DELSETELEM, NEWSETELEM, Nft, Noted, sets};
use crate::message::{Attributes, Message};
use model::address::{Family, octets};
use model::datapath::Fault;
use model::forwards::{Change, Elements, PortForwards};
use model::ports::{Place, PortForward};
use model::ruleset::{FORWARD_MAPS, ForwardMap, Keyed, TABLE, Table};
use std::collections::HashSet;
use std::net::IpAddr;

/// `NFT_SET_MAP`.
const MAP: u32 = 8;
/// How nft calls what keys and values are put together of, beside addresses: `TYPE_INET_PROTOCOL`, `TYPE_INET_SERVICE`
/// (include/datatype.h of nftables), with 6 bits each.
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;
/// So many elements of IPv6 fit into one attribute of 64 KB.
const CHUNK: usize = 500;

/// Key and value, empty in a set, as they stand in registers: each part in as many of 4 bytes as it needs.
type Element = (Vec<u8>, Vec<u8>);

impl Nft {
    /// Notes which forwards lead to a link, and has them in the table, once it was published. What failed before is tried again,
    /// also where nothing is to change: who is told that forwards are closed may rely on it.
    pub(crate) fn set_forwards(&self, link: u32, forwards: &[PortForward]) -> Result<(), Fault> {
        let mut noted = self.noted();
        let change = noted.forwards.set(link, forwards);
        let Noted {
            forwards,
            ruleset: Some(ruleset),
            is_behind,
        } = &mut *noted
        else {
            return Ok(());
        };
        if change.is_empty() && !*is_behind {
            return Ok(());
        }
        if !*is_behind {
            match self.change_forwards(&change) {
                Ok(()) => return Ok(()),
                // Somebody has the table otherwise than it was published.
                Err(fault) => tracing::info!(%fault, "the table is put in place"),
            }
        }
        *is_behind = true;
        self.publish_with(ruleset, forwards)?;
        *is_behind = false;
        Ok(())
    }

    fn change_forwards(&self, Change { gone, came }: &Change) -> Result<(), Fault> {
        let tried = format!("nft change the ports of table inet {TABLE}");
        let mut changes = Vec::new();
        for (kind, change) in [(DELSETELEM, gone), (NEWSETELEM, came)] {
            changes.extend(FORWARD_MAPS.iter().flat_map(|set| elements(kind, set, change)));
        }
        self.commit(&tried, changes)
    }

    pub(super) fn drift_of_forwards(
        &self,
        forwards: &PortForwards,
        table: &Table,
        drift: &mut Vec<String>,
    ) -> Result<(), Fault> {
        let elements = forwards.elements();
        for set in &table.forwards {
            // With the rules that read it, which is told already.
            let Some(found) = self.elements_of(set.name, elements_in)? else {
                continue;
            };
            let wanted: HashSet<Element> = of(set, &elements).into_iter().collect();
            drift.extend(sets::difference(set.name, "elements", &wanted, &found));
        }
        Ok(())
    }
}

pub(super) fn new_set(set: &ForwardMap, id: u32) -> Message {
    let (address, length) = sets::address(set.family);
    let to = Some((address << 6 | SERVICE, length + 4));
    let (key, key_length, value) = match set.keyed {
        Keyed::Ports => (PROTOCOL << 6 | SERVICE, 8, to),
        Keyed::Addresses => (address << 12 | PROTOCOL << 6 | SERVICE, length + 8, to),
        Keyed::Pairs => (address << 6 | address, 2 * length, None),
    };
    let message = sets::new_set(set.name)
        .be32(3, value.map_or(0, |_| MAP))
        .be32(4, key)
        .be32(5, key_length);
    let message = match value {
        Some((kind, length)) => message.be32(6, kind).be32(7, length),
        None => message,
    };
    message.be32(10, id)
}

/// Messages that add what a set is to hold, or take it away.
pub(super) fn elements(kind: u16, set: &ForwardMap, elements: &Elements) -> Vec<Message> {
    let all = of(set, elements);
    let message = |some: &[Element]| {
        sets::changed(kind, set.name, &format!("({} ports)", some.len()))
            .nest(3, |list| some.iter().fold(list, element))
    };
    all.chunks(CHUNK).map(message).collect()
}

fn element(list: Message, (key, value): &Element) -> Message {
    list.nest(1, |element| {
        let element = element.nest(1, |data| data.bytes(1, key));
        match value.is_empty() {
            true => element,
            false => element.nest(2, |data| data.bytes(1, value)),
        }
    })
}

/// What is to be in a set.
fn of(set: &ForwardMap, elements: &Elements) -> Vec<Element> {
    let forward = |(place, to): (&Place, &(IpAddr, u16))| {
        let keyed = match place.address {
            None => Keyed::Ports,
            Some(_) => Keyed::Addresses,
        };
        let is_of = (place.family, keyed) == (set.family, set.keyed);
        is_of.then(|| (key(place), [octets(to.0), part(&to.1.to_be_bytes())].concat()))
    };
    match set.keyed {
        Keyed::Ports | Keyed::Addresses => elements.forwards.iter().filter_map(forward).collect(),
        Keyed::Pairs => {
            let of = |address: &&IpAddr| Family::of(**address) == set.family;
            let pair = |address: &IpAddr| (octets(*address).repeat(2), Vec::new());
            elements.itself.iter().filter(of).map(pair).collect()
        }
    }
}

fn key(place: &Place) -> Vec<u8> {
    let address = place.address.map(octets).unwrap_or_default();
    let (protocol, port) = (part(&[place.protocol.number()]), part(&place.port.to_be_bytes()));
    [address, protocol, port].concat()
}

/// In a register of 4 bytes.
fn part(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(4, 0);
    bytes
}

/// The elements that RTM_NEWSETELEM tells of.
fn elements_in(payload: &[u8]) -> Vec<Element> {
    let list = Attributes::after(payload, 4).inside(3);
    list.filter_map(|(_, element)| {
        let element = Attributes::after(element, 0);
        let value = |kind| element.inside(kind).value(1).map(<[u8]>::to_vec);
        Some((value(1)?, value(2).unwrap_or_default()))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ports::Protocol;

    #[test]
    fn a_port_forward_stands_in_its_map_as_registers_hold_it() {
        let place = |address| Place {
            family: Family::V4,
            protocol: Protocol::Udp,
            port: 0x1234,
            address,
        };
        let to = (IpAddr::from([10, 77, 0, 2]), 0x5678);
        let all = Elements {
            forwards: [(place(None), to), (place(Some([192, 0, 2, 1].into())), to)].into(),
            itself: [to.0].into(),
        };
        let set = |keyed| of(&ForwardMap::of(Family::V4, keyed), &all);
        let value = vec![10, 77, 0, 2, 0x56, 0x78, 0, 0];
        let (port, address) = ([17, 0, 0, 0, 0x12, 0x34, 0, 0], [192, 0, 2, 1]);
        assert_eq!(set(Keyed::Ports), [(port.to_vec(), value.clone())]);
        assert_eq!(set(Keyed::Addresses), [([&address[..], &port].concat(), value)]);
        assert_eq!(set(Keyed::Pairs), [([10, 77, 0, 2].repeat(2), Vec::new())]);
        let v6 = FORWARD_MAPS.iter().filter(|set| set.family == Family::V6);
        assert!(v6.into_iter().all(|set| of(set, &all).is_empty()));
        for set in &FORWARD_MAPS {
            let read: Vec<Element> = elements(NEWSETELEM, set, &all)
                .iter()
                .flat_map(|message| elements_in(message.payload()))
                .collect();
            assert_eq!(read, of(set, &all), "what is written can be read");
        }
    }
}
