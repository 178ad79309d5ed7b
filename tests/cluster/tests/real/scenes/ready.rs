//! Nodes are ready when the daemon is, and not before.

use crate::LONG;
use crate::cluster::Cluster;
use stage::wait::eventually;
use std::fs;

/// CAP_NET_ADMIN (bit 12) and CAP_SYS_ADMIN (bit 21) of linux/capability.h, as proc(5) shows them.
const MAY: &str = "0000000000201000";

pub(crate) fn not_without_a_network(cluster: &Cluster) {
    for node in &cluster.nodes {
        cluster.expect_without_network(node);
    }
}

pub(crate) fn with_the_daemon(cluster: &Cluster) {
    cluster.install();
    for node in &cluster.nodes {
        cluster.expect_ready(node);
        node.expect_serving();
        eventually(
            LONG,
            "the node says that its network is available",
            || cluster.condition(node, "NetworkUnavailable"),
            |seen| seen.0 == "False",
        );
        let status = format!("/proc/{}/status", node.daemon().unwrap());
        let status = fs::read_to_string(node.room.reach(&status)).unwrap();
        let may = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        assert_eq!(may.unwrap().trim(), MAY);
    }
}
