//! The price of an allocation, in addresses looked at, so that it does not depend on the machine.

use crate::{at, ip, ipam, key};
use model::ipam::{Ipam, Wanted};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Usable addresses of a /16.
const SIXTEEN: usize = 65_533;
const ROUNDS: usize = 2_000;

/// Addresses looked at for so many leases, each freed at once and cooled down before the next.
fn cost(ipam: &mut Ipam, from: u64) -> u64 {
    let before = ipam.steps();
    for n in 0..ROUNDS as u64 {
        let now = at(from + 60 * n);
        let granted = ipam.lease(&key(0), Wanted::default(), now).unwrap();
        assert!(granted.warm.is_empty());
        ipam.free(granted.addresses, now);
    }
    ipam.steps() - before
}

#[test]
fn an_allocation_costs_at_99_percent_at_most_three_times_what_it_costs_when_empty() {
    for prefix in ["10.0.0.0/16", "fd00::/64"] {
        let empty = cost(&mut ipam(&[prefix], 12_345), 0);
        assert!(empty >= ROUNDS as u64, "nothing was counted");
        for percent in [50, 99] {
            let mut full = ipam(&[prefix], 12_345);
            for n in 0..SIXTEEN * percent / 100 {
                full.lease(&key(n), Wanted::default(), at(0)).unwrap();
            }
            // Long enough that a /16's cursor comes to its end, and what was freed is given out again.
            let full = cost(&mut full, 1000);
            assert!(
                full <= 3 * empty,
                "{prefix} at {percent} %: {full} against {empty}"
            );
        }
    }
}

/// After a crash that took the state file along, everything counts as warm.
#[test]
fn an_allocation_costs_the_same_where_nothing_is_known_of_what_was_freed() {
    let cost = |ipam: &mut Ipam| {
        let before = ipam.steps();
        for _ in 0..ROUNDS {
            let granted = ipam.lease(&key(0), Wanted::default(), at(1000)).unwrap();
            assert_eq!(granted.warm.len(), 1);
            ipam.free(granted.addresses, at(1000));
        }
        ipam.steps() - before
    };
    for prefix in ["10.0.0.0/16", "fd00::/64"] {
        let mut empty = ipam(&[prefix], 12_345);
        empty.nothing_is_known_before(at(990));
        let empty = cost(&mut empty);
        assert!(empty >= ROUNDS as u64, "nothing was counted");
        let mut full = ipam(&[prefix], 12_345);
        full.nothing_is_known_before(at(990));
        for n in 0..SIXTEEN * 99 / 100 {
            full.lease(&key(n), Wanted::default(), at(995)).unwrap();
        }
        let full = cost(&mut full);
        assert!(full <= 3 * empty, "{prefix}: {full} against {empty}");
    }
}

#[test]
fn filling_a_16_looks_at_no_address_more_than_twice() {
    let mut pool = ipam(&["10.0.0.0/16"], 40_000);
    let given: BTreeSet<IpAddr> = (0..SIXTEEN)
        .flat_map(|n| {
            pool.lease(&key(n), Wanted::default(), at(0))
                .unwrap()
                .addresses
                .iter()
        })
        .collect();
    assert_eq!(given.len(), SIXTEEN);
    assert!(pool.lease(&key(0), Wanted::default(), at(0)).is_err());
    assert!(pool.steps() <= 2 * SIXTEEN as u64 + 2, "{}", pool.steps());
}

#[test]
fn a_recovered_block_is_walked_over_once() {
    let mut pool = ipam(&["10.0.0.0/16"], 0);
    for n in 2..60_000_u32 {
        let address = IpAddr::from((u32::from_be_bytes([10, 0, 0, 0]) + n).to_be_bytes());
        pool.hold(&key(1), model::address::Addresses::from_list([address]).unwrap())
            .unwrap();
    }
    let first = pool.lease(&key(2), Wanted::default(), at(0)).unwrap();
    assert_eq!(first.addresses.to_string(), "10.0.234.96");
    pool.undo(&first);
    let empty = cost(&mut ipam(&["10.0.0.0/16"], 0), 0);
    assert!(cost(&mut pool, 0) <= 3 * empty);
}

#[test]
fn a_64_gives_out_again_what_has_cooled_rather_than_remember_ever_more() {
    let mut pool = ipam(&["fd00::/64"], 0);
    let mut given = BTreeSet::new();
    for n in 0..70_000 {
        let granted = pool.lease(&key(0), Wanted::default(), at(60 * n)).unwrap();
        given.extend(granted.addresses.iter());
        pool.free(granted.addresses, at(60 * n));
    }
    assert_eq!(given.len(), (1 << 16) + 1);
    assert!(given.contains(&ip("fd00::2")));
}

#[test]
fn one_address_asked_for_again_and_again_leaves_nothing_to_clear_away() {
    let mut pool = ipam(&["10.0.0.0/29"], 0);
    let wanted = Wanted {
        v4: Some([10, 0, 0, 6].into()),
        v6: None,
    };
    let others: Vec<_> = (0..4)
        .map(|n| pool.lease(&key(n), Wanted::default(), at(0)).unwrap().addresses)
        .collect();
    others.iter().for_each(|addresses| pool.free(*addresses, at(0)));
    for n in 0..10_000 {
        let granted = pool.lease(&key(9), wanted, at(60 * n)).unwrap();
        pool.free(granted.addresses, at(60 * n));
    }
    let before = pool.steps();
    for n in 0..5 {
        pool.lease(&key(n), Wanted::default(), at(1_000_000)).unwrap();
    }
    let steps = pool.steps() - before;
    assert!(steps < 200, "{steps}");
}
