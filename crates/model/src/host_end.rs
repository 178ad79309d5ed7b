//! What the host end of an attachment is to be, whoever made the link: what a survey compares with.

use crate::op::{FORWARDING_V6, IPV6_ON, Ipv4Conf, Mark, Op, Scope};
use crate::plan::{LinkPlan, host_net, host_ops, sysctls};
use crate::record::{Adopted, Record};
use crate::undo::OURS_V6;

/// All that the host end of an attachment is: what [`crate::plan::Plan`] has of it, and what a link has from its creation, or from the
/// namespace's defaults unless those say otherwise.
pub fn host_end(record: &Record, link: &LinkPlan) -> Vec<Op> {
    if let Some(adopted) = &record.adopted {
        return of_adopted(record, adopted, link);
    }
    let mut ops = vec![
        Op::Group(link.group),
        Op::NoMaster,
        Op::Mac(link.host_mac),
        Op::Mtu(link.mtu),
    ];
    ops.extend(sysctls(record).into_iter().map(Op::Set));
    if record.addresses.v6().is_some() {
        // Whatever the namespace's defaults were when the link was made; IPv6 itself last, once the others are safe.
        ops.extend([FORWARDING_V6, IPV6_ON].map(Op::Set));
    }
    ops.extend(host_ops(record));
    ops
}

/// All that the host end of an attachment is whose link another plugin made: see [`host_end`].
///
/// Its neighbours are the kernel's own affair, on both ends, as the old plugin left them.
fn of_adopted(record: &Record, adopted: &Adopted, link: &LinkPlan) -> Vec<Op> {
    let mut ops = vec![Op::NoMaster, Op::Mac(link.host_mac), Op::Mtu(link.mtu)];
    ops.extend(OURS_V6.map(Op::Set));
    if record.addresses.v6().is_some() {
        ops.push(Op::Set(IPV6_ON));
    }
    ops.extend([mark(record, link.group), Op::Claim(link.host.to_string())]);
    ops.extend(record.key.altname().map(Op::AltName));
    ops.push(Op::Up);
    ops.extend(adopted.gateways.iter().map(|gateway| Op::Address {
        address: host_net(gateway),
        scope: Scope::Global,
    }));
    ops.extend(record.addresses.iter().map(|address| Op::Route {
        destination: host_net(address),
        gateway: None,
        source: None,
        mtu: None,
    }));
    ops
}

/// What makes a link one of ours: its record, the group, and settings of IPv4.
pub(crate) fn mark(record: &Record, group: u32) -> Op {
    Op::Mark(Mark {
        alias: record.to_string(),
        group,
        v4: Ipv4Conf::OURS,
    })
}
