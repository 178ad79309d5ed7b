//! What a kernel was found to hold: links that could be ours, and what the node needs beside them.

use crate::address::Mac;
use crate::key::HostLink;
use crate::plan::{LinkPlan, Op, Scope, host_ops};
use crate::record::{Record, RecordError};
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Link groups that links are moved to in order to be deleted together: "wk" and 16 bits. A link of ours that is found in
/// one was being deleted when a crash came.
pub const DYING_GROUPS: RangeInclusive<u32> = 0x776b_0000..=0x776b_ffff;

/// What was found in the daemon's network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Every link whose name has the form of ours, or that carries our group.
    pub links: Vec<FoundLink>,
    /// The device of the default route, IPv4's before IPv6's.
    pub uplink: Option<Uplink>,
    /// IPv4 and IPv6 forwarding, as `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding` stand.
    pub forwarding: Forwarding,
    /// Addresses that links other than ours have, and single addresses that somebody else routes: never given out.
    pub taken: Vec<IpAddr>,
}

/// The device of the default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// In bytes.
    pub mtu: u32,
}

/// Whether packets are passed on between links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// One link as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundLink {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Its link group.
    pub group: u32,
    /// Its alias; empty where it has none.
    pub alias: String,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// `IFF_UP`.
    pub up: bool,
    /// Other names.
    pub altnames: Vec<String>,
    /// Its settings, as far as the kernel told them.
    pub conf: HostConf,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Destinations of the routes over it in the main table, without those that the kernel made.
    pub routes: Vec<IpNet>,
    /// Single addresses among these to which packets do not go over it: they are an address of the node, or somebody else's
    /// route comes first.
    pub contested: Vec<IpNet>,
    /// Permanent neighbours on it.
    pub neighbours: Vec<(IpAddr, Mac)>,
}

/// Settings of a host end. `None`: not told, because the family is off on the link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostConf {
    /// `net.ipv4.conf.LINK.rp_filter`.
    pub rp_filter: Option<i32>,
    /// `net.ipv6.conf.LINK.accept_ra`.
    pub accept_ra: Option<i32>,
    /// `net.ipv6.conf.LINK.autoconf`.
    pub autoconf: Option<i32>,
    /// `net.ipv6.conf.LINK.accept_redirects`.
    pub accept_redirects: Option<i32>,
    /// `net.ipv6.conf.LINK.disable_ipv6`.
    pub disable_ipv6: Option<i32>,
}

/// What a found link is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// An attachment, with its record.
    Attached(Box<Record>),
    /// Ours, and without a record, or about to be deleted: a crash came half-way.
    HalfMade,
    /// Ours by name and group, but what is written on it is not for us to read: kept, never given out, never deleted.
    Unreadable(RecordError),
    /// Ours by name and record, but in another group: somebody took it out of ours, or it is from when ours was another.
    /// Nothing of our table concerns it.
    Regrouped(Box<Record>),
    /// Not ours.
    Foreign,
}

impl FoundLink {
    /// What the link is to us, whose links carry `group`.
    pub fn standing(&self, group: u32) -> Standing {
        let Some(name) = HostLink::parse(&self.name) else {
            return Standing::Foreign;
        };
        if DYING_GROUPS.contains(&self.group) {
            return Standing::HalfMade;
        }
        match Record::parse(&self.alias) {
            // A record on another key's link is no record of this one.
            Ok(record) if record.key.host_link() == name => match self.group == group {
                true => Standing::Attached(Box::new(record)),
                false => Standing::Regrouped(Box::new(record)),
            },
            _ if self.group != group => Standing::Foreign,
            Ok(_) => Standing::Unreadable(RecordError::Unreadable("key")),
            Err(RecordError::Missing) => Standing::HalfMade,
            Err(error) => Standing::Unreadable(error),
        }
    }

    /// The host ops of an attachment that this link does not have, in the order in which they are to be made.
    pub fn missing(&self, record: &Record, plan: &LinkPlan) -> Vec<Op> {
        let mut ops = vec![Op::Group(plan.group)];
        ops.extend(host_ops(record));
        ops.retain(|op| !self.has(op));
        ops
    }

    /// Settings of the host end by which its workload could change the node's routes, in words.
    pub fn unsafe_settings(&self, record: &Record) -> Vec<String> {
        let HostConf {
            accept_ra,
            autoconf,
            accept_redirects,
            disable_ipv6,
            ..
        } = self.conf;
        let settings: &[(&str, Option<i32>, i32)] = match record.addresses.v6() {
            Some(_) => &[
                ("accept_ra", accept_ra, 0),
                ("autoconf", autoconf, 0),
                ("accept_redirects", accept_redirects, 0),
            ],
            None => &[("disable_ipv6", disable_ipv6, 1)],
        };
        settings
            .iter()
            .filter_map(|(name, is, should)| {
                let is = is.filter(|is| is != should)?;
                Some(format!(
                    "net.ipv6.conf.{}.{name} is {is} and not {should}",
                    self.name
                ))
            })
            .collect()
    }

    /// What is wrong with the link and cannot be put back, because it is somebody else's, in words.
    pub fn beyond_us(&self) -> Vec<String> {
        let text = |net| {
            format!(
                "packets to {net} do not go over {}: somebody else has it",
                self.name
            )
        };
        self.contested.iter().map(text).collect()
    }

    fn has(&self, op: &Op) -> bool {
        match op {
            Op::Group(group) => self.group == *group,
            Op::Describe { alias } => {
                self.alias == *alias && self.conf.rp_filter.is_none_or(|mode| mode == 1)
            }
            // Another link may have the name; then it keeps it.
            Op::AltName(_) => true,
            Op::Up => self.up,
            Op::LoopbackUp => true,
            Op::Address {
                address,
                scope: Scope::Global | Scope::Link,
            } => self.addresses.contains(address),
            Op::Route { destination, .. } => self.routes.contains(destination),
            Op::Neighbour { address, mac } => self.neighbours.contains(&(*address, *mac)),
        }
    }
}
