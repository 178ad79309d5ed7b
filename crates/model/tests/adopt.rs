//! Whose word on how a link was counts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use model::address::{Addresses, Mac};
use model::adopt::{Candidate, Pair, Seen, decide};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::op::Ipv4Conf;
use model::record::NamespaceId;
use model::survey::{FoundLink, HostConf, HostConfV4, Standing};
use model::undo::Undo;

const GROUP: u32 = 8;
const NAMESPACE: NamespaceId = NamespaceId { device: 4, inode: 77 };

fn key(workload: &str) -> Key {
    Key::new(
        Owner::new("workloadnet").unwrap(),
        WorkloadId::new(workload).unwrap(),
        InterfaceName::new("eth0").unwrap(),
    )
    .unwrap()
}

fn undo(group: u32) -> Undo {
    Undo {
        group,
        v4: Ipv4Conf {
            forwarding: 1,
            rp_filter: 0,
            accept_redirects: 1,
            send_redirects: 1,
        },
        v6: None,
    }
}

fn link(altnames: Vec<String>) -> FoundLink {
    FoundLink {
        name: "veth1".to_owned(),
        index: 7,
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        up: true,
        altnames,
        conf: HostConf {
            v4: HostConfV4 {
                route_localnet: None,
                forwarding: Some(1),
                rp_filter: Some(0),
                accept_redirects: Some(1),
                send_redirects: Some(1),
            },
            ..HostConf::default()
        },
        addresses: vec!["10.77.0.1/32".parse().unwrap()],
        routes: vec!["10.77.0.2/32".parse().unwrap()],
        ..FoundLink::default()
    }
}

fn decided(altnames: Vec<String>) -> Result<(), Vec<String>> {
    let candidate = Candidate {
        key: key("a"),
        path: "/run/netns/a".to_owned(),
        addresses: Addresses::from_list(["10.77.0.2".parse().unwrap()]).unwrap(),
    };
    let pair = Pair {
        host: link(altnames),
        workload_mac: Some(Mac([2, 0, 0, 0, 0, 2])),
        inside: vec!["10.77.0.2/24".parse().unwrap()],
    };
    decide(&candidate, NAMESPACE, Seen::Pair(Box::new(pair)), GROUP).map(|_| ())
}

#[test]
fn how_a_link_was_is_told_by_the_name_of_its_own_claim() {
    let (own, other) = (key("a").host_link(), key("b").host_link());
    let of_other = undo(99).name(&other);
    let found = link(vec![of_other.clone(), own.to_string(), undo(3).name(&own)]);
    assert_eq!(found.undo(), Some((own, undo(3))));
    assert_eq!(found.standing(GROUP), Standing::HalfAdopted(own, undo(3)));
    let found = link(vec![own.to_string(), of_other.clone()]);
    assert_eq!((found.undo(), found.standing(GROUP)), (None, Standing::Foreign));
    // Before the claim is made, and when it is gone again, the name stands alone.
    let found = link(vec![of_other]);
    assert_eq!(found.undo(), Some((other, undo(99))));
}

#[test]
fn a_link_that_tells_already_how_it_was_is_not_taken_over() {
    assert_eq!(decided(Vec::new()), Ok(()));
    assert_eq!(decided(vec!["somebodys".to_owned()]), Ok(()));
    let name = undo(3).name(&key("b").host_link());
    let why = format!("veth1 has the name {name}: another adoption of it is not over");
    assert_eq!(decided(vec![name]), Err(vec![why]));
}

#[test]
fn of_link_local_addresses_only_those_that_the_kernel_made_are_passed_over() {
    let with = |extra: &str| {
        let mut host = link(Vec::new());
        host.addresses.push(extra.parse().unwrap());
        let candidate = Candidate {
            key: key("a"),
            path: "/run/netns/a".to_owned(),
            addresses: Addresses::from_list(["10.77.0.2".parse().unwrap()]).unwrap(),
        };
        let pair = Pair {
            host,
            workload_mac: Some(Mac([2, 0, 0, 0, 0, 2])),
            inside: vec!["10.77.0.2/24".parse().unwrap(), extra.parse().unwrap()],
        };
        decide(&candidate, NAMESPACE, Seen::Pair(Box::new(pair)), GROUP)
    };
    assert!(with("fe80::1/64").is_ok());
    assert_eq!(with("169.254.1.1/16").unwrap_err().len(), 2);
}
