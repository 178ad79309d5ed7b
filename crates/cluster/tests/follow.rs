//! Nodes of an API server that lives, dies, lies and comes back, as they are told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api_server;

use api_server::{ApiServer, Mishap, node};
use cluster::{Kind, Notice, Notices, Settings, Told};
use stage::wait::{PATIENCE, eventually};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// What is told on a thread of its own, as text.
struct Follower {
    told: Arc<Mutex<Vec<String>>>,
    is_ready: Arc<AtomicBool>,
    notices: Notices,
    _stop: tokio::sync::oneshot::Sender<()>,
    folder: TempDir,
}

impl Follower {
    /// As the node `a`.
    fn new(server: &ApiServer) -> Self {
        Self::with(server, "{}", true)
    }

    fn with(server: &ApiServer, user: &str, peers: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(folder.path().join("token"), "old").unwrap();
        let user = user.replace("FOLDER", folder.path().to_str().unwrap());
        std::fs::write(&kubeconfig, server.kubeconfig(&user)).unwrap();
        Self::of(folder, Some(kubeconfig), peers)
    }

    fn of(folder: TempDir, kubeconfig: Option<PathBuf>, peers: bool) -> Self {
        let settings = Settings {
            node: "a".to_owned(),
            kubeconfig,
            peers,
        };
        let told = Arc::<Mutex<Vec<String>>>::default();
        let is_ready = Arc::<AtomicBool>::default();
        let (notices, queue) = cluster::notices(Duration::from_millis(100));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (heard, ready) = (Arc::clone(&told), Arc::clone(&is_ready));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let tell = |what| heard.lock().unwrap().push(shown(&what));
            let follow = cluster::follow(settings, tell, || ready.load(Ordering::Relaxed), queue);
            runtime.block_on(async {
                tokio::select! {
                    () = follow => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            told,
            is_ready,
            notices,
            _stop: stop,
            folder,
        }
    }

    /// All of a kind, in their order.
    fn told(&self, kind: &str) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let of_kind = told.iter().filter_map(|text| text.strip_prefix(kind));
        of_kind.map(str::to_owned).collect()
    }

    #[track_caller]
    fn expect(&self, kind: &str, last: &str) {
        let look = || self.told(kind).last().cloned().unwrap_or_default();
        eventually(PATIENCE, last, look, |now| now == last);
    }

    #[track_caller]
    fn expect_trouble(&self, words: &str) {
        let look = || self.told("trouble: ").last().cloned().unwrap_or_default();
        eventually(PATIENCE, words, look, |now| now.contains(words));
    }
}

fn shown(told: &Told) -> String {
    match told {
        Told::Prefixes(prefixes) => format!("prefixes: {}", join(prefixes)),
        Told::Trouble(why) => format!("trouble: {why}"),
        Told::Peers(peers) => {
            let one = |p: &model::peer::Peer| format!("{} {}", p.name, join(&p.prefixes));
            format!("peers: {}", peers.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Told::PeerTrouble(why) => format!("peer trouble: {}", why.as_deref().unwrap_or("none")),
    }
}

fn join<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

const PREFIXES: &str = "prefixes: ";
const PEERS: &str = "peers: ";

fn a() -> serde_json::Value {
    node("a", 1, &["10.1.0.0/24", "fd01::/64"], &["192.0.2.1"])
}

fn b() -> serde_json::Value {
    node("b", 2, &["10.2.0.0/24"], &["192.0.2.2", "2001:db8::2"])
}

#[test]
fn nodes_that_come_change_and_go_are_told_and_what_changes_nothing_is_not() {
    let server = ApiServer::start();
    let follower = Follower::new(&server);
    follower.expect_trouble("there is no Node \"a\" since 20");
    server.put(node("a", 1, &[], &["192.0.2.1"]));
    follower.expect_trouble("the Node \"a\" has no podCIDRs since 20");
    server.put(a());
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
    server.put(b());
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24");
    let (prefixes, peers) = (follower.told(PREFIXES), follower.told(PEERS));
    // As kubelets do it every few minutes.
    for _ in 0..3 {
        server.put(a());
        server.put(b());
    }
    server.put(node("c", 3, &["10.3.0.0/24"], &["192.0.2.3"]));
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24, c 10.3.0.0/24");
    assert_eq!(follower.told(PREFIXES), prefixes);
    assert_eq!(follower.told(PEERS).len(), peers.len() + 1);
    server.delete("c");
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24");
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
fn what_was_told_stays_while_the_api_is_away_and_only_what_changed_is_asked_for_afterwards() {
    let server = ApiServer::start();
    server.put(a());
    server.put(b());
    let follower = Follower::new(&server);
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24");
    eventually(
        PATIENCE,
        "the watch",
        || server.asked_for_all(),
        |asked| *asked == (1, 1),
    );
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
    let server = ApiServer::start();
    server.put(a());
    server.put(b());
    let follower = Follower::new(&server);
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24");
    eventually(
        PATIENCE,
        "the watch",
        || server.asked_for_all(),
        |asked| *asked == (1, 1),
    );
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
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24");
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
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24, c 10.3.0.0/24");
    server.compact();
    server.go_away();
    server.come_back();
    server.delete("c");
    follower.expect(PEERS, "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24");
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
        let follower = Follower::with(&server, "{}", false);
        follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
        assert!(server.has_failed(), "{mishap:?}");
        assert_eq!(follower.told("trouble: ").len(), 1, "{mishap:?}");
    }
    let server = ApiServer::start();
    server.put(a());
    server.put(b());
    let follower = Follower::new(&server);
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
    let all = "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24";
    follower.expect(PEERS, all);
    let mut count = 1;
    for (n, mishap) in [Mishap::CutChange, Mishap::GarbledChange, Mishap::CutChange]
        .into_iter()
        .enumerate()
    {
        server.fail(mishap);
        server.put(node("c", 3, &[&format!("10.3.{n}.0/24")], &[]));
        follower.expect(PEERS, &format!("{all}, c 10.3.{n}.0/24"));
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
    follower.expect(PEERS, &format!("{all}, c 10.3.2.0/24, d 10.4.0.0/24"));
    assert!(server.has_failed());
    assert_eq!(
        follower.told(PEERS).len(),
        count + 1,
        "{:?}",
        follower.told(PEERS)
    );
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
fn a_token_that_is_rotated_is_read_again() {
    let server = ApiServer::start();
    server.put(a());
    server.require("old");
    let follower = Follower::with(&server, "{tokenFile: FOLDER/token}", true);
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
    server.require("new");
    server.go_away();
    server.come_back();
    follower.expect_trouble("the API server refuses: refused, as the test wants it (401)");
    std::fs::write(follower.folder.path().join("token"), "new").unwrap();
    server.put(node("a", 1, &["10.9.0.0/24"], &[]));
    follower.expect(PREFIXES, "10.9.0.0/24");
    assert_eq!(
        server.asked_for_all().0,
        1,
        "who was not let in asks on where it was"
    );
}

#[test]
fn what_there_is_no_way_by_is_said_and_is_tried_again() {
    let server = ApiServer::start();
    server.put(a());
    let follower = Follower::with(
        &server,
        "{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/true}}",
        true,
    );
    follower.expect_trouble("the daemon starts no program");
    let kubeconfig = follower.folder.path().join("kubeconfig");
    std::fs::remove_file(&kubeconfig).unwrap();
    follower.expect_trouble("No such file or directory");
    std::fs::write(&kubeconfig, "nonsense: [").unwrap();
    follower.expect_trouble("kubeconfig: failed to parse");
    std::fs::write(&kubeconfig, server.kubeconfig("{}")).unwrap();
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
    let outside = Follower::of(tempfile::tempdir().unwrap(), None, false);
    outside.expect_trouble("no service account of a pod is there");
}

#[test]
fn only_the_own_node_is_asked_for_where_nobody_routes() {
    let server = ApiServer::start();
    server.put(a());
    server.put(b());
    let follower = Follower::with(&server, "{}", false);
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
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

#[test]
fn the_condition_is_false_when_the_node_is_ready_and_again_when_somebody_changes_it() {
    let server = ApiServer::start();
    let condition = || server.condition("a", "NetworkUnavailable");
    let follower = Follower::new(&server);
    server.put(a());
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
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

#[test]
fn events_are_counted_and_dropped_while_the_api_is_away() {
    let server = ApiServer::start();
    server.put(a());
    let follower = Follower::new(&server);
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
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
    follower.expect(PREFIXES, "10.1.0.0/24 fd01::/64");
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
