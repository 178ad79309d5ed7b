//! Services, which kube-proxy leads to pods: from pods, nodes and the outside, of both families.

use crate::LONG;
use crate::cluster::Cluster;
use crate::objects;
use crate::pod::{Pod, ask_at};
use crate::who::Who;
use stage::Namespace;
use stage::wait::eventually;
use std::net::{IpAddr, SocketAddr};

/// One pod behind the router serves.
pub(crate) fn lead_to_pods(cluster: &Cluster) {
    let place = &cluster.nodes[2];
    cluster
        .control
        .apply(&objects::deployment("served", place.name, 1));
    cluster.control.apply(&objects::service("served"));
    let server = cluster.all_ready("served", 1).remove(0);
    let service = cluster.get(&["service", "served"]);
    let ips: Vec<IpAddr> = service["spec"]["clusterIPs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ip| ip.as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ips.len(), 2, "{service:#}");
    let port = &service["spec"]["ports"][0]["nodePort"];
    let port = u16::try_from(port.as_u64().unwrap()).unwrap();
    for (family, ip) in ips.into_iter().enumerate() {
        let there = SocketAddr::new(ip, objects::SERVICE_PORT);
        for client in cluster.all_ready("each", cluster.nodes.len()) {
            let who = expect_served(&client.name, &client.network, there, &server);
            assert_eq!(who.client, Some(client.ips[family]), "{} at {there}", client.name);
        }
        expect_served("the pod itself", &server.network, there, &server);
        for node in &cluster.nodes {
            expect_served(node.name, &node.network, there, &server);
            let there = SocketAddr::new(node.ips[family], port);
            expect_served("the outside", &cluster.underlay.outside, there, &server);
        }
    }
    cluster.kubectl(&["delete", "service/served", "deployment/served"]);
    place.expect_attached(1);
}

/// Waits until kube-proxy has written its rules.
#[track_caller]
fn expect_served(name: &str, client: &Namespace, there: SocketAddr, server: &Pod) -> Who {
    let what = format!("{name} reaches {there}, which is {:?}", server.ips);
    let ask = || ask_at(client, there);
    let seen = eventually(LONG, &what, ask, |seen| {
        seen.as_ref().is_ok_and(|who| server.is(who))
    });
    seen.unwrap()
}
