//! Nodes that come, change and go, and who of them is asked for.

use crate::api_server::{ApiServer, Mishap, node};
use crate::follower::{BOTH, Follower, OF_A, OWN_NODE, PEERS, PREFIXES, a, b};
use stage::wait::{PATIENCE, eventually};

#[test]
fn nodes_that_come_change_and_go_are_told_and_what_changes_nothing_is_not() {
    let server = ApiServer::start();
    let follower = Follower::new(&server);
    follower.expect_trouble("there is no Node \"a\" since 20");
    server.put(node("a", 1, &[], &["192.0.2.1"]));
    follower.expect_trouble("the Node \"a\" has no podCIDRs since 20");
    server.put(a());
    follower.expect(PREFIXES, OF_A);
    server.put(b());
    follower.expect(PEERS, BOTH);
    let (prefixes, peers) = (follower.told(PREFIXES), follower.told(PEERS));
    // As kubelets do it every few minutes.
    for _ in 0..3 {
        server.put(a());
        server.put(b());
    }
    server.put(node("c", 3, &["10.3.0.0/24"], &["192.0.2.3"]));
    follower.expect(PEERS, &format!("{BOTH}, c 10.3.0.0/24"));
    assert_eq!(follower.told(PREFIXES), prefixes);
    assert_eq!(follower.told(PEERS).len(), peers.len() + 1);
    server.delete("c");
    follower.expect(PEERS, BOTH);
    // Deleted and made anew, with other prefixes.
    server.delete("b");
    server.put(node("b", 22, &["10.22.0.0/24"], &["192.0.2.2"]));
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.22.0.0/24");
    server.delete("a");
    follower.expect_trouble("there is no Node \"a\"");
    assert_eq!(follower.told(PREFIXES), prefixes, "the last good value stays");
    server.put(node("a", 11, &["10.11.0.0/24"], &["192.0.2.1"]));
    follower.expect(PREFIXES, "10.11.0.0/24");
    server.put(node("a", 11, &["10.11.0.0/24", "nonsense"], &["192.0.2.1"]));
    follower.expect_trouble("the Node \"a\": spec.podCIDRs[1]: \"nonsense\" is not a prefix");
}

#[test]
fn a_long_list_comes_in_pages_and_one_that_grows_old_meanwhile_begins_anew() {
    let server = ApiServer::start();
    server.put(a());
    for n in 0..450_u32 {
        let prefix = format!("10.{}.{}.0/24", 100 + n / 200, n % 200);
        server.put(node(&format!("n{n}"), n, &[&prefix], &[]));
    }
    server.fail(Mishap::OldPage);
    let follower = Follower::new(&server);
    let look = || follower.told(PEERS).last().map(|peers| peers.split(", ").count());
    eventually(PATIENCE, "all of them", look, |count| *count == Some(451));
    assert_eq!(follower.told(PEERS).len(), 1, "no part of the list is told");
    let pages = server
        .requests()
        .iter()
        .filter(|r| r.contains("continue="))
        .count();
    assert!(pages > 4, "{pages}");
    assert!(server.has_failed());
}

#[test]
fn only_the_own_node_is_asked_for_where_nobody_needs_the_others() {
    let server = ApiServer::start();
    server.put(a());
    server.put(b());
    let follower = Follower::with(&server, "{}", OWN_NODE);
    follower.expect(PREFIXES, OF_A);
    eventually(
        PATIENCE,
        "the watch",
        || server.requests().len(),
        |count| *count >= 2,
    );
    server.put(node("a", 1, &["10.9.0.0/24"], &[]));
    follower.expect(PREFIXES, "10.9.0.0/24");
    assert_eq!(server.asked_for_all(), (0, 0));
    assert_eq!(follower.told(PEERS).len(), 0);
}
