//! Everything that one attach puts into the kernel, as data; prints itself as the `ip` commands it stands for.
//!
//! ```text
//!  create    both ends in one message, down
//!  sysctls   of the host end, which nothing can reach yet
//!  workload  inside the namespace: loopback and link up, addresses, first hop, default routes
//!  host      further names that tell of ports, the record, link up, first hop's addresses, host routes, neighbours
//!  forwards  ports of the node lead there, once the table has them
//! ```
//! The record is written when the inside is complete, so that a crash before it leaves a link that says of itself that
//! it is half-made; a crash after it leaves one whose missing rest is known from the record.

use crate::address::{Family, Mac};
use crate::key::{HostLink, InterfaceName};
use crate::op::{Ipv4Conf, Op, Scope, Sysctl};
use crate::ports::PortForward;
use crate::record::Record;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// The interface index that the workload's end gets where it is free (loopback has 1).
pub const WORKLOAD_INDEX: u32 = 2;

/// The MTU of a link with a large one inside the node: the largest that a veth takes. A packet has 65535 bytes at most, too.
pub const LARGE_MTU: u16 = 65535;

/// What a plan needs beside the key and the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSettings {
    /// Link group that marks our links.
    pub group: u32,
    /// MTU of both ends, in bytes, where the record does not say that it is [`LARGE_MTU`].
    pub mtu: u16,
}

/// Everything that one attach puts into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is written on the link.
    pub record: Record,
    /// Both ends.
    pub link: LinkPlan,
    /// Settings of the host end that only /proc takes, written before it is up.
    pub sysctls: Vec<Sysctl>,
    /// In order, inside the workload's namespace.
    pub workload: Vec<Op>,
    /// In order, in the daemon's namespace.
    pub host: Vec<Op>,
    /// What leads to it in the table, once the rest is there.
    pub forwards: Vec<PortForward>,
}

/// Both ends of a link, as the creating message describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPlan {
    /// Name of the host end.
    pub host: HostLink,
    /// Name of the workload's end.
    pub workload: InterfaceName,
    /// The host end's interface index.
    pub host_index: u32,
    /// The workload end's interface index.
    pub workload_index: u32,
    /// MAC of the host end.
    pub host_mac: Mac,
    /// MAC of the workload's end.
    pub workload_mac: Mac,
    /// Of both ends, in bytes.
    pub mtu: u16,
    /// Of both ends' creation, and what the host end keeps.
    pub group: u32,
}

impl Plan {
    /// Decides everything that an attachment is in the kernel. `host_index` is the caller's choice of a free one.
    pub fn new(record: Record, settings: &PlanSettings, host_index: u32) -> Self {
        Self {
            sysctls: sysctls(&record),
            workload: workload_ops(&record),
            host: host_ops(&record),
            forwards: record.asked.ports.forwards(record.addresses),
            link: LinkPlan::new(&record, settings, host_index),
            record,
        }
    }
}

impl LinkPlan {
    /// As a [`Plan`] has it.
    pub fn new(record: &Record, settings: &PlanSettings, host_index: u32) -> Self {
        Self {
            host: record.key.host_link(),
            workload: record.key.interface().clone(),
            host_index,
            workload_index: WORKLOAD_INDEX,
            host_mac: record.host_mac(),
            workload_mac: record.workload_mac(),
            mtu: match record.outward_mtu {
                Some(_) => LARGE_MTU,
                None => settings.mtu,
            },
            group: settings.group,
        }
    }
}

/// Where the link's MTU is large: what the workload sends to these prefixes of the node, it may send in packets as large. It goes
/// by way of the first hop as everything else, whose route has the real MTU.
pub fn routes_inside(record: &Record, own: impl Iterator<Item = IpNet>) -> Vec<Op> {
    let to = |destination: IpNet| {
        let family = Family::of(destination.addr());
        Some(Op::Route {
            destination,
            gateway: Some(record.first_hop(family)),
            source: Some(record.addresses.of(family)?),
            mtu: None,
        })
    };
    match record.outward_mtu {
        Some(_) => own.filter_map(to).collect(),
        None => Vec::new(),
    }
}

/// Settings of the host end. Where the workload has no IPv6 address, the link needs no IPv6 at all.
///
/// A workload that can send router advertisements must not be able to change the node's routes (CVE-2020-10749);
/// `all.accept_ra` does not reach links that are made later, so each link gets its own.
pub(crate) fn sysctls(record: &Record) -> Vec<Sysctl> {
    match record.addresses.v6() {
        Some(_) => ["accept_ra", "autoconf", "accept_redirects"]
            .map(|name| Sysctl::v6(name, 0))
            .to_vec(),
        None => vec![Sysctl::v6("disable_ipv6", 1)],
    }
}

/// The inside. Routes to the first hop come before those by way of it, and are routes, not the onlink flag, which gVisor
/// does not read. At most one default route per family, which is all that gVisor takes.
pub fn workload_ops(record: &Record) -> Vec<Op> {
    let mut ops = vec![Op::LoopbackUp, Op::Up];
    for address in record.addresses.iter() {
        let first_hop = record.first_hop(Family::of(address));
        ops.extend([
            Op::Address {
                address: host_net(address),
                scope: Scope::Global,
            },
            Op::Route {
                destination: host_net(first_hop),
                gateway: None,
                // By scope the workload would choose its link-local address, to which the node has no route.
                source: address.is_ipv6().then_some(address),
                mtu: None,
            },
            Op::Route {
                destination: default_net(Family::of(address)),
                gateway: Some(first_hop),
                source: Some(address),
                mtu: record.outward_mtu,
            },
            Op::Neighbour {
                address: first_hop,
                mac: record.host_mac(),
            },
        ]);
    }
    ops
}

/// What the daemon's namespace holds of an attachment. Sweep puts back what is missing of it.
pub fn host_ops(record: &Record) -> Vec<Op> {
    // Before the record: who finds that finds all ports.
    let names = record.asked.ports.names(&record.key.host_link());
    let mut ops: Vec<Op> = names.into_iter().map(Op::PortName).collect();
    ops.push(Op::Describe {
        alias: record.to_string(),
        v4: Ipv4Conf::OURS,
    });
    if record.asked.ports.from_loopback(record.addresses) {
        ops.push(Op::RouteLocalnet);
    }
    ops.extend(record.key.altname().map(Op::AltName));
    ops.push(Op::Up);
    for address in record.addresses.iter() {
        ops.extend([
            Op::Address {
                address: first_hop_net(Family::of(address)),
                scope: Scope::Link,
            },
            Op::Route {
                destination: host_net(address),
                gateway: None,
                source: None,
                mtu: None,
            },
            Op::Neighbour {
                address,
                mac: record.workload_mac(),
            },
        ]);
    }
    ops
}

/// An address alone, as /32 or /128.
pub fn host_net(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

fn default_net(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// The first hop's address on a host end.
///
/// IPv4: with prefix length 0 and without a prefix route, so that it is answered under every `arp_ignore`: 2 answers only
/// senders inside an address's own subnet (`inet_confirm_addr`, net/ipv4/devinet.c). IPv6: /128, because a /64 adds an
/// anycast address whose release costs each deletion a second RCU grace period.
pub fn first_hop_net(family: Family) -> IpNet {
    let length = match family {
        Family::V4 => 0,
        Family::V6 => 128,
    };
    IpNet::new(family.first_hop(), length).expect("the length fits the family")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LinkPlan {
            host,
            workload,
            host_index,
            workload_index,
            host_mac,
            workload_mac,
            mtu,
            group,
        } = &self.link;
        writeln!(
            f,
            "ip link add {host} index {host_index} address {host_mac} mtu {mtu} group {group} numtxqueues 1 numrxqueues 1 \
             type veth peer {workload} index {workload_index} address {workload_mac} mtu {mtu} numtxqueues 1 \
             numrxqueues 1 netns WORKLOAD"
        )?;
        for setting in &self.sysctls {
            writeln!(f, "sysctl {}", setting.of(host.as_str()))?;
        }
        for op in &self.workload {
            writeln!(f, "ip -n WORKLOAD {}", op.arguments(workload.as_str()))?;
        }
        for op in &self.host {
            writeln!(f, "{}", op.on(host.as_str()))?;
        }
        Ok(())
    }
}
