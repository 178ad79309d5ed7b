//! Ping and TCP between namespaces.

use crate::Namespace;
use anyhow::{Context as _, bail};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recvfrom, sendto, socket};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const ECHO_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Where the stage listens.
const PORT: u16 = 7;
/// The scope of link-local addresses inside a workload: its link has the index after loopback's.
const WORKLOAD_SCOPE: u32 = 2;

/// Sends one echo request (RFC 792, RFC 4443) from a namespace, and returns how long the answer took.
pub fn ping(from: &Namespace, to: IpAddr, limit: Duration) -> anyhow::Result<Duration> {
    from.within(|| try_ping(to, limit))?
        .with_context(|| format!("ping {to}"))
}

fn try_ping(to: IpAddr, limit: Duration) -> anyhow::Result<Duration> {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, ECHO_V4, ECHO_REPLY_V4),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, ECHO_V6, ECHO_REPLY_V6),
    };
    let socket = socket(family, SocketType::RAW, Some(protocol))?;
    let began = Instant::now();
    let mark = [0x77, 0x6e, 0, 1, 0x77, 0x6c];
    let mut packet = vec![request, 0, 0, 0];
    packet.extend_from_slice(&mark);
    // The kernel fills in ICMPv6's checksum (RFC 3542, section 3.1), not ICMP's.
    if to.is_ipv4() {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let target = match to {
        IpAddr::V6(a) if a.is_unicast_link_local() => SocketAddrV6::new(a, 0, 0, WORKLOAD_SCOPE).into(),
        _ => SocketAddr::new(to, 0),
    };
    sendto(&socket, &packet, SendFlags::empty(), &target)?;
    let mut buffer = [0; 1500];
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            bail!("no answer within {limit:?}");
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(left))?;
        let Ok((length, _, from)) = recvfrom(&socket, &mut buffer[..], RecvFlags::empty()) else {
            continue;
        };
        let from = from.and_then(|from| SocketAddr::try_from(from).ok());
        let start = if to.is_ipv4() {
            usize::from(buffer[0] & 15) * 4
        } else {
            0
        };
        let message = buffer.get(start..length).unwrap_or_default();
        if from.is_some_and(|from| from.ip() == to)
            && message.first() == Some(&reply)
            && message[4..].starts_with(&mark)
        {
            return Ok(began.elapsed());
        }
    }
}

/// The Internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

/// A TCP server that tells each client the address that it sees it by.
#[derive(Debug)]
pub struct Echo(());

impl Echo {
    /// Listens in a namespace on both families, on threads that live as long as the process.
    pub fn start(namespace: &Namespace) -> anyhow::Result<Self> {
        let listener = namespace
            .within(|| TcpListener::bind(("::", PORT)))?
            .context("listen")?;
        std::thread::Builder::new()
            .name("echo".to_owned())
            .spawn(move || {
                for client in listener.incoming().flatten() {
                    answer(client);
                }
            })?;
        Ok(Self(()))
    }
}

/// A client that hangs up early misses its answer, which is its own loss.
fn answer(mut client: TcpStream) {
    if let Ok(peer) = client.peer_addr() {
        let _ = client.write_all(peer.ip().to_canonical().to_string().as_bytes());
    }
}

/// Connects by TCP from a namespace, and returns the address that the server sees.
pub fn exchange(from: &Namespace, to: IpAddr, limit: Duration) -> anyhow::Result<IpAddr> {
    let talk = || -> anyhow::Result<IpAddr> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), limit)?;
        stream.set_read_timeout(Some(limit))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.parse()?)
    };
    from.within(talk)?.with_context(|| format!("TCP to {to}"))
}
