//! Routes to other nodes: directly and over VXLAN, as their list changes, and beside what strangers have.

mod cluster;
mod restart;

use crate::daemon::{addresses, attach, detach};
use crate::sandbox::Sandbox;
use cluster::{Cluster, LIMIT, Workload, listed, on, talk, talk_over};
use stage::ping;
use stage::wait::{PATIENCE, eventually};

#[test]
fn nodes_on_a_link_are_routed_to_directly_and_others_over_vxlan_in_both_families() {
    // Over IPv4, and over IPv6 alone, which carries IPv4, too.
    for families in [&[0, 1][..], &[1]] {
        let cluster = Cluster::new("auto", &listed(families, &[0, 1, 2]));
        let workloads: Vec<Workload> = (0..3).map(|n| cluster.workload(n, "w")).collect();
        let overhead = if families.len() == 2 { 50 } else { 70 };
        assert!(workloads.iter().all(|w| w.mtu == 1500 - overhead), "{families:?}");
        assert!(
            cluster.nodes[0]
                .caller()
                .node()
                .mtu_source
                .starts_with("VXLAN to peer")
        );
        for from in &workloads {
            for to in &workloads {
                talk(from, to);
            }
        }
        let routes = cluster.ip(0, "ip route show proto 77") + &cluster.ip(0, "ip -6 route show proto 77");
        let over = |net: &str| {
            routes
                .lines()
                .find(|line| line.starts_with(net))
                .unwrap()
                .to_owned()
        };
        for net in ["10.77.2.0/24", "fd77:2::/64"] {
            assert!(over(net).contains("dev under"), "{routes}");
        }
        for net in ["10.77.3.0/24", "fd77:3::/64"] {
            assert!(over(net).contains("dev wkvx8"), "{routes}");
        }
        let node = cluster.nodes[0].caller().node();
        let mut told: Vec<String> = node
            .peer_route
            .iter()
            .map(|r| format!("{} {} {} {}", r.peer, r.family, r.way, r.device))
            .collect();
        told.sort();
        assert_eq!(
            (node.routes.as_str(), told),
            (
                "auto",
                [
                    "b IPv4 direct under",
                    "b IPv6 direct under",
                    "c IPv4 vxlan ",
                    "c IPv6 vxlan "
                ]
                .map(str::to_owned)
                .to_vec()
            )
        );
        // The host itself has a source that the others answer.
        for node in [0, 2] {
            for address in &workloads[1].addresses {
                ping(&cluster.nodes[node].node.node, *address, LIMIT).unwrap();
            }
        }
    }
}

#[test]
fn what_is_taken_away_is_put_back_and_a_strangers_route_stays() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    cluster.ip(0, "ip route add 10.77.3.0/24 via 192.0.2.254");
    for flush in [
        "ip route flush proto 77",
        "ip -6 route flush proto 77",
        "ip neighbour flush dev wkvx8 nud permanent",
        "ip link delete wkvx8",
        "ip link set wkvx8 down",
        "ip address delete 10.77.1.1/32 dev lo",
    ] {
        cluster.ip(0, flush);
        cluster.settled();
    }
    // As udev applies sysctl.d to a new link. Nothing tells of it but what is told of otherwise.
    cluster.ip(0, "sysctl -w net.ipv4.conf.wkvx8.rp_filter=1");
    cluster.ip(0, "ip route flush proto 77");
    cluster.settled();
    cluster.expect(0, "sysctl -n net.ipv4.conf.wkvx8.rp_filter", |now| {
        now.trim() == "2"
    });
    let fdb = cluster.ip(0, "bridge fdb show dev wkvx8");
    let mac = fdb.split(' ').next().unwrap();
    cluster.ip(
        0,
        &format!("bridge fdb delete {mac} dev wkvx8 dst 198.51.100.3 self"),
    );
    cluster.expect(0, "bridge fdb show dev wkvx8", |now| *now == fdb);
    assert!(
        cluster
            .ip(0, "ip route show 10.77.3.0/24")
            .contains("via 192.0.2.254")
    );
    let said = cluster.nodes[0].caller().node().warning;
    assert!(
        said.iter()
            .any(|text| text.contains("a route to 10.77.3.0/24, too")),
        "{said:?}"
    );
    // An address as kernels before 5.18 leave it.
    cluster.nodes[0].crash();
    cluster.ip(0, "ip address delete 10.77.1.1/32 dev lo");
    cluster.ip(0, "ip address add 10.77.1.1/32 dev lo");
    cluster.nodes[0].start();
    let said = || cluster.nodes[0].caller().node().warning;
    eventually(PATIENCE, "what may be wrong is said", said, |all| {
        all.iter()
            .any(|text| text.contains("10.77.1.1, the node's own") && text.contains("older than Linux 5.18"))
    });
}

/// In the kernel's eyes routes of one prefix and metric are one, whoever made them.
#[test]
fn a_strangers_route_with_the_metric_of_ours_is_neither_replaced_nor_taken_away() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    let routes = ["10.77.2.0/24 via 192.0.2.254", "fd77:2::/64 via 2001:db8:1::254"];
    let net = |route: &str| route.split(' ').next().unwrap().to_owned();
    let family = |route: &str| if route.contains(':') { "-6" } else { "-4" };
    let look = |route: &str| format!("ip {} route show {} metric 2048", family(route), net(route));
    for route in routes {
        // It takes the place of ours.
        cluster.ip(
            0,
            &format!("ip {} route replace {route} metric 2048", family(route)),
        );
    }
    let is_strangers = |cluster: &Cluster| {
        for route in routes {
            let text = format!("somebody else has a route to {} with metric 2048", net(route));
            let look_for = || cluster.nodes[0].caller().node().warning;
            eventually(PATIENCE, &text, look_for, |all| {
                all.iter().any(|said| said.contains(&text))
            });
            let stands = cluster.ip(0, &look(route));
            assert!(!stands.contains("proto 77") && stands.contains("254"), "{stands}");
        }
        assert!(cluster.nodes[0].caller().findings().is_empty());
    };
    is_strangers(&cluster);
    // Nor at a start, when nothing is known of what was there.
    cluster.nodes[0].crash();
    cluster.ip(0, "ip route flush proto 77");
    cluster.ip(0, "ip -6 route flush proto 77");
    cluster.nodes[0].start();
    cluster.settled();
    is_strangers(&cluster);
    for route in routes {
        cluster.ip(
            0,
            &format!("ip {} route delete {route} metric 2048", family(route)),
        );
        cluster.expect(0, &look(route), |now| now.contains("proto 77"));
    }
}

#[test]
fn a_strangers_link_with_the_name_of_the_vxlan_device_is_left_as_it_is() {
    let cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1]));
    cluster.ip(0, "ip link add wkvx8 mtu 1400 type veth peer name other");
    let look =
        || ["ip -d link show wkvx8", "sysctl net.ipv4.conf.wkvx8.rp_filter"].map(|look| cluster.ip(0, look));
    let before = look();
    cluster.list(&listed(&[0, 1], &[0, 1, 2]));
    let said = || cluster.nodes[0].caller().node().warning;
    eventually(PATIENCE, "it is said", said, |all| {
        all.iter()
            .any(|text| text.contains("ip link add wkvx8") && text.contains("File exists"))
    });
    assert_eq!(look(), before);
    // What does not go over it stands.
    assert!(cluster.ip(0, "ip route show 10.77.2.0/24").contains("dev under"));
    cluster.ip(0, "ip link delete wkvx8");
    cluster.settled();
    cluster.expect(0, "ip route show 10.77.3.0/24", |now| now.contains("dev wkvx8"));
}

/// A VXLAN device with so small an MTU has no IPv6, which its hops usually are of.
#[test]
fn over_a_narrow_link_ipv4_goes_over_vxlan_and_what_needs_ipv6_is_said() {
    for families in [&[0, 1][..], &[1]] {
        let cluster = Cluster::new("auto", &listed(families, &[0, 1, 2]));
        let workloads: Vec<Workload> = (0..3).map(|n| cluster.workload(n, "w")).collect();
        let set = |mtu: u32| {
            for node in 0..3 {
                cluster.ip(node, &format!("ip link set under mtu {mtu}"));
            }
        };
        let said = |texts: &[&str]| {
            for node in &cluster.nodes {
                let look = || node.caller().node().warning;
                eventually(PATIENCE, "what is said", look, |all| {
                    let refused = all.iter().any(|text| text.contains("(errno"));
                    !refused
                        && texts
                            .iter()
                            .all(|text| all.iter().any(|said| said.contains(text)))
                });
            }
            cluster.settled();
        };
        set(1300);
        if families.len() == 2 {
            said(&[
                "no IPv6 route to peer",
                "VXLAN to it has an MTU of 1250, and needs 1280",
            ]);
            for node in [0, 2] {
                cluster.expect(node, "ip link show wkvx8", |now| now.contains("mtu 1250"));
            }
            // The workloads were made for larger packets, and are told.
            for (from, to) in [(0, 2), (2, 1)] {
                talk_over(&workloads[from], &workloads[to], &[0]);
            }
        } else {
            for version in ["IPv4", "IPv6"] {
                said(&[
                    &format!("no {version} route to peer"),
                    "an MTU of 1230, and needs 1280",
                ]);
            }
            let devices = || cluster.nodes[2].node.node.links("wkvx").unwrap();
            eventually(PATIENCE, "the device is gone", devices, Vec::is_empty);
        }
        // On the link that two share there is no device between.
        talk(&workloads[0], &workloads[1]);
        set(1500);
        cluster.settled();
        for node in [0, 2] {
            cluster.expect(node, "ip -6 route show proto 77", |now| now.contains("wkvx8"));
            let link = cluster.ip(node, "ip -6 address show dev wkvx8");
            assert!(!link.contains("fe80"), "{link}");
        }
        talk(&workloads[0], &workloads[2]);
    }
}

#[test]
fn peers_that_move_change_or_go_take_their_routes_along_and_a_wrong_list_changes_nothing() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    let (from, to) = (cluster.workload(0, "from"), cluster.workload(1, "to"));
    talk(&from, &to);
    for wrong in ["", "[[peer]]\nname = \"x\"\n", "nonsense"] {
        cluster.list(wrong);
        let log = || {
            cluster.nodes[0]
                .logged()
                .matches("the list of peers is not used")
                .count()
        };
        let before = log();
        eventually(PATIENCE, "it is refused", log, |n| *n > before || *n >= 3);
        talk(&from, &to);
    }
    // b is no longer on a's link: its address is behind the router.
    for (node, command) in [
        (1, "ip address delete 192.0.2.2/24 dev under"),
        (1, "ip address delete 2001:db8:1::2/64 dev under"),
        (1, "ip address add 203.0.113.77/32 dev under"),
        (1, "ip address add 192.0.2.77/32 dev under"),
        (1, "ip route add 192.0.2.254 dev under src 203.0.113.77"),
        (1, "ip route add 198.51.100.0/24 via 192.0.2.254 src 203.0.113.77"),
        (1, "ip route add 192.0.2.0/24 via 192.0.2.254 src 203.0.113.77"),
        (0, "ip route add 203.0.113.77 via 192.0.2.254"),
        (2, "ip route add 203.0.113.77 via 198.51.100.254"),
    ] {
        cluster.ip(node, command);
    }
    on(&cluster.router, &["ip route add 203.0.113.77 dev lan".to_owned()]);
    let moved = listed(&[0], &[0, 1, 2]).replace("192.0.2.2\"", "203.0.113.77\"");
    cluster.list(&moved);
    cluster.expect(0, "ip route show 10.77.2.0/24", |now| now.contains("dev wkvx8"));
    cluster.expect(1, "ip route show 10.77.1.0/24", |now| now.contains("dev wkvx8"));
    // The workloads were made for larger packets, and are told.
    talk(&from, &to);
    // Its prefix is another's, and then nobody's.
    let given = moved
        .replace("10.77.2.0/24", "10.77.99.0/24")
        .replace("10.77.3.0/24", "10.77.2.0/24");
    let before = cluster.ip(0, "ip route show 10.77.2.0/24");
    cluster.list(&given);
    cluster.expect(0, "ip route show 10.77.2.0/24", |now| {
        *now != before && now.contains("dev wkvx8")
    });
    cluster.list(&listed(&[0, 1], &[0]));
    cluster.expect(0, "ip route show proto 77 type unicast", String::is_empty);
    cluster.expect(0, "ip -6 route show proto 77 type unicast", String::is_empty);
    // The device goes after what went over it.
    let devices = || cluster.nodes[0].node.node.links("wkvx").unwrap();
    eventually(PATIENCE, "the device is gone", devices, Vec::is_empty);
    // Others route from now on.
    let node = &mut cluster.nodes[0];
    node.stop();
    node.set_rest(String::new());
    node.start();
    cluster.expect(0, "ip address show dev lo", |now| !now.contains("10.77.1.1"));
}

/// A workload got from a wide prefix what is the node's own address in the narrow one that comes after it.
#[test]
fn a_workload_keeps_an_address_that_is_the_nodes_own_in_another_prefix() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    let inside = Sandbox::new();
    let mut request = attach("w", &inside);
    request.requested_ip = vec![
        vec![10, 77, 1, 129],
        [&[0xfd, 0x77, 0, 1], &[0; 11][..], &[9]].concat(),
    ];
    let answer = cluster.nodes[0].caller().attach(request).unwrap();
    let other = cluster.workload(1, "other");
    let node = &mut cluster.nodes[0];
    node.stop();
    node.set_prefixes(&["10.77.1.128/25", "fd77:1::/64"]);
    node.start();
    cluster.settled();
    let own = cluster.ip(0, "ip -o address show dev lo");
    assert!(
        own.contains("10.77.1.1/32") && !own.contains("10.77.1.129"),
        "{own}"
    );
    for address in addresses(&answer.ip) {
        ping(&cluster.nodes[0].node.node, address, LIMIT).unwrap();
        ping(&other.inside, address, LIMIT).unwrap();
    }
    let said = cluster.nodes[0].caller().node().warning;
    assert!(
        said.iter()
            .any(|text| text.contains("10.77.1.129, the node's own")),
        "{said:?}"
    );
    cluster.nodes[0].caller().detach(detach("w")).unwrap();
    cluster.expect(0, "ip -o address show dev lo", |own| {
        own.contains("10.77.1.129/32") && !own.contains("10.77.1.1/32")
    });
}
