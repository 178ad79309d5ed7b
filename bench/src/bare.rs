//! The floor: the shortest netlink sequence after which an attachment is complete and usable, from a loop, with no daemon,
//! no record that could be read again, no rule and no check. It does not change when the product does.
//!
//! ```text
//!  node's socket       both ends | alias, no link-local address | up | two routes | two neighbours | fe80::1
//!  workload's socket   lo up | eth0 up | per family: address, on-link route, default route | two neighbours
//!  node's socket       the link again: its answer means that packets flow
//! ```

use anyhow::{Context as _, Result};
use kernel::socket::{Answer, ROUTE, Socket};
use kernel::{Attributes, Message};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const NEWNEIGH: u16 = 28;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;
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

/// A loop in the namespace of the thread that made it, which is the only one that may use it.
#[derive(Debug)]
pub(crate) struct Bare {
    home: File,
    host: Socket,
    made: u32,
}

impl Bare {
    /// In the thread's network namespace.
    pub(crate) fn here() -> Result<Self> {
        Ok(Self {
            home: File::open("/proc/thread-self/ns/net").context("open the thread's own namespace")?,
            host: Socket::open(ROUTE)?,
            made: 0,
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

    /// Deletes a link and waits for the kernel's acknowledgement.
    pub(crate) fn detach(&mut self, index: u32) -> Result<()> {
        self.host
            .batch(&[link(DELLINK, 0, index, 0, 0)])
            .and_then(Answer::ok)?;
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

/// Takes loopback down again, so that each attach finds a namespace as a runtime makes it. Leaves everything else.
pub(crate) fn as_new(namespace: &stage::Namespace) -> Result<()> {
    namespace.within(|| {
        Socket::open(ROUTE)?
            .batch(&[link(SETLINK, 0, 1, 0, UP)])
            .and_then(Answer::ok)
    })??;
    Ok(())
}

/// Indexes of links whose names begin with `prefix`, in the thread's namespace.
pub(crate) fn indexes(prefix: &str) -> Result<Vec<u32>> {
    let all = Socket::open(ROUTE)?.dump(&link(GETLINK, 0x300, 0, 0, 0))?;
    let index = |payload: &Vec<u8>| {
        let name = Attributes::after(payload, 16).text(3)?;
        let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
        name.starts_with(prefix).then_some(index)
    };
    Ok(all.iter().filter_map(index).collect())
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

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
