//! Prefixes that come and go: what a change promises, over any order of them and over restarts, against a reference that
//! only counts.

use crate::reference::has;
use crate::{COOL_DOWN, at, ip, key};
use model::address::Addresses;
use model::ipam::{Ipam, LeaseError, Past, Usage, Wanted};
use model::prefix::Prefix;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;

fn list(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// After a crash: the links say what is held, the state file the rest.
fn restarted(ipam: &Ipam, leases: &[(usize, Addresses)], now: u64, random: u128) -> Ipam {
    let mut again = Ipam::resumed(COOL_DOWN, &ipam.past(), &mut || random);
    // What is told of prefixes may come before what is in use is known.
    again.end_drained(at(now));
    for (n, addresses) in leases {
        assert_eq!(again.hold(&key(*n), *addresses), Ok(()));
    }
    for (address, since) in ipam.cooling(at(now)) {
        again.cool(address, since);
    }
    again.complete();
    again
}

#[test]
fn the_list_of_before_a_restart_is_the_same_generation_and_serves_once_it_is_told_again() {
    let (one, two) = (list(&["10.0.0.0/24"]), list(&["10.0.0.0/24", "10.0.1.0/24"]));
    let mut ipam = Ipam::new(COOL_DOWN);
    ipam.set_prefixes(&one, &mut || 0);
    ipam.set_prefixes(&two, &mut || 0);
    assert_eq!(ipam.generation(), 2);
    // Also where nobody told anything between two restarts.
    let again = restarted(&ipam, &[], 0, 0);
    let mut again = restarted(&again, &[], 0, 0);
    assert_eq!(again.generation(), 2);
    assert_eq!(
        again.lease(&key(1), Wanted::default(), at(0)),
        Err(LeaseError::NoPrefix)
    );
    again.set_prefixes(&two, &mut || 0);
    let generations: Vec<u64> = again.usage(at(0)).iter().map(|used| used.generation).collect();
    assert_eq!((again.generation(), generations), (2, vec![1, 2]));
    again.set_prefixes(&one, &mut || 0);
    assert_eq!(again.generation(), 3);
}

#[test]
fn a_restart_begins_anywhere_in_what_it_knows() {
    let prefixes = list(&["10.0.0.0/24"]);
    let mut ipam = Ipam::new(COOL_DOWN);
    ipam.set_prefixes(&prefixes, &mut || 0);
    let mut again = restarted(&ipam, &[], 0, 77);
    again.set_prefixes(&prefixes, &mut || panic!("it was known"));
    let granted = again.lease(&key(1), Wanted::default(), at(0)).unwrap();
    assert_eq!(granted.addresses.to_string(), "10.0.0.79");
}

#[test]
fn counting_ends_where_numbers_do() {
    let past = Past {
        generation: u64::MAX,
        serving: vec![("10.0.0.0/24".parse().unwrap(), u64::MAX)],
        draining: Vec::new(),
    };
    let mut ipam = Ipam::resumed(COOL_DOWN, &past, &mut || 0);
    ipam.set_prefixes(&list(&["10.0.1.0/24"]), &mut || 0);
    assert_eq!(ipam.generation(), u64::MAX);
    assert!(ipam.lease(&key(1), Wanted::default(), at(0)).is_ok());
}

/// Each is there for one thing: no overlap, overlaps of one that was before, shrinks and grows, both families, another order.
const LISTS: [&[&str]; 8] = [
    &["10.0.0.0/29", "fd00::/125"],
    &["10.0.0.0/30", "10.0.1.0/30"],
    &["10.0.0.0/28", "fd00::/125"],
    &["10.0.1.0/30", "10.0.0.0/30"],
    &["fd00::/124"],
    &["10.0.0.4/30", "fd00::8/126"],
    &["10.0.0.0/29", "10.0.1.0/29"],
    &["10.0.2.0/31", "10.0.2.9/32"],
];

#[derive(Debug, Clone)]
enum Step {
    Tell(usize),
    Attach,
    Free(usize),
    Wait(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..LISTS.len()).prop_map(Step::Tell),
        8 => Just(Step::Attach),
        4 => any::<usize>().prop_map(Step::Free),
        2 => (0..40_u64).prop_map(Step::Wait),
        2 => Just(Step::Restart),
    ]
}

/// What was told, and since which generation each serves or drains.
#[derive(Default)]
struct Told {
    generation: u64,
    list: Vec<Prefix>,
    since: BTreeMap<Prefix, u64>,
    /// It was told since the last restart.
    serves: bool,
}

impl Told {
    fn tell(&mut self, list: Vec<Prefix>) {
        if self.generation == 0 || self.list != list {
            self.generation += 1;
            for changed in list.iter().chain(&self.list) {
                if list.contains(changed) != self.list.contains(changed) {
                    self.since.insert(*changed, self.generation);
                }
            }
        }
        (self.list, self.serves) = (list, true);
    }

    fn serving(&self) -> &[Prefix] {
        if self.serves { &self.list } else { &[] }
    }
}

fn is_as_told(
    ipam: &Ipam,
    told: &Told,
    leases: &[(usize, Addresses)],
    now: u64,
) -> Result<(), TestCaseError> {
    let held: Vec<IpAddr> = leases
        .iter()
        .flat_map(|(_, addresses)| addresses.iter())
        .collect();
    let all = ipam.usage(at(now));
    let (drain, serve): (Vec<Usage>, Vec<Usage>) = all.iter().partition(|used| used.draining);
    prop_assert_eq!(ipam.generation(), told.generation);
    prop_assert_eq!(
        serve.iter().map(|used| used.prefix).collect::<Vec<_>>(),
        told.serving()
    );
    for used in &all {
        prop_assert_eq!(used.generation, told.since[&used.prefix], "{}", used.prefix);
    }
    for used in &drain {
        // It ends with its last lease, and until then it gives out nothing.
        prop_assert!(used.used > 0 && used.free == 0, "{:?}", used);
        prop_assert!(!told.serving().contains(&used.prefix));
    }
    for address in &held {
        let of = all.iter().filter(|used| has(used.prefix, *address)).count();
        prop_assert!(of > 0, "{address} is of no prefix");
    }
    prop_assert_eq!(
        all.iter().map(|used| used.used).sum::<u128>(),
        held.len() as u128,
        "each counts once"
    );
    prop_assert_eq!(ipam.strays(), 0);
    let past = ipam.past();
    prop_assert_eq!(Ipam::resumed(COOL_DOWN, &past, &mut || 0).past(), past);
    Ok(())
}

/// An address of each family that is served, of what serves and nobody's; or none where one family has no room.
fn attach(
    ipam: &mut Ipam,
    told: &Told,
    leases: &mut Vec<(usize, Addresses)>,
    n: usize,
    now: u64,
) -> Result<(), TestCaseError> {
    let is_free = |address: IpAddr| {
        leases
            .iter()
            .all(|(_, all)| all.iter().all(|held| held != address))
    };
    let is_served = |address: IpAddr| told.serving().iter().any(|prefix| has(*prefix, address));
    let room = |prefix: &Prefix| {
        let (first, last) = prefix.usable();
        (first..=last).any(|offset| is_free(prefix.at(offset)))
    };
    let families: Vec<_> = told.serving().iter().map(Prefix::family).collect();
    let has_room = families.iter().all(|family| {
        let mut of = told.serving().iter().filter(|prefix| prefix.family() == *family);
        of.any(room)
    });
    match ipam.lease(&key(n), Wanted::default(), at(now)) {
        Ok(granted) => {
            for address in granted.addresses.iter() {
                prop_assert!(is_served(address), "{address} is of nothing that serves");
                prop_assert!(is_free(address), "{address} twice");
            }
            for family in families {
                prop_assert!(granted.addresses.of(family).is_some());
            }
            leases.push((n, granted.addresses));
        }
        Err(LeaseError::NoPrefix) => prop_assert!(told.serving().is_empty()),
        Err(LeaseError::Exhausted(_)) => prop_assert!(!has_room, "refused for no reason"),
        Err(other) => prop_assert!(false, "{:?}", other),
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_order_of_changes_drains_what_is_gone_and_serves_what_returns(
        steps in proptest::collection::vec(step(), 1..80), random in any::<u128>(),
    ) {
        let (mut ipam, mut told) = (Ipam::new(COOL_DOWN), Told::default());
        let mut leases: Vec<(usize, Addresses)> = Vec::new();
        let mut now = 1000;
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Tell(which) => {
                    ipam.set_prefixes(&list(LISTS[which]), &mut || random);
                    told.tell(list(LISTS[which]));
                }
                Step::Attach => attach(&mut ipam, &told, &mut leases, n, now)?,
                Step::Free(nth) if !leases.is_empty() => {
                    let (_, addresses) = leases.remove(nth % leases.len());
                    ipam.free(addresses, at(now));
                    let cools = ipam.cooling(at(now)).into_iter().filter(|(_, since)| *since == at(now));
                    prop_assert!(cools.count() >= addresses.iter().count());
                }
                Step::Free(_) => {}
                Step::Wait(seconds) => now += seconds,
                Step::Restart => {
                    let cooling = ipam.cooling(at(now));
                    ipam = restarted(&ipam, &leases, now, random);
                    ipam.end_drained(at(now));
                    prop_assert_eq!(ipam.cooling(at(now)).len(), cooling.len());
                    told.serves = false;
                }
            }
            is_as_told(&ipam, &told, &leases, now)?;
        }
    }
}

/// What is known of prefixes does not grow with how often they change, only with what is in use.
#[test]
fn what_drains_and_is_not_in_use_is_forgotten() {
    let mut ipam = Ipam::new(COOL_DOWN);
    ipam.set_prefixes(&list(&["10.0.0.0/24"]), &mut || 0);
    let granted = ipam.lease(&key(1), Wanted::default(), at(0)).unwrap();
    for n in 1..100 {
        ipam.end_drained(at(0));
        ipam.set_prefixes(&list(&[&format!("10.0.{n}.0/24")]), &mut || 0);
    }
    assert_eq!(ipam.prefixes().count(), 3);
    ipam.free(granted.addresses, at(1));
    ipam.end_drained(at(100));
    assert_eq!(ipam.prefixes().count(), 1);
    assert_eq!(ipam.holder(ip("10.0.0.2")), None);
}
