//! Somebody takes away what is ours: it comes back, and who looks at the node sees that it happened.

use crate::LONG;
use crate::cluster::Cluster;
use crate::scenes::traffic::expect_traffic;
use serde_json::Value;
use stage::wait::eventually;

/// The table of one node, and the routes to another one.
pub(crate) fn is_put_back_and_told(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    assert_eq!(told(cluster, node.name), Vec::<String>::new());
    let far = &cluster.prefixes(&cluster.nodes[2])[0];
    node.room.run(&["nft", "delete", "table", "inet", "workloadnet"]);
    node.room.run(&["ip", "route", "del", far]);
    eventually(
        LONG,
        "the route is back",
        || node.room.run(&["ip", "route", "show", far]),
        |seen| seen.contains("dev wkvx"),
    );
    eventually(
        LONG,
        "the table is back",
        || node.room.run(&["nft", "list", "tables"]),
        |seen| seen.contains("inet workloadnet"),
    );
    eventually(
        LONG,
        "an event of the node tells it",
        || told(cluster, node.name),
        |told| told.iter().any(|note| note.contains("it was put back")),
    );
    for other in &cluster.nodes[1..] {
        assert_eq!(told(cluster, other.name), Vec::<String>::new());
    }
    expect_traffic(cluster, &cluster.all_ready("each", cluster.nodes.len()));
}

/// What the events of drift of a node say.
fn told(cluster: &Cluster, node: &str) -> Vec<String> {
    let list = cluster.get(&["-n", "default", "events.events.k8s.io"]);
    let all = list["items"].as_array().unwrap();
    let is_it = |event: &&Value| event["reason"] == "NetworkDrift" && event["regarding"]["name"] == node;
    all.iter()
        .filter(is_it)
        .map(|event| event["note"].as_str().unwrap_or_default().to_owned())
        .collect()
}
