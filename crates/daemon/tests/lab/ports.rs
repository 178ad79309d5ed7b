//! Ports of the node, as the daemon keeps them.

use crate::daemon::{Daemon, attach_with_port, detach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use client::workload::AttachRequest;
use client::workload::port_mapping::Protocol;
use stage::packets::{udp_listener, udp_receive};
use stage::tcp::{Conversation, Server};
use stage::wait::{A_SECOND, PATIENCE, eventually};
use stage::{NODE, Namespace, OUTSIDE};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const PORT: u16 = 5300;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn over_udp(id: &str, namespace: &Sandbox) -> AttachRequest {
    let mut request = attach_with_port(id, namespace, PORT, PORT);
    request.port_mapping[0].protocol = Protocol::Udp.into();
    request
}

/// A socket inside, on the port that is led to.
fn listening(namespace: &Namespace) -> UdpSocket {
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    namespace.within(bind).unwrap()
}

/// The client sends until it is heard.
fn hears(client: &UdpSocket, server: &UdpSocket) {
    eventually(
        PATIENCE,
        "the client is heard",
        || {
            client.send_to(b"again", (address(NODE[0]), PORT)).unwrap();
            udp_receive(server, Duration::from_millis(20)).unwrap()
        },
        Option::is_some,
    );
}

#[test]
fn datagrams_of_one_client_follow_a_port_from_the_node_to_its_holders() {
    let daemon = Daemon::started();
    let on_the_node = listening(&daemon.node.node);
    let client = udp_listener(&daemon.node.outside, address(OUTSIDE[0])).unwrap();
    hears(&client, &on_the_node);
    for id in ["one", "other"] {
        let namespace = Sandbox::new();
        let server = listening(&namespace);
        daemon.caller().attach(over_udp(id, &namespace)).unwrap();
        hears(&client, &server);
        daemon.caller().detach(detach(id)).unwrap();
    }
    hears(&client, &on_the_node);
}

#[test]
fn ports_that_others_lead_elsewhere_are_none_of_ours() {
    let daemon = Daemon::started();
    let node = &daemon.node.node;
    for line in [
        "nft add table ip others",
        "nft add chain ip others pre { type nat hook prerouting priority -110; }",
        "nft add map ip others ports { type inet_service : ipv4_addr; }",
        "nft add element ip others ports { 8081 : 203.0.113.1 }",
        "nft add rule ip others pre dnat to tcp dport map @ports",
    ] {
        run(node, line);
    }
    let theirs = || run(node, "nft -a list table ip others");
    let before = theirs();
    let namespace = Sandbox::new();
    let server = Server::start(&namespace, Ipv4Addr::UNSPECIFIED.into()).unwrap();
    let request = attach_with_port("web", &namespace, 8080, server.address().port());
    daemon.caller().attach(request).unwrap();
    let reach = || {
        let to = SocketAddr::new(address(NODE[0]), 8080);
        Conversation::open(&daemon.node.outside, to, A_SECOND)
    };
    reach().unwrap();
    run(node, "nft delete table inet workloadnet");
    eventually(PATIENCE, "the port is back", || reach().is_ok(), |is| *is);
    daemon.caller().detach(detach("web")).unwrap();
    reach().unwrap_err();
    assert_eq!(theirs(), before);
}
