//! Bad input: what is wrong is named with its value, and the daemon is not asked.

use crate::played::Played;
use crate::plugin::{Answer, Network, run};
use serde_json::{Value, json};

const GOOD: [(&str, &str); 4] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "web-1"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_NETNS", "/proc/self/ns/net"),
];

fn with(name: &str, value: &'static str, input: &str) -> Answer {
    let variables = GOOD.map(|(key, good)| (key, if key == name { value } else { good }));
    run(variables, input.as_bytes())
}

#[test]
fn a_bad_environment_is_named() {
    let played = Played::up();
    let input = Network::on(&played.socket()).config.to_string();
    for (name, value, expected) in [
        (
            "CNI_COMMAND",
            "ATTACH",
            "CNI_COMMAND \"ATTACH\": there is none of that name",
        ),
        ("CNI_CONTAINERID", "", "CNI_CONTAINERID: missing or empty"),
        (
            "CNI_CONTAINERID",
            "a/b",
            "CNI_CONTAINERID \"a/b\": is not a container's id",
        ),
        ("CNI_IFNAME", "", "CNI_IFNAME: missing or empty"),
        ("CNI_IFNAME", "0123456789abcdef", "is not an interface's name"),
        (
            "CNI_IFNAME",
            "a:b",
            "CNI_IFNAME \"a:b\": is not an interface's name",
        ),
        ("CNI_NETNS", "", "CNI_NETNS: missing or empty"),
        ("CNI_NETNS", "ns", "CNI_NETNS \"ns\": is not an absolute path"),
    ] {
        let (code, msg) = with(name, value, &input).failure();
        assert_eq!(code, 4, "{msg}");
        assert!(msg.contains(expected), "{msg}");
    }
    let all = run([("CNI_COMMAND", "ADD")], input.as_bytes()).failure();
    assert_eq!(
        all,
        (
            4,
            "CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS: missing or empty".to_owned()
        )
    );
    let args = Network::on(&played.socket()).call_with_args("ADD", "web-1", "/proc/self/ns/net", "A=b");
    assert_eq!(args.failure().0, 4);
    assert!(played.script().attached.is_empty());
}

#[test]
fn a_bad_configuration_is_named() {
    let played = Played::up();
    let network = Network::on(&played.socket());
    let table: &[(&str, Value, u64, &str)] = &[
        (
            "cniVersion",
            Value::Null,
            1,
            "cniVersion \"0.1.0\": supported are 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
        ),
        ("cniVersion", json!("0.2.0"), 1, "cniVersion \"0.2.0\""),
        ("cniVersion", json!("2.0.0"), 1, "cniVersion \"2.0.0\""),
        ("cniVersion", json!(1), 1, "cniVersion 1: supported are"),
        (
            "prevResult",
            json!("torn"),
            7,
            "prevResult \"torn\": is not an object",
        ),
        (
            "prevResult",
            json!({ "ips": {} }),
            7,
            "prevResult.ips {}: is not a list",
        ),
        ("name", Value::Null, 7, "name \"\": is not a network's name"),
        ("name", json!("a b"), 7, "name \"a b\""),
        ("name", json!(7), 7, "name 7: is not a text"),
        ("owner", json!([]), 7, "owner []: is not a text"),
        (
            "socket",
            json!("run/x.sock"),
            7,
            "socket: run/x.sock cannot be a socket's path",
        ),
        ("mtu", json!(-1), 7, "mtu -1: is not 0 to 65535"),
        ("mtu", json!(65536), 7, "mtu 65536"),
        ("mtu", json!("1400"), 7, "mtu \"1400\""),
        ("timeouts", json!(5), 7, "timeouts 5: is not an object"),
        (
            "timeouts",
            json!({ "ready": -1 }),
            7,
            "timeouts.ready -1: is not a number of seconds",
        ),
        ("timeouts", json!({ "order": 0 }), 7, "timeouts.order 0"),
        ("timeouts", json!({ "question": 601 }), 7, "timeouts.question 601"),
        (
            "timeouts",
            json!({ "reedy": 1 }),
            7,
            "timeouts.reedy 1: there are ready, order and question",
        ),
        (
            "ipam",
            json!({ "type": "host-local" }),
            2,
            "ipam {\"type\":\"host-local\"}: addresses come from",
        ),
        (
            "ipMasq",
            json!(true),
            2,
            "ipMasq true: masquerade is a setting of the daemon",
        ),
        (
            "sokcet",
            json!("/x"),
            2,
            "sokcet \"/x\": is no setting of this plugin",
        ),
        (
            "dns",
            json!({ "nameservers": "192.0.2.53" }),
            7,
            "dns {\"nameservers\":\"192.0.2.53\"}: nameservers",
        ),
        (
            "args",
            json!({ "cni": { "ips": ["here"] } }),
            7,
            "args.cni.ips [\"here\"]",
        ),
        (
            "args",
            json!({ "cni": { "labels": { "a": "b" } } }),
            7,
            "args.cni.labels",
        ),
        (
            "runtimeConfig",
            json!([]),
            7,
            "runtimeConfig []: is not an object",
        ),
    ];
    for (key, value, code, expected) in table {
        let (found, msg) = network
            .with(key, value.clone())
            .call("ADD", "web-1", "/proc/self/ns/net")
            .failure();
        assert!(
            found == *code && msg.contains(expected),
            "{key} {value}: {found} {msg}"
        );
    }
    for (input, code) in [
        ("", 6),
        ("[]", 6),
        ("{", 6),
        ("{}", 1),
        ("{\"cniVersion\":\"1.0.0\"}", 7),
    ] {
        assert_eq!(with("", "", input).failure().0, code, "{input}");
    }
    let (code, msg) = with("", "", &format!("{{\"a\":\"{}", "a".repeat(16 << 20))).failure();
    assert!(
        code == 5 && msg.contains("it has more than 16777216 bytes"),
        "{code} {msg}"
    );
    for (verb, since) in [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")] {
        let old = network.with("cniVersion", json!(since)).call(verb, "web-1", "/n");
        assert_eq!(old.failure().0, 1, "{verb}");
    }
    assert!(played.script().attached.is_empty());
}

#[test]
fn a_bad_capability_is_named() {
    let played = Played::up();
    played.script().features = vec!["requested-mac", "port-mapping", "bandwidth", "alias"];
    let network = Network::on(&played.socket());
    let port = |key: &str, value: Value| {
        let mut port = json!({ "hostPort": 8080, "containerPort": 80 });
        port[key] = value;
        json!([port])
    };
    let table: &[(&str, Value, u64, &str)] = &[
        (
            "portMappings",
            json!(7),
            7,
            "runtimeConfig.portMappings 7: is not a list",
        ),
        (
            "portMappings",
            json!([7]),
            7,
            "runtimeConfig.portMappings 7: is not an object",
        ),
        (
            "portMappings",
            port("hostPort", json!(0)),
            7,
            "hostPort is not 1 to 65535",
        ),
        (
            "portMappings",
            port("containerPort", json!(65536)),
            7,
            "containerPort is not 1 to 65535",
        ),
        (
            "portMappings",
            port("protocol", json!("quic")),
            7,
            "protocol is none of tcp, udp and sctp",
        ),
        (
            "portMappings",
            port("hostIP", json!("here")),
            7,
            "hostIP is not an address",
        ),
        (
            "PORTMAPPINGS",
            json!([{ "HOSTPORT": -1 }]),
            7,
            "runtimeConfig.PORTMAPPINGS",
        ),
        (
            "bandwidth",
            json!({ "ingressRate": "10M" }),
            7,
            "ingressRate is not a number of bits",
        ),
        (
            "ips",
            json!(["10.77.0.5/33"]),
            7,
            "runtimeConfig.ips [\"10.77.0.5/33\"]: has what is not an address",
        ),
        ("mac", json!("02"), 7, "runtimeConfig.mac \"02\": is not a MAC"),
        (
            "aliases",
            json!([7]),
            7,
            "runtimeConfig.aliases [7]: is not a list of texts",
        ),
        (
            "cgroupPath",
            json!(7),
            7,
            "runtimeConfig.cgroupPath 7: is not a text",
        ),
        ("dns", json!({ "Servers": [7] }), 7, "runtimeConfig.dns"),
        (
            "ipRanges",
            json!([[{ "subnet": "10.0.0.0/8" }]]),
            2,
            "runtimeConfig.ipRanges",
        ),
        (
            "deviceID",
            json!("0000:00:00.0"),
            2,
            "runtimeConfig.deviceID \"0000:00:00.0\": this plugin cannot do that",
        ),
    ];
    for (key, value, code, expected) in table {
        let asked = network.with("runtimeConfig", json!({ (*key): value }));
        let (found, msg) = asked.call("ADD", "web-1", "/proc/self/ns/net").failure();
        assert!(
            found == *code && msg.contains(expected),
            "{key} {value}: {found} {msg}"
        );
    }
    assert!(played.script().attached.is_empty());

    // What asks for nothing is no reason to refuse anything.
    let nothing = json!({
        "portMappings": null, "bandwidth": {}, "ips": [], "mac": "", "aliases": { "other": ["a"] }, "ipRanges": [],
        "deviceID": "", "dns": {}, "io.kubernetes.cri.pod-annotations": { "a": "b" },
    });
    network
        .with("runtimeConfig", nothing)
        .call("ADD", "web-1", "/proc/self/ns/net")
        .result();
    let asked = played.script().attached.remove(0);
    assert!(asked.port_mapping.is_empty() && asked.bandwidth.is_none() && asked.alias.is_empty());

    let twice = network.with("runtimeConfig", json!({ "mac": "02:00:00:00:00:77" }));
    let answer = twice.call_with_args("ADD", "web-1", "/proc/self/ns/net", "MAC=02:00:00:00:00:78");
    assert!(answer.failure().1.contains("CNI_ARGS ask for 02:00:00:00:00:78"));
    network
        .with("runtimeConfig", json!({ "mac": "" }))
        .call_with_args("ADD", "web-1", "/proc/self/ns/net", "MAC=02:00:00:00:00:78")
        .result();
}
