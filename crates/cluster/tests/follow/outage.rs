//! A server that is away, is late, or says what is wrong: what was told stays.

use crate::api_server::{ApiServer, Mishap, node};
use crate::follower::{BOTH, Follower, OF_A, OWN_NODE, PEERS, PREFIXES, a, a_and_b, b, is_watched};
use stage::wait::{PATIENCE, eventually};

#[test]
fn what_was_told_stays_while_the_api_is_away_and_only_what_changed_is_asked_for_afterwards() {
    let (server, follower) = a_and_b();
    is_watched(&server);
    server.go_away();
    follower.expect_trouble("the Kubernetes API is away since 20");
    let look = || follower.told("trouble: ");
    let said = eventually(PATIENCE, "several tries", look, |said| {
        said.iter()
            .filter(|why| why.contains("Connection refused"))
            .count()
            > 2
    });
    let since = |text: &String| text.split(": ").next().unwrap().to_owned();
    assert!(said.iter().all(|text| since(text) == since(&said[0])), "{said:?}");
    server.delete("b");
    server.put(node("c", 3, &["10.3.0.0/24"], &["192.0.2.3"]));
    assert_eq!(follower.told(PEERS).len(), 1, "no route goes with the API server");
    assert_eq!(
        follower.told("peer trouble: ").last().unwrap().as_str(),
        follower.told("peer trouble: ")[0]
    );
    server.come_back();
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, c 10.3.0.0/24");
    follower.expect("peer trouble: ", "none");
    let look = || follower.told(PREFIXES).len();
    eventually(PATIENCE, "the prefixes are told again", look, |told| *told == 2);
    assert_eq!(server.asked_for_all().0, 1, "all Nodes were listed once");
}

#[test]
fn a_version_that_is_too_old_is_listed_anew_and_a_bookmark_keeps_it_young() {
    let (server, follower) = a_and_b();
    is_watched(&server);
    server.go_away();
    server.delete("b");
    server.compact();
    server.come_back();
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64");
    assert_eq!(server.asked_for_all().0, 2, "too old");
    let watches = server.asked_for_all().1;
    eventually(
        PATIENCE,
        "the watch",
        || server.asked_for_all().1,
        |now| *now > watches - 1,
    );
    // A watch that is there follows it; one that comes back begins behind it.
    server.bookmark();
    server.put(b());
    follower.expect(PEERS, BOTH);
    server.bookmark();
    let version = |requests: Vec<String>| {
        let all = requests
            .into_iter()
            .filter(|r| r.contains("watch=true") && !r.contains("fieldSelector"));
        let last = all.reduce(|_, last| last).unwrap();
        let (_, version) = last.split_once("resourceVersion=").unwrap();
        version.split('&').next().unwrap().parse::<u64>().unwrap()
    };
    let before = version(server.requests());
    // The bookmark is read before this, on the same connection.
    server.put(node("c", 3, &["10.3.0.0/24"], &[]));
    follower.expect(PEERS, &format!("{BOTH}, c 10.3.0.0/24"));
    server.compact();
    server.go_away();
    server.come_back();
    server.delete("c");
    follower.expect(PEERS, BOTH);
    assert_eq!(server.asked_for_all().0, 2, "not too old");
    assert!(version(server.requests()) > before);
}

#[test]
fn whatever_is_cut_or_garbled_takes_nothing_away_and_is_got_over() {
    for mishap in [
        Mishap::GarbledList,
        Mishap::CutList,
        Mishap::Code(500),
        Mishap::Code(429),
    ] {
        let server = ApiServer::start();
        server.put(a());
        server.fail(mishap);
        let follower = Follower::with(&server, "{}", OWN_NODE);
        follower.expect(PREFIXES, OF_A);
        assert!(server.has_failed(), "{mishap:?}");
        assert_eq!(follower.told("trouble: ").len(), 1, "{mishap:?}");
    }
    let (server, follower) = a_and_b();
    let mut count = 1;
    for (n, mishap) in [Mishap::CutChange, Mishap::GarbledChange, Mishap::CutChange]
        .into_iter()
        .enumerate()
    {
        server.fail(mishap);
        server.put(node("c", 3, &[&format!("10.3.{n}.0/24")], &[]));
        follower.expect(PEERS, &format!("{BOTH}, c 10.3.{n}.0/24"));
        assert!(server.has_failed(), "{mishap:?}");
        count += 1;
        assert_eq!(follower.told(PEERS).len(), count, "{:?}", follower.told(PEERS));
    }
    // Nothing that is empty is believed: this node is one of them.
    server.fail(Mishap::EmptyList);
    server.go_away();
    server.put(node("d", 4, &["10.4.0.0/24"], &[]));
    server.compact();
    server.come_back();
    follower.expect(PEERS, &format!("{BOTH}, c 10.3.2.0/24, d 10.4.0.0/24"));
    assert!(server.has_failed());
    assert_eq!(
        follower.told(PEERS).len(),
        count + 1,
        "{:?}",
        follower.told(PEERS)
    );
}
