//! Single packets that a well-behaved workload would not send: foreign sources, router advertisements, redirects.

use crate::Namespace;
use crate::traffic::checksum;
use anyhow::{Context as _, Result};
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::{set_ipv6_multicast_hops, set_ipv6_unicast_hops};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrV4, SocketAddrV6, SocketFlags, SocketType, bind, ipproto, sendto,
    socket_with,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Listens for UDP on an address of the namespace, on a port that is free.
pub fn udp_listener(namespace: &Namespace, address: IpAddr) -> Result<UdpSocket> {
    namespace
        .within(|| UdpSocket::bind((address, 0)))?
        .with_context(|| format!("listen on {address}"))
}

/// Sends one datagram from a source address that the namespace has to have.
pub fn udp_send(namespace: &Namespace, source: IpAddr, to: SocketAddr, text: &str) -> Result<()> {
    let socket = udp_listener(namespace, source)?;
    socket
        .send_to(text.as_bytes(), to)
        .with_context(|| format!("send from {source} to {to}"))?;
    Ok(())
}

/// The text and the source of the next datagram; `None` where none comes within `limit`.
pub fn udp_receive(socket: &UdpSocket, limit: Duration) -> Result<Option<(String, IpAddr)>> {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    socket.set_read_timeout(Some(limit))?;
    let mut buffer = [0; 2048];
    loop {
        return match socket.recv_from(&mut buffer) {
            Ok((length, from)) => Ok(Some((
                String::from_utf8_lossy(&buffer[..length]).into_owned(),
                from.ip(),
            ))),
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut) => Ok(None),
            // By whoever begins to trace the process, such as another test of it: a wait with a time-out is not resumed.
            Err(error) if error.kind() == Interrupted => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// Advertises itself as a router for everything and a prefix for autoconfiguration (RFC 4861 section 4.2), to all nodes on
/// the link. `source` has to be a link-local address of the link.
pub fn send_router_advertisement(
    namespace: &Namespace,
    link: &str,
    source: Ipv6Addr,
    prefix: Ipv6Addr,
) -> Result<()> {
    let mut packet = vec![134, 0, 0, 0, 64, 0];
    packet.extend(1800_u16.to_be_bytes());
    packet.extend([0; 8]);
    // Prefix information: /64, on-link and autonomous, an hour.
    packet.extend([3, 4, 64, 0xc0]);
    packet.extend(3600_u32.to_be_bytes());
    packet.extend(3600_u32.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(prefix.octets());
    send_v6(
        namespace,
        link,
        source,
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        &packet,
    )
}

/// Asks who has `target`, with a MAC to remember the sender by (RFC 4861 section 4.3). `source` has to be an address of the
/// link.
pub fn send_neighbour_solicitation(
    namespace: &Namespace,
    link: &str,
    source: Ipv6Addr,
    target: Ipv6Addr,
) -> Result<()> {
    let mut packet = vec![135, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(target.octets());
    packet.extend([1, 1, 2, 0, 0, 0, 0, 7]);
    send_v6(namespace, link, source, target, &packet)
}

/// Tells `to` that `destination` is better reached by way of `gateway` (RFC 4861 section 4.5), as an answer to a packet
/// from `to` to `destination`.
pub fn send_redirect_v6(
    namespace: &Namespace,
    link: &str,
    source: Ipv6Addr,
    to: Ipv6Addr,
    destination: Ipv6Addr,
    gateway: Ipv6Addr,
) -> Result<()> {
    let mut packet = vec![137, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(gateway.octets());
    packet.extend(destination.octets());
    // Redirected header: the beginning of the packet that this is about, an echo request.
    packet.extend([4, 7, 0, 0, 0, 0, 0, 0]);
    packet.extend([0x60, 0, 0, 0, 0, 8, 58, 64]);
    packet.extend(to.octets());
    packet.extend(destination.octets());
    packet.extend([128, 0, 0, 0, 0, 1, 0, 1]);
    send_v6(namespace, link, source, to, &packet)
}

fn send_v6(namespace: &Namespace, link: &str, source: Ipv6Addr, to: Ipv6Addr, packet: &[u8]) -> Result<()> {
    let socket = namespace.within(|| {
        socket_with(
            AddressFamily::INET6,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(ipproto::ICMPV6),
        )
    })??;
    let scope = name_to_index(&socket, link).with_context(|| format!("there is no link {link}"))?;
    // RFC 4861 section 6.1: whoever got it over a router throws it away.
    set_ipv6_multicast_hops(&socket, 255)?;
    set_ipv6_unicast_hops(&socket, Some(255))?;
    bind(&socket, &SocketAddrV6::new(source, 0, 0, scope)).with_context(|| format!("send from {source}"))?;
    sendto(
        &socket,
        packet,
        SendFlags::empty(),
        &SocketAddrV6::new(to, 0, 0, scope),
    )
    .with_context(|| format!("send to {to}"))?;
    Ok(())
}

/// Tells `to` that `destination` is better reached by way of `gateway` (RFC 792), as an answer to a packet from `to` to
/// `destination`.
pub fn send_redirect_v4(
    namespace: &Namespace,
    source: Ipv4Addr,
    to: Ipv4Addr,
    destination: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<()> {
    let mut about = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0];
    about.extend(to.octets());
    about.extend(destination.octets());
    let sum = checksum(&about);
    about[10..12].copy_from_slice(&sum.to_be_bytes());
    // An echo reply: for a request, Linux looks for the socket that sent it (icmp_err, net/ipv4/icmp.c).
    about.extend([0, 0, 0xff, 0xfd, 0, 1, 0, 1]);
    let mut packet = vec![5, 1, 0, 0];
    packet.extend(gateway.octets());
    packet.extend(about);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    let socket = namespace.within(|| {
        socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(ipproto::ICMP),
        )
    })??;
    bind(&socket, &SocketAddrV4::new(source, 0)).with_context(|| format!("send from {source}"))?;
    sendto(&socket, &packet, SendFlags::empty(), &SocketAddrV4::new(to, 0))
        .with_context(|| format!("send to {to}"))?;
    Ok(())
}
