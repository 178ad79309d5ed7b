//! What a server is told: the Node's condition, and events.

use crate::api_server::{ApiServer, Mishap, node};
use crate::follower::{BOTH, Follower, OF_A, PEERS, PREFIXES, SPARES, a, b};
use cluster::{Kind, Notice};
use stage::wait::{PATIENCE, eventually, throughout};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn the_condition_is_false_when_the_node_is_ready_and_again_when_somebody_changes_it() {
    let server = ApiServer::start();
    let condition = || server.condition("a", "NetworkUnavailable");
    let follower = Follower::new(&server);
    server.put(a());
    follower.expect(PREFIXES, OF_A);
    let asked = || follower.asked.load(Ordering::Relaxed);
    eventually(PATIENCE, "asked, and once more after that", asked, |n| *n > 1);
    assert_eq!(condition(), None, "not before the node is ready");
    follower.is_ready.store(true, Ordering::Relaxed);
    eventually(PATIENCE, "False", condition, |now| {
        now.as_deref() == Some("False")
    });
    let ready = || server.condition("a", "Ready");
    assert_eq!(ready().as_deref(), Some("True"), "others' conditions stay");
    // As a cloud's route controller does it, and as a kubelet that registers anew.
    let mut unavailable = a();
    unavailable["status"]["conditions"] =
        serde_json::json!([{"type": "NetworkUnavailable", "status": "True"}]);
    server.fail(Mishap::Code(500));
    server.put(unavailable);
    eventually(PATIENCE, "False again", condition, |now| {
        now.as_deref() == Some("False")
    });
    server.delete("a");
    server.put(node("a", 11, &["10.1.0.0/24"], &[]));
    eventually(PATIENCE, "of the new Node, too", condition, |now| {
        now.as_deref() == Some("False")
    });
    // Whoever sees the own patch does not patch again.
    server.put(b());
    follower.expect(PEERS, "a 10.1.0.0/24, b 10.2.0.0/24");
    let patches = server
        .requests()
        .iter()
        .filter(|r| r.starts_with("PATCH"))
        .count();
    assert!((3..=4).contains(&patches), "{patches}");
}

/// As a cloud's route controller has it: the condition is its own, and says what it knows.
#[test]
fn where_others_route_the_condition_is_theirs_and_the_nodes_are_told_all_the_same() {
    let server = ApiServer::start();
    let mut unavailable = a();
    unavailable["status"]["conditions"] =
        serde_json::json!([{"type": "NetworkUnavailable", "status": "True"}]);
    server.put(unavailable);
    server.put(b());
    let follower = Follower::with(&server, "{}", SPARES);
    follower.is_ready.store(true, Ordering::Relaxed);
    follower.expect(PEERS, BOTH);
    // For longer than it takes where this node routes.
    let condition = || server.condition("a", "NetworkUnavailable");
    throughout(Duration::from_millis(2500), "it is as it was", condition, |now| {
        now.as_deref() == Some("True")
    });
    assert_eq!(follower.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn events_are_counted_and_dropped_while_the_api_is_away() {
    let server = ApiServer::start();
    server.put(a());
    let follower = Follower::new(&server);
    follower.expect(PREFIXES, OF_A);
    let full = |n: u32| Notice {
        kind: Kind::Warning,
        reason: "AddressesExhausted",
        action: "Attach",
        note: format!("the {n}. time"),
    };
    for n in 1..=3 {
        follower.notices.tell(full(n));
    }
    let event = eventually(
        PATIENCE,
        "an event",
        || server.events(),
        |events| events.len() == 1,
    )
    .remove(0);
    assert_eq!(event["note"], "the 1. time");
    assert_eq!(event["regarding"]["name"], "a");
    assert_eq!(event["regarding"]["uid"], "1");
    assert_eq!(event["metadata"]["namespace"], "default");
    let time = event["eventTime"].as_str().unwrap();
    assert!(
        time.ends_with('Z') && time.split('.').nth(1).unwrap().len() == 7,
        "{time}"
    );
    let series =
        |events: &[serde_json::Value]| events.iter().filter_map(|e| e["series"]["count"].as_u64()).max();
    eventually(
        PATIENCE,
        "counted",
        || series(&server.events()),
        |count| *count == Some(3),
    );
    assert_eq!(follower.notices.dropped(), 0);
    server.go_away();
    follower.expect_trouble("away");
    // More than may wait, and nobody waits for them.
    for n in 4..=1000 {
        follower.notices.tell(full(n));
    }
    eventually(
        PATIENCE,
        "dropped",
        || follower.notices.dropped(),
        |dropped| *dropped > 900,
    );
    assert_eq!(server.events().len(), 1);
    server.come_back();
    let look = || follower.told(PREFIXES).len();
    eventually(PATIENCE, "the prefixes are told again", look, |told| *told == 2);
    follower.notices.tell(full(1001));
    let dropped = follower.notices.dropped();
    let expected = 1001 - dropped;
    eventually(
        PATIENCE,
        "what was not dropped",
        || series(&server.events()),
        |count| count.is_some_and(|count| (4..=expected).contains(&count)),
    );
    // Another reason is another event; one that the API server has let go is made anew.
    server.forget_events();
    follower.notices.tell(full(1002));
    follower.notices.tell(Notice {
        reason: "NetworkDrift",
        ..full(0)
    });
    eventually(
        PATIENCE,
        "two events",
        || server.events().len(),
        |count| *count == 2,
    );
}

#[test]
fn an_event_that_is_gone_and_cannot_be_made_anew_is_dropped_and_the_next_one_is_whole() {
    let server = ApiServer::start();
    server.put(a());
    let follower = Follower::new(&server);
    follower.expect(PREFIXES, OF_A);
    let drift = || {
        follower.notices.tell(Notice {
            kind: Kind::Warning,
            reason: "NetworkDrift",
            action: "PutBack",
            note: "a route".to_owned(),
        });
    };
    let counts = || -> Vec<Option<u64>> {
        let events = server.events();
        events.iter().map(|e| e["series"]["count"].as_u64()).collect()
    };
    for n in 1..=3 {
        drift();
        let expected = (n > 1).then_some(n);
        eventually(PATIENCE, "counted", counts, |now| *now == [expected]);
    }
    server.forget_events();
    // Of the patch, and of the creation that follows.
    server.fail(Mishap::Code(404));
    server.fail(Mishap::Code(500));
    drift();
    let dropped = || follower.notices.dropped();
    eventually(PATIENCE, "one is dropped", dropped, |dropped| *dropped == 1);
    drift();
    eventually(PATIENCE, "a new one", counts, |now| *now == [None]);
    assert_eq!(follower.notices.dropped(), 1);
}
