//! The API server is away: pods go on talking, and what the kubelet has from a file is attached.

use crate::cluster::Cluster;
use crate::objects;
use crate::scenes::traffic::expect_traffic;
use crate::stream::Stream;
use std::fs;

const PATH: &str = "/etc/kubernetes/manifests/file.json";

/// On the node behind the router a pod comes up; on the first one, only after its daemon was killed and has come back.
pub(crate) fn the_api_server(cluster: &Cluster) {
    let pods = cluster.all_ready("each", cluster.nodes.len());
    let streams = Stream::start_all(&pods);
    cluster.control.kill_api_server();
    let file = objects::from_a_file("file").to_string();
    let nodes = [&cluster.nodes[0], &cluster.nodes[2]];
    nodes[0].kill_daemon();
    for node in nodes {
        node.room.write(PATH, &file);
    }
    for node in nodes {
        node.expect_serving();
        node.expect_attached(2);
    }
    expect_traffic(cluster, &pods);
    cluster.control.start_api_server();
    let more = cluster.all_ready("file", 2);
    for stream in streams {
        stream.expect_nothing_lost();
    }
    let all: Vec<_> = pods.into_iter().chain(more).collect();
    expect_traffic(cluster, &all);
    for node in nodes {
        fs::remove_file(node.room.reach(PATH)).unwrap();
        node.expect_attached(1);
    }
    cluster.all_ready("file", 0);
}
