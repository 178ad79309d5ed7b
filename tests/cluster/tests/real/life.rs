//! The life of a cluster: without a network, with one, through deaths of the daemon, to nothing left.

use crate::cluster::Cluster;
use crate::machine::{look, namespace_of, processes_in};
use crate::scenes::{again, away, chart, down, drift, kills, ports, ready, rollout, services, traffic};
use std::time::Instant;

type Scene = (&'static str, fn(&Cluster));

/// In this order.
const SCENES: [Scene; 12] = [
    ("not ready without a network", ready::not_without_a_network),
    ("ready with the daemon", ready::with_the_daemon),
    ("everybody reaches everybody", traffic::everybody),
    ("Services lead to pods", services::lead_to_pods),
    ("host ports lead to pods", ports::lead_to_pods),
    ("drift is put back and told", drift::is_put_back_and_told),
    ("the API server is away", away::the_api_server),
    ("a rollout under traffic", rollout::under_traffic),
    ("kills while pods are made", kills::while_pods_are_made),
    ("pods go while the daemon is down", down::pods_go),
    ("a node with other prefixes", again::with_other_prefixes),
    ("the chart comes and goes", chart::comes_and_goes),
];

#[test]
fn nodes_are_ready_with_us_and_their_pods_outlive_every_death_of_the_daemon() {
    let before = look();
    let cluster = Cluster::new();
    for (name, play) in SCENES {
        let start = Instant::now();
        play(&cluster);
        println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    let namespaces: Vec<String> = cluster.rooms().map(namespace_of).collect();
    assert!(processes_in(&namespaces).len() > namespaces.len());
    drop(cluster);
    let after = look();
    assert_eq!(
        after.symmetric_difference(&before).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
    assert_eq!(processes_in(&namespaces), Vec::<String>::new());
}
