//! What one attach puts into the kernel, as the commands that a person would type.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use model::address::{Addresses, Mac};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::plan::{Op, Plan, PlanSettings};
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
