//! The own prefixes of this node: what is sent to an address there that nobody has would leave by the default route, and come
//! back from a gateway that leads the whole prefix to this node. Why not every prefix:
//! `docs/decisions/0042-what-nobody-has-is-unreachable.md`.

use super::planner::{Nodes, overlap};
use super::{Facts, Settings, UNREACHABLE_METRIC};
use crate::prefix::Prefix;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// Those that are unreachable as such, and why others are not.
pub(super) fn unreachable(settings: &Settings, facts: Facts<'_>) -> (BTreeSet<IpNet>, Vec<String>) {
    let nodes = Nodes::of(facts.peers, &settings.addresses);
    let usable = |prefix: &&Prefix| facts.ipv6 || prefix.net().addr().is_ipv4();
    let (mut nets, mut warnings) = (BTreeSet::new(), Vec::new());
    for prefix in facts.own.prefixes.iter().filter(usable) {
        let net = prefix.net();
        match shared(net, &nodes, facts) {
            None => drop(nets.insert(net)),
            Some(why) => warnings.push(format!(
                "what is sent to addresses of {net} that nobody has goes where other routes lead it: {why}"
            )),
        }
    }
    (nets, warnings)
}

/// Why not all addresses of a prefix are this node's.
fn shared(net: IpNet, nodes: &Nodes<'_>, facts: Facts<'_>) -> Option<String> {
    if let Some((address, whose)) = nodes.within(&net) {
        return Some(format!("{address}, the address of {whose}, is in it"));
    }
    let on_link = facts.found.on_link.iter().filter(|other| overlap(other, &net));
    if let Some(other) = on_link.min() {
        return Some(format!("{other} is on a link of this node"));
    }
    let same = facts.found.same_unreachable.contains(&net);
    same.then(|| format!("somebody else has a route to it with metric {UNREACHABLE_METRIC}"))
}
