//! Who reaches a port, by which address.

use crate::world::{ONE, OTHER, World, all, any, is_refused, of, seen};
use model::address::Family;
use model::ports::{HostPort, Protocol};
use stage::tcp::Server;
use stage::{NODE, Namespace, OUTSIDE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[test]
fn a_port_leads_to_the_workload_from_everywhere_in_both_families() {
    let world = World::new();
    let (node, outside) = (&world.node.node, &world.node.outside);
    // The server is started first, because it chooses its port.
    for family in Family::ALL {
        let namespace = Namespace::new().unwrap();
        let server = Server::start(&namespace, any(family)).unwrap();
        let port = server.address().port();
        let one = world.attach_to(namespace, "one", ONE, 100_000, &[all(Protocol::Tcp, 8080, port)]);
        let other = world.attach("other", OTHER, 100_001, &[]);
        let here = of(family, NODE);

        assert_eq!(
            seen(outside, here, 8080),
            of(family, OUTSIDE),
            "the workload sees who comes"
        );
        assert_eq!(seen(&other.namespace, here, 8080), of(family, OTHER));
        assert_eq!(
            seen(&one.namespace, here, 8080),
            here,
            "itself, by way of the node"
        );
        assert_eq!(seen(node, here, 8080), here);
        if family == Family::V4 {
            for loopback in ["127.0.0.1", "127.9.9.9"] {
                assert_eq!(seen(node, loopback.parse().unwrap(), 8080), here, "{loopback}");
            }
        } else {
            is_refused(node, Ipv6Addr::LOCALHOST.into(), 8080);
        }
        // Directly nothing is translated, and other ports are the node's.
        assert_eq!(seen(&other.namespace, of(family, ONE), port), of(family, OTHER));
        assert_eq!(seen(&one.namespace, of(family, ONE), port), of(family, ONE));
        is_refused(outside, here, 8081);
        assert_eq!(world.drift(), Vec::<String>::new());

        world.detach(&one);
        is_refused(outside, here, 8080);
        is_refused(node, here, 8080);
        world.detach(&other);
        assert_eq!(world.drift(), Vec::<String>::new());
        drop(server);
    }
}

#[test]
fn a_port_of_one_address_is_the_nodes_own_at_all_others() {
    let world = World::new();
    world.run("ip", "address add 203.0.113.7/24 dev uplink");
    let namespaces = [(), ()].map(|()| Namespace::new().unwrap());
    let servers = namespaces
        .each_ref()
        .map(|n| Server::start(n, Ipv4Addr::UNSPECIFIED.into()).unwrap());
    let at = |address: &str, server: &Server| HostPort {
        address: Some(address.parse().unwrap()),
        ..all(Protocol::Tcp, 8080, server.address().port())
    };
    let [one, other] = namespaces;
    let ports = [at("203.0.113.7", &servers[0]), at("127.0.0.1", &servers[0])];
    let one = world.attach_to(one, "one", ONE, 100_000, &ports);
    let ports = [at("203.0.113.2", &servers[1])];
    let other = world.attach_to(other, "other", OTHER, 100_001, &ports);
    let (node, outside) = (&world.node.node, &world.node.outside);
    let [second, first] = ["203.0.113.7", "203.0.113.2"].map(|a| a.parse::<IpAddr>().unwrap());
    // A workload that reaches itself sees the node, and so is told from the other one.
    assert_ne!(seen(&one.namespace, second, 8080), of(Family::V4, ONE));
    assert_eq!(seen(&one.namespace, first, 8080), of(Family::V4, ONE));
    assert_eq!(seen(&other.namespace, second, 8080), of(Family::V4, OTHER));
    assert_eq!(seen(outside, second, 8080), of(Family::V4, OUTSIDE));
    seen(node, Ipv4Addr::LOCALHOST.into(), 8080);
    is_refused(node, "127.0.0.2".parse().unwrap(), 8080);
    is_refused(outside, of(Family::V6, NODE), 8080);
    world.detach(&other);
    is_refused(outside, first, 8080);
    assert_eq!(seen(outside, second, 8080), of(Family::V4, OUTSIDE));
}
