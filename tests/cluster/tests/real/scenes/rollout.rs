//! Another daemon takes the place of each, and no packet is lost on the way, be it direct or over VXLAN.

use crate::cluster::Cluster;
use crate::stream::Stream;

pub(crate) fn under_traffic(cluster: &Cluster) {
    let pods = cluster.all_ready("each", cluster.nodes.len());
    let old = cluster.daemons();
    let streams = Stream::start_all(&pods);
    let rollout = ["-n", "workloadnet", "rollout"];
    let daemonset = "daemonset/workloadnetd";
    cluster.kubectl(&[&rollout[..], &["restart", daemonset]].concat());
    cluster.kubectl(&[&rollout[..], &["status", daemonset, "--timeout=170s"]].concat());
    for node in &cluster.nodes {
        node.expect_serving();
    }
    for stream in streams {
        stream.expect_nothing_lost();
    }
    for ((before, _), (after, _)) in old.iter().zip(cluster.daemons()) {
        assert_ne!(*before, after, "another pod is the daemon");
    }
}
