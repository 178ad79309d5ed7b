//! Connections that outlive what they were led to.

use crate::world::{LIMIT, NEVER, ONE, OTHER, Workload, World, all, any, of};
use model::address::Family;
use model::datapath::Datapath as _;
use model::flows::Past;
use model::ports::{Place, Protocol};
use stage::{NODE, OUTSIDE, packets};
use std::net::{IpAddr, SocketAddr, UdpSocket};

#[test]
fn a_running_flow_of_datagrams_follows_a_port_to_whoever_has_it() {
    let world = World::new();
    let outside = &world.node.outside;
    for (n, family) in (0..).zip(Family::ALL) {
        let here = of(family, NODE);
        let own = world.on_the_node(|| UdpSocket::bind((here, 53))).unwrap();
        let client = packets::udp_listener(outside, of(family, OUTSIDE)).unwrap();
        let sent = |text: &str| client.send_to(text.as_bytes(), (here, 53)).unwrap();
        let hears = |server: &UdpSocket, text: &str| {
            let came = packets::udp_receive(server, LIMIT).unwrap();
            assert_eq!(came, Some((text.to_owned(), of(family, OUTSIDE))));
        };
        let place = Place {
            family,
            protocol: Protocol::Udp,
            port: 53,
            address: None,
        };
        let forget = |past: &Past| world.on_the_node(|| world.linux.forget(past).unwrap().flows);
        sent("to the node");
        hears(&own, "to the node");

        let one = world.attach("one", ONE, 100_000 + 10 * n, &[all(Protocol::Udp, 53, 5353)]);
        let bound = |workload: &Workload| {
            let bind = || UdpSocket::bind((any(family), 5353)).unwrap();
            workload.namespace.within(bind).unwrap()
        };
        let at_one = bound(&one);
        sent("still to the node");
        hears(&own, "still to the node");
        // A connection to elsewhere has the same port, and is none of the node's own.
        let resolver = packets::udp_listener(outside, any(family)).unwrap();
        let past_it = SocketAddr::new(of(family, OUTSIDE), resolver.local_addr().unwrap().port());
        packets::udp_send(&one.namespace, of(family, ONE), past_it, "to elsewhere").unwrap();
        assert!(packets::udp_receive(&resolver, LIMIT).unwrap().is_some());
        let elsewhere = Place {
            port: past_it.port(),
            ..place
        };
        let opened = Past {
            places: [place, elsewhere].into(),
            ..Past::default()
        };
        assert_eq!(forget(&opened), 1, "the one to the node");
        sent("to one");
        hears(&at_one, "to one");

        world.detach(&one);
        let other = world.attach("other", OTHER, 100_001 + 10 * n, &[all(Protocol::Udp, 53, 5353)]);
        let at_other = bound(&other);
        sent("lost");
        assert_eq!(packets::udp_receive(&at_other, NEVER).unwrap(), None);
        let gone = Past {
            addresses: [of(family, ONE)].into(),
            ..Past::default()
        };
        assert_eq!(forget(&gone), 2, "by the port, and to elsewhere");
        assert_eq!(forget(&gone), 0);
        sent("to the other");
        hears(&at_other, "to the other");
        let many = Past {
            addresses: (3..20_u8)
                .map(|n| match family {
                    Family::V4 => IpAddr::from([10, 77, 0, n]),
                    Family::V6 => format!("fd77::{n:x}").parse().unwrap(),
                })
                .collect(),
            ..Past::default()
        };
        assert_eq!(forget(&many), 1);
        world.detach(&other);
    }
}
