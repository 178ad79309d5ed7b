//! What a kernel was found to hold: links that could be ours, and what the node needs beside them.

use crate::address::{Family, IPV6_MTU, Mac};
use crate::host_end::host_end;
use crate::key::HostLink;
use crate::op::{Ipv4Conf, Mark, Op, Scope, Sysctl};
use crate::plan::LinkPlan;
use crate::ports::Ports;
use crate::prefix::Prefix;
use crate::record::{Record, RecordError};
use crate::undo::Undo;
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
    /// Addresses that links other than ours have, be it that they carry our group or a name like ours, and single addresses that somebody else routes: never given out.
    pub taken: Vec<IpAddr>,
    /// What else is reached over links other than ours, but default routes and single addresses.
    pub nets: Vec<ForeignNet>,
    /// Chains of others in nftables that drop what is passed on unless a rule of theirs takes it, as `ip filter FORWARD`.
    pub forward_drops: Vec<String>,
}

/// Addresses that are reached over somebody else's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignNet {
    /// Which.
    pub net: IpNet,
    /// The link's name; empty where they lead nowhere.
    pub link: String,
    /// Whether they are on the link itself, and not behind a gateway.
    pub on_link: bool,
}

/// The name that we know a link by: see [`FoundLink::host_link`].
pub fn host_link<'a>(
    name: &str,
    alias: &str,
    altnames: impl Iterator<Item = &'a str> + Clone,
) -> Option<HostLink> {
    // A claim that somebody took away is put back, so a record counts for one.
    let by_record = || {
        let record = Record::parse(alias).ok()?;
        record.adopted.map(|_| record.key.host_link())
    };
    HostLink::parse(name)
        .or_else(by_record)
        .or_else(|| altnames.clone().find_map(HostLink::parse))
        .or_else(|| altnames.clone().find_map(|name| Some(Undo::parse(name)?.0)))
}

impl Survey {
    /// What of others could hinder workloads with addresses of these prefixes, in words.
    pub fn warnings(&self, prefixes: &[Prefix]) -> Vec<String> {
        let mut warnings = Vec::new();
        for ForeignNet { net, link, on_link } in &self.nets {
            // A wider route by way of a gateway is how everything else is reached.
            let overlaps = |prefix: &&Prefix| {
                let own = prefix.net();
                own.contains(net) || *on_link && net.contains(&own)
            };
            for prefix in prefixes.iter().filter(overlaps) {
                let how = match (link.as_str(), on_link) {
                    ("", _) => "which leads nowhere".to_owned(),
                    (link, true) => format!("which is on link {link}"),
                    (link, false) => format!("which is routed over {link}"),
                };
                warnings.push(format!("prefix {prefix} overlaps {net}, {how}"));
            }
        }
        let drops = |chain| {
            format!(
                "nftables chain {chain} drops what is forwarded and not accepted there: workloads may not get far"
            )
        };
        warnings.extend(self.forward_drops.iter().map(drops));
        warnings
    }
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
    /// The index of the bridge or VRF that it is in.
    pub master: Option<u32>,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// `IFF_UP`.
    pub up: bool,
    /// Other names.
    pub altnames: Vec<String>,
    /// Another link has the name that would be this one's second name.
    pub altname_taken: bool,
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
    /// Below `net.ipv4.conf.LINK`.
    pub v4: HostConfV4,
    /// Below `net.ipv6.conf.LINK`.
    pub v6: HostConfV6,
}

/// Settings of IPv4 on a host end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostConfV4 {
    /// Whether packets that come in over the link are passed on.
    pub forwarding: Option<i32>,
    /// The reverse-path check (RFC 3704): 1 is the strict one.
    pub rp_filter: Option<i32>,
    /// Whether redirects are believed.
    pub accept_redirects: Option<i32>,
    /// Whether 127.0.0.0/8 may pass.
    pub route_localnet: Option<i32>,
    /// Whether redirects are sent, which `all.send_redirects` can switch on all the same.
    pub send_redirects: Option<i32>,
}

impl HostConfV4 {
    /// Whether none is known to be another one.
    fn may_be(&self, wanted: &Ipv4Conf) -> bool {
        let pairs = [
            (self.forwarding, wanted.forwarding),
            (self.rp_filter, wanted.rp_filter),
            (self.accept_redirects, wanted.accept_redirects),
            (self.send_redirects, wanted.send_redirects),
        ];
        pairs
            .into_iter()
            .all(|(is, wanted)| is.is_none_or(|is| is == wanted))
    }
}

/// Settings of IPv6 on a host end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostConfV6 {
    /// Whether packets that come in over the link are passed on.
    pub forwarding: Option<i32>,
    /// Whether router advertisements are believed.
    pub accept_ra: Option<i32>,
    /// Whether addresses are made from them.
    pub autoconf: Option<i32>,
    /// Whether redirects are believed.
    pub accept_redirects: Option<i32>,
    /// Whether IPv6 is off on the link.
    pub disable_ipv6: Option<i32>,
    /// `IFLA_INET6_ADDR_GEN_MODE`: 1 makes no link-local address.
    pub addr_gen_mode: Option<i32>,
}

/// What a found link is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// An attachment, with its record.
    Attached(Box<Record>),
    /// Ours, and without a record, or about to be deleted: a crash came half-way.
    HalfMade,
    /// Somebody else's, and about to be taken over, or given back, when a crash came: how it was.
    HalfAdopted(HostLink, Undo),
    /// Ours by name and group, but what is written on it is not for us to read: kept, never given out, never deleted.
    Unreadable(RecordError),
    /// Ours by name and record, but in another group: somebody took it out of ours, or it is from when ours was another.
    /// Nothing of our table concerns it.
    Regrouped(Box<Record>),
    /// Not ours.
    Foreign,
}

impl FoundLink {
    /// Whether it is about to be deleted, together with others of its group.
    pub fn is_dying(&self) -> bool {
        DYING_GROUPS.contains(&self.group)
    }

    /// What the link is to us, whose links carry `group`.
    pub fn standing(&self, group: u32) -> Standing {
        let Some(name) = self.host_link() else {
            return Standing::Foreign;
        };
        // What has another first name was made by somebody else, and is never a half-made link of ours.
        let was_made_by_us = self.name == name.as_str();
        let record = Record::parse(&self.alias);
        if self.is_dying() && (was_made_by_us || record.is_ok()) {
            return Standing::HalfMade;
        }
        match record {
            Err(_) if !was_made_by_us => match self.undo() {
                Some((claim, undo)) => Standing::HalfAdopted(claim, undo),
                None => Standing::Foreign,
            },
            Ok(record) if !was_made_by_us && record.adopted.is_none() => Standing::Foreign,
            // A record on another key's link is no record of this one.
            Ok(mut record) if record.key.host_link() == name => {
                // Ports that cannot be read are said by `beyond_us`.
                record.asked.ports = Ports::read(&name, &self.altnames).unwrap_or_default();
                match self.group == group {
                    true => Standing::Attached(Box::new(record)),
                    false => Standing::Regrouped(Box::new(record)),
                }
            }
            _ if self.group != group => Standing::Foreign,
            Ok(_) => Standing::Unreadable(RecordError::Unreadable("key")),
            Err(RecordError::Missing) => Standing::HalfMade,
            Err(error) => Standing::Unreadable(error),
        }
    }

    /// The name that we know the link by: its first one, or that by which another plugin's link was claimed.
    pub fn host_link(&self) -> Option<HostLink> {
        host_link(&self.name, &self.alias, self.altnames.iter().map(String::as_str))
    }

    /// How the link was before it was taken over, while that can be undone. A name that tells it of another claim is
    /// somebody's, and tells nothing of this link.
    pub fn undo(&self) -> Option<(HostLink, Undo)> {
        let own = self.host_link()?;
        let mut told = self.altnames.iter().filter_map(|name| Undo::parse(name));
        told.find(|(claim, _)| *claim == own)
    }

    /// What of an attachment's host end this link does not have, in the order in which it is to be made.
    pub fn missing(&self, record: &Record, plan: &LinkPlan) -> Vec<Op> {
        let mut ops = host_end(record, plan);
        // A link that was too narrow for IPv6 gets its settings from the namespace's defaults once it is not.
        let reborn = self.mtu < u32::from(IPV6_MTU) && plan.mtu >= IPV6_MTU;
        ops.retain(|op| match op {
            Op::Set(setting) if reborn && setting.family == Family::V6 => true,
            op => !self.has(op),
        });
        ops
    }

    /// What is wrong with the link and cannot be put back, because it is somebody else's, in words.
    pub fn beyond_us(&self) -> Vec<String> {
        let text = |net| {
            format!(
                "packets to {net} do not go over {}: somebody else has it",
                self.name
            )
        };
        let lost = HostLink::parse(&self.name).and_then(|name| Ports::read(&name, &self.altnames).err());
        let lost = lost.map(|why| format!("ports of the node that led to {} are lost: {why}", self.name));
        self.contested.iter().map(text).chain(lost).collect()
    }

    fn setting(&self, setting: &Sysctl) -> Option<i32> {
        let v6 = &self.conf.v6;
        match (setting.family, setting.name) {
            (Family::V6, "forwarding") => v6.forwarding,
            (Family::V6, "accept_ra") => v6.accept_ra,
            (Family::V6, "autoconf") => v6.autoconf,
            (Family::V6, "accept_redirects") => v6.accept_redirects,
            (Family::V6, "disable_ipv6") => v6.disable_ipv6,
            _ => None,
        }
    }

    /// Whether a setting has to be written: it was not told, or is another one, and matters.
    pub fn lacks(&self, setting: &Sysctl) -> bool {
        self.setting(setting) != Some(setting.value) && !self.does_without(setting)
    }

    /// A link that passes packets on believes neither advertisements nor redirects (`ipv6_accept_ra`, include/net/ipv6.h;
    /// `rt6_do_redirect`, net/ipv6/route.c), unless it is told to believe advertisements all the same.
    fn does_without(&self, setting: &Sysctl) -> bool {
        let v6 = &self.conf.v6;
        setting.family == Family::V6
            && ["accept_ra", "autoconf", "accept_redirects"].contains(&setting.name)
            && v6.forwarding == Some(1)
            && v6.accept_ra.is_some_and(|accept| accept < 2)
    }

    fn has(&self, op: &Op) -> bool {
        match op {
            Op::Group(group) => self.group == *group,
            Op::NoMaster => self.master.is_none(),
            Op::Mac(mac) => self.mac == Some(*mac),
            Op::Mtu(mtu) => self.mtu == u32::from(*mtu),
            Op::Set(setting) => self.setting(setting).is_none() || !self.lacks(setting),
            Op::Describe { alias, v4 } => {
                let HostConf { v4: is, v6 } = &self.conf;
                self.alias == *alias && is.may_be(v4) && v6.addr_gen_mode.is_none_or(|mode| mode == 1)
            }
            Op::Mark(Mark { alias, group, v4 }) => {
                self.alias == *alias && self.group == *group && self.conf.v4.may_be(v4)
            }
            Op::Claim(name) => self.altnames.contains(name),
            Op::DropName(name) => !self.altnames.contains(name),
            Op::PortName(name) => self.altnames.contains(name),
            Op::RouteLocalnet => self.conf.v4.route_localnet.is_none_or(|is| is == 1),
            // Another link that has the name already keeps it.
            Op::AltName(name) => self.altname_taken || self.altnames.contains(name),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_our_prefixes_is_said() {
        let net = |net: &str, link: &str, on_link| ForeignNet {
            net: net.parse().unwrap(),
            link: link.to_owned(),
            on_link,
        };
        let survey = Survey {
            nets: vec![
                net("10.77.0.128/25", "eth0", true),
                net("10.77.0.64/26", "eth0", false),
                net("10.77.0.32/27", "", false),
                net("10.0.0.0/8", "eth1", true),
                net("10.64.0.0/10", "eth0", false),
                net("10.78.0.0/24", "eth0", true),
                net("fd77::/64", "eth0", true),
            ],
            forward_drops: vec!["ip filter FORWARD".to_owned()],
            ..Survey::default()
        };
        let prefixes = ["10.77.0.0/24", "fd77::/64"].map(|text| text.parse().unwrap());
        assert_eq!(
            survey.warnings(&prefixes),
            [
                "prefix 10.77.0.0/24 overlaps 10.77.0.128/25, which is on link eth0",
                "prefix 10.77.0.0/24 overlaps 10.77.0.64/26, which is routed over eth0",
                "prefix 10.77.0.0/24 overlaps 10.77.0.32/27, which leads nowhere",
                "prefix 10.77.0.0/24 overlaps 10.0.0.0/8, which is on link eth1",
                "prefix fd77::/64 overlaps fd77::/64, which is on link eth0",
                "nftables chain ip filter FORWARD drops what is forwarded and not accepted there: workloads may not get far",
            ]
        );
        assert_eq!(Survey::default().warnings(&prefixes), Vec::<String>::new());
    }
}
