//! Every verb against the real daemon.

use crate::node::{Node, Sandbox};
use crate::plugin::Network;
use queue::Deletion;
use serde_json::{Value, json};
use stage::tcp::{Conversation, Server};
use stage::{NODE, OUTSIDE};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(2);

fn add(network: &Network, id: &str, sandbox: &Sandbox) -> Value {
    network.call("ADD", id, &sandbox.path()).result()
}

fn check(network: &Network, id: &str, sandbox: &Sandbox, result: &Value) -> crate::plugin::Answer {
    let network = network.with("prevResult", result.clone());
    network.call("CHECK", id, &sandbox.path())
}

fn reaches_the_world(sandbox: &Sandbox) {
    for address in OUTSIDE {
        stage::ping(&sandbox.namespace, address.parse().unwrap(), ANSWER).unwrap();
    }
}

#[test]
fn every_verb_does_what_it_says() {
    let node = Node::started();
    let network = node.network();
    let sandbox = Sandbox::new();
    let result = add(&network, "web-1", &sandbox);
    reaches_the_world(&sandbox);
    assert_eq!(result["interfaces"][0]["name"], node.links()[0]);
    assert_eq!(result["interfaces"][1]["sandbox"], sandbox.path());
    assert_eq!(result["ips"].as_array().unwrap().len(), 2);
    assert_eq!(add(&network, "web-1", &sandbox), result, "the same again");
    check(&network, "web-1", &sandbox, &result).is_silent();
    network.ask("STATUS").is_silent();

    let valid = |all: Value| network.with("cni.dev/valid-attachments", all);
    valid(json!([{ "containerID": "web-1", "ifname": "eth0" }]))
        .ask("GC")
        .is_silent();
    assert_eq!(node.links().len(), 1);
    valid(json!([])).ask("GC").is_silent();
    assert!(node.links().is_empty());
    assert_eq!(check(&network, "web-1", &sandbox, &result).failure().0, 3);

    add(&network, "web-1", &sandbox);
    network.call("DEL", "web-1", &sandbox.path()).is_silent();
    assert!(node.links().is_empty());
    for netns in [&*sandbox.path(), "", "/run/netns/gone"] {
        network.call("DEL", "web-1", netns).is_silent();
    }
}

#[test]
fn older_versions_are_served_by_the_same_daemon() {
    let node = Node::started();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let network = node.network().with("cniVersion", json!(version));
        let sandbox = Sandbox::new();
        let result = add(&network, "web-1", &sandbox);
        assert_eq!(result["cniVersion"], version);
        if version >= "0.4.0" {
            check(&network, "web-1", &sandbox, &result).is_silent();
        }
        network.call("DEL", "web-1", "").is_silent();
    }
    assert!(node.links().is_empty());
}

#[test]
fn the_sandbox_of_another_container_is_not_touched() {
    let node = Node::started();
    let network = node.network();
    let (old, new) = (Sandbox::new(), Sandbox::new());
    let result = add(&network, "web-1", &new);
    network.call("DEL", "web-1", &old.path()).is_silent();
    reaches_the_world(&new);
    let (code, msg) = check(&network, "web-1", &old, &result).failure();
    assert_eq!(code, 103);
    assert!(msg.contains("is not the namespace that is attached"), "{msg}");
    // Nor is another owner's, by the collection of garbage.
    let other = network
        .with("owner", json!("other"))
        .with("cni.dev/valid-attachments", json!([]));
    other.ask("GC").is_silent();
    assert_eq!(node.links().len(), 1);
}

#[test]
fn ports_of_the_node_lead_to_a_container_and_are_free_after_it() {
    let node = Node::started();
    let network = node.network();
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    let server = Server::start(&sandbox.namespace, Ipv4Addr::UNSPECIFIED.into()).unwrap();
    let to = server.address().port();
    // As podman writes them, and as containerd does.
    let lower = json!([{ "hostPort": 8080, "containerPort": to, "protocol": "tcp", "hostIP": "" }]);
    let upper = json!([{ "HostPort": 8080, "ContainerPort": to, "Protocol": "tcp", "HostIP": "0.0.0.0" }]);
    let asking = |ports: &Value| network.with("runtimeConfig", json!({ "portMappings": ports }));
    let outside = &node.stage.outside;
    let reach = || {
        let talk = Conversation::open(outside, SocketAddr::new(NODE[0].parse().unwrap(), 8080), ANSWER);
        talk.map(|talk| talk.seen_as().to_string())
    };
    for ports in [lower, upper] {
        let result = add(&asking(&ports), "web-1", &sandbox);
        assert_eq!(reach().unwrap(), OUTSIDE[0], "{ports}");
        assert_eq!(add(&asking(&ports), "web-1", &sandbox), result, "the same again");
        let (code, msg) = asking(&ports).call("ADD", "web-2", &other.path()).failure();
        assert!(
            code == 102 && msg.contains("8080") && msg.contains("web-1"),
            "{code} {msg}"
        );
        check(&asking(&ports), "web-1", &sandbox, &result).is_silent();
        network.call("DEL", "web-1", "").is_silent();
        reach().unwrap_err();
        add(&asking(&ports), "web-2", &other);
        network.call("DEL", "web-2", "").is_silent();
    }
}

#[test]
fn what_cannot_be_had_is_refused_by_name_and_leaves_nothing() {
    let node = Node::started();
    let network = node.network();
    let sandbox = Sandbox::new();
    let refused = |network: &Network, netns: &str| network.call("ADD", "web-1", netns).failure();
    let asking = |key: &str, value: Value| network.with("runtimeConfig", json!({ (key): value }));
    let limits = asking("bandwidth", json!({ "ingressRate": 1000, "ingressBurst": 1000 }));
    let (code, msg) = refused(&limits, &sandbox.path());
    assert!(code == 2 && msg.contains("bandwidth"), "{code} {msg}");
    let (code, msg) = refused(&asking("ips", json!(["192.0.2.1"])), &sandbox.path());
    assert!(code == 7 && msg.contains("192.0.2.1"), "{code} {msg}");
    let (code, msg) = refused(&network, "/run/netns/no-such-namespace");
    assert!(code == 8 && msg.contains("no-such-namespace"), "{code} {msg}");
    let (code, msg) = refused(&network, "/dev/null");
    assert!(code == 8 && msg.contains("/dev/null"), "{code} {msg}");
    let (code, msg) = refused(&network.with("mtu", json!(67)), &sandbox.path());
    assert!(code == 7 && msg.contains("67"), "{code} {msg}");
    assert!(node.links().is_empty());
    add(&network, "web-1", &sandbox);
    let (code, msg) = network.call("ADD", "web-2", &sandbox.path()).failure();
    assert!(code == 102, "{code} {msg}");
}

#[test]
fn kill_9_between_addition_and_deletion_is_not_noticed() {
    let mut node = Node::started();
    let network = node.network();
    let sandbox = Sandbox::new();
    let result = add(&network, "web-1", &sandbox);
    node.crash();
    reaches_the_world(&sandbox);
    assert_eq!(network.ask("STATUS").failure().0, 50);
    node.start();
    assert_eq!(add(&network, "web-1", &sandbox), result);
    check(&network, "web-1", &sandbox, &result).is_silent();
    network.call("DEL", "web-1", "").is_silent();
    assert!(node.links().is_empty());
}

#[test]
fn a_deletion_while_the_daemon_is_down_is_carried_out_before_it_serves() {
    let mut node = Node::started();
    let network = node.network();
    let (gone, lives, other) = (Sandbox::new(), Sandbox::new(), Sandbox::new());
    add(&network, "gone", &gone);
    add(&network, "lives", &lives);
    node.crash();
    network.call("DEL", "gone", &gone.path()).is_silent();
    network.call("DEL", "gone", "").is_silent();
    // About an older sandbox of the same id: the live one stays.
    network.call("DEL", "lives", &other.path()).is_silent();
    assert_eq!(node.queue().look().unwrap().waiting.len(), 2);
    assert_eq!(node.links().len(), 2, "nobody was there to take it off");
    let torn = node.queue().folder().join("0123456789abcdef0123456789abcdef");
    std::fs::write(&torn, "{\"version\":1,").unwrap();

    node.start();
    add(&network, "other", &other);
    assert_eq!(node.links().len(), 2);
    reaches_the_world(&lives);
    assert!(node.queue().look().unwrap().waiting.is_empty());
    assert!(!torn.exists() && torn.with_extension("unreadable").exists());
    let log = std::fs::read_to_string(node.log()).unwrap();
    assert!(log.contains("0123456789abcdef0123456789abcdef"), "{log}");
}

#[test]
fn a_deletion_that_was_left_does_not_undo_a_later_addition() {
    let mut node = Node::started();
    let network = node.network();
    let sandbox = Sandbox::new();
    let first = add(&network, "web-1", &sandbox);
    let left = Deletion::new("tests", "web-1", "eth0", "");
    node.queue().put(&left).unwrap();
    let second = add(&network, "web-1", &sandbox);
    assert!(node.queue().look().unwrap().waiting.is_empty());
    assert_eq!(first["interfaces"][0]["name"], second["interfaces"][0]["name"]);
    node.crash();
    node.start();
    check(&network, "web-1", &sandbox, &add(&network, "web-1", &sandbox)).is_silent();
}
