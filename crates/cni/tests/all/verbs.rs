//! Each verb against a played daemon: what it is asked, and what becomes of its answers.

use crate::played::{Played, refusal};
use crate::plugin::{Network, run};
use client::inspection::{CollectGarbageResponse, Finding, Key};
use client::{Code, inspection};
use queue::Deletion;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

const OWN_NETNS: &str = "/proc/self/ns/net";

fn add(network: &Network) -> Value {
    network.call("ADD", "web-1", OWN_NETNS).result()
}

#[test]
fn a_result_has_the_shape_of_the_version_that_was_asked_for() {
    let played = Played::up();
    let network = Network::on(&played.socket());
    let newest = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "wk0123456789abc", "mac": "02:9c:52:fe:6d:0a", "mtu": 1400 },
            { "name": "eth0", "mac": "02:00:00:00:00:05", "mtu": 1400, "sandbox": OWN_NETNS },
        ],
        "ips": [
            { "address": "10.77.0.5/32", "gateway": "169.254.77.1", "interface": 1 },
            { "address": "fd77::5/128", "gateway": "fe80::1", "interface": 1 },
        ],
        "routes": [
            { "dst": "169.254.77.1/32", "scope": 253 },
            { "dst": "0.0.0.0/0", "gw": "169.254.77.1" },
            { "dst": "::/0", "gw": "fe80::1" },
        ],
        "dns": {},
    });
    assert_eq!(add(&network), newest);

    let mut expected = newest;
    expected["cniVersion"] = json!("1.0.0");
    for interface in expected["interfaces"].as_array_mut().unwrap() {
        interface.as_object_mut().unwrap().remove("mtu");
    }
    expected["routes"][0].as_object_mut().unwrap().remove("scope");
    assert_eq!(add(&network.with("cniVersion", json!("1.0.0"))), expected);

    expected["ips"][0]["version"] = json!("4");
    expected["ips"][1]["version"] = json!("6");
    for version in ["0.3.0", "0.3.1", "0.4.0"] {
        expected["cniVersion"] = json!(version);
        assert_eq!(add(&network.with("cniVersion", json!(version))), expected);
    }
}

#[test]
fn what_plugins_before_have_made_is_passed_on() {
    let played = Played::up();
    let before = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "net0", "sandbox": OWN_NETNS }],
        "ips": [{ "address": "192.0.2.5/24", "interface": 0 }],
        "routes": [{ "dst": "192.0.2.0/24" }],
        "dns": { "nameservers": ["192.0.2.1"] },
        "someone's": "own",
    });
    let network = Network::on(&played.socket()).with("prevResult", before.clone());
    let result = add(&network);
    assert_eq!(result["interfaces"][0], before["interfaces"][0]);
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    assert_eq!(result["ips"][0], before["ips"][0]);
    assert_eq!(
        (&result["ips"][1]["interface"], &result["ips"][2]["interface"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(result["routes"].as_array().unwrap().len(), 4);
    assert_eq!(
        (&result["dns"], &result["someone's"]),
        (&before["dns"], &json!("own"))
    );
}

#[test]
fn owner_socket_mtu_and_dns_come_from_the_configuration() {
    let played = Played::up();
    let network = Network::on(&played.socket())
        .with("owner", json!("k8s.io"))
        .with("mtu", json!(1400))
        .with(
            "dns",
            json!({ "nameservers": ["192.0.2.53"], "domain": "example" }),
        )
        .with(
            "args",
            json!({ "cni": {
            "labels": [{ "key": "app", "value": "web" }], "ips": ["10.77.0.5/24"], "other": 1,
        } }),
        )
        .with(
            "runtimeConfig",
            json!({ "ips": ["10.77.0.5", "fd77::5/64"], "cgroupPath": "/pod" }),
        );
    let result = network
        .call_with_args("ADD", "web-1", OWN_NETNS, "IP=10.77.0.5")
        .result();
    assert_eq!(
        result["dns"],
        json!({ "nameservers": ["192.0.2.53"], "domain": "example" })
    );
    let asked = played.script().attached.remove(0);
    assert_eq!(
        (&*asked.owner, asked.mtu, &*asked.labels["app"]),
        ("k8s.io", 1400, "web")
    );
    assert_eq!(asked.requested_ip.len(), 2);
    assert_eq!(asked.requested_ip[0], [10, 77, 0, 5]);
}

#[test]
fn what_the_daemon_cannot_do_is_refused_by_name() {
    let played = Played::up();
    let network = Network::on(&played.socket()).with("runtimeConfig", json!({ "mac": "02:00:00:00:00:77" }));
    let (code, msg) = network.call("ADD", "web-1", OWN_NETNS).failure();
    assert_eq!(
        (code, &*msg),
        (
            2,
            r#"workloadnetd (version 0.1.0) cannot do "requested-mac": 02:00:00:00:00:77"#
        )
    );
    assert!(played.script().attached.is_empty());
}

#[test]
fn refusals_have_the_specifications_codes() {
    let played = Played::up();
    let network = Network::on(&played.socket());
    for (code, reason, field, expected) in [
        (Code::InvalidArgument, "INVALID_FIELD", "mtu", 7),
        (Code::InvalidArgument, "INVALID_FIELD", "workload_id", 4),
        (Code::Unimplemented, "UNSUPPORTED", "bandwidth", 2),
        (Code::NotFound, "NAMESPACE_NOT_FOUND", "netns.netns_path", 8),
        (
            Code::FailedPrecondition,
            "NAMESPACE_FORBIDDEN",
            "netns.netns_path",
            8,
        ),
        (Code::FailedPrecondition, "INTERFACE_TAKEN", "netns.if_name", 102),
        (Code::AlreadyExists, "DIFFERENT", "", 102),
        (Code::ResourceExhausted, "ADDRESSES_EXHAUSTED", "", 101),
        (Code::ResourceExhausted, "ADDRESS_HELD", "requested_ip", 101),
        (Code::Internal, "KERNEL", "", 999),
        (Code::PermissionDenied, "PEER_DENIED", "", 5),
        (Code::DeadlineExceeded, "NAMESPACE_HANGS", "", 11),
    ] {
        played.refuse(code, reason, "what and why", &[("field", field), ("value", "x")]);
        let answer = network.call("ADD", "web-1", OWN_NETNS);
        assert_eq!(
            answer.failure(),
            (expected, "what and why".to_owned()),
            "{reason}"
        );
        assert_eq!(
            answer.json()["details"],
            format!("{reason} field={field} value=x")
        );
    }
}

#[test]
fn an_addition_waits_for_the_daemon_and_no_longer_than_configured() {
    let mut played = Played::down();
    let network = Network::on(&played.socket());
    let began = Instant::now();
    let (code, msg) = network.call("ADD", "web-1", OWN_NETNS).failure();
    assert_eq!(code, 11);
    assert!(msg.contains("cannot be reached"), "{msg}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    played.serve();
    let recovering = || refusal(Code::Unavailable, "NOT_READY", "not ready: recovering", &[]);
    played.script().refusals.extend([recovering(), recovering()]);
    add(&network.with("timeouts", json!({ "ready": 20 })));
    played.script().refusals.extend([recovering()]);
    let hasty = network.with("timeouts", json!({ "ready": 0 }));
    assert_eq!(hasty.call("ADD", "web-1", OWN_NETNS).failure().0, 11);
}

#[test]
fn a_deletion_succeeds_whatever_is_left_of_the_container() {
    let played = Played::up();
    let network = Network::on(&played.socket());
    network.call("DEL", "web-1", "").is_silent();
    network.call("DEL", "web-1", "").is_silent();
    network.call("DEL", "web-1", "/run/netns/gone").is_silent();
    // What only an addition reads may be anything.
    network
        .with("cniVersion", json!("0.1.0"))
        .with("unknown", json!(1))
        .with("prevResult", json!("torn"))
        .with("mtu", json!("large"))
        .with("timeouts", json!({ "reedy": 1 }))
        .with("runtimeConfig", json!({ "portMappings": 7 }))
        .call_with_args("DEL", "web-1", "", "no pairs")
        .is_silent();
    assert_eq!(played.script().detached.len(), 4);
    // Nothing can be attached under what is no key, nor in what is no path.
    network.call("DEL", "web-1", "relative").is_silent();
    assert_eq!(played.script().detached.len(), 4);
    played.refuse(Code::InvalidArgument, "INVALID_FIELD", "workload_id", &[]);
    network.call("DEL", &"x".repeat(200), "").is_silent();
}

#[test]
fn a_deletion_while_the_daemon_is_down_waits_in_the_queue() {
    let mut played = Played::down();
    let network = Network::on(&played.socket()).with("owner", json!("k8s.io"));
    for _ in 0..2 {
        network.call("DEL", "web-1", "/run/netns/web").is_silent();
    }
    assert_eq!(
        played.waiting(),
        [Deletion::new("k8s.io", "web-1", "eth0", "/run/netns/web")]
    );
    // An addition of the same key is not undone by it later.
    played.serve();
    add(&network);
    assert_eq!(played.waiting(), []);
    assert_eq!(played.script().detached.len(), 1);
}

#[test]
fn a_deletion_that_cannot_even_be_queued_says_so() {
    let played = Played::down();
    std::fs::write(played.queue().folder(), "").unwrap();
    let (code, msg) = Network::on(&played.socket()).call("DEL", "web-1", "").failure();
    assert_eq!(code, 5);
    assert!(msg.contains("could not be left in"), "{msg}");
}

#[test]
fn a_check_compares_the_result_with_the_daemon_and_the_daemon_with_the_kernel() {
    let played = Played::up();
    let network = Network::on(&played.socket());
    let own = std::fs::metadata(OWN_NETNS).unwrap();
    played.script().found = inspection::Attachment {
        ip: vec!["10.77.0.5".to_owned(), "fd77::5".to_owned()],
        host_link: "wk0123456789abc".to_owned(),
        workload_mac: "02:00:00:00:00:05".to_owned(),
        namespace_device: own.dev(),
        namespace_inode: own.ino(),
        ..inspection::Attachment::default()
    };
    let check = |result: &Value| {
        network
            .with("prevResult", result.clone())
            .call("CHECK", "web-1", OWN_NETNS)
    };
    let result = add(&network);
    check(&result).is_silent();
    // Other plugins' interfaces and addresses are theirs.
    let mut chained = result.clone();
    chained["interfaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "net1", "sandbox": OWN_NETNS }));
    chained["ips"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "address": "192.0.2.1/24", "interface": 2 }));
    check(&chained).is_silent();

    let spoil = |path: &str, value: Value| {
        let mut spoiled = result.clone();
        *spoiled.pointer_mut(path).unwrap() = value;
        check(&spoiled).failure()
    };
    for (path, value, expected) in [
        (
            "/interfaces/0/name",
            json!("veth0"),
            "prevResult has no interface wk0123456789abc",
        ),
        (
            "/interfaces/1/name",
            json!("eth1"),
            "prevResult has no interface eth0",
        ),
        (
            "/interfaces/1/mac",
            json!("02:00:00:00:00:06"),
            "eth0 has MAC 02:00:00:00:00:05 and not",
        ),
        (
            "/interfaces/1/sandbox",
            json!("/other"),
            "prevResult is of /other",
        ),
        (
            "/ips/0/address",
            json!("10.77.0.6/32"),
            "10.77.0.6/32 is not eth0's; prevResult lacks 10.77.0.5",
        ),
    ] {
        let (code, msg) = spoil(path, value);
        assert_eq!(code, 103, "{msg}");
        assert!(msg.contains(expected), "{msg}");
    }
    played.script().findings = vec![Finding {
        key: None,
        text: "link wk0123456789abc is missing".to_owned(),
    }];
    assert_eq!(
        check(&result).failure(),
        (103, "link wk0123456789abc is missing".to_owned())
    );
    played.script().findings.clear();
    played.script().found.namespace_inode += 1;
    assert!(
        check(&result)
            .failure()
            .1
            .contains("is not the namespace that is attached")
    );
    played.refuse(Code::NotFound, "NOT_ATTACHED", "web-1 is not attached", &[]);
    assert_eq!(check(&result).failure(), (3, "web-1 is not attached".to_owned()));
    assert_eq!(network.call("CHECK", "web-1", OWN_NETNS).failure().0, 7);
}

#[test]
fn a_status_says_whether_additions_work_and_whether_what_stands_does() {
    let mut played = Played::down();
    let network = Network::on(&played.socket());
    assert_eq!(network.ask("STATUS").failure().0, 50);
    played.serve();
    network.ask("STATUS").is_silent();
    let unready = || refusal(Code::Unavailable, "NOT_READY", "not ready: no prefix", &[]);
    played.script().refusals.push_back(unready());
    assert_eq!(
        network.ask("STATUS").failure(),
        (50, "not ready: no prefix".to_owned())
    );
    played.script().refusals.push_back(unready());
    played.script().findings.push(Finding {
        key: None,
        text: "chain x is missing".to_owned(),
    });
    let limited = "not ready: no prefix; chain x is missing".to_owned();
    assert_eq!(network.ask("STATUS").failure(), (51, limited));
}

#[test]
fn garbage_is_what_is_not_listed_and_failures_are_told_together() {
    let played = Played::up();
    let network = Network::on(&played.socket()).with("owner", json!("k8s.io"));
    let valid = json!([
        { "containerID": "web-1", "ifname": "eth0" }, { "containerID": "web-1", "ifname": "lo" },
    ]);
    let network = network.with("cni.dev/valid-attachments", valid);
    network.ask("GC").is_silent();
    let asked = played.script().collected.remove(0);
    let key = |id: &str| Key {
        owner: "k8s.io".to_owned(),
        workload_id: id.to_owned(),
        if_name: "eth0".to_owned(),
    };
    assert_eq!((&*asked.owner, &asked.valid[..]), ("k8s.io", &[key("web-1")][..]));
    assert!(asked.since_ms > 0 && !asked.dry_run);
    let failed = |id: &str| Finding {
        key: Some(key(id)),
        text: "ip link del: no".to_owned(),
    };
    played.script().garbage = CollectGarbageResponse {
        failed: vec![failed("web-2"), failed("web-3")],
        collected: vec![key("web-4")],
    };
    let both = "web-2 eth0: ip link del: no; web-3 eth0: ip link del: no".to_owned();
    assert_eq!(network.ask("GC").failure(), (104, both));
    // A list that is not there is not an empty one. libcni writes an empty one as null.
    let none = Network::on(&played.socket());
    assert_eq!(none.ask("GC").failure().0, 7);
    let no_list = network.with("cni.dev/valid-attachments", json!({}));
    assert_eq!(no_list.ask("GC").failure().0, 7);
    assert_eq!(played.script().collected.len(), 1);
    played.script().garbage.failed.clear();
    none.with("cni.dev/attachments", Value::Null)
        .ask("GC")
        .is_silent();
    assert!(played.script().collected[1].valid.is_empty());
}

#[test]
fn a_version_is_told_without_a_configuration() {
    for (input, expected) in [
        ("", "1.1.0"),
        ("{\"cniVersion\":\"0.4.0\"}", "0.4.0"),
        ("[", "1.1.0"),
    ] {
        let answer = run([("CNI_COMMAND", "VERSION")], input.as_bytes()).result();
        assert_eq!(answer["cniVersion"], expected);
    }
    let by_hand = run([], b"");
    by_hand.is_silent();
}
