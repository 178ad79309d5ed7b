//! What an attachment is in the kernel.

use crate::node::{
    RULESET, addresses, inside, lines, on_a_node, run, setting, target, until, wire, workload,
    workload_with_mtu,
};
use kernel::linux::Linux;
use kernel::netns;
use model::address::Mac;
use model::datapath::Datapath as _;
use model::op::Op;
use model::plan::{LARGE_MTU, Plan, PlanSettings, routes_inside};
use model::survey::Standing;
use std::os::fd::AsFd as _;

/// Addresses of a workload: both, IPv4 alone, IPv6 alone.
const FAMILIES: [(Option<&str>, Option<&str>); 3] = [
    (Some("10.77.0.5"), Some("fd77::5")),
    (Some("10.77.0.5"), None),
    (None, Some("fd77::5")),
];
#[test]
fn an_attachment_is_what_its_plan_says() {
    for (v4, v6) in FAMILIES {
        on_a_node(|| {
            let linux = Linux::open(8).unwrap();
            linux.publish(&RULESET).unwrap();
            let a = workload(&linux, "a", v4, v6, 100_000);
            let index = wire(&linux, &a).unwrap();
            assert_eq!(index, 100_000);

            let host = a.plan.link.host.as_str();
            let link = run(&format!("ip -d link show {host}"));
            for part in [
                "UP,LOWER_UP",
                "mtu 1400",
                "group 8",
                "numtxqueues 1 ",
                "numrxqueues 1 ",
                "addrgenmode none",
                "altname wk-a",
            ] {
                assert!(link.contains(part), "{part}: {link}");
            }
            assert!(link.contains(&format!("alias {}", a.plan.record)), "{link}");
            let conf = |name: &str| setting(&format!("net/{name}"));
            assert_eq!(conf(&format!("ipv4/conf/{host}/rp_filter")), "1");
            if v6.is_some() {
                assert_eq!(conf(&format!("ipv6/conf/{host}/forwarding")), "1");
                assert_ne!(conf(&format!("ipv6/conf/{host}/accept_ra")), "2");
            } else {
                assert_eq!(conf(&format!("ipv6/conf/{host}/disable_ipv6")), "1");
            }

            // The kernel's view holds every op of the plan, and the record reads back.
            let found = linux.find(&a.plan.link.host).unwrap().unwrap();
            assert_eq!(found.missing(&a.plan.record, &a.plan.link), Vec::new());
            assert_eq!(
                found.standing(8),
                Standing::Attached(Box::new(a.plan.record.clone()))
            );
            let survey = linux.survey().unwrap();
            assert_eq!(survey.links, std::slice::from_ref(&found));
            assert!(survey.forwarding.v4 && survey.forwarding.v6);

            let eth0 = inside(&a.namespace, "ip -d address show eth0");
            assert!(
                eth0.contains("LOWER_UP") && !eth0.contains("tentative global"),
                "{eth0}"
            );
            let (routes4, routes6) = (
                inside(&a.namespace, "ip route show"),
                inside(&a.namespace, "ip -6 route show"),
            );
            if let Some(v4) = v4 {
                assert!(eth0.contains(&format!("inet {v4}/32")), "{eth0}");
                assert!(
                    routes4.contains(&format!(
                        "default via 169.254.77.1 dev eth0 proto static src {v4}"
                    )),
                    "{routes4}"
                );
                inside(&a.namespace, "ping -c1 -W1 169.254.77.1");
                run(&format!("ping -c1 -W1 {v4}"));
            }
            if let Some(v6) = v6 {
                assert!(eth0.contains(&format!("inet6 {v6}/128")), "{eth0}");
                assert!(
                    routes6.contains(&format!("default via fe80::1 dev eth0 proto static src {v6}")),
                    "{routes6}"
                );
                inside(&a.namespace, "ping -c1 -W1 fe80::1%eth0");
                run(&format!("ping -c1 -W1 {v6}"));
            }
            assert!(inside(&a.namespace, "ip link show lo").contains("UP"));

            assert_eq!(linux.unwire(&[target(&a, index)]), [Ok(())]);
            assert_eq!(linux.find(&a.plan.link.host).unwrap(), None);
            // Gone already is a success, too.
            assert_eq!(linux.unwire(&[target(&a, index)]), [Ok(())]);
        });
    }
}

#[test]
fn a_workload_has_the_mac_that_was_asked_for() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        let mut a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let mac = Mac([0xac, 0xde, 0x48, 0, 0x11, 0x22]);
        a.plan.record.asked.mac = Some(mac);
        let settings = PlanSettings { group: 8, mtu: 1400 };
        a.plan = Plan::new(a.plan.record, &settings, 100_000);
        wire(&linux, &a).unwrap();
        assert!(inside(&a.namespace, "ip link show eth0").contains(&format!("link/ether {mac}")));
        let found = linux.find(&a.plan.link.host).unwrap().unwrap();
        let Standing::Attached(record) = found.standing(8) else {
            panic!("{found:?}")
        };
        assert_eq!((record.workload_mac(), &*record), (mac, &a.plan.record));
        assert_eq!(found.missing(&record, &a.plan.link), Vec::new());
        for address in ["10.77.0.5", "fd77::5"] {
            run(&format!("ping -c1 -W1 {address}"));
        }
    });
}

/// 60000 bytes go across in one piece, and what leaves the node is told its MTU by the route.
#[test]
fn a_large_mtu_is_inside_the_node_and_is_put_back() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        let own = ["10.77.0.0/24", "fd77::/64"].map(|prefix| prefix.parse().unwrap());
        let large = |id, v4, v6, index| {
            let mut one = workload(&linux, id, Some(v4), Some(v6), index);
            one.plan.record.outward_mtu = Some(1400);
            let settings = PlanSettings { group: 8, mtu: 1400 };
            one.plan = Plan::new(one.plan.record, &settings, index);
            let routes = routes_inside(&one.plan.record, own.into_iter());
            one.plan.workload.extend(routes);
            wire(&linux, &one).unwrap();
            one
        };
        let a = large("a", "10.77.0.5", "fd77::5", 100_000);
        let b = large("b", "10.77.0.6", "fd77::6", 100_001);
        for address in ["10.77.0.6", "fd77::6"] {
            inside(&a.namespace, &format!("ping -c1 -W5 -M do -s 60000 {address}"));
        }
        for elsewhere in ["198.18.0.1", "2001:db8::1"] {
            let route = inside(&a.namespace, &format!("ip route get {elsewhere}"));
            assert!(route.contains("mtu 1400"), "{route}");
        }

        run(&format!("ip link set {} mtu 1400", b.plan.link.host));
        let found = linux.find(&b.plan.link.host).unwrap().unwrap();
        let Standing::Attached(record) = found.standing(8) else {
            panic!("{found:?}")
        };
        assert_eq!(*record, b.plan.record);
        let missing = found.missing(&record, &b.plan.link);
        assert_eq!(missing, [Op::Mtu(LARGE_MTU)]);
        assert_eq!(linux.restore(&target(&b, 100_001), &missing), Vec::new());
        inside(&b.namespace, "ping -c1 -W5 -M do -s 60000 10.77.0.5");
    });
}

#[test]
fn indexes_that_are_taken_are_gone_round() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        let (a, b) = (
            workload(&linux, "a", Some("10.77.0.5"), None, 100_000),
            workload(&linux, "b", Some("10.77.0.6"), None, 100_000),
        );
        assert_eq!(wire(&linux, &a), Ok(100_000));
        inside(&b.namespace, "ip link add x type veth peer name y");
        assert_eq!(wire(&linux, &b), Ok(100_001));
        inside(&b.namespace, "ping -c1 -W1 10.77.0.5");
    });
}

#[test]
fn the_first_hop_answers_once_the_workload_has_a_link_local_address() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        wire(&linux, &a).unwrap();
        until("there a link-local address that can be used", || {
            let own = inside(&a.namespace, "ip -6 address show dev eth0 scope link");
            own.contains("fe80::") && !own.contains("tentative")
        });
        inside(&a.namespace, "ping -c1 -W1 fe80::1%eth0");
        inside(&a.namespace, "ip neighbour flush dev eth0 nud permanent");
        inside(&a.namespace, "ping -c1 -W1 fe80::1%eth0");
    });
}

#[test]
fn the_first_hop_answers_whatever_arp_ignore_says() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        wire(&linux, &a).unwrap();
        for mode in ["0", "1", "2"] {
            std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", mode).unwrap();
            inside(&a.namespace, "ip neighbour flush dev eth0 nud permanent");
            inside(&a.namespace, "ip neighbour flush dev eth0");
            inside(&a.namespace, "ping -c1 -W1 169.254.77.1");
            inside(&a.namespace, "ping -c1 -W2 fe80::1%eth0");
        }
    });
}

/// The lines among these that concern the families of a workload.
fn of(v4: Option<&str>, v6: Option<&str>, lines: &[&str]) -> Vec<String> {
    let concerns = |line: &&&str| {
        if line.contains("::") {
            v6.is_some()
        } else {
            v4.is_some()
        }
    };
    lines
        .iter()
        .filter(concerns)
        .map(|line| (*line).to_owned())
        .collect()
}

#[test]
fn both_ends_hold_what_was_planned_and_nothing_else() {
    for (v4, v6) in FAMILIES {
        on_a_node(|| {
            let linux = Linux::open(8).unwrap();
            let a = workload(&linux, "a", v4, v6, 100_000);
            wire(&linux, &a).unwrap();
            let (host, mac) = (a.plan.link.host.as_str(), a.plan.link.workload_mac);
            let of = |lines: &[&str]| of(v4, v6, lines);

            assert_eq!(
                addresses(host),
                of(&[
                    "169.254.77.1/0 scope link noprefixroute",
                    "fe80::1/128 scope link noprefixroute nodad",
                ])
            );
            // Every table but the local one, where the kernel keeps what follows from the addresses.
            assert_eq!(
                lines("ip -4 route show table main"),
                of(&[&format!("10.77.0.5 dev {host} proto static scope link")])
            );
            assert_eq!(
                lines("ip -6 route show table main"),
                of(&[&format!(
                    "fd77::5 dev {host} proto static metric 1024 pref medium"
                )])
            );
            assert_eq!(
                lines("ip neighbour show"),
                of(&[
                    &format!("10.77.0.5 dev {host} lladdr {mac} PERMANENT"),
                    &format!("fd77::5 dev {host} lladdr {mac} PERMANENT"),
                ])
            );

            let inside = |act: fn() -> Vec<String>| netns::within(a.namespace.as_fd(), act).unwrap();
            assert_eq!(
                inside(|| addresses("eth0")),
                of(&["10.77.0.5/32 scope global", "fd77::5/128 scope global nodad"])
            );
            assert_eq!(
                inside(|| lines("ip -4 route show table main")),
                of(&[
                    "default via 169.254.77.1 dev eth0 proto static src 10.77.0.5",
                    "169.254.77.1 dev eth0 proto static scope link",
                ])
            );
            assert_eq!(
                inside(|| lines("ip -6 route show table main proto static")),
                of(&[
                    "fe80::1 dev eth0 src fd77::5 metric 1024 pref medium",
                    "default via fe80::1 dev eth0 src fd77::5 metric 1024 pref medium",
                ])
            );
            assert_eq!(
                inside(|| lines("ip neighbour show nud permanent")),
                of(&[
                    "169.254.77.1 dev eth0 lladdr 02:9c:52:fe:6d:0a PERMANENT",
                    "fe80::1 dev eth0 lladdr 02:9c:52:fe:6d:0a PERMANENT",
                ])
            );
        });
    }
}

#[test]
fn ipv4_works_on_a_link_that_is_too_narrow_for_ipv6() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload_with_mtu(&linux, "a", Some("10.77.0.5"), None, 100_000, 600);
        let index = wire(&linux, &a).unwrap();
        inside(&a.namespace, "ping -c1 -W1 169.254.77.1");
        let host = a.plan.link.host.as_str();
        run(&format!("ip link set {host} alias x"));
        let missing = linux
            .find(&a.plan.link.host)
            .unwrap()
            .unwrap()
            .missing(&a.plan.record, &a.plan.link);
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert_eq!(linux.restore(&target(&a, index), &missing), Vec::new());
        let found = linux.find(&a.plan.link.host).unwrap().unwrap();
        assert_eq!(found.alias, a.plan.record.to_string());
    });
}
