//! What addresses are promised: by example here, over any sequence in `sequence`, and at what price in `cost`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use model::address::Family;
use model::ipam::{Ipam, LeaseError, Moment, Wanted};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::prefix::Prefix;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

mod cost;
mod reference;
mod sequence;
mod sources;

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
fn where_nothing_is_known_everything_cools_for_once_and_is_given_out_where_nothing_else_is_left() {
    let mut ipam = ipam(&["10.0.0.0/29"], 0);
    ipam.nothing_is_known_before(at(100));
    let count = |ipam: &Ipam, second| {
        let used = ipam.usage(at(second))[0];
        (used.used, used.free, used.cooling)
    };
    assert_eq!(count(&ipam, 100), (0, 0, 5));
    let first = ipam.lease(&key(1), Wanted::default(), at(110)).unwrap();
    assert_eq!(
        (first.addresses.to_string(), first.warm.len()),
        ("10.0.0.2".to_owned(), 1)
    );
    ipam.free(first.addresses, at(110));
    assert_eq!(ipam.unknown_before(at(129)), Some(at(100)));
    // What may have been freed comes before what has been.
    let second = ipam.lease(&key(2), Wanted::default(), at(129)).unwrap();
    assert_eq!(second.addresses.to_string(), "10.0.0.3");
    assert_eq!(count(&ipam, 129), (1, 0, 4));
    assert_eq!(ipam.unknown_before(at(130)), None);
    assert_eq!(count(&ipam, 130), (1, 3, 1));
    assert!(
        ipam.lease(&key(3), Wanted::default(), at(130))
            .unwrap()
            .warm
            .is_empty()
    );
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
fn next_fit_goes_once_round_before_anything_is_given_out_again() {
    let mut ipam = ipam(&["10.0.0.0/29"], 3);
    let mut next = |second| {
        let granted = ipam.lease(&key(1), Wanted::default(), at(second)).unwrap();
        ipam.free(granted.addresses, at(second));
        (granted.addresses.to_string(), granted.warm.len())
    };
    let order: Vec<_> = (0..7).map(|n| next(100 * n)).collect();
    let expected = [5, 6, 2, 3, 4, 5, 6].map(|n| (format!("10.0.0.{n}"), 0));
    assert_eq!(order, expected);
}

#[test]
fn an_undone_lease_cools_on_in_its_old_place() {
    let mut ipam = ipam(&["10.0.0.0/30", "10.0.1.0/30", "10.0.2.0/30"], 0);
    let granted: Vec<_> = (0..3)
        .map(|n| ipam.lease(&key(n), Wanted::default(), at(1)).unwrap().addresses)
        .collect();
    for (n, second) in [(1, 10), (0, 11), (2, 12)] {
        ipam.free(granted[n], at(second));
    }
    let before = ipam.cooling(at(13));
    let oldest = ipam.lease(&key(9), Wanted::default(), at(13)).unwrap();
    assert_eq!((oldest.addresses, oldest.warm.len()), (granted[1], 1));
    ipam.undo(&oldest);
    assert_eq!(ipam.cooling(at(13)), before);
    let again = ipam.lease(&key(9), Wanted::default(), at(13)).unwrap();
    assert_eq!(again, oldest);
}

#[test]
fn an_address_that_is_given_up_elsewhere_comes_before_one_that_cools() {
    let mut ipam = ipam(&["10.0.0.0/29"], 0);
    ipam.set_taken([ip("10.0.0.3")]);
    let granted: Vec<_> = (0..4)
        .map(|n| ipam.lease(&key(n), Wanted::default(), at(1)).unwrap().addresses)
        .collect();
    assert!(ipam.lease(&key(8), Wanted::default(), at(1)).is_err());
    ipam.free(granted[0], at(10));
    ipam.set_taken([]);
    let next = ipam.lease(&key(9), Wanted::default(), at(11)).unwrap();
    assert_eq!(
        (next.addresses.to_string(), next.warm.len()),
        ("10.0.0.3".to_owned(), 0)
    );
}

#[test]
fn what_was_freed_cools_on_while_its_prefix_is_away() {
    let mut ipam = ipam(&["10.0.0.0/30", "10.0.1.0/30"], 0);
    let first = ipam.lease(&key(1), Wanted::default(), at(1)).unwrap().addresses;
    let both = ["10.0.0.0/30", "10.0.1.0/30"].map(|p| p.parse().unwrap());
    ipam.set_prefixes(&both[1..], &mut || 0);
    ipam.free(first, at(10));
    ipam.set_prefixes(&both, &mut || 0);
    let next = ipam.lease(&key(2), Wanted::default(), at(11)).unwrap();
    assert_eq!(next.addresses.to_string(), "10.0.1.2");
}

#[test]
fn a_remembered_order_of_freeing_need_not_be_sorted() {
    let mut ipam = ipam(&["10.0.0.0/29"], 0);
    for (n, second) in [(3, 5), (2, 3), (4, 4), (5, 6), (6, 7)] {
        ipam.cool(ip(&format!("10.0.0.{n}")), at(second));
    }
    // Neither reserved, nor outside, nor told before.
    for address in ["10.0.0.1", "10.9.9.9", "10.0.0.6"] {
        ipam.cool(ip(address), at(1));
    }
    let order: Vec<_> = (0..5)
        .map(|n| ipam.lease(&key(n), Wanted::default(), at(8)).unwrap())
        .map(|granted| granted.addresses.to_string())
        .collect();
    assert_eq!(order, [2, 4, 3, 5, 6].map(|n| format!("10.0.0.{n}")));
}

#[test]
fn two_leases_that_claim_one_address_are_told_apart() {
    let mut ipam = ipam(&["10.0.0.0/24"], 0);
    let claim = |text: &str| model::address::Addresses::from_list(text.split(',').map(ip)).unwrap();
    assert_eq!(ipam.hold(&key(1), claim("10.0.0.5,fd99::5")), Ok(()));
    assert_eq!(ipam.hold(&key(1), claim("10.0.0.5,fd99::5")), Ok(()));
    let conflict = ipam.hold(&key(2), claim("10.0.0.6,fd99::5")).unwrap_err();
    assert_eq!((conflict.address, conflict.holder), (ip("fd99::5"), key(1)));
    // The one that is refused has nothing.
    assert_eq!(ipam.holder(ip("10.0.0.6")), None);
    assert_eq!(ipam.usage(at(0))[0].used, 1);
    // An address outside of every prefix is gone when it is freed.
    ipam.free(claim("10.0.0.5,fd99::5"), at(1));
    assert_eq!(ipam.cooling(at(1)), [(ip("10.0.0.5"), at(1))]);
    assert_eq!(ipam.holder(ip("fd99::5")), None);
}

#[test]
fn without_a_prefix_there_is_nothing_to_lease() {
    let mut ipam = ipam(&[], 0);
    assert_eq!(
        ipam.lease(&key(1), Wanted::default(), at(0)),
        Err(LeaseError::NoPrefix)
    );
    ipam.set_prefixes(&["fd00::/64".parse().unwrap()], &mut || 0);
    let granted = ipam.lease(&key(1), Wanted::default(), at(0)).unwrap();
    assert_eq!(granted.addresses.to_string(), "fd00::2");
}
