//! What happens to links, routes and our table, told as it happens.
//!
//! The sockets are open before [`watch`] returns, so nothing that happens after it is missed; what is lost because too much
//! happened at once is told as [`Event::Lost`].
//!
//! Every workload that comes or goes is ten messages and more, so each is read only as far as it may matter.

mod stock;

use crate::encode::{AF_INET, AF_INET6, DELADDR, DELLINK, DELROUTE, NEWADDR, NEWLINK, NEWROUTE};
use crate::fault::{io as io_fault, sys};
use crate::message::{Attributes, Received, is_whole, messages, u32_at};
use crate::nft::{self, NEWGEN, SUBSYSTEM};
use crate::socket::{NETFILTER, ROUTE, Socket, borrowed};
use crate::survey::{Dumps, is_single, parse_address, parse_neighbour, parse_route_of_all, parse_route_told};
use ipnet::IpNet;
use libc::ENOBUFS;
use mishap::Kind;
use model::address::is_link_local;
use model::datapath::{Event, Fault};
use netlink_sys::Socket as Raw;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use std::io::ErrorKind;
use std::net::IpAddr;
use stock::{Seen, Stock, take_stock, tunnel_in};

/// RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h).
const ROUTE_GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;
/// Holds about ten thousand notifications.
const BUFFER: usize = 4 << 20;
/// After this time links that could not be listed are listed again.
const AGAIN: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
/// Bridges tell of their ports in link messages of a family of their own.
const AF_UNSPEC: u8 = 0;

pub(crate) struct Watch {
    stock: Stock,
    /// For listing them.
    lister: Socket,
    /// Something was lost, and `stock` may be wrong.
    lost: bool,
    own_nft_port: u32,
    /// Changes of routes to other nodes that come from here are not told.
    own_route_port: u32,
    sink: Box<dyn Fn(Event) + Send>,
}

/// Tells from now on what happens, on a thread of its own. Changes of the table that come from `own_nft_port` are not told. What
/// a survey of the beginning is made of.
pub(crate) fn watch(
    own_nft_port: u32,
    own_route_port: u32,
    sink: Box<dyn Fn(Event) + Send>,
) -> Result<Dumps, Fault> {
    let route = listen(ROUTE, &ROUTE_GROUPS)?;
    let nftables = listen(NETFILTER, &[NFTABLES_GROUP])?;
    let mut lister = Socket::open(ROUTE)?;
    let (stock, dumps) = take_stock(&mut lister)?;
    let mut watch = Watch {
        stock,
        lister,
        lost: false,
        own_nft_port,
        own_route_port,
        sink,
    };
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || watch.run(&route, &nftables))
        .map_err(|error| io_fault("start the watching thread", &error))?;
    Ok(dumps)
}

fn listen(protocol: isize, groups: &[u32]) -> Result<Raw, Fault> {
    let tried = "listen to the kernel's notifications";
    let open = || {
        mishap::at(Kind::Socket, tried)?;
        let mut raw = Raw::new(protocol)?;
        raw.bind_auto()?;
        for group in groups {
            raw.add_membership(*group)?;
        }
        raw.set_non_blocking(true)?;
        Ok(raw)
    };
    let raw = open().map_err(|error| io_fault(tried, &error))?;
    // Only root may go beyond the node's limit.
    if set_socket_recv_buffer_size_force(borrowed(&raw), BUFFER).is_err() {
        set_socket_recv_buffer_size(borrowed(&raw), BUFFER).map_err(|errno| sys(tried, errno))?;
    }
    Ok(raw)
}

impl Watch {
    /// That is only told, and hears nothing by itself.
    pub(crate) fn deaf(lister: Socket, sink: Box<dyn Fn(Event) + Send>) -> Self {
        Self {
            stock: Stock::default(),
            lister,
            lost: false,
            own_nft_port: 1,
            own_route_port: 2,
            sink,
        }
    }

    pub(crate) fn forget_all(&mut self) {
        self.stock = Stock::default();
    }

    fn run(&mut self, route: &Raw, nftables: &Raw) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            let mut both = [
                PollFd::from_borrowed_fd(borrowed(route), PollFlags::IN),
                PollFd::from_borrowed_fd(borrowed(nftables), PollFlags::IN),
            ];
            // Interrupted by a signal, or not: what is there is read.
            let _ = poll(&mut both, self.lost.then_some(&AGAIN));
            self.drain(route, &mut buffer, Self::on_route);
            self.drain(nftables, &mut buffer, Self::on_nftables);
            if self.lost {
                self.begin_again();
            }
        }
    }

    fn drain(&mut self, socket: &Raw, buffer: &mut Vec<u8>, on: fn(&mut Self, &Received<'_>)) {
        loop {
            buffer.clear();
            let received = socket.recv(buffer, 0);
            match received.and_then(|_| mishap::received(Kind::Notice, "a notification", buffer)) {
                Ok(()) => {
                    self.lost |= !is_whole(buffer);
                    messages(buffer).for_each(|message| on(self, &message));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => self.lost = true,
                Err(_) => return,
            }
        }
    }

    /// After a loss, and once the sockets have been read to their ends: until then the kernel drops everything more without
    /// another word (`netlink_overrun`, net/netlink/af_netlink.c), so who surveys earlier may miss a change for good.
    fn begin_again(&mut self) {
        if let Ok((stock, _)) = take_stock(&mut self.lister) {
            self.stock = stock;
            self.lost = false;
        }
        (self.sink)(Event::Lost);
    }

    pub(crate) fn on_route(&mut self, message: &Received<'_>) {
        match message.kind {
            NEWLINK => self.on_link(message.payload),
            DELLINK => self.on_link_gone(message.payload),
            NEWNEIGH | DELNEIGH => self.on_neighbour(message),
            NEWADDR | DELADDR => self.on_address(message),
            NEWROUTE | DELROUTE => {
                let Some((destination, index)) = parse_route_told(message.payload) else {
                    self.on_other_route(message);
                    return;
                };
                if destination.prefix_len() != 0 && !self.stock.links.contains_key(&index) {
                    self.on_other_route(message);
                }
                if destination.prefix_len() == 0 {
                    (self.sink)(Event::UplinkTouched);
                } else if is_single(destination) {
                    self.on_single_route(message.kind == NEWROUTE, destination, index);
                }
            }
            _ => {}
        }
    }

    /// A route of ours to another node, or one of others by which another node may be reached.
    fn on_other_route(&self, message: &Received<'_>) {
        let Some((destination, index, _)) = parse_route_of_all(message.payload) else {
            return;
        };
        let of_workloads = is_link_local(destination.addr()) || self.stock.links.contains_key(&index);
        if message.port != self.own_route_port && !of_workloads {
            (self.sink)(Event::RoutesTouched);
        }
    }

    fn on_address(&mut self, message: &Received<'_>) {
        let Some((index, net)) = parse_address(message.payload) else {
            return;
        };
        let address = net.addr();
        if self.stock.links.contains_key(&index) {
            if message.kind == DELADDR {
                self.touched(index);
            }
            return;
        }
        // An address whose lifetime was renewed is told of like one that came.
        let changed = match message.kind {
            NEWADDR => self.stock.addressed(index, address),
            _ => self.stock.foreign.remove(&(index, address)),
        };
        if changed {
            (self.sink)(Event::RoutesTouched);
            (self.sink)(Event::AddressTouched { address });
        }
    }

    /// A route that takes another one's place is told of as one that came, and of the other nothing is told.
    fn on_single_route(&mut self, came: bool, destination: IpNet, index: u32) {
        if came && self.stock.routed(destination, index) {
            return;
        }
        let event = match self.stock.links.contains_key(&index) {
            true => Event::RouteGone { destination, index },
            false => match self.stock.held.get(&destination) {
                Some(&index) => Event::RouteGone { destination, index },
                None => Event::AddressTouched {
                    address: destination.addr(),
                },
            },
        };
        (self.sink)(event);
    }

    fn on_link(&mut self, payload: &[u8]) {
        let Some(seen) = Seen::parse(payload) else { return };
        let index = seen.index;
        if let Some(tunnel) = tunnel_in(payload) {
            self.stock.tunnel = tunnel;
        }
        let Some(name) = seen.host_link() else {
            // Renamed away from us, it is none of ours any more.
            match self.stock.forget(index) {
                Some(known) => (self.sink)(Event::LinkGone {
                    link: known.name,
                    index,
                }),
                None => (self.sink)(Event::UplinkTouched),
            }
            return;
        };
        let mut known = seen.known(name);
        let mut lost = false;
        match self.stock.links.remove(&index) {
            Some(before) => {
                lost = seen.lost(&known, &before);
                known.neighbours = before.neighbours;
                known.routes = before.routes;
            }
            None => known.make_room(),
        }
        let link = lost.then_some(known.name);
        self.stock.links.insert(index, known);
        if let Some(link) = link {
            (self.sink)(Event::LinkTouched { link, index });
        }
    }

    fn on_link_gone(&mut self, payload: &[u8]) {
        let Some(seen) = Seen::parse(payload) else { return };
        let index = seen.index;
        self.stock.forget(index);
        match seen.host_link() {
            Some(link) => (self.sink)(Event::LinkGone { link, index }),
            None => (self.sink)(Event::UplinkTouched),
        }
    }

    /// A permanent neighbour that is deleted is told of as one that failed, and then as gone.
    fn on_neighbour(&mut self, message: &Received<'_>) {
        let payload = message.payload;
        let Some(index) = u32_at(payload, 4) else { return };
        let Some(known) = self.stock.links.get_mut(&index) else {
            // The kernel tells of a forwarding entry without who changed it.
            if index == self.stock.tunnel && message.port != self.own_route_port {
                (self.sink)(Event::RoutesTouched);
            }
            return;
        };
        let Some(address) = neighbour_address(payload) else {
            return;
        };
        let before = known.neighbours.iter().position(|(known, _)| *known == address);
        let after = parse_neighbour(payload).filter(|_| message.kind == NEWNEIGH);
        match (before, after) {
            (None, Some((_, address, mac))) => known.neighbours.push((address, mac)),
            (Some(at), Some((_, _, mac))) if known.neighbours[at].1 == mac => {}
            (Some(at), after) => {
                known.neighbours.swap_remove(at);
                known
                    .neighbours
                    .extend(after.map(|(_, address, mac)| (address, mac)));
                self.touched(index);
            }
            (None, None) => {}
        }
    }

    /// A link of ours lost something. One that is down has lost it all, which was told.
    fn touched(&self, index: u32) {
        if let Some(known) = self.stock.links.get(&index).filter(|known| known.up) {
            (self.sink)(Event::LinkTouched {
                link: known.name,
                index,
            });
        }
    }

    pub(crate) fn on_nftables(&mut self, message: &Received<'_>) {
        let foreign = message.port != self.own_nft_port;
        if foreign
            && message.kind != NEWGEN
            && message.kind & 0xff00 == SUBSYSTEM
            && nft::concerns_us(message.payload)
        {
            (self.sink)(Event::RulesetTouched);
        }
    }
}

/// `NDA_DST` of a neighbour of either family; a bridge's neighbours are none.
fn neighbour_address(payload: &[u8]) -> Option<IpAddr> {
    let address = Attributes::after(payload, 12).value(1)?;
    match *payload.first()? {
        AF_INET => Some(<[u8; 4]>::try_from(address).ok()?.into()),
        AF_INET6 => Some(<[u8; 16]>::try_from(address).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{UP, ifinfo, link};
    use crate::message::Message;
    use model::key::HostLink;
    use std::sync::mpsc;

    #[test]
    fn a_message_that_is_cut_short_or_garbled_does_no_harm() {
        let (sender, events) = mpsc::channel();
        let lister = Socket::open(ROUTE).expect("everybody may open one");
        let mut watch = Watch::deaf(lister, Box::new(move |event| drop(sender.send(event))));
        let link = Message::new(NEWLINK, 0, "")
            .fixed(&ifinfo(7, UP, UP))
            .text(link::IFNAME, "wk0123456789abc")
            .u32(link::GROUP, 8)
            .text(link::IFALIAS, "record");
        let wholes = [
            link.payload().to_vec(),
            Message::new(DELADDR, 0, "")
                .fixed(&[AF_INET, 32, 0, 0, 7, 0, 0, 0])
                .bytes(2, &[10, 77, 0, 5])
                .payload()
                .to_vec(),
            Message::new(NEWNEIGH, 0, "")
                .fixed(&[AF_INET, 0, 0, 0, 7, 0, 0, 0, 0x80, 0, 0, 0])
                .bytes(1, &[10, 77, 0, 5])
                .bytes(2, &[2, 0, 0, 0, 0, 5])
                .payload()
                .to_vec(),
            Message::new(NEWROUTE, 0, "")
                .fixed(&[AF_INET, 32, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0])
                .bytes(1, &[10, 77, 0, 5])
                .u32(4, 7)
                .payload()
                .to_vec(),
        ];
        let mut feed = |kind, payload: &[u8]| {
            let message = Received {
                kind,
                flags: 0,
                sequence: 0,
                port: 0,
                payload,
            };
            watch.on_route(&message);
            watch.on_nftables(&message);
        };
        for whole in &wholes {
            for kind in [
                NEWLINK, DELADDR, NEWNEIGH, DELNEIGH, NEWROUTE, DELROUTE, DELLINK, SUBSYSTEM,
            ] {
                for length in 0..=whole.len() {
                    feed(kind, &whole[..length]);
                    // Every length and type in it, once as large as can be.
                    let mut garbled = whole.clone();
                    garbled[length.min(whole.len() - 1)] = 0xff;
                    feed(kind, &garbled);
                }
            }
        }
        // It still works.
        while events.try_recv().is_ok() {}
        feed(NEWLINK, link.payload());
        feed(DELLINK, link.payload());
        let gone = Event::LinkGone {
            link: HostLink::parse("wk0123456789abc").expect("it is one"),
            index: 7,
        };
        assert_eq!(events.try_iter().collect::<Vec<_>>(), [gone]);
    }
}
