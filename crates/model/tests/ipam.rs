//! What addresses are promised, against arbitrary sequences.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use model::address::{Addresses, Family};
use model::ipam::{Ipam, LeaseError, Moment, Wanted};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::prefix::Prefix;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

const COOL_DOWN: Duration = Duration::from_secs(30);

fn key(n: usize) -> Key {
    let id = WorkloadId::new(&format!("w{n}")).unwrap();
    Key::new(Owner::default(), id, InterfaceName::new("eth0").unwrap()).unwrap()
}

fn ipam(prefixes: &[&str], random: u128) -> Ipam {
    let prefixes: Vec<Prefix> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
    let mut ipam = Ipam::new(COOL_DOWN);
    ipam.set_prefixes(&prefixes, &mut || random);
    ipam
}

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn every_usable_address_is_given_out_once_and_then_the_pool_is_exhausted() {
    for (prefix, usable) in [
        ("10.0.0.0/28", 13),
        ("10.0.0.0/30", 1),
        ("10.0.0.0/31", 1),
        ("10.0.0.9/32", 1),
        ("fd00::/125", 6),
        ("fd00::/127", 1),
    ] {
        let mut ipam = ipam(&[prefix], 7);
        let mut given = BTreeSet::new();
        for n in 0..usable {
            let granted = ipam.lease(&key(n), Wanted::default(), at(100)).unwrap();
            assert!(granted.warm.is_empty());
            assert!(given.insert(granted.addresses.iter().next().unwrap()), "{prefix}");
        }
        let prefix: Prefix = prefix.parse().unwrap();
        assert_eq!(
            ipam.lease(&key(99), Wanted::default(), at(100)),
            Err(LeaseError::Exhausted(vec![prefix]))
        );
        assert!(
            given
                .iter()
                .all(|a| prefix.contains(*a) && prefix.reserved(*a).is_none())
        );
    }
}

#[test]
fn a_freed_address_rests_until_nothing_else_is_left() {
    let mut ipam = ipam(&["10.0.0.0/29"], 0);
    let granted: Vec<_> = (0..5)
        .map(|n| ipam.lease(&key(n), Wanted::default(), at(100)).unwrap().addresses)
        .collect();
    ipam.free(granted[3], at(100));
    ipam.free(granted[1], at(101));
    // Oldest first, and said to be warm; then the other one, which has cooled by then.
    let first = ipam.lease(&key(10), Wanted::default(), at(102)).unwrap();
    assert_eq!((first.addresses, first.warm.len()), (granted[3], 1));
    let second = ipam.lease(&key(11), Wanted::default(), at(131)).unwrap();
    assert_eq!((second.addresses, second.warm.len()), (granted[1], 0));
}

#[test]
fn requested_addresses_are_granted_or_refused_by_name() {
    let mut ipam = ipam(&["10.0.0.0/24", "fd00::/64"], 0);
    ipam.set_taken([ip("10.0.0.9")]);
    let want = |text: &str| match ip(text) {
        IpAddr::V4(a) => Wanted {
            v4: Some(a),
            v6: None,
        },
        IpAddr::V6(a) => Wanted {
            v4: None,
            v6: Some(a),
        },
    };
    let granted = ipam.lease(&key(1), want("10.0.0.77"), at(0)).unwrap();
    assert_eq!(granted.addresses.of(Family::V4), Some(ip("10.0.0.77")));
    assert!(granted.addresses.v6().is_some());
    let held = LeaseError::Held {
        address: ip("10.0.0.77"),
        holder: key(1),
    };
    assert_eq!(ipam.lease(&key(2), want("10.0.0.77"), at(0)), Err(held));
    assert_eq!(
        ipam.lease(&key(2), want("10.0.0.9"), at(0)),
        Err(LeaseError::Taken {
            address: ip("10.0.0.9")
        })
    );
    for (address, why) in [
        ("10.0.0.0", "it is the network address of 10.0.0.0/24"),
        ("10.0.0.1", "it is the node's own address of 10.0.0.0/24"),
        ("10.0.0.255", "it is the broadcast address of 10.0.0.0/24"),
        ("10.0.1.5", "it is in none of this node's prefixes"),
        ("fd00::1", "it is the node's own address of fd00::/64"),
    ] {
        let error = LeaseError::NotOurs {
            address: ip(address),
            why: why.to_owned(),
        };
        assert_eq!(ipam.lease(&key(2), want(address), at(0)), Err(error));
    }
    // A refused family gives the other one's address back.
    assert_eq!(
        ipam.usage(at(0)).iter().map(|u| u.used).collect::<Vec<_>>(),
        [1, 1]
    );
}

#[test]
fn a_prefix_without_room_is_passed_over_and_one_that_is_removed_drains() {
    let mut ipam = ipam(&["10.0.0.0/30", "10.0.1.0/30"], 0);
    let first = ipam.lease(&key(1), Wanted::default(), at(0)).unwrap().addresses;
    let second = ipam.lease(&key(2), Wanted::default(), at(0)).unwrap().addresses;
    assert_eq!(
        (first.to_string(), second.to_string()),
        ("10.0.0.2".to_owned(), "10.0.1.2".to_owned())
    );
    ipam.set_prefixes(&["10.0.1.0/30".parse().unwrap()], &mut || 0);
    let draining: Vec<_> = ipam.usage(at(0)).iter().map(|u| (u.draining, u.used)).collect();
    assert_eq!(draining, [(false, 1), (true, 1)]);
    assert!(ipam.lease(&key(3), Wanted::default(), at(0)).is_err());
    ipam.free(first, at(0));
    assert_eq!(ipam.usage(at(0)).len(), 1);
    ipam.set_prefixes(&["10.0.0.0/30".parse().unwrap()], &mut || 0);
    assert_eq!(
        ipam.lease(&key(3), Wanted::default(), at(1)).unwrap().addresses,
        first
    );
}

#[test]
fn an_allocation_at_99_percent_looks_at_no_more_than_three_times_the_addresses() {
    for (prefix, fill) in [("10.0.0.0/16", 64_878), ("fd00::/64", 64_878)] {
        let cost = |ipam: &mut Ipam, base: usize| {
            let before = ipam.steps();
            for n in 0..400 {
                let time = at(1000 + 60 * n as u64);
                let granted = ipam.lease(&key(base + n), Wanted::default(), time).unwrap();
                ipam.free(granted.addresses, time);
            }
            ipam.steps() - before
        };
        let mut pool = ipam(&[prefix], 12_345);
        let empty = cost(&mut pool, 0);
        for n in 0..fill {
            pool.lease(&key(1000 + n), Wanted::default(), at(100_000))
                .unwrap();
        }
        let full = cost(&mut pool, 100_000);
        assert!(full <= 3 * empty, "{prefix}: {full} against {empty}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Lease { want: Option<u8> },
    Undo,
    Free { nth: usize },
    Wait { seconds: u64 },
    Prefixes { which: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::option::weighted(0.3, 0..16u8).prop_map(|want| Step::Lease { want }),
        1 => Just(Step::Undo),
        3 => (0..20usize).prop_map(|nth| Step::Free { nth }),
        1 => (0..40u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => (1..8u8).prop_map(|which| Step::Prefixes { which }),
    ]
}

proptest! {
    #[test]
    fn promises_hold_over_any_sequence(steps in proptest::collection::vec(step(), 1..120), random in any::<u128>()) {
        let all: Vec<Prefix> = ["10.0.0.0/28", "10.0.1.0/30", "fd00::/124"].map(|p| p.parse().unwrap()).to_vec();
        let mut serving = all.clone();
        let mut ipam = Ipam::new(COOL_DOWN);
        ipam.set_prefixes(&serving, &mut || random);
        let mut now = 1000;
        let mut held: BTreeMap<usize, Addresses> = BTreeMap::new();
        let mut freed: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Lease { want } => {
                    let wanted = Wanted { v4: want.map(|w| [10, 0, 0, w].into()), v6: None };
                    let in_use: BTreeSet<IpAddr> = held.values().flat_map(Addresses::iter).collect();
                    match ipam.lease(&key(n), wanted, at(now)) {
                        Ok(granted) => {
                            for address in granted.addresses.iter() {
                                prop_assert!(!in_use.contains(&address), "{address} twice");
                                let prefix = serving.iter().find(|p| p.contains(address)).unwrap();
                                prop_assert_eq!(prefix.reserved(address), None);
                                let warm = freed.get(&address).is_some_and(|f| now - f < 30);
                                prop_assert_eq!(granted.warm.contains(&address), warm);
                                freed.remove(&address);
                            }
                            held.insert(n, granted.addresses);
                        }
                        Err(LeaseError::Held { address, holder }) => {
                            prop_assert!(in_use.contains(&address));
                            prop_assert_eq!(ipam.holder(address), Some(&holder));
                        }
                        Err(LeaseError::Exhausted(of)) => {
                            for prefix in of {
                                let (first, last) = prefix.usable();
                                prop_assert!((first..=last).all(|o| in_use.contains(&prefix.at(o))), "{prefix} has room");
                            }
                        }
                        Err(LeaseError::NotOurs { address, .. }) => {
                            prop_assert!(!serving.iter().any(|p| p.contains(address) && p.reserved(address).is_none()));
                        }
                        Err(LeaseError::NoPrefix) => prop_assert!(serving.is_empty()),
                        Err(LeaseError::Taken { .. }) => prop_assert!(false, "nothing is taken"),
                    }
                }
                Step::Undo => {
                    let before = (ipam.usage(at(now)), ipam.cooling(at(now)));
                    if let Ok(granted) = ipam.lease(&key(n), Wanted::default(), at(now)) {
                        ipam.undo(&granted);
                    }
                    let mut after = (ipam.usage(at(now)), ipam.cooling(at(now)));
                    let mut before = before;
                    before.1.sort();
                    after.1.sort();
                    prop_assert_eq!(before, after);
                }
                Step::Free { nth } => {
                    let Some(&who) = held.keys().nth(nth) else { continue };
                    let addresses = held.remove(&who).unwrap();
                    ipam.free(addresses, at(now));
                    freed.extend(addresses.iter().filter(|a| serving.iter().any(|p| p.contains(*a))).map(|a| (a, now)));
                }
                Step::Wait { seconds } => now += seconds,
                Step::Prefixes { which } => {
                    serving = all.iter().enumerate().filter(|(n, _)| which & (1 << n) != 0).map(|(_, p)| *p).collect();
                    ipam.set_prefixes(&serving, &mut || random);
                    freed.retain(|a, _| serving.iter().any(|p| p.contains(*a)));
                }
            }
            // What a fresh allocator is told after a crash is what this one knows.
            let mut again = Ipam::new(COOL_DOWN);
            again.set_prefixes(&serving, &mut || random);
            for (who, addresses) in &held {
                prop_assert_eq!(again.hold(&key(*who), *addresses), Ok(()));
            }
            for (address, since) in ipam.cooling(at(now)) {
                again.cool(address, since);
            }
            let serving_use = |i: &Ipam| i.usage(at(now)).into_iter().filter(|u| !u.draining).collect::<Vec<_>>();
            prop_assert_eq!(serving_use(&again), serving_use(&ipam));
            prop_assert_eq!(again.cooling(at(now)), ipam.cooling(at(now)));
        }
    }
}
