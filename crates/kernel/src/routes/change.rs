//! Steps as messages.

use super::{ADDRESS_PROTOCOL, AF_BRIDGE, find_tunnel, vxlan};
use crate::encode::{
    AF_INET, AF_INET6, DELADDR, DELLINK, DELROUTE, LOOPBACK, NEWADDR, NEWLINK, NEWROUTE, PERMANENT, SETLINK,
    TABLE_MAIN, UNICAST, UP, family, ifinfo, link, octets, route,
};
use crate::message::{Message, flag};
use crate::socket::Socket;
use crate::sysctl;
use ipnet::IpNet;
use model::address::{Family, Mac};
use model::datapath::Fault;
use model::routes::{Hop, METRIC, PROTOCOL, Step, Tunnel};
use std::net::IpAddr;

/// errno-base.h, errno.h.
const GONE: [i32; 6] = [2, 3, 19, 99, 101, 113];
const EEXIST: i32 = 17;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
/// `NTF_SELF`; `NUD_NOARP`.
const SELF: u8 = 2;
const NO_ARP: u16 = 0x40;
/// `RTNH_F_ONLINK`, `RT_SCOPE_NOWHERE`.
const ON_LINK: u32 = 4;
const SCOPE_NOWHERE: u8 = 255;
/// So many changes fit into what may be sent at once.
const CHANGES: usize = 400;

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
