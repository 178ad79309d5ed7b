//! Routes to other nodes beside those of others.

use crate::node::{RULESET, index_of, on_a_node, run};
use kernel::linux::Linux;
use model::datapath::Datapath as _;
use model::routes::{Hop, METRIC, Reach, Step, UNREACHABLE_METRIC};
use model::ruleset::Ruleset;
use model::spared::Spared;

/// What it says, whether it succeeds or not.
fn run_any(line: &str) -> String {
    let mut words = line.split(' ');
    let output = std::process::Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    [output.stdout, output.stderr]
        .map(|text| String::from_utf8(text).unwrap())
        .concat()
}

/// Somebody's route that came after the kernel was asked.
#[test]
fn a_route_is_added_only_where_none_of_its_metric_is() {
    on_a_node(|| {
        run("ip link add under type veth peer name other");
        for line in [
            "address add 192.0.2.1/24 dev under",
            "address add 2001:db8::1/64 dev under nodad",
        ] {
            run(&format!("ip {line}"));
        }
        run("ip link set under up");
        run("ip link set other up");
        let index = index_of("under");
        let linux = Linux::open(8).unwrap();
        for (net, stranger, ours) in [
            ("10.77.2.0/24", "192.0.2.3", "192.0.2.2"),
            ("fd77:2::/64", "2001:db8::3", "2001:db8::2"),
        ] {
            run(&format!("ip route add {net} via {stranger} metric {METRIC}"));
            let hop = Hop::Link {
                via: ours.parse().unwrap(),
                index,
                source: None,
            };
            let net = net.parse().unwrap();
            let faults = linux.change_routes(&[Step::AddRoute(net, hop)]).unwrap();
            assert_eq!(faults[0].errno, 17, "{faults:?}");
            let family = if net.addr().is_ipv6() { "-6" } else { "-4" };
            let stands = run(&format!("ip {family} route show {net}"));
            assert!(stands.contains(stranger) && !stands.contains(ours), "{stands}");
            let found = linux.found_routes().unwrap();
            assert!(found.same_metric.contains(&net) && !found.held.routes.contains_key(&net));
        }
    });
}

#[test]
fn what_nobody_has_is_unreachable_behind_every_other_route() {
    on_a_node(|| {
        run("ip link add under type veth peer name other");
        run("ip link set under addrgenmode none");
        run("ip address add 192.0.2.1/24 dev under");
        run("ip address add 2001:db8::1/64 dev under nodad");
        run("ip link set under up");
        run("ip link set other up");
        run("ip route add default via 192.0.2.254");
        run("ip -6 route add default via 2001:db8::254");
        let linux = Linux::open(8).unwrap();
        for (net, nobodys, given) in [
            ("10.77.0.0/24", "10.77.0.5", "10.77.0.6/32"),
            ("10.77.1.9/32", "10.77.1.9", "10.77.1.9/32"),
            ("fd77::/64", "fd77::5", "fd77::6/128"),
            ("fd77:1::9/128", "fd77:1::9", "fd77:1::9/128"),
        ] {
            let family = if net.contains(':') { "-6" } else { "-4" };
            let way = |to: &str| {
                run_any(&format!(
                    "ip {family} route get {}",
                    to.split('/').next().unwrap()
                ))
            };
            assert!(way(nobodys).contains("dev under"), "{}", way(nobodys));
            let net = net.parse().unwrap();
            let step = |step| linux.change_routes(&[step]).unwrap();
            assert_eq!(step(Step::AddUnreachable(net)), []);
            assert!(way(nobodys).contains("No route to host"), "{}", way(nobodys));
            let found = linux.found_routes().unwrap();
            assert!(found.held.unreachable.contains(&net) && !found.same_unreachable.contains(&net));
            run(&format!("ip {family} route add {given} dev under"));
            assert!(way(given).contains("dev under"), "{}", way(given));
            run(&format!("ip {family} route delete {given} dev under"));
            assert!(way(given).contains("No route to host"), "{}", way(given));
            assert_eq!(step(Step::DropUnreachable(net)), []);
            assert!(way(nobodys).contains("dev under"), "{}", way(nobodys));
            assert_eq!(step(Step::DropUnreachable(net)), [], "it is gone already");
            // A stranger's is none of ours.
            let route = format!("unreachable {net} metric {UNREACHABLE_METRIC}");
            run(&format!("ip {family} route add {route}"));
            assert_eq!(step(Step::AddUnreachable(net))[0].errno, 17);
            step(Step::DropUnreachable(net));
            let found = linux.found_routes().unwrap();
            assert!(found.same_unreachable.contains(&net) && !found.held.unreachable.contains(&net));
            run(&format!("ip {family} route delete {route}"));
        }
        let on_link = linux.found_routes().unwrap().on_link;
        let mut on_link: Vec<_> = on_link.iter().map(ToString::to_string).collect();
        on_link.sort();
        assert_eq!(on_link, ["192.0.2.0/24", "2001:db8::/64"]);
    });
}

#[test]
fn what_the_table_spares_is_read_back() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        assert_eq!(linux.spared().unwrap(), []);
        let nets: Vec<_> = [
            "10.77.0.0/24",
            "10.77.1.0/24",
            "192.0.2.7/32",
            "fd77::/64",
            "fd77:0:0:1::/64",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        linux
            .publish(&Ruleset {
                spared: Spared::new(nets.clone()),
                ..RULESET
            })
            .unwrap();
        assert_eq!(linux.spared().unwrap(), nets);
    });
}

/// Of several next hops the one that the kernel chooses, and the source that it would choose where the route names none.
#[test]
fn a_peer_behind_gateways_is_reached_over_a_link_and_from_an_address() {
    on_a_node(|| {
        for line in [
            "ip link add one type ifb",
            "ip link add two type ifb",
            "ip link set one up",
            "ip link set two up",
            "ip address add 192.0.2.1/24 dev one",
            "ip address add 198.51.100.1/24 dev two",
            "ip address add 2001:db8:1::1/64 dev one nodad",
            "ip address add 2001:db8:2::1/64 dev two nodad",
            "ip route add 10.9.9.0/24 nexthop via 192.0.2.9 nexthop via 198.51.100.9",
            "ip route add fd99::/64 nexthop via 2001:db8:1::9 nexthop via 2001:db8:2::9",
            "ip route add 203.0.113.0/24 via 192.0.2.9",
            "ip route add 2001:db8:3::/64 via 2001:db8:1::9",
        ] {
            run(line);
        }
        let peers = ["10.9.9.9", "fd99::9", "203.0.113.9", "2001:db8:3::9"].map(|text| text.parse().unwrap());
        let reached = Linux::open(8).unwrap().reach(&peers).unwrap();
        for (peer, reached) in peers.iter().zip(reached) {
            let is_reached = matches!(
                &reached,
                Reach::Over {
                    on_link: false,
                    source: Some(_),
                    ..
                }
            );
            assert!(is_reached, "{peer}: {reached:?}");
        }
    });
}
