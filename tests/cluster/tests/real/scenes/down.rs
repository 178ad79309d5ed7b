//! The daemons cannot come back, because no node is selected: nodes are not ready, and pods go all the same.

use crate::LONG;
use crate::cluster::Cluster;
use crate::scenes::kills::many;
use stage::wait::eventually;

pub(crate) fn pods_go(cluster: &Cluster) {
    select(cluster, r#""nowhere""#);
    for node in &cluster.nodes {
        eventually(LONG, "the daemon has ended", || node.daemon(), Option::is_none);
        cluster.expect_without_network(node);
    }
    let names: Vec<String> = cluster.nodes.iter().map(|node| many(node.name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.kubectl(&[&["delete", "deployment", "--wait=false"], &names[..]].concat());
    eventually(
        LONG,
        "pods go while the daemon is down",
        || cluster.get(&["pods"])["items"].as_array().map(Vec::len),
        |left| *left == Some(cluster.nodes.len()),
    );
    select(cluster, "null");
    for node in &cluster.nodes {
        node.expect_serving();
        cluster.expect_ready(node);
        node.expect_attached(1);
        for prefix in node.workloadnet(&["node"])["prefix"].as_array().unwrap() {
            assert_eq!(prefix["used"], 1, "{}: {prefix:#}", node.name);
        }
    }
}

/// Which nodes the DaemonSet selects, by a label that none has.
fn select(cluster: &Cluster, value: &str) {
    let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"nowhere":{value}}}}}}}}}}}"#);
    cluster.kubectl(&[
        "-n",
        "workloadnet",
        "patch",
        "daemonset",
        "workloadnetd",
        "-p",
        &patch,
    ]);
}
