//! What workloads share of the node: the table of connections, and what listens there.

use super::{Stand, Undisturbed};
use crate::witness::run;
use stage::frames::{Packet, datagram, datagram_between};
use stage::packets::{udp_listener, udp_receive};
use stage::wait::{PATIENCE, eventually};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

/// Connections that a workload begins; few for a table of 65536, and more than anything else here.
const MANY: u16 = 1000;
/// More than everybody else here has at once.
const FEW: usize = 200;

/// So many connections are forgotten at once (`crates/kernel/src/conntrack.rs`).
const AT_ONCE: usize = 20_000;

/// How many connections the node tracks.
fn tracked(stand: &Stand) -> usize {
    setting(stand, "nf_conntrack_count")
}

fn setting(stand: &Stand, name: &str) -> usize {
    let text = run(
        &stand.daemon.node.node,
        &format!("sysctl -n net.netfilter.{name}"),
    );
    text.trim().parse().unwrap()
}

/// The hostile one begins connections of IPv4, which nobody answers.
fn begin(stand: &Stand, numbers: Range<usize>) {
    const PORTS: usize = 60_000;
    let at = |address: IpAddr, port: usize| SocketAddr::new(address, u16::try_from(port).unwrap());
    let packets: Vec<Packet> = numbers
        .map(|n| {
            let from = at(stand.hostile.ips[0], 1024 + n % PORTS);
            datagram_between(from, at(stand.outside[0], 10_000 + n / PORTS), b"new")
        })
        .collect();
    stand.send(&packets);
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
fn a_table_that_a_workload_fills_keeps_nobody_out_and_is_emptied_when_it_has_gone() {
    let stand = Stand::new();
    let before = Undisturbed::begin(&stand);
    let places = setting(&stand, "nf_conntrack_max");
    assert!(places > 3 * AT_ONCE, "{places}");
    // None of them ends by itself while this runs.
    run(
        &stand.daemon.node.node,
        "sysctl -w net.netfilter.nf_conntrack_udp_timeout=900",
    );
    for some in (0..places).step_by(10_000) {
        begin(&stand, some..(some + 10_000).min(places));
    }
    let full = tracked(&stand);
    assert!(full > places / 10 * 9, "{full} of {places}");
    // Who was there before, and who comes now: the kernel makes room among those that nobody has answered.
    before.end();
    Undisturbed::begin(&stand).end();
    stand.is_cleaned_up();
    // Some tens of thousands at a time, one after the other.
    for part in 1..=2 {
        eventually(
            2 * PATIENCE,
            "its connections are forgotten",
            || tracked(&stand),
            |left| *left < full - part * AT_ONCE + FEW,
        );
    }
}

/// As decision 43 says.
#[test]
fn a_limit_that_an_administrator_sets_by_the_link_group_holds() {
    let stand = Stand::new();
    for line in [
        "add table inet mine",
        "add chain inet mine forward { type filter hook forward priority 10; }",
        "add set inet mine new { type ipv4_addr; size 65535; flags dynamic; }",
        "add rule inet mine forward iifgroup 8 ct state new add @new { ip saddr ct count over 300 } drop",
    ] {
        run(&stand.daemon.node.node, &format!("nft {line}"));
    }
    begin(&stand, 0..usize::from(MANY));
    let own = tracked(&stand);
    assert!((300..300 + FEW).contains(&own), "{own}");
    // The others have places of their own.
    Undisturbed::begin(&stand).end();
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
