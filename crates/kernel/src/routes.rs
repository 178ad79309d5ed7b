//! Routes to other nodes: how addresses are reached, what the kernel holds of ours, and steps as messages.

use crate::encode::{
    AF_INET, AF_INET6, DELADDR, DELLINK, DELROUTE, GETADDR, GETLINK, GETNEIGH, GETROUTE, LOOPBACK, NEWADDR,
    NEWLINK, NEWROUTE, PERMANENT, SETLINK, TABLE_MAIN, UNICAST, UP, family, ifinfo, link, link_by_index,
    octets, route, route_to,
};
use crate::message::{Attributes, Message, flag, u32_at};
use crate::socket::{Socket, dump_of};
use crate::survey::{flags_of, ip, parse_address, parse_neighbour, parse_route_of_all};
use crate::sysctl;
use ipnet::IpNet;
use model::address::{Family, Mac};
use model::datapath::{Fault, FoundRoutes};
use model::routes::{Hop, METRIC, PROTOCOL, Reach, Step, Tunnel};
use std::collections::HashMap;
use std::net::IpAddr;

/// errno-base.h, errno.h.
const GONE: [i32; 6] = [2, 3, 19, 99, 101, 113];
const EEXIST: i32 = 17;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const AF_BRIDGE: u8 = 7;
/// `NTF_SELF`; `NUD_NOARP`.
const SELF: u8 = 2;
const NO_ARP: u16 = 0x40;
/// `RTN_LOCAL`, `RTNH_F_ONLINK`, `RT_SCOPE_NOWHERE`.
const LOCAL: u8 = 2;
const ON_LINK: u32 = 4;
const SCOPE_NOWHERE: u8 = 255;
/// `IFA_PROTO`.
const ADDRESS_PROTOCOL: u16 = 11;
/// `IFF_POINTOPOINT | IFF_NOARP`.
const NOT_SHARED: u32 = 0x10 | 0x80;
/// Answers to so many questions fit into a socket's buffer.
const QUESTIONS: usize = 64;
/// So many changes fit into what may be sent at once.
const CHANGES: usize = 400;
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
        let questions: Vec<Message> = chunk.iter().map(|address| route_to(*address)).collect();
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
    let (index, tunnel) = find_tunnel(socket)?;
    found.held.tunnel = tunnel;
    for payload in socket.dump(&dump_of(GETADDR, &[0; 8], "ip address show"))? {
        let Some((index, net)) = parse_address(&payload) else {
            continue;
        };
        let ours = Attributes::after(&payload, 8).value(ADDRESS_PROTOCOL) == Some(&[PROTOCOL]);
        if ours && index == LOOPBACK {
            found.held.addresses.insert(net.addr());
        } else {
            found.other_addresses.insert(net.addr());
        }
    }
    for version in [AF_INET, AF_INET6] {
        if version == AF_INET6 && !sysctl::has_ipv6() {
            continue;
        }
        let head = [version, 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0, 0, 0, 0];
        let dumped = match socket.dump(&dump_of(GETROUTE, &head, "ip route show")) {
            Err(fault) if fault.errno == 2 => continue,
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

fn found_route(payload: &[u8], tunnel: u32, found: &mut FoundRoutes) {
    let Some((destination, index, protocol)) = parse_route_of_all(payload) else {
        return;
    };
    if protocol != PROTOCOL {
        found.other_routes.insert(destination);
        return;
    }
    let attributes = Attributes::after(payload, 12);
    let via = attributes.value(route::GATEWAY).and_then(ip);
    let via = via.or_else(|| ip(attributes.value(route::VIA)?.get(2..)?));
    let source = attributes.value(route::PREFSRC).and_then(ip);
    let hop = match via {
        // Somebody changed it: with this it differs from whatever is wanted.
        None => Hop::Link {
            via: destination.addr(),
            index: 0,
            source,
        },
        Some(via) if index == tunnel && tunnel != 0 => Hop::Tunnel { via, source },
        Some(via) => Hop::Link { via, index, source },
    };
    if attributes.u32(route::PRIORITY) == Some(METRIC) {
        found.held.routes.insert(destination, hop);
    }
}

/// Index and properties of the device with our mark; of several, or of one that is otherwise than ours are made, properties
/// that differ from whatever is wanted.
fn find_tunnel(socket: &mut Socket) -> Result<(u32, Option<Tunnel>), Fault> {
    let mut all = (0, None);
    for payload in socket.dump(&dump_of(GETLINK, &ifinfo(0, 0, 0), "ip link show"))? {
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
        let right = info.text(1) == Some("vxlan")
            && !is_set(vxlan::LEARNING)
            && is_set(vxlan::UDP_CSUM)
            && !is_set(vxlan::ZERO_CSUM6_TX);
        let port = data
            .value(vxlan::PORT)
            .and_then(|port| port.try_into().ok())
            .map(u16::from_be_bytes);
        let mac = attributes
            .value(link::ADDRESS)
            .and_then(|mac| mac.try_into().ok())
            .map(Mac);
        let mut tunnel = Tunnel {
            vni: data.u32(vxlan::ID).unwrap_or_default(),
            port: port.unwrap_or_default(),
            family,
            mac: mac.unwrap_or(Mac([0; 6])),
            mtu: attributes
                .u32(link::MTU)
                .and_then(|mtu| mtu.try_into().ok())
                .unwrap_or_default(),
        };
        if !right || all.1.is_some() || attributes.text(link::IFNAME) != Some(&tunnel.name()) {
            tunnel.port = 0;
        }
        if flags_of(&payload) & UP == 0 {
            tunnel.mtu = 0;
        }
        all = (u32_at(&payload, 4).unwrap_or_default(), Some(tunnel));
    }
    Ok(all)
}

/// Carries steps out, and goes on past what is refused.
pub(crate) fn change(socket: &mut Socket, steps: &[Step]) -> Result<Vec<Fault>, Fault> {
    let mut faults = Vec::new();
    let mut index = find_tunnel(socket)?.0;
    let mut batch = Vec::new();
    for step in steps {
        let device = matches!(step, Step::MakeTunnel(_) | Step::SetTunnel(_) | Step::DropTunnel);
        if device || batch.len() >= CHANGES {
            send(socket, &mut batch, &mut faults)?;
        }
        batch.extend(messages(step, index));
        if device {
            send(socket, &mut batch, &mut faults)?;
            index = find_tunnel(socket)?.0;
        }
    }
    send(socket, &mut batch, &mut faults)?;
    Ok(faults)
}

fn send(socket: &mut Socket, batch: &mut Vec<Message>, faults: &mut Vec<Fault>) -> Result<(), Fault> {
    for refused in socket.batch(batch)?.refused {
        let tried = &refused.fault.tried;
        let gone = tried.contains("delete") && GONE.contains(&refused.fault.errno);
        let there = tried.contains("address add") && refused.fault.errno == EEXIST;
        if !gone && !there {
            faults.push(refused.fault);
        }
    }
    batch.clear();
    Ok(())
}

fn messages(step: &Step, index: u32) -> Vec<Message> {
    let tried = step.to_string();
    match *step {
        Step::AddAddress(address) => vec![own_address(NEWADDR, flag::CREATE | flag::EXCL, tried, address)],
        Step::DropAddress(address) => vec![own_address(DELADDR, 0, tried, address)],
        Step::MakeTunnel(tunnel) => {
            let mut all = drop_tunnels("ip link delete the VXLAN device that was there");
            all.extend(make_tunnel(&tunnel, &tried));
            all
        }
        Step::SetTunnel(tunnel) => vec![
            Message::new(SETLINK, 0, tried)
                .fixed(&ifinfo(0, UP, UP))
                .text(link::IFNAME, &tunnel.name())
                .u32(link::MTU, tunnel.mtu.into()),
        ],
        Step::DropTunnel => drop_tunnels(&tried),
        Step::Forward(mac, to) => vec![forward(
            NEWNEIGH,
            flag::CREATE | flag::REPLACE,
            tried,
            index,
            mac,
            to,
        )],
        Step::DropForward(mac, to) => vec![forward(DELNEIGH, 0, tried, index, mac, to)],
        Step::Neighbour(hop, mac) => {
            vec![neighbour(NEWNEIGH, flag::CREATE | flag::REPLACE, tried, index, hop).bytes(2, &mac.0)]
        }
        Step::DropNeighbour(hop) => vec![neighbour(DELNEIGH, 0, tried, index, hop)],
        Step::Route(net, hop) => vec![add_route(tried, index, net, hop)],
        Step::DropRoute(net) => vec![
            Message::new(DELROUTE, 0, tried)
                .fixed(&route_head(net, SCOPE_NOWHERE, 0, 0))
                .bytes(route::DST, &octets(net.network()))
                .u32(route::PRIORITY, METRIC),
        ],
    }
}

fn own_address(kind: u16, flags: u16, tried: String, address: IpAddr) -> Message {
    let bits = Family::of(address).bits();
    let mut head = [family(address), bits, 0, 0, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&LOOPBACK.to_ne_bytes());
    let message = Message::new(kind, flags, tried)
        .fixed(&head)
        .bytes(2, &octets(address))
        .bytes(1, &octets(address));
    match kind {
        // IFA_FLAGS: IFA_F_NODAD.
        NEWADDR => message
            .u8(ADDRESS_PROTOCOL, PROTOCOL)
            .u32(8, if address.is_ipv6() { 2 } else { 0 }),
        _ => message,
    }
}

fn drop_tunnels(tried: &str) -> Vec<Message> {
    Family::ALL
        .map(|family| {
            Message::new(DELLINK, 0, tried)
                .fixed(&ifinfo(0, 0, 0))
                .u32(link::GROUP, Tunnel::group(family))
        })
        .to_vec()
}

/// Made down, so that it gets no link-local address on its way up; loose about the reverse path, because two nodes may think
/// otherwise of the way between them for a moment (RFC 3704).
fn make_tunnel(tunnel: &Tunnel, tried: &str) -> [Message; 3] {
    let name = tunnel.name();
    let create = Message::new(NEWLINK, flag::CREATE | flag::EXCL, tried)
        .fixed(&ifinfo(0, 0, 0))
        .text(link::IFNAME, &name)
        .bytes(link::ADDRESS, &tunnel.mac.0)
        .u32(link::MTU, tunnel.mtu.into())
        .u32(link::GROUP, Tunnel::group(tunnel.family))
        .nest(link::LINKINFO, |info| {
            info.text(1, "vxlan").nest(2, |data| {
                let data = data
                    .u32(vxlan::ID, tunnel.vni)
                    .u8(vxlan::LEARNING, 0)
                    .bytes(vxlan::PORT, &tunnel.port.to_be_bytes())
                    .u8(vxlan::UDP_CSUM, 1);
                match tunnel.family {
                    Family::V4 => data,
                    // Nobody: it only says that it goes over IPv6.
                    Family::V6 => data
                        .bytes(vxlan::GROUP6, &[0; 16])
                        .u8(vxlan::ZERO_CSUM6_TX, 0)
                        .u8(vxlan::ZERO_CSUM6_RX, 0),
                }
            })
        });
    let set = |flags| {
        Message::new(SETLINK, 0, tried)
            .fixed(&ifinfo(0, flags, flags))
            .text(link::IFNAME, &name)
    };
    let settings = set(0).nest(link::AF_SPEC, |spec| {
        // IPV4_DEVCONF_RP_FILTER; IFLA_INET6_ADDR_GEN_MODE: none.
        let spec = spec.nest(AF_INET.into(), |inet| inet.nest(1, |conf| conf.u32(8, 2)));
        match sysctl::has_ipv6() && tunnel.mtu >= model::address::IPV6_MTU {
            true => spec.nest(AF_INET6.into(), |inet6| inet6.u8(8, 1)),
            false => spec,
        }
    });
    [create, settings, set(UP)]
}

fn forward(kind: u16, flags: u16, tried: String, index: u32, mac: Mac, to: IpAddr) -> Message {
    let mut head = [0; 12];
    head[0] = AF_BRIDGE;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..10].copy_from_slice(&(PERMANENT | NO_ARP).to_ne_bytes());
    head[10] = SELF;
    Message::new(kind, flags, tried)
        .fixed(&head)
        .bytes(2, &mac.0)
        .bytes(1, &octets(to))
}

fn neighbour(kind: u16, flags: u16, tried: String, index: u32, hop: IpAddr) -> Message {
    let mut head = [0; 12];
    head[0] = family(hop);
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    Message::new(kind, flags, tried)
        .fixed(&head)
        .bytes(1, &octets(hop))
}

fn route_head(net: IpNet, scope: u8, kind: u8, flags: u32) -> [u8; 12] {
    let mut head = [
        family(net.addr()),
        net.prefix_len(),
        0,
        0,
        TABLE_MAIN,
        PROTOCOL,
        scope,
        kind,
        0,
        0,
        0,
        0,
    ];
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head
}

fn add_route(tried: String, tunnel: u32, net: IpNet, hop: Hop) -> Message {
    let (via, index, source, flags) = match hop {
        Hop::Link { via, index, source } => (via, index, source, 0),
        // Without IPv6 the hop is an address that is elsewhere, too.
        Hop::Tunnel { via, source } => (via, tunnel, source, if via.is_ipv4() { ON_LINK } else { 0 }),
    };
    let message = Message::new(NEWROUTE, flag::CREATE | flag::REPLACE, tried)
        .fixed(&route_head(net, 0, UNICAST, flags))
        .bytes(route::DST, &octets(net.network()))
        .u32(route::PRIORITY, METRIC)
        .u32(route::OIF, index);
    let message = match family(via) == family(net.addr()) {
        true => message.bytes(route::GATEWAY, &octets(via)),
        // struct rtvia: the family, and the address.
        false => {
            let mut bytes = u16::from(family(via)).to_ne_bytes().to_vec();
            bytes.extend(octets(via));
            message.bytes(route::VIA, &bytes)
        }
    };
    source
        .iter()
        .fold(message, |m, from| m.bytes(route::PREFSRC, &octets(*from)))
}
