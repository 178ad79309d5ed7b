//! A large MTU inside the node, for owners that the settings name.

use crate::daemon::{Daemon, addresses, attach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use client::workload::AttachRequest;
use stage::tcp::{Conversation, Server};
use stage::wait::{PATIENCE, eventually};
use stage::{Namespace, OUTSIDE, ping};
use std::net::IpAddr;
use std::path::Path;

const ONE: [&str; 2] = ["10.77.1.0/24", "fd77:1::/64"];
const TWO: [&str; 2] = ["10.77.2.0/24", "fd77:2::/64"];
const BYTES: usize = 1 << 20;

fn owned(id: &str, namespace: &Sandbox) -> AttachRequest {
    AttachRequest {
        owner: "podman".to_owned(),
        ..attach(id, namespace)
    }
}

fn replace(file: &Path, prefixes: &[&str]) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, format!("prefixes = {prefixes:?}\n")).unwrap();
    std::fs::rename(beside, file).unwrap();
}

/// What the kernel may put together on an end, in bytes (BIG TCP: more than 65536).
#[track_caller]
fn has_no_big_tcp(place: &Namespace, link: &str) {
    let shown = run(place, &format!("ip -d link show dev {link}"));
    let words: Vec<&str> = shown.split_whitespace().collect();
    // `tso_max_size` is what a device could do.
    let is_set = |name: &str| name.ends_with("_max_size") && name != "tso_max_size";
    let ceilings = words.windows(2).filter(|pair| is_set(pair[0]));
    let ceilings: Vec<(&str, u32)> = ceilings.map(|pair| (pair[0], pair[1].parse().unwrap())).collect();
    assert!(
        ceilings.iter().any(|(name, _)| *name == "gso_max_size"),
        "{shown}"
    );
    assert!(ceilings.iter().all(|(_, bytes)| *bytes <= 65_536), "{ceilings:?}");
}

/// In one piece of 60000 bytes.
fn large_ping(from: &Sandbox, to: IpAddr) {
    run(from, &format!("ping -c 1 -W 10 -M do -s 60000 {to}"));
}

/// A stream in both directions, whatever the MTUs on the way are.
#[track_caller]
fn stream(from: &Sandbox, to: &Sandbox, address: IpAddr) {
    let server = Server::start(to, address).unwrap();
    let mut talk = Conversation::open(from, server.address(), PATIENCE).unwrap();
    talk.exchange(BYTES).unwrap();
}

#[test]
fn workloads_of_a_node_exchange_large_packets_and_what_leaves_it_has_the_real_mtu() {
    let mut daemon = Daemon::new();
    let file = daemon.folder().join("prefixes.toml");
    daemon.set_prefixes(&[]);
    daemon.set_rest(format!(
        "large_mtu_owners = [\"podman\"]\n[prefixes]\nsource = \"file\"\nfile = {file:?}\n"
    ));
    replace(&file, &ONE);
    daemon.start();
    let [a, b, usual, asked, later] = [(); 5].map(|()| Sandbox::new());
    let caller = daemon.caller();
    let first = caller.attach(owned("a", &a)).unwrap();
    let second = caller.attach(owned("b", &b)).unwrap();
    // IPv6 collapses with it where it is routed.
    has_no_big_tcp(&daemon.node.node, &first.host_link);
    has_no_big_tcp(&a, "eth0");
    let third = caller.attach(attach("c", &usual)).unwrap();
    let mtu = 1400;
    let fourth = caller.attach(AttachRequest {
        mtu,
        ..owned("asked", &asked)
    });
    // What runtimes are told is what leaves the node.
    let told = [&first, &second, &third, &fourth.unwrap()].map(|answer| answer.mtu);
    assert_eq!(told, [1500, 1500, 1500, mtu]);
    for to in addresses(&second.ip) {
        large_ping(&a, to);
        stream(&a, &b, to);
    }
    // A link of the usual kind between.
    for to in addresses(&third.ip) {
        stream(&a, &usual, to);
    }
    for to in addresses(&first.ip) {
        stream(&usual, &a, to);
    }
    for outside in OUTSIDE.map(|text| text.parse::<IpAddr>().unwrap()) {
        ping(&a, outside, PATIENCE).unwrap();
        let route = run(&a, &format!("ip route get {outside}"));
        assert!(route.contains(" mtu 1500"), "{route}");
    }

    // The link tells all of it, and is put back.
    daemon.crash();
    let link = &second.host_link;
    run(&daemon.node.node, &format!("ip link set {link} mtu 1400"));
    daemon.start();
    let caller = daemon.caller();
    eventually(PATIENCE, "all is put back", || caller.findings(), Vec::is_empty);
    for to in addresses(&second.ip) {
        large_ping(&a, to);
    }
    assert_eq!(caller.attach(owned("b", &b)).unwrap(), second);
    let mut listed: Vec<u32> = caller.list().into_iter().map(|one| one.mtu).collect();
    listed.sort_unstable();
    assert_eq!(listed, [mtu, 1500, 1500, 1500]);

    // What stands has no route of its own to prefixes that come later, and gets there in packets of the real MTU.
    replace(&file, &TWO);
    let serves = || caller.node().prefix.iter().any(|prefix| prefix.prefix == TWO[0]);
    eventually(PATIENCE, "the other prefixes", serves, |is| *is);
    let new = caller.attach(owned("later", &later)).unwrap();
    for to in addresses(&new.ip) {
        stream(&a, &later, to);
    }
    for to in addresses(&first.ip) {
        large_ping(&later, to);
    }
}
