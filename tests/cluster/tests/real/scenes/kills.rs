//! Daemons are killed while many pods are made.

use crate::LONG;
use crate::cluster::Cluster;
use crate::objects;
use stage::wait::eventually;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Pods of each node that are made meanwhile.
pub(crate) const MANY: usize = 50;
/// How often each daemon is killed.
const KILLS: usize = 3;

/// Every pod comes to be ready, no two have an address in common, and none that nobody has is left.
pub(crate) fn while_pods_are_made(cluster: &Cluster) {
    let before = cluster.daemons();
    for node in &cluster.nodes {
        cluster
            .control
            .apply(&objects::deployment(&many(node.name), node.name, MANY));
    }
    let all = MANY * cluster.nodes.len();
    for part in 1..=KILLS {
        eventually(
            LONG,
            "some are ready",
            || -> usize {
                let names = cluster.nodes.iter().map(|node| many(node.name));
                names.map(|name| cluster.count_ready(&name)).sum()
            },
            |ready| *ready >= part * all / (KILLS + 2),
        );
        for node in &cluster.nodes {
            node.kill_daemon();
        }
        for node in &cluster.nodes {
            node.expect_serving();
        }
    }
    eventually(
        LONG,
        "each kill was one of the daemon's pod",
        || cluster.daemons(),
        |now| {
            let pairs = now.iter().zip(&before);
            pairs.into_iter().all(|(now, before)| now.1 == before.1 + KILLS)
        },
    );
    let mut ips: BTreeSet<IpAddr> = BTreeSet::new();
    for node in &cluster.nodes {
        let pods = cluster.all_ready(&many(node.name), MANY);
        ips.extend(pods.iter().flat_map(|pod| pod.ips));
    }
    let each = cluster.all_ready("each", cluster.nodes.len());
    ips.extend(each.iter().flat_map(|pod| pod.ips));
    assert_eq!(ips.len(), 2 * (all + each.len()), "{ips:?}");
    for node in &cluster.nodes {
        node.expect_attached(MANY + 1);
    }
}

/// What the deployment of a node is called.
pub(crate) fn many(node: &str) -> String {
    format!("many-{node}")
}
