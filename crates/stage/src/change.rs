//! Changes of links, addresses, routes and neighbours in any namespace: what others do behind the daemon's back.

use crate::Namespace;
use anyhow::{Context as _, Result};
use ipnet::IpNet;
use kernel::Message;
use kernel::socket::{Answer, ROUTE, Socket};
use std::net::IpAddr;

const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const DELNEIGH: u16 = 29;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const MAKE: u16 = 0x600;
const UP: u32 = 1;
/// `IFA_F_NODAD`.
const NODAD: u32 = 2;

/// The links of one namespace.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
}

impl Links {
    /// Those of a namespace.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        Ok(Self {
            socket: namespace.within(|| Socket::open(ROUTE))??,
        })
    }

    /// A link's index.
    ///
    /// The kernel answers only when the link's carrier has taken effect, so packets are not lost after it.
    pub fn index(&mut self, name: &str) -> Result<u32> {
        let message = Message::new(GETLINK, 0, format!("ip link show {name}"))
            .fixed(&ifinfo(0, 0, 0))
            .text(3, name);
        let replies = self.socket.batch(&[message]).and_then(Answer::ok)?;
        let reply = replies.first().context("the kernel told nothing of the link")?;
        let bytes = reply.get(4..8).context("the kernel's answer is cut short")?;
        Ok(u32::from_ne_bytes(bytes.try_into()?))
    }

    /// Switches a link on or off.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<()> {
        let index = self.index(name)?;
        let word = if up { "up" } else { "down" };
        let message = Message::new(SETLINK, 0, format!("ip link set {name} {word}"));
        self.send(message.fixed(&ifinfo(index, u32::from(up), UP)))
    }

    /// Takes a link away.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        let index = self.index(name)?;
        self.send(Message::new(DELLINK, 0, format!("ip link delete {name}")).fixed(&ifinfo(index, 0, 0)))
    }

    /// Takes a link of another namespace away, by the ID that it has in this one (IFLA_TARGET_NETNSID, linux/if_link.h).
    pub fn delete_elsewhere(&mut self, namespace: u32, name: &str) -> Result<()> {
        let tried = format!("ip link delete {name} in the namespace {namespace}");
        let message = Message::new(DELLINK, 0, tried).fixed(&ifinfo(0, 0, 0));
        self.send(message.u32(46, namespace).text(3, name))
    }

    /// Gives a link an address, usable at once.
    pub fn add_address(&mut self, name: &str, address: IpNet) -> Result<()> {
        let index = self.index(name)?;
        let mut head = [family(address.addr()), address.prefix_len(), 0, 0, 0, 0, 0, 0];
        head[4..8].copy_from_slice(&index.to_ne_bytes());
        let bytes = octets(address.addr());
        let message = Message::new(NEWADDR, MAKE, format!("ip address add {address} dev {name}"))
            .fixed(&head)
            .bytes(2, &bytes)
            .bytes(1, &bytes);
        let v6_flags = if address.addr().is_ipv6() { NODAD } else { 0 };
        self.send(message.u32(8, v6_flags))
    }

    /// A route by way of a gateway, or over a link.
    pub fn add_route(&mut self, destination: IpNet, by: By<'_>) -> Result<()> {
        let message = self.route(NEWROUTE, MAKE, destination, by)?;
        self.send(message)
    }

    /// Takes a route away.
    pub fn delete_route(&mut self, destination: IpNet, by: By<'_>) -> Result<()> {
        let message = self.route(DELROUTE, 0, destination, by)?;
        self.send(message)
    }

    fn route(&mut self, kind: u16, flags: u16, destination: IpNet, by: By<'_>) -> Result<Message> {
        let on_link = matches!(by, By::Link(_)) && destination.addr().is_ipv4();
        // RT_TABLE_MAIN, RTPROT_STATIC (any, to delete), RT_SCOPE_LINK or _UNIVERSE (_NOWHERE: any), RTN_UNICAST.
        let (protocol, scope) = match (kind, on_link) {
            (DELROUTE, _) => (0, 255),
            (_, true) => (4, 253),
            (_, false) => (4, 0),
        };
        let head = [
            family(destination.addr()),
            destination.prefix_len(),
            0,
            0,
            254,
            protocol,
            scope,
            1,
            0,
            0,
            0,
            0,
        ];
        let message = Message::new(kind, flags, format!("change the route to {destination}"))
            .fixed(&head)
            .bytes(1, &octets(destination.network()));
        Ok(match by {
            By::Gateway(gateway) => message.bytes(5, &octets(gateway)),
            By::GatewayOn(gateway, name) => message.bytes(5, &octets(gateway)).u32(4, self.index(name)?),
            By::Link(name) => message.u32(4, self.index(name)?),
        })
    }

    /// Takes a neighbour away, a permanent one, too.
    pub fn delete_neighbour(&mut self, name: &str, address: IpAddr) -> Result<()> {
        let index = self.index(name)?;
        let mut head = [0; 12];
        head[0] = family(address);
        head[4..8].copy_from_slice(&index.to_ne_bytes());
        let message = Message::new(DELNEIGH, 0, format!("ip neighbour delete {address} dev {name}"));
        self.send(message.fixed(&head).bytes(1, &octets(address)))
    }

    fn send(&mut self, message: Message) -> Result<()> {
        self.socket.batch(&[message]).and_then(Answer::ok)?;
        Ok(())
    }
}

/// Where a route leads.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// To a gateway.
    Gateway(IpAddr),
    /// To a gateway on a link, which a link-local one needs.
    GatewayOn(IpAddr, &'a str),
    /// Onto a link.
    Link(&'a str),
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// `AF_INET` or `AF_INET6`.
fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}
