//! What workloads share of the node: the table of connections, and what listens there.

use super::{Stand, Undisturbed};
use crate::witness::run;
use stage::frames::{Packet, datagram};
use stage::packets::{udp_listener, udp_receive};
use stage::wait::{PATIENCE, eventually};
use std::net::IpAddr;
use std::time::Duration;

/// Connections that a workload begins; few for a table of 65536, and more than anything else here.
const MANY: u16 = 1000;
/// More than everybody else here has at once.
const FEW: usize = 200;

/// How many connections the node tracks.
fn tracked(stand: &Stand) -> usize {
    let count = run(
        &stand.daemon.node.node,
        "sysctl -n net.netfilter.nf_conntrack_count",
    );
    count.trim().parse().unwrap()
}

#[test]
fn connections_that_a_workload_makes_up_take_no_place_and_its_own_go_with_it() {
    // Nobody talks while connections are counted.
    let stand = Stand::new();
    let to = |from: IpAddr| stand.outside[usize::from(from.is_ipv6())];
    let flood = |from: &[IpAddr]| -> Vec<Packet> {
        let all = (0..MANY).flat_map(|n| from.iter().map(move |from| (n, *from)));
        all.map(|(n, from)| datagram(from, to(from), 10_000 + n, b"new"))
            .collect()
    };
    let foreign: Vec<IpAddr> = ["10.77.0.222", "fd77::222"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    stand.send(&flood(&foreign));
    stand.is_heard();
    let made_up = tracked(&stand);
    assert!(made_up < FEW, "{made_up}");
    stand.send(&flood(&stand.hostile.ips));
    stand.is_heard();
    let own = tracked(&stand);
    assert!(own >= usize::from(MANY), "{own}");
    Undisturbed::begin(&stand).end();
    stand.is_cleaned_up();
    eventually(
        PATIENCE,
        "its connections are forgotten",
        || tracked(&stand),
        |left| *left < FEW,
    );
}

#[test]
fn what_listens_on_the_nodes_loopback_is_reached_by_no_way() {
    let stand = Stand::new();
    let undisturbed = Undisturbed::begin(&stand);
    let node = &stand.daemon.node.node;
    for (own, loopback) in stand.hostile.ips.into_iter().zip(["127.0.0.1", "::1"]) {
        let loopback: IpAddr = loopback.parse().unwrap();
        let secret = udp_listener(node, loopback).unwrap();
        let port = secret.local_addr().unwrap().port();
        let ways = [loopback, stand.node[usize::from(own.is_ipv6())]];
        let from = [own, loopback]
            .into_iter()
            .chain(stand.node)
            .chain(stand.innocent.ips);
        for from in from.filter(|from| from.is_ipv4() == own.is_ipv4()) {
            stand.send(&ways.map(|to| datagram(from, to, port, b"no")));
        }
        stand.is_heard();
        assert_eq!(udp_receive(&secret, Duration::from_millis(1)).unwrap(), None);
    }
    undisturbed.end();
    stand.is_cleaned_up();
}
