//! Routes to other nodes beside those of others.

use crate::node::{RULESET, index_of, on_a_node, run};
use kernel::linux::Linux;
use model::datapath::Datapath as _;
use model::routes::{Hop, METRIC, Step};
use model::ruleset::Ruleset;
use model::spared::Spared;

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
