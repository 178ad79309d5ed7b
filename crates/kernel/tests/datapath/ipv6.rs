//! IPv6 where somebody switched it off, or lives from router advertisements.

use crate::node::{RULESET, inside, on_a_node, run, set, target, wire, workload};
use kernel::linux::Linux;
use kernel::netns;
use model::address::{Family, Mac};
use model::datapath::Datapath as _;
use model::op::Op;
use model::routes::{Held, Hop, Tunnel};
use model::survey::FoundLink;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

#[test]
fn an_attach_needs_no_ipv6_that_is_on_by_default() {
    for (on_the_node, in_the_workload) in [(true, false), (false, true), (true, true)] {
        on_a_node(|| {
            let linux = Linux::open(8).unwrap();
            assert!(Family::ALL.into_iter().all(|family| linux.supports(family)));
            let off = || {
                for of in ["all", "default"] {
                    set(&format!("net/ipv6/conf/{of}/disable_ipv6"), "1");
                }
            };
            let both = workload(&linux, "both", Some("10.77.0.5"), Some("fd77::5"), 100_000);
            let v6 = workload(&linux, "v6", None, Some("fd77::6"), 100_001);
            if on_the_node {
                off();
            }
            linux.publish(&RULESET).unwrap();
            for workload in [&both, &v6] {
                if in_the_workload {
                    netns::within(workload.namespace.as_fd(), off).unwrap();
                }
                wire(&linux, workload).unwrap();
                inside(&workload.namespace, "ping -c1 -W1 fe80::1%eth0");
                let found = linux.find(&workload.plan.link.host).unwrap().unwrap();
                assert_eq!(
                    found.missing(&workload.plan.record, &workload.plan.link),
                    Vec::new()
                );
            }
            inside(&both.namespace, "ping -c1 -W1 fd77::6");
            run("ping -c1 -W1 fd77::5");
        });
    }
}

/// Routes of IPv4, too, go over a next hop of IPv6.
#[test]
fn the_tunnel_to_other_nodes_needs_no_ipv6_that_is_on_by_default() {
    on_a_node(|| {
        for of in ["all", "default"] {
            set(&format!("net/ipv6/conf/{of}/disable_ipv6"), "1");
        }
        let linux = Linux::open(8).unwrap();
        let tunnel = Tunnel {
            vni: 8,
            port: 4789,
            family: Family::V4,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1450,
        };
        let (other, peer) = (Mac([2, 0, 0, 0, 0, 2]), "192.0.2.2".parse().unwrap());
        let via = "fe80::ff:fe00:2".parse().unwrap();
        let hop = Hop::Tunnel { via, source: None };
        let wanted = Held {
            tunnel: Some(tunnel),
            forwarding: [(other, peer)].into(),
            neighbours: [(via, other)].into(),
            routes: [("10.77.1.0/24".parse().unwrap(), hop)].into(),
            ..Held::default()
        };
        let bring_about = || {
            let steps = linux.found_routes().unwrap().held.steps_to(&wanted);
            assert_eq!(linux.change_routes(&steps).unwrap(), Vec::new());
            assert_eq!(linux.found_routes().unwrap().held, wanted);
        };
        bring_about();
        // Somebody switches it off again, and with it goes what was on it.
        set(&format!("net/ipv6/conf/{}/disable_ipv6", tunnel.name()), "1");
        bring_about();
    });
}

#[test]
fn an_attachment_forwards_whatever_the_default_is() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        for version in ["ipv4", "ipv6"] {
            set(&format!("net/{version}/conf/default/forwarding"), "0");
        }
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let b = workload(&linux, "b", Some("10.77.0.6"), Some("fd77::6"), 100_001);
        for workload in [&a, &b] {
            wire(&linux, workload).unwrap();
            let found = linux.find(&workload.plan.link.host).unwrap().unwrap();
            assert_eq!(found.missing(&workload.plan.record, &workload.plan.link), []);
        }
        for address in ["10.77.0.6", "fd77::6"] {
            inside(&a.namespace, &format!("ping -c1 -W1 {address}"));
        }
    });
}

/// What misleads a link that does not forward, or is told to believe advertisements all the same.
const MISLEADING: [&str; 3] = ["accept_ra", "autoconf", "accept_redirects"];

#[test]
fn a_link_that_forwards_is_not_misled_whatever_the_nodes_defaults_are() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        for n in 1..=12 {
            let which @ [forwarding, accept_ra, others] = [n % 2, n / 2 % 3, n / 6 % 2];
            for (name, value) in [
                ("forwarding", forwarding),
                ("accept_ra", accept_ra),
                ("autoconf", others),
                ("accept_redirects", others),
            ] {
                set(&format!("net/ipv6/conf/default/{name}"), &value.to_string());
            }
            let (v4, v6) = (format!("10.77.0.{n}"), format!("fd77::{n}"));
            let a = workload(&linux, &format!("a{n}"), Some(&v4), Some(&v6), 100_000 + n);
            wire(&linux, &a).unwrap();
            let host = a.plan.link.host.as_str();
            let told = |name: &str| {
                let path = format!("/proc/sys/net/ipv6/conf/{host}/{name}");
                std::fs::read_to_string(path).unwrap().trim().to_owned()
            };
            assert_eq!(told("forwarding"), "1", "{which:?}");
            assert_ne!(told("accept_ra"), "2", "{which:?}");
            let missing = |link: &FoundLink| link.missing(&a.plan.record, &a.plan.link);
            let found = linux.find(&a.plan.link.host).unwrap().unwrap();
            assert_eq!(missing(&found), [], "{which:?}");
            // Once it does not forward, nothing of them may be on.
            set(&format!("net/ipv6/conf/{host}/forwarding"), "0");
            let found = linux.find(&a.plan.link.host).unwrap().unwrap();
            let index = found.index;
            assert_eq!(
                linux.restore(&target(&a, index), &missing(&found)),
                [],
                "{which:?}"
            );
            assert_eq!(MISLEADING.map(told), ["0", "0", "0"], "{which:?}");
            assert_eq!(told("forwarding"), "1", "{which:?}");
        }
    });
}

#[test]
fn what_cannot_be_put_back_is_not_waited_for() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let index = wire(&linux, &a).unwrap();
        let host = a.plan.link.host.as_str();
        set(&format!("net/ipv6/conf/{host}/disable_ipv6"), "1");
        run(&format!("ip route delete 10.77.0.5 dev {host}"));
        let lost: Vec<Op> = a
            .plan
            .host
            .iter()
            .filter(|op| matches!(op, Op::Address { .. } | Op::Route { .. }))
            .cloned()
            .collect();
        let start = Instant::now();
        let faults = linux.restore(&target(&a, index), &lost);
        let took = start.elapsed();
        let [fault] = &faults[..] else {
            panic!("{faults:?}")
        };
        assert!(fault.tried.starts_with("ip address add fe80::1/128"), "{fault}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        // What is not refused is put back all the same.
        inside(&a.namespace, "ping -c1 -W1 169.254.77.1");
    });
}
