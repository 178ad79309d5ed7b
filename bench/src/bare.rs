//! The floor: the shortest netlink sequence after which an attachment is complete and usable, from a loop, with no daemon,
//! no record that could be read again, no rule and no check. It does not change when the product does.
//!
//! ```text
//!  node's socket       both ends | alias, no link-local address | up | two routes | two neighbours | fe80::1
//!  workload's socket   lo up | eth0 up | per family: address, on-link route, default route | two neighbours
//!  node's socket       the link again: its answer means that packets flow
//! ```
//!
//! An end has two times: until the kernel announces it (RTM_DELLINK), when the link is gone and its addresses are free, and
//! until the kernel acknowledges it, after a grace period of RCU. A second thread asks for it, because who asks is held up.

use anyhow::{Context as _, Result};
use kernel::Message;
use kernel::socket::{Answer, ROUTE, Socket};
use model::address::octets;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const NEWNEIGH: u16 = 28;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;
/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;
const UP: u32 = 1;
/// `IFA_F_NODAD`.
const NODAD: u32 = 2;
/// `NUD_PERMANENT`.
const PERMANENT: u16 = 0x80;
const HOST_MAC: [u8; 6] = [0x02, 0x9c, 0x52, 0xfe, 0x6d, 0x0a];
const FIRST_HOP: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 77, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];
/// Away from what the kernel chooses by itself.
const FIRST_INDEX: u32 = 200_000;
/// The workload's end, after loopback.
const INSIDE: u32 = 2;

/// The group of links that go together.
const LEAVING: u32 = 4_242_424;
/// `1 << (RTNLGRP_LINK - 1)`.
const LINKS: u32 = 1;
/// Holds the announcements of thousands of links.
const BUFFER: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A loop in the namespace of the thread that made it, which is the only one that may use it.
#[derive(Debug)]
pub(crate) struct Bare {
    home: File,
    host: Socket,
    made: u32,
    announcements: OwnedFd,
    deleter: Deleter,
}

/// A thread that deletes links; it ends with this value.
#[derive(Debug)]
struct Deleter {
    orders: Sender<u32>,
    /// When an order went out, before the kernel has done anything, and what became of it.
    began: Receiver<Instant>,
    done: Receiver<Result<()>>,
}

impl Bare {
    /// In the thread's network namespace.
    pub(crate) fn here() -> Result<Self> {
        Ok(Self {
            home: File::open("/proc/thread-self/ns/net").context("open the thread's own namespace")?,
            host: Socket::open(ROUTE)?,
            made: 0,
            announcements: announcements()?,
            deleter: Deleter::here()?,
        })
    }

    /// Attaches the namespace at `path`; the host end's index.
    pub(crate) fn attach(&mut self, path: &str) -> Result<u32> {
        let (n, index) = (self.made, FIRST_INDEX + self.made);
        self.made += 1;
        let [b1, b2, b3, b4] = n.to_be_bytes();
        let mac = [0x06, 0, b1, b2, b3, b4];
        let own = [
            IpAddr::from([10, 100 + b2, b3, b4]),
            IpAddr::from([0xfd99, 0, 0, 0, 0, 0, (n >> 16) as u16, n as u16]),
        ];
        let namespace = File::open(path).with_context(|| format!("open {path}"))?;
        let host = [
            create(n, index, mac, namespace.as_fd()),
            describe(n, index),
            up(index),
            route(own[0], None, None, index),
            route(own[1], None, None, index),
            neighbour(own[0], mac, index),
            neighbour(own[1], mac, index),
            address(FIRST_HOP[1], index),
        ];
        self.host.batch(&host)?.ok()?;
        let mut inside = vec![up(1), up(INSIDE)];
        for (own, first_hop) in own.into_iter().zip(FIRST_HOP) {
            inside.extend([
                address(own, INSIDE),
                route(first_hop, None, None, INSIDE),
                route(unspecified(own), Some(first_hop), Some(own), INSIDE),
                neighbour(first_hop, HOST_MAC, INSIDE),
            ]);
        }
        self.inside(namespace.as_fd())?.batch(&inside)?.ok()?;
        self.host.batch(&[link(GETLINK, 0, index, 0, 0)])?.ok()?;
        Ok(index)
    }

    /// Deletes a link; how long it took until the kernel announced its end. The kernel still works on it afterwards.
    pub(crate) fn end(&mut self, index: u32) -> Result<Duration> {
        let mut buffer = [0; 8192];
        // What is there already is of the past.
        while received(&self.announcements, &mut buffer, RecvFlags::DONTWAIT)?.is_some() {}
        let Deleter { orders, began, .. } = &self.deleter;
        orders.send(index).context("the deleting thread has ended")?;
        loop {
            let length = received(&self.announcements, &mut buffer, RecvFlags::empty())?
                .with_context(|| format!("the end of link {index} is not announced within {PATIENCE:?}"))?;
            if ends(&buffer[..length], index) {
                let ended = Instant::now();
                return Ok(ended - began.recv().context("the deleting thread has ended")?);
            }
        }
    }

    /// Waits until the kernel has acknowledged the last [`Bare::end`].
    pub(crate) fn settle(&self) -> Result<()> {
        self.deleter
            .done
            .recv()
            .context("the deleting thread has ended")?
    }

    /// Deletes a link and waits for the kernel's acknowledgement.
    pub(crate) fn detach(&mut self, index: u32) -> Result<()> {
        self.host
            .batch(&[link(DELLINK, 0, index, 0, 0)])
            .and_then(Answer::ok)?;
        Ok(())
    }

    /// Deletes many links, as quickly as that goes: all at once, by a group that nobody else has.
    pub(crate) fn clear(&mut self, links: &[u32]) -> Result<()> {
        for some in links.chunks(100) {
            let moves: Vec<_> = some
                .iter()
                .map(|index| link(SETLINK, 0, *index, 0, 0).u32(27, LEAVING))
                .collect();
            self.host.batch(&moves)?.ok()?;
            self.host
                .batch(&[link(DELLINK, 0, 0, 0, 0).u32(27, LEAVING)])?
                .ok()?;
        }
        Ok(())
    }

    /// Has the kernel tell of all links once, which nobody who wants to know what stands can do without.
    pub(crate) fn list(&mut self) -> Result<()> {
        self.host.dump(&link(GETLINK, DUMP, 0, 0, 0))?;
        Ok(())
    }

    /// A socket in another namespace, opened as cheaply as it can be: the thread goes there and comes back.
    fn inside(&self, namespace: BorrowedFd<'_>) -> Result<Socket> {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace, network).context("enter the workload's namespace")?;
        let socket = Socket::open(ROUTE);
        if move_into_link_name_space(self.home.as_fd(), network).is_err() {
            // Everything after this would measure, and change, the wrong namespace.
            std::process::abort();
        }
        Ok(socket?)
    }
}

impl Deleter {
    /// In the thread's network namespace, which a thread that it starts inherits.
    fn here() -> Result<Self> {
        let (orders, received) = channel::<u32>();
        let (tell, began) = channel();
        let (finish, done) = channel();
        let mut socket = Socket::open(ROUTE)?;
        std::thread::Builder::new()
            .name("deleter".to_owned())
            .spawn(move || {
                for index in received {
                    let message = [link(DELLINK, 0, index, 0, 0)];
                    // Who listens may have ended with an error.
                    let _ = tell.send(Instant::now());
                    let outcome = socket.batch(&message).and_then(Answer::ok);
                    let _ = finish.send(outcome.map(drop).map_err(Into::into));
                }
            })
            .context("start the deleting thread")?;
        Ok(Self { orders, began, done })
    }
}

/// Hears of every link of the thread's namespace.
fn announcements() -> Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is 0.
        None,
    )
    .context("open a socket for announcements")?;
    set_socket_recv_buffer_size_force(&socket, BUFFER).context("enlarge its buffer")?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    bind(&socket, &SocketAddrNetlink::new(0, LINKS)).context("listen to announcements")?;
    Ok(socket)
}

/// The length of what came, if anything did.
fn received(socket: &OwnedFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Option<usize>> {
    loop {
        match recv(socket, &mut *buffer, flags) {
            Ok((length, _)) => return Ok(Some(length)),
            Err(Errno::AGAIN) => return Ok(None),
            // Too much came while nobody listened, and of the past nothing is needed.
            Err(Errno::INTR | Errno::NOBUFS) => {}
            Err(error) => return Err(error).context("listen to announcements"),
        }
    }
}

/// Whether an announcement is that of a link's end (`struct nlmsghdr`, `struct ifinfomsg`).
fn ends(message: &[u8], index: u32) -> bool {
    let (kind, of) = (message.get(4..6), message.get(20..24));
    kind == Some(&DELLINK.to_ne_bytes()[..]) && of == Some(&index.to_ne_bytes()[..])
}

/// Takes loopback down again, so that each attach finds a namespace as a runtime makes it. Leaves everything else.
pub(crate) fn as_new(namespace: &stage::Namespace) -> Result<()> {
    namespace.within(|| {
        Socket::open(ROUTE)?
            .batch(&[link(SETLINK, 0, 1, 0, UP)])
            .and_then(Answer::ok)
    })??;
    Ok(())
}

/// `struct ifinfomsg` behind a header.
fn link(kind: u16, flags: u16, index: u32, set: u32, change: u32) -> Message {
    Message::new(kind, flags, format!("message {kind} about link {index}")).fixed(&head(index, set, change))
}

fn head(index: u32, set: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&set.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn create(n: u32, index: u32, mac: [u8; 6], namespace: BorrowedFd<'_>) -> Message {
    link(NEWLINK, CREATE, index, 0, 0)
        .text(3, &format!("bare{n}"))
        .bytes(1, &HOST_MAC)
        .u32(27, 8)
        .u32(31, 1)
        .u32(32, 1)
        .nest(18, |info| {
            info.text(1, "veth").nest(2, |data| {
                data.nest(1, |peer| {
                    peer.fixed(&head(INSIDE, 0, 0))
                        .text(3, "eth0")
                        .bytes(1, &mac)
                        .u32(31, 1)
                        .u32(32, 1)
                        .u32(28, namespace.as_raw_fd().cast_unsigned())
                })
            })
        })
}

/// An alias as long as a record, and `IN6_ADDR_GEN_MODE_NONE`.
fn describe(n: u32, index: u32) -> Message {
    link(SETLINK, 0, index, 0, 0)
        .text(20, &format!("{n:0>100}"))
        .nest(26, |spec| spec.nest(10, |inet6| inet6.u8(8, 1)))
}

fn up(index: u32) -> Message {
    link(SETLINK, 0, index, UP, UP)
}

fn address(address: IpAddr, index: u32) -> Message {
    let scope = if FIRST_HOP.contains(&address) { 253 } else { 0 };
    let mut head = [family(address), bits(address), 0, scope, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(NEWADDR, CREATE, format!("address {address} on link {index}"))
        .fixed(&head)
        .bytes(2, &octets(address))
        .bytes(1, &octets(address))
        .u32(8, NODAD)
}

fn route(to: IpAddr, via: Option<IpAddr>, source: Option<IpAddr>, index: u32) -> Message {
    let length = if to.is_unspecified() { 0 } else { bits(to) };
    let scope = if via.is_none() && to.is_ipv4() { 253 } else { 0 };
    let mut message = Message::new(NEWROUTE, CREATE, format!("route to {to} over link {index}")).fixed(&[
        family(to),
        length,
        0,
        0,
        254,
        4,
        scope,
        1,
        0,
        0,
        0,
        0,
    ]);
    if length > 0 {
        message = message.bytes(1, &octets(to));
    }
    for (kind, address) in [(5, via), (7, source)] {
        message = address
            .iter()
            .fold(message, |message, address| message.bytes(kind, &octets(*address)));
    }
    message.u32(4, index)
}

fn neighbour(address: IpAddr, mac: [u8; 6], index: u32) -> Message {
    let mut head = [0; 12];
    head[0] = family(address);
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    Message::new(NEWNEIGH, CREATE, format!("neighbour {address} on link {index}"))
        .fixed(&head)
        .bytes(1, &octets(address))
        .bytes(2, &mac)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_link_itself_is_its_end() {
        let mut message = [0; 32];
        message[4..6].copy_from_slice(&DELLINK.to_ne_bytes());
        message[20..24].copy_from_slice(&7_u32.to_ne_bytes());
        assert!(ends(&message, 7));
        assert!(!ends(&message, 8));
        message[4..6].copy_from_slice(&NEWLINK.to_ne_bytes());
        assert!(!ends(&message, 7));
        assert!(!ends(&message[..10], 7));
    }
}
