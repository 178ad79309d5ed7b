//! Protocols beside TCP: datagrams, and the beginning of an SCTP association.

use crate::world::{LIMIT, ONE, World, all, any, of};
use model::address::Family;
use model::ports::Protocol;
use stage::{NODE, packets};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

#[test]
fn datagrams_and_their_answers_pass() {
    let world = World::new();
    let one = world.attach(
        "one",
        ONE,
        100_000,
        &[all(Protocol::Udp, 53, 5353), all(Protocol::Tcp, 53, 1)],
    );
    for family in Family::ALL {
        let server = one
            .namespace
            .within(|| UdpSocket::bind((of(family, ONE), 5353)))
            .unwrap()
            .unwrap();
        let mut ways = vec![
            (&world.node.outside, of(family, NODE)),
            (&world.node.node, of(family, NODE)),
        ];
        if family == Family::V4 {
            ways.push((&world.node.node, Ipv4Addr::LOCALHOST.into()));
        }
        for (from, to) in ways {
            let client = packets::udp_listener(from, any(family)).unwrap();
            // Answers come only from who was asked.
            client.connect(SocketAddr::new(to, 53)).unwrap();
            client.send(b"ping").unwrap();
            server.set_read_timeout(Some(LIMIT)).unwrap();
            let mut buffer = [0; 16];
            let (length, peer) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], peer).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 4, "by {to}");
        }
    }
}

/// The beginning of an SCTP association (RFC 9260, section 3.3.2): this kernel tracks and translates it, and has no sockets.
fn sctp_init(to: u16) -> Vec<u8> {
    let mut packet = [
        4000_u16.to_be_bytes(),
        to.to_be_bytes(),
        [0; 2],
        [0; 2],
        [0; 2],
        [0; 2],
    ]
    .concat();
    packet.extend([1, 0, 0, 20]);
    packet.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    // CRC32c (appendix A), without which connection tracking takes it for garbage.
    let mut crc = u32::MAX;
    for byte in &packet {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
    packet
}

#[test]
fn the_beginning_of_an_sctp_association_is_led_to_the_workloads_port() {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};
    let world = World::new();
    let one = world.attach("one", ONE, 100_000, &[all(Protocol::Sctp, 3868, 38_680)]);
    for (family, domain, head) in [
        (Family::V4, AddressFamily::INET, 20),
        (Family::V6, AddressFamily::INET6, 0),
    ] {
        let raw = || socket(domain, SocketType::RAW, Some(ipproto::SCTP)).unwrap();
        let (client, server) = (
            world.node.outside.within(raw).unwrap(),
            one.namespace.within(raw).unwrap(),
        );
        let limit = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&server, limit, Some(LIMIT)).unwrap();
        let to = SocketAddr::new(of(family, NODE), 0);
        sendto(&client, &sctp_init(3868), SendFlags::empty(), &to).unwrap();
        let mut buffer = [0; 128];
        let (length, _) = recv(&server, &mut buffer[..], RecvFlags::empty()).unwrap();
        let came = &buffer[head..length];
        assert_eq!(came[..4], sctp_init(38_680)[..4], "the ports");
        assert_eq!(came, sctp_init(38_680), "and a checksum that fits");
    }
}
