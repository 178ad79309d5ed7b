//! What happens to links, routes and our table, told as it happens.
//!
//! The sockets are open before [`watch`] returns, so nothing that happens after it is missed; what is lost because too much
//! happened at once is told as [`Event::Lost`].

use crate::encode::{DELADDR, DELLINK, DELROUTE, GETLINK, NEWLINK, NEWROUTE, ifinfo, link};
use crate::fault::{io as io_fault, sys};
use crate::message::{Received, messages};
use crate::nft::{self, NEWGEN, SUBSYSTEM};
use crate::socket::{NETFILTER, ROUTE, Socket, borrowed, dump_of};
use crate::survey::{is_single, parse_address, parse_link, parse_route_gone};
use model::datapath::{Event, Fault};
use model::key::HostLink;
use netlink_sys::Socket as Raw;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use std::collections::HashMap;
use std::io::ErrorKind;

/// RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h).
const ROUTE_GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h).
const NFTABLES_GROUP: u32 = 7;
/// Holds about ten thousand notifications.
const BUFFER: usize = 4 << 20;
const ENOBUFS: i32 = 105;

/// A link of ours as it was last told of.
struct Known {
    name: HostLink,
    up: bool,
}

struct Watch {
    links: HashMap<u32, Known>,
    own_nft_port: u32,
    sink: Box<dyn Fn(Event) + Send>,
}

/// Tells from now on what happens, on a thread of its own. Changes of the table that come from `own_nft_port` are not told.
pub(crate) fn watch(own_nft_port: u32, sink: Box<dyn Fn(Event) + Send>) -> Result<(), Fault> {
    let route = listen(ROUTE, &ROUTE_GROUPS)?;
    let nftables = listen(NETFILTER, &[NFTABLES_GROUP])?;
    let mut links = HashMap::new();
    for payload in Socket::open(ROUTE)?
        .dump(&dump_of(GETLINK, &ifinfo(0, 0, 0), "ip link show").u32(link::EXT_MASK, 8))?
    {
        if let Some((index, known)) = ours(&payload) {
            links.insert(index, known);
        }
    }
    let mut watch = Watch {
        links,
        own_nft_port,
        sink,
    };
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || watch.run(&route, &nftables))
        .map_err(|error| io_fault("start the watching thread", &error))?;
    Ok(())
}

fn listen(protocol: isize, groups: &[u32]) -> Result<Raw, Fault> {
    let tried = "listen to the kernel's notifications";
    let open = || {
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

fn ours(payload: &[u8]) -> Option<(u32, Known)> {
    let link = parse_link(payload)?;
    Some((
        link.index,
        Known {
            name: HostLink::parse(&link.name)?,
            up: link.up,
        },
    ))
}

impl Watch {
    fn run(&mut self, route: &Raw, nftables: &Raw) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            let mut both = [
                PollFd::from_borrowed_fd(borrowed(route), PollFlags::IN),
                PollFd::from_borrowed_fd(borrowed(nftables), PollFlags::IN),
            ];
            // Interrupted by a signal, or not: what is there is read.
            let _ = poll(&mut both, None);
            self.drain(route, &mut buffer, Self::on_route);
            self.drain(nftables, &mut buffer, Self::on_nftables);
        }
    }

    fn drain(&mut self, socket: &Raw, buffer: &mut Vec<u8>, on: fn(&mut Self, &Received<'_>)) {
        loop {
            buffer.clear();
            match socket.recv(buffer, 0) {
                Ok(_) => messages(buffer).for_each(|message| on(self, &message)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => (self.sink)(Event::Lost),
                Err(_) => return,
            }
        }
    }

    fn on_route(&mut self, message: &Received<'_>) {
        match message.kind {
            NEWLINK => self.on_link(message.payload),
            DELLINK => {
                if let Some((index, known)) = ours(message.payload) {
                    self.links.remove(&index);
                    (self.sink)(Event::LinkGone {
                        link: known.name,
                        index,
                    });
                }
            }
            DELADDR => {
                if let Some((index, _)) = parse_address(message.payload)
                    && let Some(known) = self.links.get(&index)
                {
                    (self.sink)(Event::LinkTouched {
                        link: known.name.clone(),
                        index,
                    });
                }
            }
            NEWROUTE | DELROUTE => {
                let Some((destination, index)) = parse_route_gone(message.payload) else {
                    return;
                };
                if destination.prefix_len() == 0 {
                    (self.sink)(Event::UplinkTouched);
                } else if message.kind == DELROUTE
                    && is_single(destination)
                    && self.links.contains_key(&index)
                {
                    (self.sink)(Event::RouteGone { destination, index });
                }
            }
            _ => {}
        }
    }

    fn on_link(&mut self, payload: &[u8]) {
        let Some(link) = parse_link(payload) else { return };
        let Some(name) = HostLink::parse(&link.name) else {
            // Renamed away from us, it is none of ours any more.
            match self.links.remove(&link.index) {
                Some(known) => (self.sink)(Event::LinkGone {
                    link: known.name,
                    index: link.index,
                }),
                None => (self.sink)(Event::UplinkTouched),
            }
            return;
        };
        // A link on its way up is not yet one that was taken down.
        let was_up = self
            .links
            .insert(
                link.index,
                Known {
                    name: name.clone(),
                    up: link.up,
                },
            )
            .is_some_and(|k| k.up);
        if was_up && !link.up {
            (self.sink)(Event::LinkTouched {
                link: name,
                index: link.index,
            });
        }
    }

    fn on_nftables(&mut self, message: &Received<'_>) {
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
