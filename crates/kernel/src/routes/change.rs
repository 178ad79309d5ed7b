//! Steps as messages.

use super::{AF_BRIDGE, LOOSE, UNREACHABLE, VXLAN, find_tunnel, vxlan};
use crate::encode::{
    AF_INET, AF_INET6, DELADDR, DELLINK, DELROUTE, LOOPBACK, NEWADDR, NEWLINK, NEWROUTE, PERMANENT, SETLINK,
    TABLE_MAIN, UNICAST, UP, address, family, ifinfo, link, neighbour, route,
};
use crate::message::{Message, flag};
use crate::socket::Socket;
use crate::sysctl::Writable;
use crate::{crash, fault, sysctl};
use ipnet::IpNet;
use libc::{EADDRNOTAVAIL, EEXIST, EHOSTUNREACH, ENETUNREACH, ENODEV, ENOENT, ESRCH};
use model::address::{Family, Mac, octets};
use model::datapath::Fault;
use model::op::IPV6_ON;
use model::routes::{Hop, METRIC, PROTOCOL, Step, Tunnel, UNREACHABLE_METRIC};
use std::net::IpAddr;

/// With one of these the kernel refuses to take away what is not there.
const GONE: [i32; 6] = [ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL, ENETUNREACH, EHOSTUNREACH];
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
pub(crate) fn change(socket: &mut Socket, sysctls: &Writable, steps: &[Step]) -> Result<Vec<Fault>, Fault> {
    // Asked for only where it matters.
    let index = match steps.iter().any(is_of_tunnel) {
        true => index(socket)?,
        false => None,
    };
    let mut changes = Changes {
        socket,
        sysctls,
        index,
        batch: Vec::new(),
        faults: Vec::new(),
    };
    for step in steps {
        changes.take(step)?;
    }
    changes.send()?;
    Ok(changes.faults)
}

/// Whether a step is about the VXLAN device, or what is on it.
fn is_of_tunnel(step: &Step) -> bool {
    match step {
        Step::AddAddress(_)
        | Step::DropAddress(_)
        | Step::DropRoute(_)
        | Step::AddUnreachable(_)
        | Step::DropUnreachable(_) => false,
        Step::AddRoute(_, hop) | Step::Route(_, hop) => matches!(hop, Hop::Tunnel { .. }),
        Step::MakeTunnel(_)
        | Step::SetTunnel(_)
        | Step::DropTunnel
        | Step::Forward(..)
        | Step::DropForward(..)
        | Step::Neighbour(..)
        | Step::DropNeighbour(_) => true,
    }
}

/// Of the device with our mark.
fn index(socket: &mut Socket) -> Result<Option<u32>, Fault> {
    Ok(find_tunnel(socket)?.map(|device| device.index))
}

struct Changes<'a> {
    socket: &'a mut Socket,
    sysctls: &'a Writable,
    /// Of the VXLAN device.
    index: Option<u32>,
    /// What is to be sent, each with its step.
    batch: Vec<(&'a Step, Message)>,
    faults: Vec<Fault>,
}

impl<'a> Changes<'a> {
    fn take(&mut self, step: &'a Step) -> Result<(), Fault> {
        const PUT: u16 = flag::CREATE | flag::REPLACE;
        let tried = step.to_string();
        match *step {
            Step::AddAddress(address) => self.push(
                step,
                own_address(NEWADDR, flag::CREATE | flag::EXCL, tried, address),
            ),
            Step::DropAddress(address) => self.push(step, own_address(DELADDR, 0, tried, address)),
            Step::MakeTunnel(tunnel) => self.make(step, &tunnel),
            Step::SetTunnel(tunnel) => self.set(step, &tunnel),
            Step::DropTunnel => self.drop_tunnels(&tried),
            Step::Forward(mac, to) => {
                self.on_tunnel(step, |index| forward(NEWNEIGH, PUT, tried, index, mac, to))
            }
            Step::DropForward(mac, to) => {
                self.on_tunnel(step, |index| forward(DELNEIGH, 0, tried, index, mac, to))
            }
            Step::Neighbour(hop, mac) => self.on_tunnel(step, |index| {
                neighbour(NEWNEIGH, PUT, tried, index, hop).bytes(neighbour::LLADDR, &mac.0)
            }),
            Step::DropNeighbour(hop) => {
                self.on_tunnel(step, |index| neighbour(DELNEIGH, 0, tried, index, hop))
            }
            Step::AddRoute(net, hop) => self.route(step, flag::CREATE | flag::EXCL, net, hop),
            Step::Route(net, hop) => self.route(step, PUT, net, hop),
            Step::DropRoute(net) => self.push(step, no_route(tried, net, METRIC, 0)),
            Step::AddUnreachable(net) => self.push(
                step,
                Message::new(NEWROUTE, flag::CREATE | flag::EXCL, tried)
                    .fixed(&route_head(net, 0, UNREACHABLE, 0))
                    .bytes(route::DST, &octets(net.network()))
                    .u32(route::PRIORITY, UNREACHABLE_METRIC),
            ),
            Step::DropUnreachable(net) => {
                self.push(step, no_route(tried, net, UNREACHABLE_METRIC, UNREACHABLE))
            }
        }
    }

    fn push(&mut self, step: &'a Step, message: Message) -> Result<(), Fault> {
        self.batch.push((step, message));
        match self.batch.len() < CHANGES {
            true => Ok(()),
            false => self.send(),
        }
    }

    fn on_tunnel(&mut self, step: &'a Step, message: impl FnOnce(u32) -> Message) -> Result<(), Fault> {
        match self.index {
            Some(index) => return self.push(step, message(index)),
            // With it went all that was on it.
            None if matches!(step, Step::DropForward(..) | Step::DropNeighbour(_)) => {}
            // Why it could not be made was said.
            None if !self.faults.is_empty() => {}
            None => self.faults.push(fault::ours(
                step.to_string(),
                "there is no VXLAN device of ours".to_owned(),
            )),
        }
        Ok(())
    }

    fn route(&mut self, step: &'a Step, flags: u16, net: IpNet, hop: Hop) -> Result<(), Fault> {
        let tried = step.to_string();
        match hop {
            Hop::Link { via, index, source } => {
                self.push(step, route_via(flags, tried, net, (via, index, 0), source))
            }
            Hop::Tunnel { via, source } => self.on_tunnel(step, |index| {
                // Without IPv6 the hop is an address that is elsewhere, too.
                let on_link = if via.is_ipv4() { ON_LINK } else { 0 };
                route_via(flags, tried, net, (via, index, on_link), source)
            }),
        }
    }

    /// The device is found by its mark before anything more is done to it: somebody else's may have its name.
    fn make(&mut self, step: &'a Step, tunnel: &Tunnel) -> Result<(), Fault> {
        self.drop_tunnels("ip link delete the VXLAN device that was there")?;
        self.push(step, make_tunnel(tunnel, step.to_string()))?;
        self.send()?;
        self.index = index(self.socket)?;
        self.set(step, tunnel)
    }

    /// Whoever made it may have ended before it was configured.
    fn set(&mut self, step: &'a Step, tunnel: &Tunnel) -> Result<(), Fault> {
        // It inherits that from the namespace's default, and routes of IPv4 go over a hop of IPv6, too.
        if self.index.is_some()
            && sysctl::has_ipv6()
            && tunnel.carries_ipv6()
            && let Err(fault) = self.sysctls.ensure(&tunnel.name(), &IPV6_ON)
        {
            self.faults.push(fault);
        }
        self.on_tunnel(step, |index| configure_tunnel(tunnel, index, step.to_string()))?;
        self.on_tunnel(step, |index| set_tunnel(tunnel, index, step.to_string()))
    }

    fn drop_tunnels(&mut self, tried: &str) -> Result<(), Fault> {
        self.send()?;
        for family in Family::ALL {
            let message = Message::new(DELLINK, 0, tried)
                .fixed(&ifinfo(0, 0, 0))
                .u32(link::GROUP, Tunnel::group(family));
            self.push(&Step::DropTunnel, message)?;
        }
        self.send()?;
        self.index = index(self.socket)?;
        Ok(())
    }

    fn send(&mut self) -> Result<(), Fault> {
        let (steps, batch): (Vec<&Step>, Vec<Message>) = self.batch.drain(..).unzip();
        let together = if crash::is_stepwise() {
            1
        } else {
            batch.len().max(1)
        };
        for (steps, batch) in steps.chunks(together).zip(batch.chunks(together)) {
            for refused in self.socket.batch(batch)?.refused {
                if !is_true_already(steps[refused.position], refused.fault.errno) {
                    self.faults.push(refused.fault);
                }
            }
            crash::step();
        }
        Ok(())
    }
}

/// Whether a step that was refused for this reason had nothing to do.
fn is_true_already(step: &Step, errno: i32) -> bool {
    match step {
        Step::DropAddress(_)
        | Step::DropTunnel
        | Step::DropForward(..)
        | Step::DropNeighbour(_)
        | Step::DropRoute(_)
        | Step::DropUnreachable(_) => GONE.contains(&errno),
        Step::AddAddress(_) => errno == EEXIST,
        Step::MakeTunnel(_)
        | Step::SetTunnel(_)
        | Step::Forward(..)
        | Step::Neighbour(..)
        | Step::AddRoute(..)
        | Step::Route(..)
        | Step::AddUnreachable(_) => false,
    }
}

fn own_address(kind: u16, flags: u16, tried: String, address: IpAddr) -> Message {
    let bits = Family::of(address).bits();
    let mut head = [family(address), bits, 0, 0, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&LOOPBACK.to_ne_bytes());
    let message = Message::new(kind, flags, tried)
        .fixed(&head)
        .bytes(address::LOCAL, &octets(address))
        .bytes(address::ADDRESS, &octets(address));
    match kind {
        // IFA_FLAGS: IFA_F_NODAD.
        NEWADDR => message
            .u8(address::PROTOCOL, PROTOCOL)
            .u32(address::FLAGS, if address.is_ipv6() { 2 } else { 0 }),
        _ => message,
    }
}

/// Made down, so that it gets no link-local address on its way up.
fn make_tunnel(tunnel: &Tunnel, tried: String) -> Message {
    Message::new(NEWLINK, flag::CREATE | flag::EXCL, tried)
        .fixed(&ifinfo(0, 0, 0))
        .text(link::IFNAME, &tunnel.name())
        .bytes(link::ADDRESS, &tunnel.mac.0)
        .u32(link::MTU, tunnel.mtu.into())
        .u32(link::GROUP, Tunnel::group(tunnel.family))
        .nest(link::LINKINFO, |info| {
            info.text(1, VXLAN).nest(2, |data| {
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
        })
}

fn configure_tunnel(tunnel: &Tunnel, index: u32, tried: String) -> Message {
    Message::new(SETLINK, 0, tried)
        .fixed(&ifinfo(index, 0, 0))
        .nest(link::AF_SPEC, |spec| {
            // IPV4_DEVCONF_RP_FILTER; IFLA_INET6_ADDR_GEN_MODE: none.
            let loose = LOOSE.cast_unsigned();
            let spec = spec.nest(AF_INET.into(), |inet| inet.nest(1, |conf| conf.u32(8, loose)));
            match sysctl::has_ipv6() && tunnel.carries_ipv6() {
                true => spec.nest(AF_INET6.into(), |inet6| inet6.u8(8, 1)),
                false => spec,
            }
        })
}

fn set_tunnel(tunnel: &Tunnel, index: u32, tried: String) -> Message {
    Message::new(SETLINK, 0, tried)
        .fixed(&ifinfo(index, UP, UP))
        .u32(link::MTU, tunnel.mtu.into())
}

fn forward(kind: u16, flags: u16, tried: String, index: u32, mac: Mac, to: IpAddr) -> Message {
    let mut head = [0; 12];
    head[0] = AF_BRIDGE;
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..10].copy_from_slice(&(PERMANENT | NO_ARP).to_ne_bytes());
    head[10] = SELF;
    Message::new(kind, flags, tried)
        .fixed(&head)
        .bytes(neighbour::LLADDR, &mac.0)
        .bytes(neighbour::DST, &octets(to))
}

fn neighbour(kind: u16, flags: u16, tried: String, index: u32, hop: IpAddr) -> Message {
    let mut head = [0; 12];
    head[0] = family(hop);
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    Message::new(kind, flags, tried)
        .fixed(&head)
        .bytes(neighbour::DST, &octets(hop))
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

/// Of a kind; 0: of any.
fn no_route(tried: String, net: IpNet, metric: u32, kind: u8) -> Message {
    Message::new(DELROUTE, 0, tried)
        .fixed(&route_head(net, SCOPE_NOWHERE, kind, 0))
        .bytes(route::DST, &octets(net.network()))
        .u32(route::PRIORITY, metric)
}

/// `hop`: its address, the link's index, and flags.
fn route_via(
    flags: u16,
    tried: String,
    net: IpNet,
    hop: (IpAddr, u32, u32),
    source: Option<IpAddr>,
) -> Message {
    let (via, index, hop_flags) = hop;
    let message = Message::new(NEWROUTE, flags, tried)
        .fixed(&route_head(net, 0, UNICAST, hop_flags))
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
