//! Any sequence of events, to the allocator and to the reference.

use crate::reference::{Choice, Is, Reference, has};
use crate::{COOL_DOWN, at, ip, key};
use model::address::{Addresses, Family};
use model::ipam::{Granted, Ipam, Usage, Wanted};
use model::key::Key;
use model::prefix::Prefix;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::IpAddr;

#[derive(Debug, Clone)]
enum Step {
    Lease { v4: Option<u8>, v6: Option<u8> },
    Undo { nth: usize },
    Free { nth: usize },
    Wait { seconds: u64 },
    Taken { addresses: Vec<u8> },
    Prefixes { which: Vec<usize> },
}

/// Every length that has rules of its own, two of them overlapping: never both at once, but one after the other.
const PREFIXES: [&str; 9] = [
    "10.0.0.0/28",
    "10.0.0.8/29",
    "10.0.0.32/30",
    "10.0.0.40/31",
    "10.0.0.50/32",
    "fd00::/124",
    "fd00::20/127",
    "fd00::33/128",
    "fd00::8/126",
];

fn v4(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n % 52])
}

fn v6(n: u8) -> IpAddr {
    ip(&format!("fd00::{:x}", n % 0x35))
}

fn step() -> impl Strategy<Value = Step> {
    let wanted = || proptest::option::weighted(0.2, any::<u8>());
    prop_oneof![
        8 => (wanted(), wanted()).prop_map(|(v4, v6)| Step::Lease { v4, v6 }),
        2 => any::<usize>().prop_map(|nth| Step::Undo { nth }),
        5 => any::<usize>().prop_map(|nth| Step::Free { nth }),
        3 => (0..40u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => proptest::collection::vec(any::<u8>(), 0..8).prop_map(|addresses| Step::Taken { addresses }),
        1 => proptest::sample::subsequence((0..PREFIXES.len()).collect::<Vec<_>>(), 0..=PREFIXES.len())
            .prop_shuffle()
            .prop_map(|which| Step::Prefixes { which }),
    ]
}

/// Those of the list that overlap none before them.
fn chosen(which: &[usize]) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = Vec::new();
    for &n in which {
        prefixes.push(PREFIXES[n].parse().unwrap());
        if Prefix::disjoint(&prefixes).is_err() {
            prefixes.pop();
        }
    }
    prefixes
}

struct Lease {
    key: Key,
    granted: Granted,
    before: Vec<(IpAddr, Option<Is>)>,
}

fn compare_lease(
    ipam: &mut Ipam,
    reference: &mut Reference,
    key: Key,
    wanted: Wanted,
    now: u64,
) -> Result<Option<Lease>, TestCaseError> {
    reference.end_drained(now);
    match (reference.choices(wanted, now), ipam.lease(&key, wanted, at(now))) {
        (Ok(choices), Ok(granted)) => {
            prop_assert_eq!(granted.addresses.iter().count(), choices.len());
            for (address, choice) in granted.addresses.iter().zip(&choices) {
                let allowed = match choice {
                    Choice::Any(of) => of.contains(&address),
                    Choice::Only(one) => *one == address,
                    Choice::Refused(_) => false,
                };
                prop_assert!(allowed, "{} and not {:?}", address, choice);
            }
            let warm: Vec<_> = granted
                .addresses
                .iter()
                .filter(|a| reference.is_warm(*a, now))
                .collect();
            prop_assert_eq!(&granted.warm, &warm);
            let before = reference.hold(&key, granted.addresses);
            Ok(Some(Lease { key, granted, before }))
        }
        (Err(expected), Err(error)) => {
            prop_assert_eq!(error, expected);
            Ok(None)
        }
        (expected, got) => {
            prop_assert!(false, "{:?} and not {:?}", got, expected);
            Ok(None)
        }
    }
}

/// What an allocator knows that was told, after a crash, what links and the state file say.
fn recovered(reference: &Reference, ipam: &Ipam, leases: &[Lease], now: u64) -> Ipam {
    let mut again = Ipam::new(COOL_DOWN);
    again.set_prefixes(&reference.serving, &mut || 3);
    again.set_taken(reference.taken.iter().copied());
    for lease in leases {
        assert_eq!(again.hold(&lease.key, lease.granted.addresses), Ok(()));
    }
    for (address, since) in ipam.cooling(at(now)) {
        again.cool(address, since);
    }
    if let Some(moment) = ipam.unknown_before(at(now)) {
        again.nothing_is_known_before(moment);
    }
    again
}

proptest! {
    #[test]
    fn any_sequence_gives_what_the_rules_say(
        which in proptest::sample::subsequence((0..PREFIXES.len()).collect::<Vec<_>>(), 1..=PREFIXES.len()),
        steps in proptest::collection::vec(step(), 1..100),
        random in any::<u128>(), is_known in any::<bool>(),
    ) {
        let (mut ipam, mut reference) = (Ipam::new(COOL_DOWN), Reference::default());
        if !is_known {
            ipam.nothing_is_known_before(at(999));
            reference.unknown = Some(999);
        }
        ipam.set_prefixes(&chosen(&which), &mut || random);
        reference.set_prefixes(&chosen(&which));
        let mut leases: Vec<Lease> = Vec::new();
        let mut now = 1000;
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Lease { v4: a, v6: b } => {
                    let wanted = Addresses::from_list(a.map(v4).into_iter().chain(b.map(v6)));
                    let wanted = Wanted {
                        v4: wanted.and_then(|w| w.v4()),
                        v6: wanted.and_then(|w| w.v6()),
                    };
                    leases.extend(compare_lease(&mut ipam, &mut reference, key(n), wanted, now)?);
                }
                Step::Undo { nth } if !leases.is_empty() => {
                    let lease = leases.remove(nth % leases.len());
                    ipam.undo(&lease.granted);
                    reference.undo(lease.before);
                }
                Step::Free { nth } if !leases.is_empty() => {
                    let lease = leases.remove(nth % leases.len());
                    ipam.free(lease.granted.addresses, at(now));
                    reference.free(lease.granted.addresses, now);
                    reference.end_drained(now);
                }
                Step::Undo { .. } | Step::Free { .. } => {}
                Step::Wait { seconds } => now += seconds,
                Step::Taken { addresses } => {
                    let (a, b) = addresses.split_at(addresses.len() / 2);
                    reference.taken = a.iter().map(|n| v4(*n)).chain(b.iter().map(|n| v6(*n))).collect();
                    ipam.set_taken(reference.taken.iter().copied());
                }
                Step::Prefixes { which } => {
                    let mut asked = 0;
                    let known: Vec<Prefix> = [&reference.serving[..], &reference.draining[..]].concat();
                    ipam.set_prefixes(&chosen(&which), &mut || { asked += 1; random });
                    prop_assert_eq!(asked, chosen(&which).iter().filter(|p| !known.contains(p)).count());
                    reference.set_prefixes(&chosen(&which));
                }
            }
            prop_assert_eq!(as_set(ipam.usage(at(now))), reference.usage(now));
            prop_assert_eq!(Family::ALL.map(|f| ipam.has_room(f)), Family::ALL.map(|f| reference.has_room(f)));
            prop_assert_eq!(ipam.cooling(at(now)).into_iter().map(|c| c.0).collect::<Vec<_>>(), reference.cooling(now));
            for lease in &leases {
                for address in lease.granted.addresses.iter() {
                    prop_assert_eq!(ipam.holder(address), Some(&lease.key));
                }
            }

            let again = recovered(&reference, &ipam, &leases, now);
            let serving = |usage: Vec<Usage>| as_set(usage.into_iter().filter(|u| !u.draining).collect());
            prop_assert_eq!(serving(again.usage(at(now))), serving(ipam.usage(at(now))));
            let is_served = |(a, _): &(IpAddr, _)| reference.serving.iter().any(|p| has(*p, *a));
            prop_assert_eq!(
                again.cooling(at(now)),
                ipam.cooling(at(now)).into_iter().filter(is_served).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_lease_that_is_undone_was_never_there(
        steps in proptest::collection::vec(step(), 0..60), wanted in (any::<Option<u8>>(), any::<Option<u8>>()),
        random in any::<u128>(), is_known in any::<bool>(),
    ) {
        // Two run side by side, and only one of them has the lease that is undone: all that follows is alike.
        let mut pair = [Ipam::new(COOL_DOWN), Ipam::new(COOL_DOWN)];
        let prefixes = chosen(&[0, 2, 5, 6]);
        pair.iter_mut().for_each(|ipam| ipam.set_prefixes(&prefixes, &mut || random));
        if !is_known {
            pair.iter_mut().for_each(|ipam| ipam.nothing_is_known_before(at(999)));
        }
        let mut leases: Vec<Granted> = Vec::new();
        let mut now = 1000;
        for (n, step) in steps.into_iter().enumerate() {
            let wanted = Wanted { v4: wanted.0.and_then(|n| as_v4(v4(n))), v6: wanted.1.and_then(|n| as_v6(v6(n))) };
            if let Ok(granted) = pair[1].lease(&key(1000 + n), wanted, at(now)) {
                pair[1].undo(&granted);
            }
            match step {
                Step::Lease { .. } => {
                    let [one, other] = [0, 1].map(|i| pair[i].lease(&key(n), Wanted::default(), at(now)));
                    prop_assert_eq!(one.as_ref().map(|g| (g.addresses, &g.warm)), other.as_ref().map(|g| (g.addresses, &g.warm)));
                    leases.extend(one.ok());
                }
                Step::Free { nth } | Step::Undo { nth } if !leases.is_empty() => {
                    let granted = leases.remove(nth % leases.len());
                    pair.iter_mut().for_each(|ipam| ipam.free(granted.addresses, at(now)));
                }
                Step::Wait { seconds } => now += seconds,
                _ => {}
            }
            prop_assert_eq!(pair[0].usage(at(now)), pair[1].usage(at(now)));
            prop_assert_eq!(pair[0].cooling(at(now)), pair[1].cooling(at(now)));
        }
    }
}

fn as_v4(address: IpAddr) -> Option<std::net::Ipv4Addr> {
    Addresses::from_list([address])?.v4()
}

fn as_v6(address: IpAddr) -> Option<std::net::Ipv6Addr> {
    Addresses::from_list([address])?.v6()
}

fn as_set(usage: Vec<Usage>) -> BTreeSet<(Prefix, [u128; 4], bool)> {
    let of = |u: Usage| (u.prefix, [u.capacity, u.used, u.free, u.cooling], u.draining);
    usage.into_iter().map(of).collect()
}
