//! What a workload may not send.

use crate::world::{GROUP, LIMIT, Workload, World, of};
use ipnet::IpNet;
use model::address::{FIRST_HOP_V4, FIRST_HOP_V6, Family};
use model::datapath::Datapath as _;
use model::plan::WORKLOAD_INDEX;
use model::ruleset::Ruleset;
use stage::{NODE, Namespace, OUTSIDE, packets, ping};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

/// Whether a datagram with this source, sent by a workload, arrives at a place.
fn arrives(workload: &Workload, source: IpAddr, place: &Namespace, address: IpAddr) -> bool {
    let listener = packets::udp_listener(place, address).unwrap();
    let to = listener.local_addr().unwrap();
    packets::udp_send(&workload.namespace, source, to, "forged or not").unwrap();
    // What was sent before an answered echo has arrived, or never will.
    ping(&workload.namespace, address, LIMIT).unwrap();
    packets::udp_receive(&listener, Duration::from_millis(1))
        .unwrap()
        .is_some()
}

#[test]
fn a_foreign_source_is_dropped() {
    for (family, foreign) in [(Family::V4, "10.99.0.9/32"), (Family::V6, "fd99::9/128")] {
        let world = World::new();
        let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
        let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
        one.add_address(foreign);
        let foreign = foreign.parse::<IpNet>().unwrap().addr();
        let places = [
            (&world.node.node, of(family, NODE)),
            (&world.node.outside, of(family, OUTSIDE)),
            (&other.namespace, other.address(family)),
        ];
        for (place, address) in places {
            assert!(
                arrives(&one, one.address(family), place, address),
                "{address} from its own address"
            );
            assert!(
                !arrives(&one, foreign, place, address),
                "{address} from {foreign}"
            );
        }
    }
}

#[test]
fn another_workloads_address_as_source_is_dropped() {
    for (family, length) in [(Family::V4, 32), (Family::V6, 128)] {
        let world = World::new();
        let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
        let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
        let stolen = other.address(family);
        one.add_address(&format!("{stolen}/{length}"));
        let (node, address) = (&world.node.node, of(family, NODE));
        assert!(!arrives(&one, stolen, node, address), "{family}");
        assert!(arrives(&other, stolen, node, address), "{family}");
    }
}

#[test]
fn a_workload_sends_nothing_to_the_tunnels_port() {
    let world = World::new();
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    // Of both families.
    let on_the_node = packets::udp_listener(&world.node.node, Ipv6Addr::UNSPECIFIED.into()).unwrap();
    let port = on_the_node.local_addr().unwrap().port();
    let outside = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port));
    let outside = world.node.outside.within(outside).unwrap().unwrap();
    let targets = [
        (&on_the_node, SocketAddr::new(of(Family::V4, NODE), port)),
        (&on_the_node, SocketAddr::new(of(Family::V6, NODE), port)),
        (&on_the_node, SocketAddr::new(FIRST_HOP_V4.into(), port)),
        (
            &on_the_node,
            SocketAddrV6::new(FIRST_HOP_V6, port, 0, WORKLOAD_INDEX).into(),
        ),
        (&outside, SocketAddr::new(of(Family::V4, OUTSIDE), port)),
        (&outside, SocketAddr::new(of(Family::V6, OUTSIDE), port)),
    ];
    for tunnel in [Some(port), None] {
        let ruleset = Ruleset {
            tunnel,
            ..Ruleset::new(GROUP, true)
        };
        world.on_the_node(|| world.linux.publish(&ruleset).unwrap());
        for (listener, to) in &targets {
            let (family, any): (_, IpAddr) = match to {
                SocketAddr::V4(_) => (Family::V4, Ipv4Addr::UNSPECIFIED.into()),
                SocketAddr::V6(_) => (Family::V6, Ipv6Addr::UNSPECIFIED.into()),
            };
            let socket = packets::udp_listener(&one.namespace, any).unwrap();
            socket.send_to(b"as if from a node", to).unwrap();
            // What was sent before an answered echo has arrived, or never will.
            ping(&one.namespace, of(family, OUTSIDE), LIMIT).unwrap();
            let arrived = packets::udp_receive(listener, Duration::from_millis(1)).unwrap();
            assert_eq!(arrived.is_some(), tunnel.is_none(), "{to} with {tunnel:?}");
        }
    }
}

/// The tests of foreign sources could fail: without the guard, a foreign source does arrive.
#[test]
fn a_foreign_source_arrives_without_the_guard() {
    for (family, foreign) in [(Family::V4, "10.99.0.9/32"), (Family::V6, "fd99::9/128")] {
        let world = World::unguarded();
        let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
        let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
        world.sysctl(&format!("net/ipv4/conf/{}/rp_filter", one.host_link), "0");
        one.add_address(foreign);
        let foreign = foreign.parse::<IpNet>().unwrap().addr();
        assert!(
            arrives(&one, foreign, &other.namespace, other.address(family)),
            "{family}"
        );
    }
}

/// Between its move to a group for deletions and its end nothing of our group's rules concerns a link.
#[test]
fn a_link_that_is_about_to_be_deleted_sends_nothing() {
    let world = World::new();
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    let regroup = |group| world.ip(&format!("link set {} group {group}", one.host_link));
    for dying in [
        model::survey::DYING_GROUPS.start(),
        model::survey::DYING_GROUPS.end(),
    ] {
        for family in Family::ALL {
            ping(&one.namespace, of(family, NODE), LIMIT).unwrap();
            regroup(*dying);
            ping(&one.namespace, of(family, NODE), Duration::from_millis(100)).unwrap_err();
            regroup(GROUP);
        }
    }
    ping(&one.namespace, of(Family::V4, NODE), LIMIT).unwrap();
}
