//! What the watch knows to stand, so that it can tell what of it is lost.

use super::AF_UNSPEC;
use crate::encode::{UP, link};
use crate::message::{Attributes, u32_at};
use crate::socket::Socket;
use crate::survey::{Dumps, altnames, dumps, flags_of, is_single};
use ipnet::IpNet;
use model::address::{Family, Mac, is_link_local};
use model::datapath::Fault;
use model::key::HostLink;
use model::routes::Tunnel;
use model::survey::DYING_GROUPS;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

/// A link of ours as it was last told of.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: HostLink,
    pub(super) up: bool,
    /// [`Seen::marks`] of then.
    marks: u64,
    /// The permanent ones: two at most.
    pub(super) neighbours: Vec<(IpAddr, Mac)>,
    /// To single addresses: two at most.
    pub(super) routes: Vec<IpNet>,
}

impl Known {
    /// For as many neighbours and routes as there are, where a vector would make room for twice as many.
    pub(super) fn make_room(&mut self) {
        self.neighbours.reserve_exact(2);
        self.routes.reserve_exact(2);
    }
}

/// What stands, as far as it is needed to tell what changes.
#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) links: HashMap<u32, Known>,
    /// Which of our links has the route to a single address.
    pub(super) held: HashMap<IpNet, u32>,
    /// Addresses of links that are not ours, with the links' indexes.
    pub(super) foreign: HashSet<(u32, IpAddr)>,
    /// The VXLAN device's index; 0: there is none.
    pub(super) tunnel: u32,
}

/// What stands, and what a survey is made of.
pub(super) fn take_stock(lister: &mut Socket) -> Result<(Stock, Dumps), Fault> {
    let told = |payload: &[u8]| {
        let seen = Seen::parse(payload);
        let known = seen.and_then(|seen| Some((seen.index, seen.known(seen.host_link()?))));
        (known, tunnel_in(payload))
    };
    let (dumps, links) = dumps(lister, told)?;
    let mut stock = Stock::default();
    for (mut known, tunnel) in links {
        known.iter_mut().for_each(|(_, known)| known.make_room());
        stock.links.extend(known);
        stock.tunnel = tunnel.unwrap_or(stock.tunnel);
    }
    for neighbour in &dumps.neighbours {
        if let Some(known) = stock.links.get_mut(&neighbour.index) {
            known.neighbours.push((neighbour.address, neighbour.mac));
        }
    }
    for route in &dumps.routes {
        if is_single(route.destination) {
            stock.routed(route.destination, route.index);
        }
    }
    for address in &dumps.addresses {
        stock.addressed(address.index, address.net.addr());
    }
    Ok((stock, dumps))
}

impl Stock {
    /// A single address is routed over a link. Whether it is one of ours.
    pub(super) fn routed(&mut self, destination: IpNet, index: u32) -> bool {
        let Some(known) = self.links.get_mut(&index) else {
            return false;
        };
        if !known.routes.contains(&destination) {
            known.routes.push(destination);
        }
        self.held.insert(destination, index);
        true
    }

    /// A link that is not ours has an address, which it had not before and which a workload could have.
    pub(super) fn addressed(&mut self, index: u32, address: IpAddr) -> bool {
        !is_link_local(address) && !self.links.contains_key(&index) && self.foreign.insert((index, address))
    }

    /// A link is none of ours any more.
    pub(super) fn forget(&mut self, index: u32) -> Option<Known> {
        let known = self.links.remove(&index)?;
        for destination in &known.routes {
            if self.held.get(destination) == Some(&index) {
                self.held.remove(destination);
            }
        }
        Some(known)
    }
}

/// The index of a link that has the VXLAN device's mark.
pub(super) fn tunnel_in(payload: &[u8]) -> Option<u32> {
    let group = Attributes::after(payload, 16).u32(link::GROUP)?;
    let ours = Family::ALL.iter().any(|family| group == Tunnel::group(*family));
    ours.then(|| u32_at(payload, 4))?
}

/// What a message says of a link, as far as it matters.
pub(super) struct Seen<'a> {
    pub(super) index: u32,
    name: &'a str,
    pub(super) up: bool,
    group: u32,
    alias: &'a str,
    mac: &'a [u8],
    mtu: u32,
    master: u32,
    altnames: &'a [u8],
}

impl<'a> Seen<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        if *payload.first()? != AF_UNSPEC {
            return None;
        }
        let attributes = Attributes::after(payload, 16);
        Some(Self {
            index: u32_at(payload, 4)?,
            name: attributes.text(link::IFNAME)?,
            up: flags_of(payload) & UP != 0,
            group: attributes.u32(link::GROUP).unwrap_or_default(),
            alias: attributes.text(link::IFALIAS).unwrap_or_default(),
            mac: attributes.value(link::ADDRESS).unwrap_or_default(),
            mtu: attributes.u32(link::MTU).unwrap_or_default(),
            master: attributes.u32(link::MASTER).unwrap_or_default(),
            altnames: attributes.value(link::PROP_LIST).unwrap_or_default(),
        })
    }

    /// The name that we know the link by.
    pub(super) fn host_link(&self) -> Option<HostLink> {
        let properties = Attributes::after(self.altnames, 0);
        model::survey::host_link(self.name, self.alias, altnames(properties))
    }

    pub(super) fn known(&self, name: HostLink) -> Known {
        Known {
            name,
            up: self.up,
            marks: self.marks(),
            neighbours: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// Group, alias, MAC, MTU, master and further names, as a number: there may be thousands of links, and it only matters
    /// whether they are as they were. A change in 2 to the power of 64 is overlooked, until the next full survey.
    fn marks(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.group, self.mtu, self.master).hash(&mut hasher);
        (self.alias, self.mac, self.altnames).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether a link lost something since it was told of. On its way up everything of it changes, and in a group for
    /// deletions nothing of it matters.
    pub(super) fn lost(&self, now: &Known, before: &Known) -> bool {
        let changed = !now.up || now.marks != before.marks;
        let dying = DYING_GROUPS.contains(&self.group);
        !dying && (now.name != before.name || before.up && changed)
    }
}
