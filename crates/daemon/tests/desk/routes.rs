//! What the router does when the prefixes, the peers or the workloads change.

use crate::fake::{Fake, Place, World};
use crate::orders::{attach, detach, give, open_with, order, settings};
use daemon::desk::order::AttachOrder;
use daemon::desk::{Desk, Settings};
use ipnet::IpNet;
use model::peer::Peer;
use model::routes::Mode;
use stage::wait::{PATIENCE, eventually};
use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::thread;

fn routing(prefixes: &[&str]) -> Settings {
    let mut settings = settings();
    settings.prefixes = prefixes.iter().map(|text| text.parse().unwrap()).collect();
    settings.routes.mode = Mode::Auto;
    settings.peers_are_told = true;
    settings.routes.addresses = vec![IpAddr::from([192, 0, 2, 1])];
    settings
}

fn peer(name: &str, address: &str, prefix: &str) -> Peer {
    Peer::new(
        name,
        vec![address.parse().unwrap()],
        vec![prefix.parse().unwrap()],
    )
    .unwrap()
}

#[track_caller]
fn expect_addresses(world: &World, wanted: &[&str]) {
    let wanted: Vec<IpAddr> = wanted.iter().map(|text| text.parse().unwrap()).collect();
    let look = || world.roads().addresses.into_iter().collect::<Vec<_>>();
    eventually(PATIENCE, "the node's own addresses", look, |now| *now == wanted);
}

#[track_caller]
fn expect_spared(world: &World, wanted: &[&str]) {
    let wanted: Vec<IpNet> = wanted.iter().map(|text| text.parse().unwrap()).collect();
    eventually(
        PATIENCE,
        "what is spared",
        || world.spared(),
        |now| *now == wanted,
    );
}

fn expect_warning(desk: &Arc<Desk<Fake>>, text: &str) {
    let look = || desk.node().warnings;
    eventually(PATIENCE, text, look, |all| {
        all.iter().any(|said| said.contains(text))
    });
}

/// A workload got from a wide prefix what is the node's own address in a narrow one.
#[test]
fn an_address_that_a_workload_has_is_the_nodes_own_only_after_it() {
    let world = World::default();
    let desk = open_with(&world, routing(&["10.9.0.0/24"]));
    desk.set_peers(vec![peer("b", "192.0.2.2", "10.9.9.0/24")]);
    let asked = AttachOrder {
        v4: Some([10, 9, 0, 129].into()),
        ..order("w", "/n/1")
    };
    give(&desk, asked).outcome().unwrap();
    expect_addresses(&world, &["10.9.0.1"]);
    desk.set_prefixes(&["10.9.0.128/25".parse().unwrap()]).unwrap();
    expect_warning(
        &desk,
        "10.9.0.129, the node's own address in 10.9.0.128/25, is the workload's",
    );
    expect_addresses(&world, &["10.9.0.1"]);
    // What the node itself sends to other nodes comes from the address that it has.
    let hops: Vec<String> = world
        .roads()
        .routes
        .values()
        .map(|hop| format!("{hop:?}"))
        .collect();
    assert!(
        hops.iter().all(|hop| hop.contains("source: Some(10.9.0.1)")),
        "{hops:?}"
    );
    assert!(desk.check(None).unwrap().unwrap().is_empty());
    detach(&desk, "w", None).unwrap();
    // With the workload the old prefix is over, too.
    expect_addresses(&world, &["10.9.0.129"]);
    let look = || desk.node().warnings;
    eventually(PATIENCE, "all is said", look, |all| {
        !all.iter().any(|said| said.contains("10.9.0.129"))
    });
}

/// The kernel spares what the last daemon did, until the next one knows the other nodes.
#[test]
fn what_is_spared_stays_so_over_a_restart_until_the_peers_are_known() {
    let world = World::default();
    let desk = open_with(&world, routing(&["10.9.0.0/24"]));
    desk.set_peers(vec![peer("b", "192.0.2.2", "10.9.9.0/24")]);
    let spares = |wanted: &[&str]| expect_spared(&world, wanted);
    spares(&["10.9.0.0/24", "10.9.9.0/24"]);
    world.forget_the_daemon();
    let published = world.published();
    let desk = open_with(&world, routing(&["10.9.0.0/24"]));
    assert_eq!(world.published(), published, "nothing is put in place again");
    desk.set_prefixes(&["10.8.0.0/24".parse().unwrap()]).unwrap();
    spares(&["10.8.0.0/24", "10.9.0.0/24", "10.9.9.0/24"]);
    assert!(desk.check(None).unwrap().unwrap().is_empty());
    desk.set_peers(vec![peer("c", "192.0.2.3", "10.9.8.0/24")]);
    spares(&["10.8.0.0/24", "10.9.8.0/24"]);
}

/// Others route, and who the other nodes are is told all the same.
#[test]
fn what_is_spared_stays_so_over_a_restart_also_where_others_route() {
    let world = World::default();
    let settings = |peers_are_told| Settings {
        routes: model::routes::Settings::default(),
        peers_are_told,
        ..routing(&["10.9.0.0/24"])
    };
    let desk = open_with(&world, settings(true));
    // One that claims too much has no say here either.
    desk.set_peers(vec![
        peer("b", "192.0.2.2", "10.9.9.0/24"),
        peer("c", "192.0.2.3", "10.8.0.0/14"),
    ]);
    let spares = |wanted: &[&str]| expect_spared(&world, wanted);
    spares(&["10.9.0.0/24", "10.9.9.0/24"]);
    world.forget_the_daemon();
    let desk = open_with(&world, settings(true));
    expect_warning(&desk, "the other nodes are not known yet");
    desk.set_prefixes(&["10.8.0.0/24".parse().unwrap()]).unwrap();
    spares(&["10.8.0.0/24", "10.9.0.0/24", "10.9.9.0/24"]);
    desk.set_peers(vec![peer("c", "192.0.2.3", "10.9.8.0/24")]);
    spares(&["10.8.0.0/24", "10.9.8.0/24"]);
    world.forget_the_daemon();
    let desk = open_with(&world, settings(false));
    spares(&["10.9.0.0/24"]);
    assert_eq!(desk.node().warnings, Vec::<String>::new());
}

/// Else one node could have everybody's packets leave with addresses that have no way back.
#[test]
fn a_prefix_with_nodes_or_with_the_nodes_own_prefix_in_it_is_not_spared() {
    let world = World::default();
    let desk = open_with(&world, routing(&["10.9.0.0/24"]));
    desk.set_peers(vec![
        peer("b", "192.0.2.2", "10.9.9.0/24"),
        peer("c", "192.0.2.3", "192.0.0.0/3"),
        peer("d", "192.0.2.4", "10.8.0.0/14"),
    ]);
    expect_spared(&world, &["10.9.0.0/24", "10.9.9.0/24"]);
    let said = eventually(
        PATIENCE,
        "peer c is spoken of",
        || desk.node().warnings.join("\n"),
        |said| said.contains("peer c: 192.0.0.0/3 is not routed"),
    );
    assert!(
        said.contains("peer d: 10.8.0.0/14 overlaps 10.9.0.0/24"),
        "{said}"
    );
}

#[test]
fn what_comes_is_spared_before_its_routes_and_what_goes_until_after_them() {
    let world = World::default();
    let desk = open_with(&world, routing(&["10.9.0.0/24"]));
    desk.set_peers(vec![peer("b", "192.0.2.2", "10.9.9.0/24")]);
    expect_spared(&world, &["10.9.0.0/24", "10.9.9.0/24"]);
    eventually(PATIENCE, "routes", || world.roads().routes.len(), |n| *n == 1);
    world.close(Place::Reroute);
    desk.set_peers(vec![peer("c", "192.0.2.4", "10.9.8.0/24")]);
    world.wait_at(Place::Reroute);
    let meanwhile = world.spared();
    world.open(Place::Reroute);
    let all: Vec<String> = meanwhile.iter().map(ToString::to_string).collect();
    assert_eq!(all, ["10.9.0.0/24", "10.9.8.0/24", "10.9.9.0/24"]);
    expect_spared(&world, &["10.9.0.0/24", "10.9.8.0/24"]);
}

#[test]
fn who_asks_for_a_check_does_not_wait_for_the_table_to_change_nor_takes_that_for_a_difference() {
    let world = World::default();
    let desk = open_with(&world, routing(&["10.9.0.0/24"]));
    desk.set_peers(Vec::new());
    expect_addresses(&world, &["10.9.0.1"]);
    world.close(Place::Spare);
    desk.set_peers(vec![peer("b", "192.0.2.2", "10.9.9.0/24")]);
    world.wait_at(Place::Spare);
    let (sender, answers) = mpsc::channel();
    let asked = Arc::clone(&desk);
    thread::spawn(move || sender.send(asked.check(None).unwrap().unwrap()));
    let answer = answers.recv_timeout(PATIENCE);
    world.open(Place::Spare);
    let findings = answer.expect("an answer while the kernel takes its time");
    let of_routes = |text: &str| text.starts_with("not as made: ip route");
    assert!(
        findings.iter().all(|finding| of_routes(&finding.text)),
        "{findings:?}"
    );
}

#[test]
fn a_prefix_that_has_drained_takes_the_nodes_own_address_along() {
    let world = World::default();
    let desk = open_with(&world, routing(&["10.9.0.0/24"]));
    desk.set_peers(Vec::new());
    attach(&desk, "w", "/n/1").unwrap();
    desk.set_prefixes(&["10.8.0.0/24".parse().unwrap()]).unwrap();
    expect_addresses(&world, &["10.8.0.1", "10.9.0.1"]);
    detach(&desk, "w", None).unwrap();
    expect_addresses(&world, &["10.8.0.1"]);
}

#[test]
fn trouble_with_the_list_of_peers_is_a_figure_until_it_is_over() {
    let desk = open_with(&World::default(), routing(&["10.9.0.0/24"]));
    desk.set_peers(vec![peer("b", "192.0.2.2", "10.9.9.0/24")]);
    let figures = || (desk.figures().peers, desk.figures().peers_stale);
    assert_eq!(figures(), (1, false));
    desk.peers_fail(Some("the Kubernetes API is away".to_owned()));
    assert_eq!(figures(), (1, true));
    desk.peers_fail(None);
    assert_eq!(figures(), (1, false));
}
