//! Routes to other nodes: how addresses are reached, and what the kernel holds of ours; [`mod@change`] has the steps.

mod change;

pub(crate) use change::change;

use crate::encode::{
    AF_INET, AF_INET6, GETADDR, GETLINK, GETNEIGH, GETROUTE, LOOPBACK, TABLE_MAIN, UNICAST, UP, address,
    ifinfo, link, link_by_index, route, way_to,
};
use crate::message::{Attributes, Message, u32_at};
use crate::socket::{Socket, dump_of};
use crate::survey::{flags_of, ip, is_single, parse_address, parse_neighbour, parse_route_of_all};
use crate::sysctl;
use libc::ENOENT;
use model::address::{Family, Mac, is_link_local};
use model::datapath::Fault;
use model::routes::{FoundRoutes, Hop, METRIC, PROTOCOL, Reach, Tunnel, UNREACHABLE_METRIC};
use std::collections::HashMap;
use std::net::IpAddr;

/// How often addresses are listed at most, where each time something comes or goes.
const ADDRESS_LOOKS: usize = 3;
/// A kind of link.
const VXLAN: &str = "vxlan";
const AF_BRIDGE: u8 = 7;
/// `RTN_LOCAL`, `RTN_UNREACHABLE`.
const LOCAL: u8 = 2;
const UNREACHABLE: u8 = 7;
/// `IFF_POINTOPOINT | IFF_NOARP`.
const NOT_SHARED: u32 = 0x10 | 0x80;
/// Answers to so many questions fit into a socket's buffer.
const QUESTIONS: usize = 64;
/// `IFLA_VXLAN_*`.
mod vxlan {
    pub(super) const ID: u16 = 1;
    pub(super) const LEARNING: u16 = 7;
    pub(super) const PORT: u16 = 15;
    pub(super) const GROUP6: u16 = 16;
    pub(super) const UDP_CSUM: u16 = 18;
    pub(super) const ZERO_CSUM6_TX: u16 = 19;
    pub(super) const ZERO_CSUM6_RX: u16 = 20;
}

/// How the kernel would send to each address.
pub(crate) fn reach(socket: &mut Socket, addresses: &[IpAddr]) -> Result<Vec<Reach>, Fault> {
    let mut devices: HashMap<u32, Option<(String, u32, u32)>> = HashMap::new();
    let mut all = Vec::with_capacity(addresses.len());
    for chunk in addresses.chunks(QUESTIONS) {
        let questions: Vec<Message> = chunk.iter().map(|address| way_to(*address)).collect();
        let answer = socket.batch(&questions)?;
        let mut ways = vec![Reach::Nowhere("the kernel did not say".to_owned()); chunk.len()];
        for refused in answer.refused {
            ways[refused.position] = Reach::Nowhere(refused.fault.reason);
        }
        for reply in answer.replies {
            ways[reply.position] = reached(socket, &reply.payload, &mut devices)?;
        }
        all.extend(ways);
    }
    Ok(all)
}

fn reached(
    socket: &mut Socket,
    payload: &[u8],
    devices: &mut HashMap<u32, Option<(String, u32, u32)>>,
) -> Result<Reach, Fault> {
    let attributes = Attributes::after(payload, 12);
    let (kind, index) = (
        payload.get(7).copied(),
        attributes.u32(route::OIF).unwrap_or_default(),
    );
    match kind {
        Some(LOCAL) => return Ok(Reach::Own),
        Some(UNICAST) => {}
        _ => return Ok(Reach::Nowhere("its route leads nowhere".to_owned())),
    }
    if let std::collections::hash_map::Entry::Vacant(entry) = devices.entry(index) {
        let answer = socket.batch(&[link_by_index(index, "a route's device")])?;
        let device = answer.replies.first().and_then(|reply| {
            let attributes = Attributes::after(&reply.payload, 16);
            // A peer behind a workload, or behind the routes to peers, is none that routes could be built on.
            let group = attributes.u32(link::GROUP).unwrap_or_default();
            let ours = Family::ALL.iter().any(|family| group == Tunnel::group(*family));
            let name = attributes.text(link::IFNAME)?.to_owned();
            (!ours).then(|| {
                (
                    name,
                    attributes.u32(link::MTU).unwrap_or_default(),
                    flags_of(&reply.payload),
                )
            })
        });
        entry.insert(device);
    }
    let Some(Some((device, mtu, flags))) = devices.get(&index) else {
        return Ok(Reach::Nowhere("it is behind the VXLAN device itself".to_owned()));
    };
    let gateway = [route::GATEWAY, route::VIA]
        .iter()
        .any(|kind| attributes.value(*kind).is_some());
    Ok(Reach::Over {
        index,
        device: device.clone(),
        mtu: *mtu,
        on_link: !gateway,
        shared: !gateway && flags & NOT_SHARED == 0,
        source: attributes.value(route::PREFSRC).and_then(ip),
    })
}

/// Everything of ours, and what of others is beside it.
pub(crate) fn found(socket: &mut Socket) -> Result<FoundRoutes, Fault> {
    let mut found = FoundRoutes::default();
    let device = find_tunnel(socket)?;
    let index = device.as_ref().map_or(0, |device| device.index);
    if let Some(device) = device {
        found.held.tunnel = Some(device.tunnel);
        (found.held.odd.tunnel, found.held.odd.down) = (device.odd, device.down);
    }
    // Each workload that comes or goes interrupts it, and its link has none that matter here. What others change meanwhile is told,
    // and looked at again. Together the looks miss nothing that stands: before Linux 6.10 one may pass over a link where another one goes.
    for _ in 0..ADDRESS_LOOKS {
        let is_whole = socket.walk(&dump_of(GETADDR, &[0; 8], "ip address show"), &mut |payload| {
            found_address(payload, &mut found);
        })?;
        if is_whole {
            break;
        }
    }
    for version in [AF_INET, AF_INET6] {
        if version == AF_INET6 && !sysctl::has_ipv6() {
            continue;
        }
        let head = [version, 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0, 0, 0, 0];
        let dumped = match socket.dump(&dump_of(GETROUTE, &head, "ip route show")) {
            Err(fault) if fault.errno == ENOENT => continue,
            dumped => dumped?,
        };
        for payload in dumped {
            found_route(&payload, index, &mut found);
        }
    }
    if index != 0 {
        let request = dump_of(GETNEIGH, &[0; 12], "ip neighbour show").u32(8, index);
        for payload in socket.dump(&request)? {
            if let Some((_, address, mac)) = parse_neighbour(&payload) {
                found.held.neighbours.insert(address, mac);
            }
        }
        let mut head = [0; 12];
        head[0] = AF_BRIDGE;
        head[4..8].copy_from_slice(&index.to_ne_bytes());
        for payload in socket.dump(&dump_of(GETNEIGH, &head, "bridge fdb show"))? {
            let attributes = Attributes::after(&payload, 12);
            let mac = attributes.value(2).and_then(|mac| mac.try_into().ok()).map(Mac);
            if let (Some(mac), Some(to), Some(at)) =
                (mac, attributes.value(1).and_then(ip), u32_at(&payload, 4))
                && at == index
            {
                found.held.forwarding.insert(mac, to);
            }
        }
    }
    Ok(found)
}

fn found_address(payload: &[u8], found: &mut FoundRoutes) {
    let Some((index, net)) = parse_address(payload) else {
        return;
    };
    let protocol = Attributes::after(payload, 8).value(address::PROTOCOL);
    if protocol == Some(&[PROTOCOL]) && index == LOOPBACK {
        found.held.addresses.insert(net.addr());
        return;
    }
    found.other_addresses.insert(net.addr());
    if protocol.is_none() && index == LOOPBACK && is_single(net) {
        found.unmarked.insert(net.addr());
    }
}

fn found_route(payload: &[u8], tunnel: u32, found: &mut FoundRoutes) {
    let Some((destination, index, protocol)) = parse_route_of_all(payload) else {
        return;
    };
    let attributes = Attributes::after(payload, 12);
    let metric = attributes.u32(route::PRIORITY);
    let kind = payload.get(7).copied();
    if protocol != PROTOCOL {
        found.other_routes.insert(destination);
        // Of IPv4 a type of service makes another route (`fib_find_alias`, net/ipv4/fib_trie.c).
        match metric {
            _ if payload.get(3) != Some(&0) => {}
            Some(METRIC) => drop(found.same_metric.insert(destination)),
            Some(UNREACHABLE_METRIC) => drop(found.same_unreachable.insert(destination)),
            _ => {}
        }
        let has_gateway = [route::GATEWAY, route::VIA, route::MULTIPATH]
            .iter()
            .any(|kind| attributes.value(*kind).is_some());
        let is_net = destination.prefix_len() > 0 && !is_single(destination);
        if kind == Some(UNICAST) && !has_gateway && is_net && !is_link_local(destination.addr()) {
            found.on_link.insert(destination);
        }
        return;
    }
    if metric == Some(UNREACHABLE_METRIC) && kind == Some(UNREACHABLE) {
        found.held.unreachable.insert(destination);
        return;
    }
    if metric != Some(METRIC) {
        return;
    }
    let via = attributes.value(route::GATEWAY).and_then(ip);
    let via = via.or_else(|| ip(attributes.value(route::VIA)?.get(2..)?));
    let source = attributes.value(route::PREFSRC).and_then(ip);
    let hop = match via {
        None => {
            found.held.odd.routes.insert(destination);
            return;
        }
        Some(via) if index == tunnel && tunnel != 0 => Hop::Tunnel { via, source },
        Some(via) => Hop::Link { via, index, source },
    };
    found.held.routes.insert(destination, hop);
}

/// The kernel passes over all links of another kind, of which there is one for each workload: to tell of thousands takes so long
/// that hardly a dump comes to its end without a change. A kernel that has no driver of VXLAN loaded has no such device, and passes
/// over nothing (`linkinfo_to_kind_ops`, net/core/rtnetlink.c).
fn vxlan_devices(socket: &mut Socket) -> Result<Vec<Vec<u8>>, Fault> {
    let request = of_vxlan();
    let (mut devices, mut others) = (Vec::new(), false);
    let is_whole = socket.walk(&request, &mut |payload| match Attributes::after(payload, 16)
        .inside(link::LINKINFO)
        .text(1)
    {
        Some(VXLAN) => devices.push(payload.to_vec()),
        _ => others = true,
    })?;
    match is_whole || others {
        true => Ok(devices),
        false => socket.dump(&request),
    }
}

fn of_vxlan() -> Message {
    dump_of(GETLINK, &ifinfo(0, 0, 0), "ip link show type vxlan")
        .nest(link::LINKINFO, |info| info.text(1, VXLAN))
}

/// Of `rp_filter` on the device: two nodes may think otherwise of the way between them for a moment (RFC 3704).
const LOOSE: i32 = 2;

/// The device with our mark.
struct Device {
    index: u32,
    tunnel: Tunnel,
    /// It is otherwise than ours are made, or one of several.
    odd: bool,
    /// It is down, or lacks a setting that it is to have.
    down: bool,
}

/// The device of several that is told last.
fn find_tunnel(socket: &mut Socket) -> Result<Option<Device>, Fault> {
    let mut last: Option<Device> = None;
    for payload in vxlan_devices(socket)? {
        let attributes = Attributes::after(&payload, 16);
        let group = attributes.u32(link::GROUP).unwrap_or_default();
        let Some(family) = Family::ALL
            .into_iter()
            .find(|family| group == Tunnel::group(*family))
        else {
            continue;
        };
        let info = attributes.inside(link::LINKINFO);
        let data = info.inside(2);
        let is_set = |kind| data.value(kind) == Some(&[1]);
        let right = !is_set(vxlan::LEARNING) && is_set(vxlan::UDP_CSUM) && !is_set(vxlan::ZERO_CSUM6_TX);
        let port = data
            .value(vxlan::PORT)
            .and_then(|port| port.try_into().ok())
            .map(u16::from_be_bytes);
        let mac = attributes
            .value(link::ADDRESS)
            .and_then(|mac| mac.try_into().ok())
            .map(Mac);
        let tunnel = Tunnel {
            vni: data.u32(vxlan::ID).unwrap_or_default(),
            port: port.unwrap_or_default(),
            family,
            mac: mac.unwrap_or(Mac([0; 6])),
            mtu: attributes
                .u32(link::MTU)
                .and_then(|mtu| mtu.try_into().ok())
                .unwrap_or_default(),
        };
        let conf = crate::survey::parse_link(&payload).map(|link| link.conf);
        let is_lacking = conf.is_some_and(|conf| {
            let takes_no_ipv6 = conf.v6.disable_ipv6.is_some_and(|off| off != 0);
            let is_strict = conf.v4.rp_filter.is_some_and(|how| how != LOOSE);
            is_strict || takes_no_ipv6 && tunnel.carries_ipv6()
        });
        last = Some(Device {
            index: u32_at(&payload, 4).unwrap_or_default(),
            odd: !right || last.is_some() || attributes.text(link::IFNAME) != Some(&tunnel.name()),
            down: flags_of(&payload) & UP == 0 || is_lacking,
            tunnel,
        });
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::NEWLINK;
    use crate::message::flag;
    use crate::socket::ROUTE;
    use std::os::fd::AsFd as _;

    /// `NLMSG_DONE`, `NLM_F_DUMP_INTR`.
    const DONE: u16 = 3;
    const INTERRUPTED: u16 = 0x10;

    fn of_kind(index: u32, kind: &str) -> Message {
        Message::new(NEWLINK, flag::CREATE | flag::EXCL, "ip link add")
            .fixed(&ifinfo(index, 0, 0))
            .text(link::IFNAME, &format!("{kind}{index}"))
            .nest(link::LINKINFO, |info| {
                info.text(1, kind).nest(2, |data| match kind {
                    VXLAN => data.u32(vxlan::ID, index).bytes(vxlan::PORT, &[0x12, 0xb5]),
                    _ => data,
                })
            })
    }

    #[test]
    fn the_kernel_tells_of_vxlan_devices_alone() {
        let node = crate::netns::create().unwrap();
        let told = crate::netns::within(node.as_fd(), || {
            let mut socket = Socket::open(ROUTE).unwrap();
            let links = [of_kind(10, "ifb"), of_kind(11, VXLAN), of_kind(12, "ifb")];
            socket.batch(&links).unwrap().ok().unwrap();
            let told = socket
                .dump_with(&of_vxlan(), |payload| u32_at(payload, 4))
                .unwrap();
            (told, vxlan_devices(&mut socket).unwrap().len())
        });
        assert_eq!(told.unwrap(), (vec![11], 1));
    }

    /// As where no driver of VXLAN is loaded: a node of thousands of workloads would hardly ever be listed without a change.
    #[test]
    fn where_all_links_are_told_there_is_none_and_they_are_not_asked_for_again() {
        let played = |kind: &str, flags: u16, body: Message| {
            let mut bytes = Vec::new();
            body.append_to(&mut bytes, 1, false);
            let number = if kind == "done" { DONE } else { NEWLINK };
            bytes[4..6].copy_from_slice(&number.to_ne_bytes());
            bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
            bytes
        };
        let datagrams = [
            played("link", 2, of_kind(1, "veth")),
            played("link", 2 | INTERRUPTED, of_kind(2, "veth")),
            played("done", 2 | INTERRUPTED, Message::new(DONE, 0, "").fixed(&[0; 4])),
        ];
        let datagrams: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
        let mut socket = crate::played::answering(&datagrams).unwrap();
        // Asked again, this kernel would not answer.
        assert!(vxlan_devices(&mut socket).unwrap().is_empty());
    }
}
