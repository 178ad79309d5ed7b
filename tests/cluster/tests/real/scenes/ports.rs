//! Host ports: a port of a node leads to the pod there, from the outside, from other nodes and from pods.

use crate::LONG;
use crate::cluster::Cluster;
use crate::objects;
use crate::pod::{Pod, ask_at};
use crate::who::Who;
use stage::Namespace;
use stage::wait::eventually;
use std::io::ErrorKind;
use std::net::SocketAddr;

/// On each node a pod has the same port, and goes.
pub(crate) fn lead_to_pods(cluster: &Cluster) {
    cluster.control.apply(&objects::with_a_host_port("port"));
    let pods = cluster.all_ready("port", cluster.nodes.len());
    let each = cluster.all_ready("each", cluster.nodes.len());
    let outside = &cluster.underlay.outside;
    for pod in &pods {
        let node = &cluster.nodes[pod.node];
        for ip in node.ips {
            let there = SocketAddr::new(ip, objects::HOST_PORT);
            let who = expect_served("the outside", outside, there, pod);
            assert!(
                crate::underlay::outside().contains(&who.client.unwrap()),
                "the client's own address is seen: {who:?}"
            );
            for other in &cluster.nodes {
                expect_served(other.name, &other.network, there, pod);
            }
            for client in &each {
                expect_served(&client.name, &client.network, there, pod);
            }
        }
    }
    cluster.kubectl(&["delete", "daemonset", "port"]);
    for node in &cluster.nodes {
        node.expect_attached(1);
        for ip in node.ips {
            let there = SocketAddr::new(ip, objects::HOST_PORT);
            eventually(
                LONG,
                &format!("{there} leads nowhere"),
                || ask_at(outside, there).err().map(|error| error.kind()),
                |refused| *refused == Some(ErrorKind::ConnectionRefused),
            );
        }
    }
}

#[track_caller]
fn expect_served(name: &str, client: &Namespace, there: SocketAddr, server: &Pod) -> Who {
    let who = ask_at(client, there).unwrap_or_else(|error| panic!("{name} to {there}: {error}"));
    assert!(server.is(&who), "{name} at {there}: {who:?}");
    who
}
