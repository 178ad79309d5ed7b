//! Plans and ops as rtnetlink messages (linux/if_link.h, if_addr.h, rtnetlink.h, neighbour.h).

use crate::message::{Message, flag};
use ipnet::IpNet;
use model::address::{Mac, octets};
use model::op::{Ipv4Conf, Mark, Op, Scope};
use model::plan::LinkPlan;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

pub(crate) const NEWLINK: u16 = 16;
pub(crate) const DELLINK: u16 = 17;
pub(crate) const GETLINK: u16 = 18;
pub(crate) const SETLINK: u16 = 19;
pub(crate) const NEWADDR: u16 = 20;
pub(crate) const DELADDR: u16 = 21;
pub(crate) const GETADDR: u16 = 22;
pub(crate) const NEWROUTE: u16 = 24;
pub(crate) const DELROUTE: u16 = 25;
pub(crate) const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
pub(crate) const GETNEIGH: u16 = 30;
const NEWLINKPROP: u16 = 108;
const DELLINKPROP: u16 = 109;

pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

/// `IFF_UP`.
pub(crate) const UP: u32 = 1;
/// `LOOPBACK_IFINDEX`, net/flow.h: the kernel insists on it in every namespace (`loopback_net_init`).
pub(crate) const LOOPBACK: u32 = 1;

/// `IFLA_*`.
pub(crate) mod link {
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const IFNAME: u16 = 3;
    pub(crate) const MTU: u16 = 4;
    pub(crate) const LINK: u16 = 5;
    pub(crate) const MASTER: u16 = 10;
    pub(crate) const OPERSTATE: u16 = 16;
    pub(crate) const LINKINFO: u16 = 18;
    pub(crate) const IFALIAS: u16 = 20;
    pub(crate) const AF_SPEC: u16 = 26;
    pub(crate) const GROUP: u16 = 27;
    pub(crate) const NET_NS_FD: u16 = 28;
    pub(crate) const EXT_MASK: u16 = 29;
    pub(crate) const NUM_TX_QUEUES: u16 = 31;
    pub(crate) const NUM_RX_QUEUES: u16 = 32;
    pub(crate) const LINK_NETNSID: u16 = 37;
    pub(crate) const TARGET_NETNSID: u16 = 46;
    pub(crate) const PROP_LIST: u16 = 52;
    pub(crate) const ALT_IFNAME: u16 = 53;
}

/// `IFA_*`.
pub(crate) mod address {
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const LOCAL: u16 = 2;
    pub(crate) const FLAGS: u16 = 8;
    pub(crate) const PROTOCOL: u16 = 11;
}

/// `NDA_*`.
pub(crate) mod neighbour {
    pub(crate) const DST: u16 = 1;
    pub(crate) const LLADDR: u16 = 2;
    pub(crate) const IFINDEX: u16 = 8;
}

/// `RTA_*`.
pub(crate) mod route {
    pub(crate) const DST: u16 = 1;
    pub(crate) const OIF: u16 = 4;
    pub(crate) const GATEWAY: u16 = 5;
    pub(crate) const PRIORITY: u16 = 6;
    pub(crate) const PREFSRC: u16 = 7;
    pub(crate) const METRICS: u16 = 8;
    pub(crate) const MULTIPATH: u16 = 9;
    pub(crate) const VIA: u16 = 18;
}

/// `RTM_F_FIB_MATCH` (linux/rtnetlink.h).
const FIB_MATCH: u32 = 0x2000;
/// Inside the metrics of a route (linux/rtnetlink.h).
const RTAX_MTU: u16 = 2;

/// `IFLA_INET_CONF`, and `IPV4_DEVCONF_*` inside it.
const INET_CONF: u16 = 1;
const FORWARDING: u16 = 1;
const ACCEPT_REDIRECTS: u16 = 4;
const SEND_REDIRECTS: u16 = 6;
const RP_FILTER: u16 = 8;
const ROUTE_LOCALNET: u16 = 26;
/// `IFLA_INET6_ADDR_GEN_MODE` and `IN6_ADDR_GEN_MODE_NONE`.
const INET6_ADDR_GEN_MODE: u16 = 8;
const GEN_MODE_NONE: u8 = 1;

/// `IFA_F_NODAD`, `IFA_F_NOPREFIXROUTE`.
const NODAD: u32 = 0x02;
const NOPREFIXROUTE: u32 = 0x200;

pub(crate) const SCOPE_GLOBAL: u8 = 0;
pub(crate) const SCOPE_LINK: u8 = 253;
pub(crate) const TABLE_MAIN: u8 = 254;
pub(crate) const PROTOCOL_STATIC: u8 = 4;
pub(crate) const UNICAST: u8 = 1;
/// `RTN_LOCAL`.
pub(crate) const LOCAL: u8 = 2;
pub(crate) const PERMANENT: u16 = 0x80;

pub(crate) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// `struct ifinfomsg`.
pub(crate) fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// Both ends in one message, down, the workload's in its namespace. An index of 0 lets the kernel choose.
///
/// One queue each: veth makes as many as there are CPUs and gives all but one back, which on 64 CPUs is four fifths of
/// an attach. `IFF_UP` for the peer would fail (veth_open has no peer yet), an alias be ignored.
pub(crate) fn create(
    plan: &LinkPlan,
    host_index: u32,
    workload_index: u32,
    namespace: BorrowedFd<'_>,
) -> Message {
    let tried = format!(
        "ip link add {} index {host_index} type veth peer {} index {workload_index} in the workload's namespace",
        plan.host, plan.workload
    );
    let mtu = u32::from(plan.mtu);
    Message::new(NEWLINK, flag::CREATE | flag::EXCL, tried)
        .fixed(&ifinfo(host_index, 0, 0))
        .text(link::IFNAME, plan.host.as_str())
        .bytes(link::ADDRESS, &plan.host_mac.0)
        .u32(link::MTU, mtu)
        .u32(link::GROUP, plan.group)
        .u32(link::NUM_TX_QUEUES, 1)
        .u32(link::NUM_RX_QUEUES, 1)
        .nest(link::LINKINFO, |info| {
            info.text(1, "veth").nest(2, |data| {
                data.nest(1, |peer| {
                    peer.fixed(&ifinfo(workload_index, 0, 0))
                        .text(link::IFNAME, plan.workload.as_str())
                        .bytes(link::ADDRESS, &plan.workload_mac.0)
                        .u32(link::MTU, mtu)
                        .u32(link::NUM_TX_QUEUES, 1)
                        .u32(link::NUM_RX_QUEUES, 1)
                        .u32(link::NET_NS_FD, namespace.as_raw_fd().cast_unsigned())
                })
            })
        })
}

/// Takes a link away.
pub(crate) fn delete(index: u32, name: &str) -> Message {
    Message::new(DELLINK, 0, format!("ip link delete {name}")).fixed(&ifinfo(index, 0, 0))
}

/// Takes every link of a group away, which costs as much waiting as one.
pub(crate) fn delete_group(group: u32) -> Message {
    Message::new(DELLINK, 0, format!("ip link delete group {group}"))
        .fixed(&ifinfo(0, 0, 0))
        .u32(link::GROUP, group)
}

pub(crate) fn set_group(index: u32, name: &str, group: u32) -> Message {
    Message::new(SETLINK, 0, format!("ip link set {name} group {group}"))
        .fixed(&ifinfo(index, 0, 0))
        .u32(link::GROUP, group)
}

pub(crate) fn set_up(index: u32, name: &str, up: bool) -> Message {
    let word = if up { "up" } else { "down" };
    Message::new(SETLINK, 0, format!("ip link set {name} {word}")).fixed(&ifinfo(index, u32::from(up), UP))
}

/// Asks for one link. Since Linux 6.8 the answer also means that its carrier's change has taken effect (`linkwatch_sync_dev`).
pub(crate) fn link_by_index(index: u32, name: &str) -> Message {
    Message::new(GETLINK, 0, format!("ip link show {name}"))
        .fixed(&ifinfo(index, 0, 0))
        .u32(link::EXT_MASK, 8)
}

/// Takes away the address that loopback gets whenever it goes up without one (`inetdev_event`, net/ipv4/devinet.c).
pub(crate) fn delete_loopback_address() -> Message {
    let mut head = [AF_INET, 8, 0, 0, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&LOOPBACK.to_ne_bytes());
    Message::new(DELADDR, 0, "ip address delete 127.0.0.1/8 dev lo")
        .fixed(&head)
        .bytes(address::LOCAL, &[127, 0, 0, 1])
}

/// As [`link_by_index`], in a namespace that this one has an id for.
pub(crate) fn link_elsewhere(namespace: u32, index: u32) -> Message {
    let tried = format!("ip link show the link {index} in the namespace with the id {namespace}");
    Message::new(GETLINK, 0, tried)
        .fixed(&ifinfo(index, 0, 0))
        .u32(link::EXT_MASK, 8)
        .u32(link::TARGET_NETNSID, namespace)
}

pub(crate) fn link_by_name(name: &str) -> Message {
    Message::new(GETLINK, 0, format!("ip link show {name}"))
        .fixed(&ifinfo(0, 0, 0))
        .u32(link::EXT_MASK, 8)
        .text(link::IFNAME, name)
}

/// A name that is longer than a first name can be.
pub(crate) fn link_by_altname(name: &str) -> Message {
    Message::new(GETLINK, 0, format!("ip link show {name}"))
        .fixed(&ifinfo(0, 0, 0))
        .u32(link::EXT_MASK, 8)
        .text(link::ALT_IFNAME, name)
}

/// Asks how the kernel would send to an address: over which link, of several next hops the one that it chooses, and from which
/// source, for which it may look through the addresses of all links (`rt6_fill_node`, net/ipv6/route.c).
pub(crate) fn way_to(address: IpAddr) -> Message {
    way(address, 0)
}

/// Asks for the route alone: one with several next hops names no link of its own.
pub(crate) fn route_to(address: IpAddr) -> Message {
    way(address, FIB_MATCH)
}

fn way(address: IpAddr, flags: u32) -> Message {
    let bits = model::address::Family::of(address).bits();
    let mut head = [family(address), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    Message::new(GETROUTE, 0, format!("ip route get {address}"))
        .fixed(&head)
        .bytes(route::DST, &octets(address))
}

/// As [`route_to`], over a link, as link-local addresses need it.
pub(crate) fn route_over(address: Ipv6Addr, index: u32) -> Message {
    route_to(address.into()).u32(route::OIF, index)
}

fn ipv4_conf(spec: Message, conf: &Ipv4Conf) -> Message {
    let settings = [
        (FORWARDING, conf.forwarding),
        (RP_FILTER, conf.rp_filter),
        (ACCEPT_REDIRECTS, conf.accept_redirects),
        (SEND_REDIRECTS, conf.send_redirects),
    ];
    spec.nest(AF_INET.into(), |inet| {
        inet.nest(INET_CONF, |list| {
            settings
                .into_iter()
                .fold(list, |list, (kind, value)| list.u32(kind, value.cast_unsigned()))
        })
    })
}

/// One op on a link; `None` for a setting, which is none of netlink's.
pub(crate) fn op(op: &Op, index: u32, name: &str, ipv6: bool) -> Option<Message> {
    let tried = op.on(name).to_string();
    Some(match op {
        Op::Set(_) => return None,
        Op::Describe { alias, v4 } => Message::new(SETLINK, 0, tried)
            .fixed(&ifinfo(index, 0, 0))
            .bytes(link::IFALIAS, alias.as_bytes())
            .nest(link::AF_SPEC, |spec| {
                let spec = ipv4_conf(spec, v4);
                match ipv6 {
                    true => spec.nest(AF_INET6.into(), |inet6| {
                        inet6.u8(INET6_ADDR_GEN_MODE, GEN_MODE_NONE)
                    }),
                    false => spec,
                }
            }),
        Op::Mark(Mark { alias, group, v4 }) => Message::new(SETLINK, 0, tried)
            .fixed(&ifinfo(index, 0, 0))
            // Without a NUL, so that an empty one takes the alias away, and one of 255 bytes fits (`dev_set_alias`, net/core/dev.c).
            .bytes(link::IFALIAS, alias.as_bytes())
            .u32(link::GROUP, *group)
            .nest(link::AF_SPEC, |spec| ipv4_conf(spec, v4)),
        Op::DropName(altname) => Message::new(DELLINKPROP, 0, tried)
            .fixed(&ifinfo(index, 0, 0))
            .nest(link::PROP_LIST, |list| list.text(link::ALT_IFNAME, altname)),
        Op::NoMaster => Message::new(SETLINK, 0, tried)
            .fixed(&ifinfo(index, 0, 0))
            .u32(link::MASTER, 0),
        Op::Mac(mac) => Message::new(SETLINK, 0, tried)
            .fixed(&ifinfo(index, 0, 0))
            .bytes(link::ADDRESS, &mac.0),
        Op::Mtu(mtu) => Message::new(SETLINK, 0, tried)
            .fixed(&ifinfo(index, 0, 0))
            .u32(link::MTU, u32::from(*mtu)),
        Op::Group(group) => set_group(index, name, *group),
        Op::AltName(altname) | Op::Claim(altname) | Op::PortName(altname) => {
            Message::new(NEWLINKPROP, flag::CREATE | flag::EXCL | flag::APPEND, tried)
                .fixed(&ifinfo(index, 0, 0))
                .nest(link::PROP_LIST, |list| list.text(link::ALT_IFNAME, altname))
        }
        Op::RouteLocalnet => {
            Message::new(SETLINK, 0, tried)
                .fixed(&ifinfo(index, 0, 0))
                .nest(link::AF_SPEC, |spec| {
                    spec.nest(AF_INET.into(), |inet| {
                        inet.nest(INET_CONF, |conf| conf.u32(ROUTE_LOCALNET, 1))
                    })
                })
        }
        Op::Up => Message::new(SETLINK, 0, tried).fixed(&ifinfo(index, UP, UP)),
        Op::LoopbackUp => Message::new(SETLINK, 0, tried).fixed(&ifinfo(LOOPBACK, UP, UP)),
        Op::Address { address, scope } => new_address(*address, *scope, index, tried),
        Op::Route {
            destination,
            gateway,
            source,
            mtu,
        } => new_route(*destination, (*gateway, *source, *mtu), index, tried),
        Op::Neighbour { address, mac } => new_neighbour(*address, *mac, index, tried),
    })
}

fn new_address(net: IpNet, scope: Scope, index: u32, tried: String) -> Message {
    let (scope, mut flags) = match scope {
        Scope::Global => (SCOPE_GLOBAL, 0),
        Scope::Link => (SCOPE_LINK, NOPREFIXROUTE),
    };
    if net.addr().is_ipv6() {
        flags |= NODAD;
    }
    let bytes = octets(net.addr());
    let mut head = [family(net.addr()), net.prefix_len(), 0, scope, 0, 0, 0, 0];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(NEWADDR, flag::CREATE | flag::EXCL, tried)
        .fixed(&head)
        .bytes(address::LOCAL, &bytes)
        .bytes(address::ADDRESS, &bytes)
        .u32(address::FLAGS, flags)
}

/// By way of a gateway, from a source, and with an MTU for packets to there, where there are any.
fn new_route(
    destination: IpNet,
    (gateway, source, mtu): (Option<IpAddr>, Option<IpAddr>, Option<u16>),
    index: u32,
    tried: String,
) -> Message {
    let v4_on_link = gateway.is_none() && destination.addr().is_ipv4();
    let scope = if v4_on_link { SCOPE_LINK } else { SCOPE_GLOBAL };
    let mut message = Message::new(NEWROUTE, flag::CREATE | flag::EXCL, tried).fixed(&[
        family(destination.addr()),
        destination.prefix_len(),
        0,
        0,
        TABLE_MAIN,
        PROTOCOL_STATIC,
        scope,
        UNICAST,
        0,
        0,
        0,
        0,
    ]);
    if destination.prefix_len() > 0 {
        message = message.bytes(route::DST, &octets(destination.network()));
    }
    if let Some(gateway) = gateway {
        message = message.bytes(route::GATEWAY, &octets(gateway));
    }
    if let Some(source) = source {
        message = message.bytes(route::PREFSRC, &octets(source));
    }
    if let Some(mtu) = mtu {
        message = message.nest(route::METRICS, |metrics| metrics.u32(RTAX_MTU, mtu.into()));
    }
    message.u32(route::OIF, index)
}

fn new_neighbour(address: IpAddr, mac: Mac, index: u32, tried: String) -> Message {
    let mut head = [0; 12];
    head[0] = family(address);
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    Message::new(NEWNEIGH, flag::CREATE | flag::REPLACE, tried)
        .fixed(&head)
        .bytes(neighbour::DST, &octets(address))
        .bytes(neighbour::LLADDR, &mac.0)
}
