//! Who reaches whom.

use crate::world::{LIMIT, World};
use model::address::Family;
use stage::change::Links;
use stage::tcp::{Conversation, Server};
use std::net::SocketAddr;

/// Two workloads with these addresses reach everything from both sides.
fn two_workloads(one: &[&str], other: &[&str]) {
    let world = World::new();
    let (one, other) = (
        world.attach("one", one, 100_000),
        world.attach("other", other, 100_001),
    );
    world.reaches_everything(&one, &other);
    world.reaches_everything(&other, &one);
}

#[test]
fn ipv4_alone_reaches_everything() {
    two_workloads(&["10.77.0.2"], &["10.77.0.3"]);
}

#[test]
fn ipv6_alone_reaches_everything() {
    two_workloads(&["fd77::2"], &["fd77::3"]);
}

#[test]
fn dual_stack_reaches_everything() {
    two_workloads(&["10.77.0.2", "fd77::2"], &["10.77.0.3", "fd77::3"]);
}

#[test]
fn two_prefixes_of_a_family_reach_each_other() {
    two_workloads(&["10.77.0.2", "fd77::2"], &["192.168.55.7", "fd99:5::7"]);
}

#[test]
fn the_first_hop_answers_under_every_arp_ignore() {
    for mode in ["0", "1", "2"] {
        let world = World::new();
        world.sysctl("net/ipv4/conf/all/arp_ignore", mode);
        let (one, other) = (
            world.attach("one", &["10.77.0.2", "fd77::2"], 100_000),
            world.attach("other", &["10.77.0.3", "fd77::3"], 100_001),
        );
        let mut links = Links::of(&one.namespace).unwrap();
        for family in Family::ALL {
            links.delete_neighbour("eth0", family.first_hop()).unwrap();
        }
        world.reaches_everything(&one, &other);
    }
}

#[test]
fn a_server_in_a_workload_is_reached_from_the_host() {
    let world = World::new();
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    for family in Family::ALL {
        let server = Server::start(&one.namespace, one.address(family)).unwrap();
        let to: SocketAddr = server.address();
        Conversation::open(&world.node.node, to, LIMIT)
            .unwrap()
            .exchange(100_000)
            .unwrap();
    }
}
