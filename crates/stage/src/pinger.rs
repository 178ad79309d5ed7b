//! ICMP echo (RFC 792, RFC 4443 section 4) from sockets that are open before there is a way, for tests in which the first
//! packet counts.

use crate::Namespace;
use crate::traffic::checksum;
use anyhow::{Context as _, Result, bail};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrV6, SocketFlags, SocketType, connect, ipproto, recv, send,
    socket_with,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);
const PAYLOAD: &[u8; 16] = b"workloadnet ping";

/// A socket for echo requests, without a destination yet, so that a test can be ready before there is a way.
#[derive(Debug)]
pub struct Pinger {
    socket: OwnedFd,
}

impl Pinger {
    /// Opens a socket in a namespace, for destinations of the same family as `like`.
    pub fn open(from: &Namespace, like: IpAddr) -> Result<Self> {
        let (family, protocol) = match like {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = from
            .within(|| socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)))?
            .context("open an ICMP socket")?;
        Ok(Self { socket })
    }

    /// Chooses the destination; a link-local IPv6 address needs the link. Sends nothing.
    pub fn aim(self, to: IpAddr, link: Option<&str>) -> Result<Aimed> {
        static ID: AtomicU16 = AtomicU16::new(1);
        let Self { socket } = self;
        let scope = match link {
            Some(name) => name_to_index(&socket, name).with_context(|| format!("there is no link {name}"))?,
            None => 0,
        };
        match to {
            IpAddr::V4(address) => connect(&socket, &SocketAddr::from((address, 0))),
            IpAddr::V6(address) => connect(&socket, &SocketAddrV6::new(address, 0, 0, scope)),
        }
        .with_context(|| format!("find a way to {to}"))?;
        Ok(Aimed {
            socket,
            to,
            id: ID.fetch_add(1, Ordering::Relaxed),
            sequence: 0,
        })
    }
}

/// A socket for echo requests to one destination.
#[derive(Debug)]
pub struct Aimed {
    socket: OwnedFd,
    to: IpAddr,
    id: u16,
    sequence: u16,
}

impl Aimed {
    /// One request, one answer.
    pub fn ping(&mut self, limit: Duration) -> Result<Duration> {
        self.sequence = self.sequence.wrapping_add(1);
        let (request, reply) = if self.to.is_ipv4() { ECHO_V4 } else { ECHO_V6 };
        let mut packet = vec![request, 0, 0, 0];
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(PAYLOAD);
        if self.to.is_ipv4() {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let start = Instant::now();
        send(&self.socket, &packet, SendFlags::empty()).with_context(|| format!("send to {}", self.to))?;
        let mut buffer = [0; 2048];
        loop {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                bail!("no answer from {} within {limit:?}", self.to);
            }
            set_socket_timeout(
                &self.socket,
                Timeout::Recv,
                Some(left.max(Duration::from_millis(1))),
            )?;
            let length = match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(error) => return Err(error).with_context(|| format!("wait for {}", self.to)),
            };
            if self.is_answer(&buffer[..length], reply, &packet) {
                return Ok(start.elapsed());
            }
        }
    }

    /// A raw IPv4 socket receives with the IP header, a raw IPv6 socket without (raw(7), RFC 3542).
    fn is_answer(&self, received: &[u8], reply: u8, request: &[u8]) -> bool {
        let header = match (self.to, received.first()) {
            (IpAddr::V4(_), Some(first)) => usize::from(first & 0x0f) * 4,
            _ => 0,
        };
        received
            .get(header..)
            .is_some_and(|icmp| icmp.first() == Some(&reply) && icmp.get(4..) == request.get(4..))
    }
}
