//! Who reaches whom, and is seen as whom: between all nodes, directly and over VXLAN, in both families.

use crate::cluster::Cluster;
use crate::objects;
use crate::pod::{Pod, ask, seen_as};
use crate::underlay::{self, WHO_PORT};
use std::net::SocketAddr;

/// A pod on each node, and a second one on the first.
pub(crate) fn everybody(cluster: &Cluster) {
    cluster.control.apply(&objects::on_each_node("each"));
    cluster
        .control
        .apply(&objects::deployment("second", cluster.nodes[0].name, 1));
    let mut pods = cluster.all_ready("each", cluster.nodes.len());
    pods.extend(cluster.all_ready("second", 1));
    ways(cluster);
    expect_traffic(cluster, &pods);
    cluster.kubectl(&["delete", "deployment", "second"]);
    cluster.nodes[0].expect_attached(1);
}

/// Nodes that share a link have routes by each other's addresses, and to and from the one behind the router by the VXLAN device.
pub(crate) fn ways(cluster: &Cluster) {
    for node in &cluster.nodes {
        for other in cluster.nodes.iter().filter(|other| other.name != node.name) {
            for (prefix, by) in cluster.prefixes(other).iter().zip(other.ips) {
                let family = if by.is_ipv4() { "-4" } else { "-6" };
                let said = node.room.run(&["ip", family, "route", "show", prefix]);
                let is_direct = said.contains(&format!("via {by} dev eth0"));
                let is_vxlan = said.contains("dev wkvx");
                let expected = node.link == other.link;
                assert_eq!(
                    (is_direct, is_vxlan),
                    (expected, !expected),
                    "{} to {}: {said:?}",
                    node.name,
                    other.name
                );
            }
        }
    }
}

/// Each pod reaches each other one and itself, and is seen by its own address; the outside host sees the node's; the node
/// and the other nodes reach it.
#[track_caller]
pub(crate) fn expect_traffic(cluster: &Cluster, pods: &[Pod]) {
    for client in pods {
        for server in pods {
            for (own, there) in client.ips.iter().zip(server.ips) {
                let who = ask(&client.network, there)
                    .unwrap_or_else(|error| panic!("{} to {} at {there}: {error}", client.name, server.name));
                assert_eq!(who.client, Some(*own), "{} at {there}", client.name);
                assert!(server.is(&who), "{there} is {who:?}");
            }
        }
        for (node, there) in cluster.nodes[client.node].ips.iter().zip(underlay::outside()) {
            let seen = seen_as(&client.network, SocketAddr::new(there, WHO_PORT));
            assert_eq!(seen.unwrap(), Some(*node), "{} outside", client.name);
        }
        for node in &cluster.nodes {
            for there in client.ips {
                let who = ask(&node.network, there);
                let who = who.unwrap_or_else(|error| panic!("{} to {there}: {error}", node.name));
                assert!(client.is(&who), "{there} is {who:?}");
            }
        }
    }
}
