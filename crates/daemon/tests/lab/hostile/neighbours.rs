//! What a workload says of neighbours and routes, and addresses of others that it takes for itself.

use super::{Stand, Undisturbed, v4, v6};
use crate::witness::run;
use stage::change::Links;
use stage::frames::{
    BROADCAST, Mac, Packet, arp, datagram, ethernet, frames, neighbour_advertisement, neighbour_solicitation,
};
use stage::packets::{
    send_redirect_v4, send_redirect_v6, send_router_advertisement, udp_listener, udp_receive, udp_send,
};
use stage::wait::PATIENCE;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Of everything that is said, so often. More than a link may ask at once.
const TIMES: u8 = 40;

/// That addresses of others are at its MAC, or at one that it makes up, as answers and as questions.
fn lies(stand: &Stand) -> Vec<Packet> {
    let nobody: Mac = [2, 0, 0, 0, 0, 0x99];
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let (first_hop_v4, first_hop_v6) = ("169.254.77.1".parse().unwrap(), "fe80::1".parse().unwrap());
    let theirs4 = [stand.innocent.ips[0], stand.outside[0], stand.node[0]].map(v4);
    let theirs6 = [stand.innocent.ips[1], stand.outside[1], stand.node[1]].map(v6);
    let mut packets = Vec::new();
    for mac in [stand.hostile.mac, nobody] {
        for address in theirs4.into_iter().chain([first_hop_v4]) {
            for target in theirs4.into_iter().chain([first_hop_v4, address]) {
                packets.push(arp(1, (mac, address), (Mac::default(), target)));
                packets.push(arp(2, (mac, address), (stand.first_hop, target)));
            }
        }
        for address in theirs6.into_iter().chain([first_hop_v6]) {
            for to in [all_nodes, first_hop_v6] {
                for from in [address, "fe80::bad".parse().unwrap()] {
                    packets.push(neighbour_advertisement(from, to, address, mac));
                    packets.push(neighbour_solicitation(from, to, address, mac));
                }
            }
        }
    }
    packets
}

#[test]
fn what_a_workload_says_of_neighbours_and_routes_changes_nothing_for_others() {
    let stand = Stand::new();
    let before = stand.node(true);
    let undisturbed = Undisturbed::begin(&stand);
    let hostile = &stand.hostile.sandbox;
    let link = frames(hostile, "eth0").unwrap();
    for packet in lies(&stand) {
        for _ in 0..TIMES {
            for to in [stand.first_hop, BROADCAST] {
                link.send(&ethernet(stand.hostile.mac, to, &packet)).unwrap();
            }
        }
    }
    // Made up senders, each of which the node would have to remember.
    for n in 0..=u8::MAX {
        let (made_up, mac) = (
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xbad, n.into()),
            [2, 0, 0, 0, 1, n],
        );
        let first_hop = "fe80::1".parse().unwrap();
        let ask = neighbour_solicitation(made_up, first_hop, first_hop, mac);
        link.send(&ethernet(mac, stand.first_hop, &ask)).unwrap();
        let sender = (mac, Ipv4Addr::new(10, 99, 0, n));
        let ask = arp(1, sender, (Mac::default(), "169.254.77.1".parse().unwrap()));
        link.send(&ethernet(mac, BROADCAST, &ask)).unwrap();
    }
    let own_link_local: Ipv6Addr = "fe80::bad".parse().unwrap();
    let mut own = Links::of(hostile).unwrap();
    own.add_address("eth0", IpAddr::V6(own_link_local).into())
        .unwrap();
    let (own4, first_hop_v4) = (v4(stand.hostile.ips[0]), "169.254.77.1".parse().unwrap());
    for _ in 0..TIMES {
        let prefix = "2001:db8:bad::".parse().unwrap();
        send_router_advertisement(hostile, "eth0", own_link_local, prefix).unwrap();
        for (host4, host6) in [
            (first_hop_v4, "fe80::1".parse().unwrap()),
            (v4(stand.node[0]), v6(stand.node[1])),
            (v4(stand.innocent.ips[0]), v6(stand.innocent.ips[1])),
            (v4(stand.outside[0]), v6(stand.outside[1])),
        ] {
            send_redirect_v4(hostile, own4, host4, v4(stand.outside[0]), own4).unwrap();
            let beyond = v6(stand.outside[1]);
            send_redirect_v6(hostile, "eth0", own_link_local, host6, beyond, own_link_local).unwrap();
        }
    }
    stand.is_heard();
    let node = &stand.daemon.node.node;
    let learned = run(
        node,
        &format!("ip neighbour show dev {} nud all", stand.hostile.host_link),
    );
    let learned = learned
        .lines()
        .filter(|line| line.contains("lladdr") && !line.contains("PERMANENT"));
    assert!(
        learned.count() <= 30,
        "a link fills the node's table of neighbours"
    );
    undisturbed.end();
    stand.is_unchanged(&before, true, "afterwards");
    stand.is_cleaned_up();
}

/// It has them, says so to everybody, and listens; and nobody sends anything there.
#[test]
fn an_address_that_a_workload_takes_for_itself_stays_with_whoever_was_given_it() {
    let stand = Stand::new();
    let before = stand.node(true);
    let undisturbed = Undisturbed::begin(&stand);
    let hostile = &stand.hostile.sandbox;
    let mut own = Links::of(hostile).unwrap();
    let stolen: Vec<IpAddr> = [stand.innocent.ips, stand.outside, stand.node].concat();
    for address in &stolen {
        own.add_address("eth0", (*address).into()).unwrap();
    }
    run(
        hostile,
        "sysctl -w net.ipv4.conf.eth0.proxy_arp=1 net.ipv6.conf.eth0.proxy_ndp=1",
    );
    run(
        hostile,
        "sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    );
    run(
        hostile,
        &format!("ip neighbour add proxy {} dev eth0", stand.outside[1]),
    );
    let link = frames(hostile, "eth0").unwrap();
    for packet in lies(&stand) {
        link.send(&ethernet(stand.hostile.mac, BROADCAST, &packet))
            .unwrap();
    }
    for (n, address) in stand.innocent.ips.into_iter().enumerate() {
        let owner = udp_listener(&stand.innocent.sandbox, address).unwrap();
        let port = owner.local_addr().unwrap().port();
        let thief = hostile
            .within(|| std::net::UdpSocket::bind((address, port)))
            .unwrap()
            .unwrap();
        let to = SocketAddr::new(address, port);
        let senders = [
            (&stand.daemon.node.outside, stand.outside[n]),
            (&stand.daemon.node.node, stand.node[n]),
        ];
        for (sender, from) in senders {
            udp_send(sender, from, to, "for the owner").unwrap();
            let got = udp_receive(&owner, PATIENCE).unwrap();
            assert_eq!(got, Some(("for the owner".to_owned(), from)));
        }
        let got = udp_receive(&thief, Duration::from_millis(1)).unwrap();
        assert_eq!(got, None, "{address}");
        // What the thief sends under the owner's name arrives nowhere; what it sends under its own does, and later.
        let outside = udp_listener(&stand.daemon.node.outside, stand.outside[n]).unwrap();
        let to = outside.local_addr().unwrap();
        let own = stand.hostile.ips[n];
        link.send(&ethernet(
            stand.hostile.mac,
            stand.first_hop,
            &datagram(address, to.ip(), to.port(), b"stolen"),
        ))
        .unwrap();
        link.send(&ethernet(
            stand.hostile.mac,
            stand.first_hop,
            &datagram(own, to.ip(), to.port(), b"own"),
        ))
        .unwrap();
        let got = udp_receive(&outside, PATIENCE).unwrap();
        assert_eq!(got, Some(("own".to_owned(), own)));
    }
    undisturbed.end();
    for address in stolen {
        let net = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        run(hostile, &format!("ip address delete {net} dev eth0"));
    }
    stand.is_heard();
    stand.is_unchanged(&before, true, "afterwards");
    stand.is_cleaned_up();
}
