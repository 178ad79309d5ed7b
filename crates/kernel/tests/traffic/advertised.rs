//! Routes that the node learns, and those that a workload would teach it.

use crate::world::{GROUP, LIMIT, Workload, World, of};
use kernel::linux::Linux;
use model::address::{FIRST_HOP_V4, FIRST_HOP_V6, Family};
use model::datapath::Datapath as _;
use model::ruleset::Ruleset;
use stage::change::{By, Links};
use stage::wait::{PATIENCE, eventually};
use stage::{NODE, Node, packets, ping};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Instant;

#[test]
fn the_nodes_advertised_routes_outlive_forwarding() {
    let node = Node::new().unwrap();
    let linux = node.node.within(|| Linux::open(GROUP)).unwrap().unwrap();
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
    let mut links = Links::of(&node.outside).unwrap();
    links
        .add_address("eth0", format!("{router}/64").parse().unwrap())
        .unwrap();
    let ip = |line: &str| {
        let run = || Command::new("ip").args(line.split(' ')).output().unwrap().stdout;
        String::from_utf8(node.node.within(run).unwrap()).unwrap()
    };
    ip("link add quiet type bridge");
    let default = format!("default via {router} dev uplink proto ra");
    let start = Instant::now();
    while !ip("-6 route show").contains(&default) {
        assert!(start.elapsed() < LIMIT, "{}", ip("-6 route show"));
        let prefix = "2001:db8:7::".parse().unwrap();
        packets::send_router_advertisement(&node.outside, "eth0", router, prefix).unwrap();
    }
    let accept_ra = |link: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
        let text = node
            .node
            .within(|| std::fs::read_to_string(path))
            .unwrap()
            .unwrap();
        text.trim().to_owned()
    };
    assert_eq!(accept_ra("uplink"), "1");
    let ruleset = Ruleset::new(GROUP, true);
    node.node.within(|| linux.publish(&ruleset)).unwrap().unwrap();
    assert!(ip("-6 route show").contains(&default), "{}", ip("-6 route show"));
    assert_eq!([accept_ra("uplink"), accept_ra("quiet")], ["2", "1"]);
}

const WORKLOAD_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xabcd);
const FOOLED_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
const FOOLED_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
const BEYOND_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
const BEYOND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 5);

/// A workload by way of which the node reaches something, as a redirect has to come from a gateway in use.
fn a_gateway(world: &World) -> Workload {
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    // The host asks for a gateway's neighbour before it believes a redirect, so it has to be there.
    for address in [
        format!("{WORKLOAD_LINK_LOCAL}/128"),
        format!("{FOOLED_V4}/32"),
        format!("{FOOLED_V6}/128"),
    ] {
        one.add_address(&address);
    }
    let mut links = Links::of(&world.node.node).unwrap();
    links
        .add_route(
            "192.0.2.0/24".parse().unwrap(),
            By::Gateway(one.address(Family::V4)),
        )
        .unwrap();
    let gateway = By::GatewayOn(WORKLOAD_LINK_LOCAL.into(), &one.host_link);
    links
        .add_route("2001:db8:99::/64".parse().unwrap(), gateway)
        .unwrap();
    one
}

/// Everything that a workload can say in order to change the node's routes; returns when the node has heard it.
fn mislead(one: &Workload) {
    let prefix = "2001:db8:bad::".parse().unwrap();
    let v4 = one.addresses.v4().unwrap();
    // Twice: the first redirect only makes the node ask who the gateway is.
    for _ in 0..2 {
        packets::send_router_advertisement(&one.namespace, "eth0", WORKLOAD_LINK_LOCAL, prefix).unwrap();
        packets::send_redirect_v4(&one.namespace, v4, FIRST_HOP_V4, BEYOND_V4, FOOLED_V4).unwrap();
        packets::send_redirect_v6(
            &one.namespace,
            "eth0",
            WORKLOAD_LINK_LOCAL,
            FIRST_HOP_V6,
            BEYOND_V6,
            FOOLED_V6,
        )
        .unwrap();
        // What was sent before an answered echo has been heard.
        for family in Family::ALL {
            ping(&one.namespace, of(family, NODE), LIMIT).unwrap();
        }
    }
}

/// What the node would do with packets.
fn ways(world: &World) -> String {
    let lines = [
        "-j address show".to_owned(),
        "-j -4 route show table all".to_owned(),
        "-j -6 route show table all".to_owned(),
        format!("-j route get {BEYOND_V4}"),
        format!("-j route get {BEYOND_V6}"),
    ];
    lines.map(|line| world.ip(&line)).join("")
}

#[test]
fn router_advertisements_and_redirects_of_a_workload_change_nothing_on_the_host() {
    let world = World::new();
    let one = a_gateway(&world);
    // The uplink's own link-local address is checked for duplicates first, which takes a second or two.
    let settled = |ways: &String| !ways.contains("tentative");
    let before = eventually(PATIENCE, "no address is tentative", || ways(&world), settled);
    mislead(&one);
    assert_eq!(ways(&world), before);
    assert!(!before.contains("2001:db8:bad"));
}

/// The test above could fail: a host that listens to workloads is misled by the same packets.
#[test]
fn a_host_that_listens_to_workloads_is_misled() {
    let world = World::unguarded();
    let one = a_gateway(&world);
    world.sysctl("net/ipv4/ip_forward", "0");
    world.sysctl("net/ipv6/conf/all/forwarding", "0");
    let link = &one.host_link;
    for setting in ["accept_redirects", "accept_ra", "autoconf"] {
        world.sysctl(&format!("net/ipv6/conf/{link}/{setting}"), "1");
    }
    for link in ["all", link] {
        world.sysctl(&format!("net/ipv4/conf/{link}/accept_redirects"), "1");
    }
    let way_v4 = world.ip(&format!("route get {BEYOND_V4}"));
    let way_v6 = world.ip(&format!("route get {BEYOND_V6}"));
    mislead(&one);
    assert_ne!(world.ip(&format!("route get {BEYOND_V4}")), way_v4);
    assert_ne!(world.ip(&format!("route get {BEYOND_V6}")), way_v6);
    assert!(
        world.ip("-6 route show").contains("default via fe80::abcd"),
        "{}",
        world.ip("-6 route show")
    );
}
