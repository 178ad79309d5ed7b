//! A daemon that follows an API server: with Nodes that come, change and go, and without it.

use crate::api_server::{ApiServer, node};
use crate::daemon::{Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use client::Error;
use stage::wait::{A_SECOND, PATIENCE, eventually, throughout};
use stage::{NODE, OUTSIDE, ping};
use std::time::Duration;

const ONE: [&str; 2] = ["10.77.1.0/24", "fd77:1::/64"];
const TWO: [&str; 2] = ["10.77.2.0/24", "fd77:2::/64"];

/// A daemon of the Node `a`, not running yet, and its API server.
fn follower(routes: &str) -> (Daemon, ApiServer) {
    let mut daemon = Daemon::new();
    let kubeconfig = daemon.folder().join("kubeconfig");
    run(&daemon.node.node, "ip link set lo up");
    let server = daemon.node.node.within(ApiServer::start).unwrap();
    std::fs::write(&kubeconfig, server.kubeconfig("{}")).unwrap();
    daemon.set_prefixes(&[]);
    daemon.set_rest(format!(
        "[prefixes]\nsource = \"kubernetes\"\n[kubernetes]\nnode = \"a\"\nkubeconfig = {kubeconfig:?}\n[routes]\nmode = {routes:?}\n"
    ));
    (daemon, server)
}

fn a(prefixes: &[&str]) -> serde_json::Value {
    node("a", 1, prefixes, &NODE)
}

/// What each prefix is, as `10.77.1.0/24 serves 1`, in their order.
#[track_caller]
fn expect(daemon: &Daemon, expected: &[&str]) {
    let caller = daemon.caller();
    let show = |p: &client::inspection::Prefix| {
        let does = if p.state == 2 { "drains" } else { "serves" };
        format!("{} {does} {}", p.prefix, p.used)
    };
    let look = || caller.node().prefix.iter().map(show).collect::<Vec<_>>();
    eventually(PATIENCE, "the prefixes", look, |now| now == expected);
}

#[track_caller]
fn expect_trouble(daemon: &Daemon, words: &str) {
    let caller = daemon.caller();
    let look = || caller.node().source.unwrap().trouble;
    eventually(PATIENCE, words, look, |why| match words {
        "" => why.is_empty(),
        words => why.contains(words),
    });
}

#[track_caller]
fn expect_attach(daemon: &Daemon, id: &str, namespace: &Sandbox, of: [&str; 2]) {
    let answer = daemon.caller().attach(attach(id, namespace)).unwrap();
    for (address, net) in addresses(&answer.ip).iter().zip(of) {
        let net: ipnet::IpNet = net.parse().unwrap();
        assert!(net.contains(address), "{address} of {net}");
    }
    for outside in OUTSIDE {
        ping(namespace, outside.parse().unwrap(), A_SECOND).unwrap();
    }
}

#[test]
fn attaching_goes_on_while_the_api_server_is_away_also_over_a_restart() {
    let (mut daemon, server) = follower("none");
    server.go_away();
    daemon.start_lacking("no prefix yet: the Kubernetes API is away since 2");
    server.come_back();
    daemon_says(&daemon, "no prefix yet: there is no Node \"a\" since 2");
    server.put(a(&[]));
    daemon_says(&daemon, "no prefix yet: the Node \"a\" has no podCIDRs since 2");
    server.put(a(&ONE));
    expect(&daemon, &["10.77.1.0/24 serves 0", "fd77:1::/64 serves 0"]);
    let sandboxes = [(); 4].map(|()| Sandbox::new());
    expect_attach(&daemon, "w0", &sandboxes[0], ONE);
    server.go_away();
    expect_trouble(&daemon, "the Kubernetes API is away since 2");
    expect_attach(&daemon, "w1", &sandboxes[1], ONE);
    let warnings = daemon.caller().node().warning;
    assert!(
        warnings
            .iter()
            .any(|text| text.starts_with("the prefixes of generation 1 stay: the Kubernetes API is away")),
        "{warnings:?}"
    );
    // Killed while there is nobody to ask.
    daemon.crash();
    daemon.start();
    expect_trouble(&daemon, "the Kubernetes API is away since 2");
    expect_attach(&daemon, "w2", &sandboxes[2], ONE);
    expect(&daemon, &["10.77.1.0/24 serves 3", "fd77:1::/64 serves 3"]);
    // Deleted and made anew meanwhile, with another prefix.
    server.delete("a");
    server.put(node("a", 11, &TWO, &NODE));
    server.come_back();
    let drains = [
        "10.77.2.0/24 serves 0",
        "fd77:2::/64 serves 0",
        "10.77.1.0/24 drains 3",
        "fd77:1::/64 drains 3",
    ];
    expect(&daemon, &drains);
    expect_trouble(&daemon, "");
    expect_attach(&daemon, "w3", &sandboxes[3], TWO);
    for sandbox in &sandboxes {
        ping(sandbox, OUTSIDE[0].parse().unwrap(), A_SECOND).unwrap();
    }
    let log = daemon.logged();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors, [""; 0], "nobody is to be woken");
    for id in ["w0", "w1", "w2"] {
        daemon.caller().detach(detach(id)).unwrap();
    }
    expect(&daemon, &["10.77.2.0/24 serves 1", "fd77:2::/64 serves 1"]);
}

#[track_caller]
fn daemon_says(daemon: &Daemon, words: &str) {
    let caller = daemon.caller();
    let look = || match caller.status() {
        Err(Error::Refused(refused)) => refused.message,
        other => format!("{other:?}"),
    };
    eventually(PATIENCE, words, look, |said| said.contains(words));
}

/// With `masquerade`, which is on, nobody there is to be seen as this node.
#[test]
fn where_others_route_the_nodes_prefixes_are_spared_and_the_condition_is_left_alone() {
    let (mut daemon, server) = follower("none");
    let mut own = a(&ONE);
    own["status"]["conditions"] = serde_json::json!([{"type": "NetworkUnavailable", "status": "True"}]);
    server.put(own);
    server.put(node("b", 2, &TWO, &["203.0.113.3"]));
    daemon.start();
    for (set, nets) in [("cluster4", [ONE[0], TWO[0]]), ("cluster6", [ONE[1], TWO[1]])] {
        let look = || run(&daemon.node.node, &format!("nft list set inet workloadnet {set}"));
        eventually(PATIENCE, set, look, |now| {
            nets.iter().all(|net| now.contains(net))
        });
    }
    let routes = run(&daemon.node.node, "ip route show proto 77 type unicast");
    assert_eq!(routes, "");
    // For longer than it takes where this node routes.
    let condition = || server.condition("a", "NetworkUnavailable");
    throughout(Duration::from_millis(2500), "it is as it was", condition, |now| {
        now.as_deref() == Some("True")
    });
    // Nor is it forgotten which they are while nobody says it.
    server.go_away();
    daemon.crash();
    daemon.start();
    expect_trouble(&daemon, "the Kubernetes API is away");
    let look = || run(&daemon.node.node, "nft list set inet workloadnet cluster4");
    throughout(Duration::from_millis(500), "they are spared", look, |now| {
        now.contains(TWO[0])
    });
    let warnings = daemon.caller().node().warning.join("\n");
    assert!(
        warnings.contains("the other nodes are not known yet"),
        "{warnings}"
    );
}

#[test]
fn nodes_bring_their_routes_and_take_them_along_and_the_api_server_does_not() {
    let (mut daemon, server) = follower("auto");
    let condition = || server.condition("a", "NetworkUnavailable");
    server.put(a(&ONE));
    server.put(node("b", 2, &TWO, &["203.0.113.3", "2001:db8:113::3"]));
    daemon.start();
    let routes = |daemon: &Daemon| {
        let all = run(&daemon.node.node, "ip route show proto 77 type unicast")
            + &run(&daemon.node.node, "ip -6 route show proto 77 type unicast");
        let mut all: Vec<String> = all
            .lines()
            .map(|line| line.split(" dev").next().unwrap().to_owned())
            .collect();
        all.sort();
        all
    };
    let of_b = ["10.77.2.0/24 via 203.0.113.3", "fd77:2::/64 via 2001:db8:113::3"];
    eventually(PATIENCE, "routes to b", || routes(&daemon), |now| now[..] == of_b);
    eventually(PATIENCE, "the network is there", condition, |now| {
        now.as_deref() == Some("False")
    });
    // No route goes with the API server, nor with the daemon.
    server.go_away();
    let caller = daemon.caller();
    eventually(
        PATIENCE,
        "a warning",
        || caller.node().warning,
        |all| {
            all.iter().any(|text| {
                text.starts_with("the other nodes are those that were told last: the Kubernetes API")
            })
        },
    );
    assert_eq!(routes(&daemon), of_b);
    daemon.crash();
    daemon.start();
    expect_trouble(&daemon, "the Kubernetes API is away");
    assert_eq!(routes(&daemon), of_b);
    // With the Nodes they do: b is gone, c is new.
    server.delete("b");
    server.put(node("c", 3, &["10.77.3.0/24"], &["203.0.113.4"]));
    server.come_back();
    let of_c = ["10.77.3.0/24 via 203.0.113.4"];
    eventually(PATIENCE, "routes to c", || routes(&daemon), |now| now[..] == of_c);
    server.put(node("c", 3, &["10.77.3.0/24"], &["203.0.113.5"]));
    eventually(
        PATIENCE,
        "c has moved",
        || routes(&daemon),
        |now| now[..] == ["10.77.3.0/24 via 203.0.113.5"],
    );
    server.delete("c");
    eventually(PATIENCE, "no route", || routes(&daemon), Vec::is_empty);
}

#[test]
fn a_full_prefix_and_drift_become_events_of_the_node() {
    let (mut daemon, server) = follower("none");
    // One address.
    server.put(a(&["10.77.1.0/30"]));
    daemon.start();
    let sandboxes = [(); 2].map(|()| Sandbox::new());
    daemon.caller().attach(attach("w0", &sandboxes[0])).unwrap();
    for _ in 0..3 {
        daemon.caller().attach(attach("w1", &sandboxes[1])).unwrap_err();
    }
    let reasons = || {
        let events = server.events();
        let text = |event: &serde_json::Value| format!("{}: {}", event["reason"], event["note"]);
        events.iter().map(text).collect::<Vec<_>>()
    };
    let has = |all: &Vec<String>, words: &str| all.iter().any(|text| text.contains(words));
    eventually(PATIENCE, "an event", reasons, |all| {
        has(
            all,
            "\"AddressesExhausted\": \"a pod got no network: no address is left in 10.77.1.0/30\"",
        )
    });
    assert_eq!(server.events().len(), 1, "{:?}", reasons());
    run(&daemon.node.node, "nft delete table inet workloadnet");
    eventually(PATIENCE, "drift", reasons, |all| {
        has(all, "\"NetworkDrift\": \"somebody changed")
    });
    assert_eq!(server.events().len(), 2, "{:?}", reasons());
}
