//! Nodes are ready when the daemon is, and not before.

use crate::LONG;
use crate::cluster::Cluster;
use stage::wait::eventually;

pub(crate) fn not_without_a_network(cluster: &Cluster) {
    for node in &cluster.nodes {
        let seen = eventually(
            LONG,
            "the node says that it has no network",
            || cluster.condition(node, "Ready"),
            |seen| seen.1.contains("NetworkReady=false"),
        );
        assert_eq!(seen.0, "False", "{seen:?}");
    }
}

pub(crate) fn with_the_daemon(cluster: &Cluster) {
    cluster.install();
    for node in &cluster.nodes {
        cluster.expect_ready(node);
        node.expect_serving();
    }
}
