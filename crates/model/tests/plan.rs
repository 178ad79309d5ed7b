//! What one attach puts into the kernel, as the commands that a person would type.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use model::address::{Addresses, Mac};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::op::Op;
use model::plan::{Plan, PlanSettings, routes_inside};
use model::record::{Asked, NamespaceId, PathDigest, Record};

fn plan(workload: &str, addresses: &[&str], asked: Asked) -> Plan {
    let addresses = addresses.iter().map(|a| a.parse().unwrap());
    let record = Record {
        key: Key::new(
            Owner::new("k8s.io").unwrap(),
            WorkloadId::new(workload).unwrap(),
            InterfaceName::new("eth0").unwrap(),
        )
        .unwrap(),
        addresses: Addresses::from_list(addresses).unwrap(),
        namespace: NamespaceId {
            device: 4,
            inode: 0xf000_00d1,
        },
        path: PathDigest::of("/run/netns/a"),
        asked,
        outward_mtu: None,
        adopted: None,
    };
    let settings = PlanSettings { group: 8, mtu: 1400 };
    Plan::new(record, &settings, 4242)
}

#[test]
fn two_families_are_wired_on_one_link() {
    let plan = plan("0c5d", &["10.77.0.5", "fd77::5"], Asked::default());
    assert_eq!(plan.to_string(), include_str!("golden/plan-dual.txt"));
}

#[test]
fn a_workload_without_ipv6_gets_a_link_without_ipv6() {
    let asked = Asked {
        mtu: Some(1400),
        v4: true,
        v6: false,
        ..Asked::default()
    };
    let plan = plan("0c5d", &["10.77.0.5"], asked);
    assert_eq!(plan.to_string(), include_str!("golden/plan-v4.txt"));
}

#[test]
fn a_workload_without_ipv4_gets_nothing_of_ipv4() {
    // An id that is no plain word has no second name.
    let plan = plan("pod a/0", &["fd77::5"], Asked::default());
    assert_eq!(plan.to_string(), include_str!("golden/plan-v6.txt"));
}

/// To prefixes of a family that the workload has.
#[test]
fn a_large_mtu_is_for_the_nodes_own_prefixes_and_the_default_route_has_the_real_one() {
    let mut record = plan("0c5d", &["fd77::5"], Asked::default()).record;
    record.outward_mtu = Some(1400);
    let settings = PlanSettings { group: 8, mtu: 1400 };
    let plan = Plan::new(record.clone(), &settings, 4242);
    assert_eq!(plan.link.mtu, 65535);
    let own = ["10.77.0.0/24", "fd77::/64"].map(|prefix| prefix.parse().unwrap());
    let all: Vec<Op> = plan
        .workload
        .into_iter()
        .chain(routes_inside(&record, own.into_iter()))
        .filter(|op| matches!(op, Op::Route { .. }))
        .collect();
    let shown: Vec<String> = all.iter().map(|op| op.on("eth0").to_string()).collect();
    assert_eq!(
        shown,
        [
            "ip route add fe80::1/128 dev eth0 src fd77::5",
            "ip route add ::/0 via fe80::1 dev eth0 src fd77::5 mtu 1400",
            "ip route add fd77::/64 via fe80::1 dev eth0 src fd77::5",
        ]
    );
    record.outward_mtu = None;
    assert_eq!(routes_inside(&record, own.into_iter()), Vec::new());
}

#[test]
fn a_mac_that_was_asked_for_is_the_workloads() {
    let mac = Mac([0xac, 0xde, 0x48, 0, 0x11, 0x22]);
    let asked = Asked {
        mac: Some(mac),
        ..Asked::default()
    };
    let plan = plan("0c5d", &["10.77.0.5", "fd77::5"], asked);
    assert_eq!(plan.link.workload_mac, mac);
    let neighbours: Vec<Mac> = plan
        .host
        .iter()
        .filter_map(|op| match op {
            Op::Neighbour { mac, .. } => Some(*mac),
            _ => None,
        })
        .collect();
    assert_eq!(neighbours, [mac, mac]);
}
