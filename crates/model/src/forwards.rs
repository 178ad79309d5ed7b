//! Which ports of the node lead to which links: all that is to stand in the table's maps, as a value.

use crate::ports::{Place, PortForward};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// All port forwards, by the link that each belongs to.
///
/// An interface index is never given twice, so what belonged to one link is told from what the same workload has on its next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortForwards {
    of: BTreeMap<u32, Vec<PortForward>>,
    places: BTreeMap<Place, (u32, (IpAddr, u16))>,
    /// To how many places each address belongs.
    led: BTreeMap<IpAddr, usize>,
}

/// What the table's maps and sets hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    /// Where packets to each place go.
    pub forwards: BTreeMap<Place, (IpAddr, u16)>,
    /// Addresses that port forwards lead to.
    pub itself: BTreeSet<IpAddr>,
}

/// How elements come to be others, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// These go.
    pub gone: Elements,
    /// These come.
    pub came: Elements,
}

impl Change {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        [&self.gone, &self.came]
            .into_iter()
            .all(|of| of.forwards.is_empty() && of.itself.is_empty())
    }
}

impl PortForwards {
    /// These lead to a link from now on. A place that led to another one leads to this: that one is about to be told gone.
    pub fn set(&mut self, link: u32, forwards: &[PortForward]) -> Change {
        let old = match forwards {
            [] => self.of.remove(&link),
            forwards => self.of.insert(link, forwards.to_vec()),
        };
        let old = old.unwrap_or_default();
        let is_held = |forward: &PortForward| {
            let held = self.places.get(&forward.place);
            held.is_some_and(|(owner, to)| *owner == link && *to == forward.to)
        };
        if old == forwards && forwards.iter().all(is_held) {
            return Change::default();
        }
        let concerned: Vec<PortForward> = old.iter().chain(forwards).copied().collect();
        // A place that is taken from another link may have been that one's last.
        let displaced = concerned
            .iter()
            .filter_map(|forward| self.places.get(&forward.place));
        let mut addresses: BTreeSet<IpAddr> = displaced.map(|(_, to)| to.0).collect();
        addresses.extend(concerned.iter().map(|forward| forward.to.0));
        let before = self.some(&concerned, &addresses);
        for forward in &old {
            if self
                .places
                .get(&forward.place)
                .is_some_and(|(owner, _)| *owner == link)
            {
                self.take_away(forward.place);
            }
        }
        for forward in forwards {
            self.take_away(forward.place);
            self.places.insert(forward.place, (link, forward.to));
            *self.led.entry(forward.to.0).or_default() += 1;
        }
        let after = self.some(&concerned, &addresses);
        let place = |from: &Elements, to: &Elements| {
            let differs = |(place, at): &(&Place, &(IpAddr, u16))| to.forwards.get(place) != Some(at);
            Elements {
                forwards: from
                    .forwards
                    .iter()
                    .filter(differs)
                    .map(|(p, t)| (*p, *t))
                    .collect(),
                itself: from.itself.difference(&to.itself).copied().collect(),
            }
        };
        Change {
            gone: place(&before, &after),
            came: place(&after, &before),
        }
    }

    /// What the maps and sets are to hold for all links.
    pub fn elements(&self) -> Elements {
        Elements {
            forwards: self.places.iter().map(|(place, (_, to))| (*place, *to)).collect(),
            itself: self.led.keys().copied().collect(),
        }
    }

    /// What there is for the places of these forwards, and of these addresses.
    fn some(&self, concerned: &[PortForward], addresses: &BTreeSet<IpAddr>) -> Elements {
        let place = |forward: &PortForward| Some((forward.place, self.places.get(&forward.place)?.1));
        let is_led = |address: &&IpAddr| self.led.contains_key(*address);
        Elements {
            forwards: concerned.iter().filter_map(place).collect(),
            itself: addresses.iter().filter(is_led).copied().collect(),
        }
    }

    fn take_away(&mut self, place: Place) {
        if let Some((_, (address, _))) = self.places.remove(&place)
            && let Some(places) = self.led.get_mut(&address)
        {
            *places -= 1;
            if *places == 0 {
                self.led.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Family;
    use crate::ports::Protocol;
    use proptest::prelude::*;

    /// From a port of the node, at an address or at all, to the same port of a workload.
    fn forward(address: Option<IpAddr>, port: u16, workload: u8) -> PortForward {
        PortForward {
            place: Place {
                family: Family::V4,
                protocol: Protocol::Tcp,
                port,
                address,
            },
            to: ([10, 77, 0, workload].into(), port),
        }
    }

    fn any_forward() -> impl Strategy<Value = PortForward> {
        (1..4_u16, prop::bool::ANY, 1..4_u8).prop_map(|(port, one_address, workload)| {
            let address = one_address.then(|| [192, 0, 2, 1].into());
            forward(address, port, workload)
        })
    }

    fn apply(elements: &mut Elements, Change { gone, came }: &Change) {
        for (place, to) in &gone.forwards {
            assert_eq!(elements.forwards.remove(place), Some(*to), "what goes was there");
        }
        for address in &gone.itself {
            assert!(elements.itself.remove(address), "what goes was there");
        }
        for (place, to) in &came.forwards {
            assert_eq!(
                elements.forwards.insert(*place, *to),
                None,
                "what comes was not there"
            );
        }
        for address in &came.itself {
            assert!(elements.itself.insert(*address), "what comes was not there");
        }
    }

    proptest! {
        #[test]
        fn the_changes_of_any_sequence_add_up_to_the_whole(
            steps in prop::collection::vec((1..4_u32, prop::collection::btree_map(1..4_u16, any_forward(), 0..3)), 0..30)
        ) {
            let mut forwards = PortForwards::default();
            let mut kept = Elements::default();
            for (link, wanted) in steps {
                let mut wanted: Vec<PortForward> = wanted.into_values().collect();
                wanted.sort();
                wanted.dedup_by_key(|forward| forward.place);
                let change = forwards.set(link, &wanted);
                apply(&mut kept, &change);
                prop_assert_eq!(&kept, &forwards.elements());
                prop_assert!(forwards.set(link, &wanted).is_empty());
                for forward in wanted {
                    prop_assert_eq!(kept.forwards.get(&forward.place), Some(&forward.to));
                }
            }
            for link in 1..4 {
                apply(&mut kept, &forwards.set(link, &[]));
            }
            prop_assert_eq!(kept, Elements::default());
        }
    }

    #[test]
    fn the_late_end_of_a_link_leaves_what_the_same_workload_has_on_its_next() {
        let forward = forward(None, 53, 2);
        let mut forwards = PortForwards::default();
        forwards.set(7, &[forward]);
        assert!(forwards.set(8, &[forward]).is_empty());
        assert!(forwards.set(7, &[]).is_empty());
        assert_eq!(forwards.elements().forwards.len(), 1);
    }

    #[test]
    fn a_place_that_another_link_took_is_taken_back_by_who_asks_for_it_again() {
        let forward = forward(None, 80, 2);
        let mut forwards = PortForwards::default();
        forwards.set(8, &[forward]);
        let held = forwards.elements();
        forwards.set(7, &[forward]);
        forwards.set(7, &[]);
        assert_eq!(forwards.elements(), Elements::default());
        assert_eq!(forwards.set(8, &[forward]).came, held);
        assert_eq!(forwards.elements(), held);
    }
}
