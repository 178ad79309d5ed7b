//! Sets of prefixes: as intervals, each with its first address and, as the interval's end, the one behind its last.

use super::{DELSETELEM, NEWSETELEM, Nft, sets};
use crate::crash;
use crate::message::{Attributes, Message};
use crate::survey::ip;
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use model::address::Family;
use model::datapath::Fault;
use model::ruleset::{CLUSTER, NetSet, Ruleset, TABLE, Table};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::Bound as Edge;

/// `NFT_SET_INTERVAL`; `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL: u32 = 4;
const END: u32 = 1;
/// So many prefixes of IPv6 fit into one attribute of 64 KB.
const CHUNK: usize = 700;

/// One boundary of an interval.
type Bound = (Vec<u8>, bool);

impl Nft {
    /// Changes elements in one transaction, and notes them: whoever puts the table in place as a whole puts these in.
    pub(crate) fn spare(&self, gone: &[IpNet], came: &[IpNet]) -> Result<(), Fault> {
        let tried = format!("nft change the sets of table inet {TABLE}");
        let mut changes = Vec::new();
        for (kind, nets) in [(DELSETELEM, gone), (NEWSETELEM, came)] {
            for set in &CLUSTER {
                let of = |net: &&IpNet| Family::of(net.addr()) == set.family;
                let nets: Vec<IpNet> = nets.iter().filter(of).copied().collect();
                changes.extend(elements(kind, set, &nets));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut noted = self.noted();
        self.commit(&tried, changes)?;
        if let Some(ruleset) = &mut noted.ruleset {
            ruleset.spared = ruleset.spared.changed(gone, came);
        }
        crash::step();
        Ok(())
    }

    /// What is in the sets.
    pub(crate) fn spared(&self) -> Result<Vec<IpNet>, Fault> {
        let mut nets = Vec::new();
        for set in &CLUSTER {
            nets.extend(nets_between(
                &self.elements_of(set.name, bounds_in)?.unwrap_or_default(),
            ));
        }
        Ok(nets)
    }

    pub(super) fn drift_of_sets(
        &self,
        ruleset: &Ruleset,
        table: &Table,
        drift: &mut Vec<String>,
    ) -> Result<(), Fault> {
        for set in &table.sets {
            // With the rules that read it, which is told already.
            let Some(found) = self.elements_of(set.name, bounds_in)? else {
                continue;
            };
            let wanted: HashSet<Bound> = ruleset
                .spared
                .of(set.family)
                .iter()
                .flat_map(|net| bounds(*net))
                .collect();
            let what = "boundaries of intervals";
            drift.extend(sets::difference(set.name, what, &wanted, &found));
        }
        Ok(())
    }
}

pub(super) fn new_set(set: &NetSet, id: u32) -> Message {
    let (kind, length) = sets::address(set.family);
    sets::new_set(set.name)
        .be32(3, INTERVAL)
        .be32(4, kind)
        .be32(5, length)
        .be32(10, id)
}

/// Messages that add elements to a set, or take them away.
pub(super) fn elements(kind: u16, set: &NetSet, nets: &[IpNet]) -> Vec<Message> {
    let message = |nets: &[IpNet]| {
        let first = nets.first().map(ToString::to_string).unwrap_or_default();
        let what = format!("{{ {first}, ... }} ({} prefixes)", nets.len());
        sets::changed(kind, set.name, &what).nest(3, |list| {
            nets.iter().flat_map(|net| bounds(*net)).fold(list, element)
        })
    };
    nets.chunks(CHUNK).map(message).collect()
}

fn element(list: Message, (key, end): Bound) -> Message {
    list.nest(1, |element| {
        let element = element.nest(1, |data| data.bytes(1, &key));
        if end { element.be32(3, END) } else { element }
    })
}

/// A prefix that reaches to the family's last address has no end; no workload's prefix does.
fn bounds(net: IpNet) -> Vec<Bound> {
    let (first, behind) = match net {
        IpNet::V4(net) => (
            net.network().octets().to_vec(),
            u32::from(net.broadcast())
                .checked_add(1)
                .map(|a| a.to_be_bytes().to_vec()),
        ),
        IpNet::V6(net) => (
            net.network().octets().to_vec(),
            u128::from(net.broadcast())
                .checked_add(1)
                .map(|a| a.to_be_bytes().to_vec()),
        ),
    };
    [(first, false)]
        .into_iter()
        .chain(behind.map(|end| (end, true)))
        .collect()
}

/// The prefixes that fill intervals of one family, which do not overlap: each reaches up to the next end, or to the family's
/// last address.
fn nets_between(bounds: &HashSet<Bound>) -> Vec<IpNet> {
    let of = |which| {
        let bounds = bounds.iter().filter(move |(_, end)| *end == which);
        bounds
            .filter_map(|(key, _)| ip(key))
            .collect::<BTreeSet<IpAddr>>()
    };
    let (first, ends) = (of(false), of(true));
    let fill = |first: &IpAddr| {
        let end = ends.range((Edge::Excluded(*first), Edge::Unbounded)).next();
        match (first, end) {
            (IpAddr::V4(first), Some(IpAddr::V4(end))) => {
                let last = (u32::from(*end) - 1).into();
                Ipv4Subnets::new(*first, last, 0).map(IpNet::from).collect()
            }
            (IpAddr::V4(first), _) => Ipv4Subnets::new(*first, [255; 4].into(), 0)
                .map(IpNet::from)
                .collect(),
            (IpAddr::V6(first), Some(IpAddr::V6(end))) => {
                let last = (u128::from(*end) - 1).into();
                Ipv6Subnets::new(*first, last, 0).map(IpNet::from).collect()
            }
            (IpAddr::V6(first), _) => Ipv6Subnets::new(*first, [255; 16].into(), 0)
                .map(IpNet::from)
                .collect::<Vec<_>>(),
        }
    };
    first.iter().flat_map(fill).collect()
}

/// The boundaries that RTM_NEWSETELEM tells of. The end of everything, which the kernel may tell of, is none.
fn bounds_in(payload: &[u8]) -> Vec<Bound> {
    let list = Attributes::after(payload, 4).inside(3);
    list.filter_map(|(_, element)| {
        let element = Attributes::after(element, 0);
        let key = element.inside(1).value(1)?.to_vec();
        let end = element
            .value(3)
            .is_some_and(|flags| flags.last().is_some_and(|f| f & 1 == 1));
        (!(end && key.iter().all(|byte| *byte == 0))).then_some((key, end))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_as_they_were_written_and_any_interval_as_what_fills_it() {
        let nets = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<IpNet>>()
        };
        for written in [
            nets(&["10.77.0.0/24", "10.77.1.0/24", "10.77.9.9/32"]),
            nets(&["fd77::/64", "fd77:0:0:1::/64"]),
            nets(&["192.0.0.0/2"]),
            nets(&["0.0.0.0/0"]),
            nets(&["8000::/1"]),
        ] {
            let bounds = written.iter().flat_map(|net| super::bounds(*net)).collect();
            assert_eq!(nets_between(&bounds), written);
        }
        let odd = [(vec![10, 0, 0, 1], false), (vec![10, 0, 0, 4], true)].into();
        assert_eq!(nets_between(&odd), nets(&["10.0.0.1/32", "10.0.0.2/31"]));
    }
}
