//! What the namespace holds, read from dumps: links, addresses, routes, permanent neighbours.

use crate::encode::{
    AF_INET, AF_INET6, GETADDR, GETLINK, GETNEIGH, GETROUTE, PERMANENT, TABLE_MAIN, UNICAST, UP, address,
    ifinfo, link, link_by_altname, link_by_index, link_by_name, neighbour, route, route_to,
};
use crate::message::{Attributes, Message, text, u16_at, u32_at};
use crate::socket::{Answer, Socket, dump_of};
use crate::sysctl;
use ipnet::IpNet;
use libc::{EACCES, EAGAIN, EHOSTUNREACH, EINVAL, ENETUNREACH, ENODEV, ENOENT};
use model::address::{Mac, is_link_local};
use model::datapath::Fault;
use model::key::HostLink;
use model::record::Record;
use model::survey::{
    DYING_GROUPS, ForeignNet, FoundLink, HostConf, HostConfV4, HostConfV6, Standing, Survey, Uplink,
};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Instead of a link's index: all links.
pub(crate) const EVERY: u32 = 0;
/// The index of a route that goes over no link (blackhole and its like) or over what has none.
const NO_LINK: u32 = 0;
const AF_UNSPEC: u8 = 0;
/// `RTPROT_KERNEL`, `RTPROT_RA`.
const PROTOCOL_KERNEL: u8 = 2;
const PROTOCOL_RA: u8 = 9;
/// `IFAPROT_KERNEL_RA`.
const ADDRESS_FROM_RA: u8 = 2;

pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) net: IpNet,
}

pub(crate) struct Route {
    pub(crate) index: u32,
    pub(crate) destination: IpNet,
    metric: u32,
    unicast: bool,
    on_link: bool,
}

pub(crate) struct Neighbour {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
    pub(crate) mac: Mac,
}

/// What a survey is made of, as the kernel told it.
pub(crate) struct Dumps {
    links: Vec<FoundLink>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<Neighbour>,
}

/// Asks for all that stands; with it, what `read` makes of each link. To tell of a link costs the kernel the more the more there
/// are (`peernet2id`, net/core/net_namespace.c), so they are asked for once.
pub(crate) fn dumps<T>(socket: &mut Socket, read: impl Fn(&[u8]) -> T) -> Result<(Dumps, Vec<T>), Fault> {
    let request = dump_of(GETLINK, &ifinfo(0, 0, 0), "ip link show").u32(link::EXT_MASK, 8);
    let links = socket.dump_with(&request, |payload| Some((parse_link(payload)?, read(payload))))?;
    let (links, read) = links.into_iter().unzip();
    let dumps = Dumps {
        links,
        addresses: addresses(socket, EVERY)?,
        routes: routes(socket, EVERY)?,
        neighbours: neighbours(socket, EVERY)?,
    };
    Ok((dumps, read))
}

/// Everything of ours, and what the node needs beside it; and the groups for deletions in which links are.
pub(crate) fn survey(socket: &mut Socket, group: u32) -> Result<(Survey, HashSet<u32>), Fault> {
    let (dumps, _) = dumps(socket, |_| ())?;
    Ok(made_of(dumps, group))
}

/// As [`survey`] tells it.
pub(crate) fn made_of(dumps: Dumps, group: u32) -> (Survey, HashSet<u32>) {
    let Dumps {
        links,
        addresses,
        routes,
        neighbours,
    } = dumps;
    let dying = links.iter().map(|l| l.group).filter(|g| DYING_GROUPS.contains(g));
    let dying = dying.collect();
    let uplink = default_route(&routes)
        .and_then(|index| links.iter().find(|l| l.index == index))
        .map(uplink_over);
    let first_names: HashMap<u32, String> = links.iter().map(|l| (l.index, l.name.clone())).collect();
    let names: HashSet<String> = links
        .iter()
        .flat_map(|link| link.altnames.iter().chain([&link.name]).cloned())
        .collect();
    let (mut ours, others): (Vec<FoundLink>, Vec<FoundLink>) = links
        .into_iter()
        .partition(|l| l.group == group || l.host_link().is_some());
    let place: HashMap<u32, usize> = ours.iter().enumerate().map(|(n, l)| (l.index, n)).collect();
    // A link that has our group or the form of our names may be somebody else's all the same.
    let foreign = ours.iter().filter(|l| l.standing(group) == Standing::Foreign);
    // What belongs to a link that came after the links were read is nobody's: not another's, and not yet ours.
    let others: HashSet<u32> = others
        .iter()
        .chain(foreign)
        .map(|l| l.index)
        .chain([NO_LINK])
        .collect();
    let mut taken = Vec::new();
    let mut nets = Vec::new();
    let foreign_net = |net: IpNet, index: u32, on_link: bool| {
        let some = net.prefix_len() > 0 && !is_single(net) && !is_link_local(net.addr());
        some.then(|| ForeignNet {
            net: net.trunc(),
            link: first_names.get(&index).cloned().unwrap_or_default(),
            on_link,
        })
    };
    // What others have, and how much they prefer it; their own addresses come before every route.
    let mut preferred: HashMap<IpAddr, Option<u32>> = HashMap::new();
    for address in addresses {
        if let Some(&n) = place.get(&address.index) {
            ours[n].addresses.push(address.net);
        }
        if others.contains(&address.index) {
            taken.push(address.net.addr());
            preferred.insert(address.net.addr(), None);
            nets.extend(foreign_net(address.net, address.index, true));
        }
    }
    for route in &routes {
        let address = route.destination.addr();
        if is_single(route.destination) && others.contains(&route.index) {
            taken.push(address);
            let metric = preferred.entry(address).or_insert(Some(route.metric));
            *metric = metric.map(|metric| metric.min(route.metric));
        } else if others.contains(&route.index) {
            nets.extend(foreign_net(route.destination, route.index, route.on_link));
        }
    }
    for route in routes {
        if let Some(&n) = place.get(&route.index) {
            let metric = preferred.get(&route.destination.addr());
            if is_single(route.destination) && metric.is_some_and(|metric| *metric < Some(route.metric)) {
                ours[n].contested.push(route.destination);
            }
            ours[n].routes.push(route.destination);
        }
    }
    for link in &mut ours {
        if let Some(name) = lost_altname(link) {
            link.altname_taken = names.contains(&name);
        }
    }
    for neighbour in neighbours {
        if let Some(&n) = place.get(&neighbour.index) {
            ours[n].neighbours.push((neighbour.address, neighbour.mac));
        }
    }
    let survey = Survey {
        nets,
        forward_drops: Vec::new(),
        links: ours,
        uplink,
        forwarding: sysctl::forwarding(),
        taken,
    };
    (survey, dying)
}

/// One link by name, with all that belongs to it.
pub(crate) fn find(socket: &mut Socket, name: &HostLink) -> Result<Option<FoundLink>, Fault> {
    match find_link(socket, name.as_str())? {
        Some(found) => whole(socket, found),
        None => Ok(None),
    }
}

/// One link by index, with all that belongs to it, if it is known by a name.
pub(crate) fn find_at(socket: &mut Socket, name: &HostLink, index: u32) -> Result<Option<FoundLink>, Fault> {
    let found = link_at(socket, index, name.as_str())?;
    match found.filter(|found| found.host_link().as_ref() == Some(name)) {
        Some(found) => whole(socket, found),
        None => Ok(None),
    }
}

/// A link with all that belongs to it; `None` where it went meanwhile.
pub(crate) fn whole(socket: &mut Socket, mut found: FoundLink) -> Result<Option<FoundLink>, Fault> {
    let mut fill = || {
        let addresses = addresses(socket, found.index)?;
        found.addresses = addresses.into_iter().map(|a| a.net).collect();
        let routes = routes(socket, found.index)?;
        found.routes = routes.into_iter().map(|r| r.destination).collect();
        found.contested = contested(socket, found.index, &found.routes)?;
        if let Some(name) = lost_altname(&found) {
            found.altname_taken = one(socket, link_by_altname(&name))?.is_some();
        }
        let neighbours = neighbours(socket, found.index)?;
        found.neighbours = neighbours.into_iter().map(|n| (n.address, n.mac)).collect();
        Ok::<_, Fault>(())
    };
    match fill() {
        Ok(()) => Ok(Some(found)),
        // It went meanwhile.
        Err(fault) if fault.errno == ENODEV => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The second name that a link of ours would have, and does not have.
fn lost_altname(link: &FoundLink) -> Option<String> {
    let name = Record::parse(&link.alias).ok()?.key.altname()?;
    (!link.altnames.contains(&name)).then_some(name)
}

/// Which single addresses of these, routed over a link, the kernel would not send to over it.
fn contested(socket: &mut Socket, index: u32, routes: &[IpNet]) -> Result<Vec<IpNet>, Fault> {
    let singles: Vec<IpNet> = routes.iter().copied().filter(|net| is_single(*net)).collect();
    let questions: Vec<Message> = singles.iter().map(|net| route_to(net.addr())).collect();
    let Answer { refused, replies } = socket.batch(&questions)?;
    if let Some(other) = refused
        .into_iter()
        .find(|refused| !is_no_way(refused.fault.errno))
    {
        return Err(other.fault);
    }
    let over_it = |n: usize| {
        let reply = replies.iter().find(|reply| reply.position == n);
        reply.and_then(|reply| way(&reply.payload)) == Some((UNICAST, index))
    };
    Ok((0..singles.len())
        .filter(|n| !over_it(*n))
        .map(|n| singles[n])
        .collect())
}

/// One link by name, alone.
pub(crate) fn find_link(socket: &mut Socket, name: &str) -> Result<Option<FoundLink>, Fault> {
    one(socket, link_by_name(name))
}

/// One link by index, alone.
pub(crate) fn link_at(socket: &mut Socket, index: u32, name: &str) -> Result<Option<FoundLink>, Fault> {
    one(socket, link_by_index(index, name))
}

fn one(socket: &mut Socket, request: Message) -> Result<Option<FoundLink>, Fault> {
    match socket.batch(&[request])?.ok() {
        Ok(replies) => Ok(replies.first().and_then(|payload| parse_link(payload))),
        Err(fault) if fault.errno == ENODEV => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The device of the default route, IPv4's before IPv6's, the lowest metric first.
pub(crate) fn uplink(socket: &mut Socket) -> Result<Option<Uplink>, Fault> {
    let Some(index) = default_route(&routes(socket, EVERY)?) else {
        return Ok(None);
    };
    Ok(link_at(socket, index, "the default route's device")?
        .as_ref()
        .map(uplink_over))
}

/// Names of the links that have routes or addresses from router advertisements.
pub(crate) fn advertised(socket: &mut Socket) -> Result<Vec<String>, Fault> {
    let routes = dump_of(
        GETROUTE,
        &[AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "ip -6 route show table all",
    );
    let addresses = dump_of(GETADDR, &[AF_INET6, 0, 0, 0, 0, 0, 0, 0], "ip -6 address show");
    let mut indexes = HashSet::new();
    for payload in socket.dump(&routes)? {
        if payload.get(5) == Some(&PROTOCOL_RA) {
            indexes.extend(route_link(Attributes::after(&payload, 12)));
        }
    }
    for payload in socket.dump(&addresses)? {
        if Attributes::after(&payload, 8).value(address::PROTOCOL) == Some(&[ADDRESS_FROM_RA]) {
            indexes.extend(u32_at(&payload, 4));
        }
    }
    let mut names = Vec::new();
    for index in indexes {
        let link = link_at(socket, index, "a link with an advertised route")?;
        names.extend(link.map(|link| link.name));
    }
    names.sort();
    Ok(names)
}

fn default_route(routes: &[Route]) -> Option<u32> {
    let defaults = routes
        .iter()
        .filter(|route| route.unicast && route.destination.prefix_len() == 0 && route.index != NO_LINK);
    let first = defaults.min_by_key(|route| (route.destination.addr().is_ipv6(), route.metric))?;
    Some(first.index)
}

fn uplink_over(link: &FoundLink) -> Uplink {
    Uplink {
        name: link.name.clone(),
        mtu: link.mtu,
    }
}

/// What RTM_GETROUTE answers where no packet goes: EINVAL of a blackhole, EACCES of a prohibition, EHOSTUNREACH, ENETUNREACH
/// and EAGAIN of a route that throws (`fib_props`, net/ipv4/fib_semantics.c).
pub(crate) fn is_no_way(errno: i32) -> bool {
    [EAGAIN, EACCES, EINVAL, ENETUNREACH, EHOSTUNREACH].contains(&errno)
}

pub(crate) fn is_single(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

pub(crate) fn flags_of(payload: &[u8]) -> u32 {
    u32_at(payload, 8).unwrap_or_default()
}

/// What RTM_GETROUTE says of one address: `RTN_*`, and the link that packets leave by.
pub(crate) fn way(payload: &[u8]) -> Option<(u8, u32)> {
    Some((*payload.get(7)?, Attributes::after(payload, 12).u32(route::OIF)?))
}

/// A link as RTM_NEWLINK tells of it.
pub(crate) fn parse_link(payload: &[u8]) -> Option<FoundLink> {
    let attributes = Attributes::after(payload, 16);
    let mac = attributes
        .value(link::ADDRESS)
        .and_then(|bytes| bytes.try_into().ok())
        .map(Mac);
    let spec = attributes.inside(link::AF_SPEC);
    let inet = spec.inside(2).value(1).unwrap_or_default();
    let spec6 = spec.inside(10);
    let inet6 = spec6.value(2).unwrap_or_default();
    // Arrays: IPv4's ids begin with 1 (linux/ip.h), IPv6's with 0 (linux/ipv6.h).
    let at = |array: &[u8], n: usize| u32_at(array, n * 4).map(u32::cast_signed);
    Some(FoundLink {
        name: attributes.text(link::IFNAME)?.to_owned(),
        index: u32_at(payload, 4)?,
        group: attributes.u32(link::GROUP).unwrap_or_default(),
        alias: attributes.text(link::IFALIAS).unwrap_or_default().to_owned(),
        master: attributes.u32(link::MASTER),
        mac,
        mtu: attributes.u32(link::MTU).unwrap_or_default(),
        up: flags_of(payload) & UP != 0,
        altnames: altnames(attributes.inside(link::PROP_LIST))
            .map(str::to_owned)
            .collect(),
        conf: HostConf {
            v4: HostConfV4 {
                forwarding: at(inet, 0),
                accept_redirects: at(inet, 3),
                send_redirects: at(inet, 5),
                rp_filter: at(inet, 7),
                route_localnet: at(inet, 25),
            },
            v6: HostConfV6 {
                forwarding: at(inet6, 0),
                accept_ra: at(inet6, 3),
                accept_redirects: at(inet6, 4),
                autoconf: at(inet6, 5),
                disable_ipv6: at(inet6, 26),
                addr_gen_mode: spec6
                    .value(8)
                    .and_then(|mode| mode.first())
                    .map(|mode| i32::from(*mode)),
            },
        },
        ..FoundLink::default()
    })
}

/// Of a link's properties.
pub(crate) fn altnames(properties: Attributes<'_>) -> impl Iterator<Item = &str> + Clone {
    properties
        .filter(|(kind, _)| *kind == link::ALT_IFNAME)
        .filter_map(|(_, value)| text(value))
}

/// Of one link, or of [`EVERY`].
pub(crate) fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<Address>, Fault> {
    let mut head = [AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    socket.dump_with(&dump_of(GETADDR, &head, "ip address show"), |payload| {
        parse_address(payload).map(|(index, net)| Address { index, net })
    })
}

/// Index and address of RTM_NEWADDR and RTM_DELADDR.
pub(crate) fn parse_address(payload: &[u8]) -> Option<(u32, IpNet)> {
    let attributes = Attributes::after(payload, 8);
    let address = ip(attributes.value(2).or_else(|| attributes.value(1))?)?;
    Some((u32_at(payload, 4)?, IpNet::new(address, *payload.get(1)?).ok()?))
}

/// Over one link, or over [`EVERY`].
pub(crate) fn routes(socket: &mut Socket, index: u32) -> Result<Vec<Route>, Fault> {
    let mut all = Vec::new();
    for family in [AF_INET, AF_INET6] {
        if family == AF_INET6 && !sysctl::has_ipv6() {
            continue;
        }
        let request = dump_of(
            GETROUTE,
            &[family, 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0, 0, 0, 0],
            "ip route show",
        );
        let request = if index == EVERY {
            request
        } else {
            request.u32(route::OIF, index)
        };
        all.extend(socket.dump_with(&request, parse_route).or_else(absent_table)?);
    }
    Ok(all)
}

/// Whether a route goes over a link.
pub(crate) fn has_route(socket: &mut Socket, index: u32, destination: IpNet) -> Result<bool, Fault> {
    let routes = routes(socket, index)?;
    Ok(routes.iter().any(|route| route.destination == destination))
}

/// A namespace that never had a route of a family has no main table of it (ENOENT).
fn absent_table(fault: Fault) -> Result<Vec<Route>, Fault> {
    if fault.errno == ENOENT {
        Ok(Vec::new())
    } else {
        Err(fault)
    }
}

/// A route of the main table that was not made by the kernel, be it one that leads nowhere.
fn parse_route(payload: &[u8]) -> Option<Route> {
    let &[family, length, _, _, table, protocol, _, kind, ..] = payload else {
        return None;
    };
    // Those to other nodes are read by crate::routes.
    if table != TABLE_MAIN || protocol == PROTOCOL_KERNEL || protocol == model::routes::PROTOCOL {
        return None;
    }
    let attributes = Attributes::after(payload, 12);
    let address = match attributes.value(route::DST) {
        Some(bytes) => ip(bytes)?,
        None if family == AF_INET => IpAddr::from([0; 4]),
        None => IpAddr::from([0; 16]),
    };
    Some(Route {
        index: route_link(attributes).unwrap_or(NO_LINK),
        destination: IpNet::new(address, length).ok()?,
        metric: attributes.u32(route::PRIORITY).unwrap_or_default(),
        unicast: kind == UNICAST,
        on_link: kind == UNICAST
            && [route::GATEWAY, route::VIA, route::MULTIPATH]
                .iter()
                .all(|gateway| attributes.value(*gateway).is_none()),
    })
}

/// Destination, link's index and protocol of any route of the main table.
pub(crate) fn parse_route_of_all(payload: &[u8]) -> Option<(IpNet, u32, u8)> {
    let &[family, length, _, _, TABLE_MAIN, protocol, ..] = payload else {
        return None;
    };
    let attributes = Attributes::after(payload, 12);
    let unspecified = if family == AF_INET {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let address = attributes.value(route::DST).map_or(Some(unspecified), ip)?;
    let index = route_link(attributes).unwrap_or(NO_LINK);
    Some((IpNet::new(address, length).ok()?, index, protocol))
}

/// Which link a route goes over; of several next hops (`struct rtnexthop`, linux/rtnetlink.h) the first one's.
fn route_link(attributes: Attributes<'_>) -> Option<u32> {
    let first_next_hop = || u32_at(attributes.value(route::MULTIPATH)?, 4);
    attributes.u32(route::OIF).or_else(first_next_hop)
}

/// Destination and link's index of RTM_NEWROUTE and RTM_DELROUTE, of routes that the kernel did not make.
pub(crate) fn parse_route_told(payload: &[u8]) -> Option<(IpNet, u32)> {
    parse_route(payload).map(|route| (route.destination, route.index))
}

/// On one link, or on [`EVERY`].
fn neighbours(socket: &mut Socket, index: u32) -> Result<Vec<Neighbour>, Fault> {
    let request = dump_of(GETNEIGH, &[0; 12], "ip neighbour show");
    let request = if index == EVERY {
        request
    } else {
        request.u32(neighbour::IFINDEX, index)
    };
    socket.dump_with(&request, |payload| {
        parse_neighbour(payload).map(|(index, address, mac)| Neighbour { index, address, mac })
    })
}

/// A permanent neighbour with a MAC.
pub(crate) fn parse_neighbour(payload: &[u8]) -> Option<(u32, IpAddr, Mac)> {
    if u16_at(payload, 8)? & PERMANENT == 0 {
        return None;
    }
    let attributes = Attributes::after(payload, 12);
    let mac = attributes.value(2)?.try_into().ok().map(Mac)?;
    Some((u32_at(payload, 4)?, ip(attributes.value(1)?)?, mac))
}

pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
