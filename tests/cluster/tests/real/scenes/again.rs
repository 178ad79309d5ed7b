//! A node is deleted from the API and comes again: Kubernetes gives it other prefixes, and what it had drains.

use crate::LONG;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::objects;
use crate::pod::{ask, seen_as};
use crate::scenes::traffic::{expect_traffic, ways};
use crate::underlay::{self, WHO_PORT};
use stage::wait::eventually;
use std::net::SocketAddr;

/// The node behind the router.
pub(crate) fn with_other_prefixes(cluster: &Cluster) {
    let node = &cluster.nodes[2];
    let old = cluster.prefixes(node);
    let pods = cluster.all_ready("each", cluster.nodes.len());
    cluster.kubectl(&["delete", "node", node.name]);
    node.restart_kubelet();
    let new = cluster.expect_prefixes(node);
    assert!(new.iter().all(|prefix| !old.contains(prefix)), "{old:?} {new:?}");
    expect_shown(node, &new, &old);
    cluster.expect_ready(node);
    ways(cluster);
    // What it has outlives the prefix: its node and the outside are reached as before.
    let elder = &pods[2];
    for (own, there) in elder.ips.iter().zip(underlay::outside()) {
        assert!(elder.is(&ask(&node.network, *own).unwrap()));
        let seen = seen_as(&elder.network, SocketAddr::new(there, WHO_PORT)).unwrap();
        assert!(node.ips.contains(&seen.unwrap()), "{seen:?}");
    }
    for other in &cluster.nodes[..2] {
        for prefix in &old {
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            eventually(
                LONG,
                "what is the node's no longer is not routed",
                || other.room.run(&["ip", family, "route", "show", prefix]),
                String::is_empty,
            );
        }
    }
    cluster
        .control
        .apply(&objects::deployment("younger", node.name, 1));
    let mut talking = pods;
    let elder = talking.remove(2);
    talking.extend(cluster.all_ready("younger", 1));
    expect_traffic(cluster, &talking);
    // The last one of what drains.
    cluster.kubectl(&["delete", "pod", &elder.name]);
    expect_shown(node, &new, &[]);
    cluster.kubectl(&["delete", "deployment", "younger"]);
    node.expect_attached(1);
    expect_traffic(cluster, &cluster.all_ready("each", cluster.nodes.len()));
}

/// Waits until the node's daemon shows these prefixes as serving and as draining.
fn expect_shown(node: &Node, serving: &[String], draining: &[String]) {
    let sorted = |mut all: Vec<(String, String)>| {
        all.sort();
        all
    };
    let states = [(serving, "serving"), (draining, "draining")];
    let expected = states
        .iter()
        .flat_map(|(all, state)| all.iter().map(|one| (one.clone(), (*state).to_owned())))
        .collect();
    let expected = sorted(expected);
    eventually(
        LONG,
        &format!("{} shows {expected:?}", node.name),
        || {
            let said = node.workloadnet(&["node"]);
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let all = said["prefix"].as_array().unwrap();
            sorted(
                all.iter()
                    .map(|one| (text(&one["prefix"]), text(&one["state"])))
                    .collect(),
            )
        },
        |seen| *seen == expected,
    );
}
