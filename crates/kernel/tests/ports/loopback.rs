//! 127.0.0.0/8, whose packets a port lets off the loopback link.

use crate::world::{LIMIT, NEVER, ONE, World, all, of};
use model::address::Family;
use model::ports::{HostPort, Protocol};
use stage::{NODE, Namespace, OUTSIDE, packets};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;

/// 127.0.0.0/8 is routed to the node, as a namespace's own loopback allows.
fn loopback_is_sent_to(namespace: &Namespace, node: &str) {
    let via = format!("route add 127.0.0.0/8 via {node}");
    namespace
        .within(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            for line in [
                "route delete local 127.0.0.0/8 dev lo table local",
                "route delete local 127.0.0.1 dev lo table local",
                &via,
            ] {
                let done = Command::new("ip").args(line.split(' ')).status().unwrap();
                assert!(done.success(), "{line}");
            }
        })
        .unwrap();
}

#[test]
fn what_listens_on_the_nodes_loopback_is_not_open_to_workloads() {
    let world = World::new();
    let one = world.attach("one", ONE, 100_000, &[all(Protocol::Tcp, 8080, 80)]);
    let conf = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", one.plan.host);
    let set = world.on_the_node(|| std::fs::read_to_string(&conf).unwrap());
    assert_eq!(set.trim(), "1", "the link takes packets from 127.0.0.0/8");
    let secret = packets::udp_listener(&world.node.node, Ipv4Addr::LOCALHOST.into()).unwrap();
    let open = packets::udp_listener(&world.node.node, Ipv4Addr::UNSPECIFIED.into()).unwrap();
    loopback_is_sent_to(&one.namespace, "169.254.77.1");
    let own = of(Family::V4, ONE);
    let to = |socket: &UdpSocket, address: Ipv4Addr| {
        SocketAddr::new(address.into(), socket.local_addr().unwrap().port())
    };
    packets::udp_send(&one.namespace, own, to(&secret, Ipv4Addr::LOCALHOST), "no").unwrap();
    packets::udp_send(&one.namespace, own, to(&open, Ipv4Addr::new(127, 0, 0, 5)), "no").unwrap();
    let here = SocketAddr::new(of(Family::V4, NODE), open.local_addr().unwrap().port());
    packets::udp_send(&one.namespace, own, here, "yes").unwrap();
    // What came before it would have been received before it.
    let first = packets::udp_receive(&open, LIMIT).unwrap();
    assert_eq!(first, Some(("yes".to_owned(), own)));
    assert_eq!(packets::udp_receive(&secret, NEVER).unwrap(), None);
    // Without the guard they would come.
    world.run("nft", "flush chain inet workloadnet guard");
    packets::udp_send(&one.namespace, own, to(&secret, Ipv4Addr::LOCALHOST), "no").unwrap();
    let came = packets::udp_receive(&secret, LIMIT).unwrap();
    assert_eq!(came, Some(("no".to_owned(), own)));
}

#[test]
fn a_port_of_the_nodes_loopback_is_closed_to_other_hosts() {
    let world = World::new();
    let port = HostPort {
        address: Some(Ipv4Addr::LOCALHOST.into()),
        ..all(Protocol::Udp, 53, 5353)
    };
    let one = world.attach("one", ONE, 100_000, &[port]);
    let (node, outside) = (&world.node.node, &world.node.outside);
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
    let workload = one.namespace.within(bind).unwrap();
    // A host on the node's link that sends to 127.0.0.1 there.
    loopback_is_sent_to(outside, "203.0.113.2");
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53);
    packets::udp_send(outside, of(Family::V4, OUTSIDE), to, "no").unwrap();
    assert_eq!(packets::udp_receive(&workload, NEVER).unwrap(), None);
    packets::udp_send(node, Ipv4Addr::LOCALHOST.into(), to, "yes").unwrap();
    let (text, _) = packets::udp_receive(&workload, LIMIT).unwrap().unwrap();
    assert_eq!(text, "yes");
    // Without the rule it would come.
    let chain = world.run("nft", "-a list chain inet workloadnet ports");
    let rule = chain.lines().find(|line| line.contains("127.0.0.0/8")).unwrap();
    let handle = rule.rsplit(' ').next().unwrap();
    world.run(
        "nft",
        &format!("delete rule inet workloadnet ports handle {handle}"),
    );
    packets::udp_send(outside, of(Family::V4, OUTSIDE), to, "it comes").unwrap();
    let (text, _) = packets::udp_receive(&workload, LIMIT).unwrap().unwrap();
    assert_eq!(text, "it comes");
}
