//! Requests that cannot be used: code, field and text of each, and none of them reaches the desk.

mod inspection;

use crate::played::{Played, open, ourselves};
use crate::raw::{ATTACH, CHECK, DETACH, GET, LIST, STATUS, call, field, number};
use api::workload::{AttachRequest, Bandwidth, DetachRequest, NetNsAttachment, PortMapping};
use inspection::{adoptions, keys, prefixes};
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;

fn netns(path: &str, if_name: &str) -> Option<NetNsAttachment> {
    Some(NetNsAttachment {
        netns_path: path.to_owned(),
        if_name: if_name.to_owned(),
    })
}

fn good() -> AttachRequest {
    AttachRequest {
        workload_id: "w".to_owned(),
        netns: netns("/run/netns/w", "eth0"),
        ..AttachRequest::default()
    }
}

fn good_detach() -> DetachRequest {
    DetachRequest {
        workload_id: "w".to_owned(),
        netns: netns("", "eth0"),
        owner: String::new(),
    }
}

fn x(n: usize) -> String {
    "x".repeat(n)
}

/// Method, message, field and text of one bad request.
type Case = (&'static str, Vec<u8>, &'static str, String);

/// An attach that is good but for one thing.
fn attach(of: &'static str, text: impl Into<String>, change: impl FnOnce(&mut AttachRequest)) -> Case {
    let mut request = good();
    change(&mut request);
    (ATTACH, request.encode_to_vec(), of, text.into())
}

fn detach(of: &'static str, text: impl Into<String>, change: impl FnOnce(&mut DetachRequest)) -> Case {
    let mut request = good_detach();
    change(&mut request);
    (DETACH, request.encode_to_vec(), of, text.into())
}

/// A good attach with a field at its end, which counts instead of an earlier one.
fn appended(of: &'static str, text: &str, bytes: &[u8]) -> Case {
    let mut message = good().encode_to_vec();
    message.extend(bytes);
    (ATTACH, message, of, text.to_owned())
}

fn ids() -> Vec<Case> {
    let control = |text: &str, c: &str| (text.to_owned(), format!("has the control character {c}"));
    let mut cases = vec![
        attach("workload_id", "workload_id \"\": must not be empty", |r| {
            r.workload_id.clear()
        }),
        attach("workload_id", "has 129 bytes, 128 is the most", |r| {
            r.workload_id = x(129)
        }),
        attach("workload_id", "has 130 bytes, 128 is the most", |r| {
            r.workload_id = "é".repeat(65)
        }),
        attach(
            "workload_id",
            format!("\"{}…\": has 200000 bytes", x(64)),
            |r| r.workload_id = x(200_000),
        ),
        attach("workload_id", "have 141 bytes together, 140 is the most", |r| {
            (r.owner, r.workload_id) = (x(63), x(78));
        }),
        attach("owner", "has 64 bytes, 63 is the most", |r| r.owner = x(64)),
        attach("owner", "owner \"a\\tb\": has the control character '\\t'", |r| {
            r.owner = "a\tb".to_owned()
        }),
        attach("owner", "has the control character '\\0'", |r| {
            r.owner = "\0".to_owned()
        }),
        detach("workload_id", "workload_id \"\": must not be empty", |r| {
            r.workload_id.clear()
        }),
        detach("workload_id", "has 129 bytes, 128 is the most", |r| {
            r.workload_id = x(129)
        }),
        detach("workload_id", "has the control character '\\n'", |r| {
            r.workload_id = "a\n".to_owned()
        }),
        detach("owner", "has 64 bytes, 63 is the most", |r| r.owner = x(64)),
        detach("workload_id", "have 141 bytes together", |r| {
            (r.owner, r.workload_id) = (x(63), x(78))
        }),
    ];
    for (id, text) in [
        control("a\nb", "'\\n'"),
        control("\0", "'\\0'"),
        control("a\u{7f}", "'\\u{7f}'"),
        control("a\u{85}b", "'\\u{85}'"),
        control("\u{1b}[31m", "'\\u{1b}'"),
    ] {
        cases.push(attach("workload_id", text, |r| r.workload_id = id));
    }
    cases
}

fn namespaces() -> Vec<Case> {
    let path = |text: &str| netns(text, "eth0");
    let mut cases = vec![
        attach("netns", "netns \"\": must be set", |r| r.netns = None),
        attach(
            "netns.netns_path",
            "netns.netns_path \"\": must not be empty",
            |r| r.netns = path(""),
        ),
        attach(
            "netns.netns_path",
            "netns.netns_path \"run/netns/w\": must be absolute",
            |r| {
                r.netns = path("run/netns/w");
            },
        ),
        attach("netns.netns_path", "must be absolute", |r| {
            r.netns = path(" /run/netns/w")
        }),
        attach(
            "netns.netns_path",
            "netns.netns_path \"/a\\0b\": has a NUL",
            |r| r.netns = path("/a\0b"),
        ),
        attach("netns.netns_path", "has 4096 bytes, 4095 is the most", |r| {
            r.netns = path(&format!("/{}", x(4095)));
        }),
        attach("netns.if_name", "netns.if_name \"\": must not be empty", |r| {
            r.netns = netns("/n", "")
        }),
        attach("netns.if_name", "has 16 bytes, 15 is the most", |r| {
            r.netns = netns("/n", &x(16))
        }),
        attach("netns.if_name", "it is not ASCII", |r| {
            r.netns = netns("/n", "ethé")
        }),
        attach("netns.if_name", "has the control character '\\n'", |r| {
            r.netns = netns("/n", "a\n")
        }),
        detach("netns", "must be set: if_name is a part of the key", |r| {
            r.netns = None
        }),
        detach("netns.if_name", "netns.if_name \"\": must not be empty", |r| {
            r.netns = netns("/n", "")
        }),
        detach("netns.if_name", "the name is reserved", |r| {
            r.netns = netns("", "lo")
        }),
        detach("netns.netns_path", "\"relative\": must be absolute", |r| {
            r.netns = path("relative")
        }),
        detach("netns.netns_path", "has a NUL", |r| r.netns = path("/\0")),
        detach("netns.netns_path", "has 4097 bytes", |r| {
            r.netns = path(&format!("/{}", x(4096)))
        }),
    ];
    for name in ["lo", ".", "..", "all", "default"] {
        let text = format!("netns.if_name {name:?}: is not an interface name: the name is reserved");
        cases.push(attach("netns.if_name", text, |r| r.netns = netns("/n", name)));
    }
    for name in ["a/b", "a:b", "a b", "eth%d", "a\u{a0}"] {
        cases.push(attach(
            "netns.if_name",
            "it has a '/', ':', '%' or white space",
            |r| {
                r.netns = netns("/n", name);
            },
        ));
    }
    cases
}

fn options() -> Vec<Case> {
    let mut cases = vec![
        attach("labels", "there are 65, 64 is the most", |r| {
            r.labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
        }),
        attach(
            "requested_ip",
            "requested_ip \"0a4d0008\": is the second of its family",
            |r| {
                r.requested_ip = vec![vec![10, 77, 0, 7], vec![10, 77, 0, 8]];
            },
        ),
        attach("requested_ip", "is the second of its family", |r| {
            r.requested_ip = vec![vec![0xfd; 16], vec![1, 2, 3, 4], vec![0xfd; 16]];
        }),
    ];
    for mtu in [1, 67, 65_536, u32::MAX] {
        let text = format!("mtu \"{mtu}\": must be 0, or 68 to 65535");
        cases.push(attach("mtu", text, |r| r.mtu = mtu));
    }
    for (key, value, text) in [
        ("", "v", "labels \"\": a key must not be empty"),
        (&*x(129), "v", "a key has 129 bytes, 128 is the most"),
        ("k", &*x(257), "a value has 257 bytes, 256 is the most"),
        (
            "a\nb",
            "v",
            "labels \"a\\nb\": a key has the control character '\\n'",
        ),
        ("k", "\u{7}", "a value has the control character '\\u{7}'"),
    ] {
        let label = (key.to_owned(), value.to_owned());
        cases.push(attach("labels", text, |r| r.labels.extend([label])));
    }
    let mut mapped = vec![0; 16];
    mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 77, 0, 7]);
    for (ip, text) in [
        (vec![], "requested_ip \"\": has 0 bytes, an address has 4 or 16"),
        (b"abc".to_vec(), "requested_ip \"616263\": has 3 bytes"),
        (b"10.77.0.7".to_vec(), "has 9 bytes"),
        (vec![0xff; 17], "has 17 bytes"),
        (vec![0; 100_000], "0000…\": has 100000 bytes"),
        (
            vec![0; 4],
            "requested_ip \"00000000\": 0.0.0.0 is no host's address",
        ),
        (vec![255; 4], "255.255.255.255 is no host's address"),
        (vec![224, 0, 0, 1], "224.0.0.1 is no host's address"),
        (vec![0; 16], ":: is no host's address"),
        (vec![0xff; 16], "is no host's address"),
        (mapped, "::ffff:10.77.0.7 is an IPv4 address, which has 4 bytes"),
    ] {
        cases.push(attach("requested_ip", text, |r| r.requested_ip = vec![ip]));
    }
    for (mac, text) in [
        (
            vec![2; 5],
            "requested_mac \"0202020202\": has 5 bytes, a MAC has 6",
        ),
        (vec![2; 8], "has 8 bytes"),
        (vec![0; 6], "00:00:00:00:00:00"),
        (vec![0xff; 6], "ff:ff:ff:ff:ff:ff"),
        (vec![1, 0, 0x5e, 0, 0, 1], "01:00:5e:00:00:01"),
        (vec![2, 0x9c, 0x52, 0xfe, 0x6d, 0x0a], "is the first hop's"),
    ] {
        cases.push(attach("requested_mac", text, |r| r.requested_mac = mac));
    }
    let port = |change: fn(&mut PortMapping)| {
        let mut port = PortMapping {
            host_port: 8080,
            container_port: 80,
            ..PortMapping::default()
        };
        change(&mut port);
        port
    };
    let mapped = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for (field, text, ports) in [
        (
            "port_mapping[1].host_port",
            "port_mapping[1].host_port \"0\": must be 1 to 65535",
            vec![port(|_| {}), port(|p| p.host_port = 0)],
        ),
        (
            "port_mapping[0].container_port",
            "\"65536\": must be 1 to 65535",
            vec![port(|p| p.container_port = 65_536)],
        ),
        (
            "port_mapping[0].protocol",
            "\"4\": must be 1 (TCP), 2 (UDP) or 3 (SCTP)",
            vec![port(|p| p.protocol = 4)],
        ),
        (
            "port_mapping[0].host_ip",
            "has 3 bytes, an address has 4 or 16",
            vec![port(|p| p.host_ip = vec![1; 3])],
        ),
        (
            "port_mapping[0].host_ip",
            "224.0.0.1 is no host's address",
            vec![port(|p| p.host_ip = vec![224, 0, 0, 1])],
        ),
        (
            "port_mapping[0].host_ip",
            "packets to ::1 stay on the node",
            vec![port(|p| {
                p.host_ip = std::net::Ipv6Addr::LOCALHOST.octets().to_vec()
            })],
        ),
        (
            "port_mapping",
            "port_mapping \"8080:80/tcp, 127.0.0.1:8080:80/tcp\": 8080:80/tcp and 127.0.0.1:8080:80/tcp overlap",
            vec![port(|_| {}), port(|p| p.host_ip = vec![127, 0, 0, 1])],
        ),
        (
            "port_mapping",
            "there are 129, 128 is the most",
            (1..130)
                .map(|n| PortMapping {
                    host_port: n,
                    ..port(|_| {})
                })
                .collect(),
        ),
    ] {
        cases.push(attach(field, text, |r| r.port_mapping = ports));
    }
    let mut ipv4 = port(|_| {});
    ipv4.host_ip = mapped.octets().to_vec();
    cases.push(attach("port_mapping[0].host_ip", "which has 4 bytes", |r| {
        r.port_mapping = vec![ipv4];
    }));
    cases
}

/// What is no message at all.
fn bytes() -> Vec<Case> {
    let utf8 = "data is not UTF-8 encoded";
    let inner = |number: u32| field(2, &field(number, b"\xff"));
    let label = |number: u32| field(18, &field(number, b"\xff"));
    let case = |method, message, of, text: &str| (method, message, of, text.to_owned());
    vec![
        appended("workload_id", utf8, &field(1, b"\xff\xfe")),
        appended("netns.netns_path", utf8, &inner(1)),
        appended("netns.if_name", utf8, &inner(2)),
        appended("owner", utf8, &field(16, b"\xc0\x80")),
        appended("labels", utf8, &label(1)),
        appended("labels", utf8, &label(2)),
        appended("mtu", "invalid wire type", &field(17, b"1400")),
        appended("workload_id", "invalid wire type", &number(1, 7)),
        appended(
            "mtu",
            "invalid varint",
            &[
                0x88, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        ),
        appended("message", "invalid tag value: 0", &[0]),
        appended("requested_ip", "buffer underflow", &[0x9a, 1, 16, 0xfd]),
        // The value is shown as it came: here the whole message.
        case(
            ATTACH,
            field(1, b"\xff"),
            "workload_id",
            "workload_id \"0a01ff\": invalid string value",
        ),
        case(ATTACH, vec![0xff; 64], "message", "message \"ffffffff"),
        case(DETACH, field(1, b"\xff"), "workload_id", utf8),
        case(DETACH, inner(2), "netns.if_name", utf8),
        case(DETACH, field(16, b"\x80"), "owner", utf8),
        case(STATUS, vec![0x0b], "message", "\"0b\""),
        case(LIST, field(1, b"\xff"), "owner", utf8),
        case(GET, field(1, &field(1, b"\xff")), "key.owner", utf8),
        case(GET, field(1, &field(2, b"\xff")), "key.workload_id", utf8),
        case(CHECK, field(1, &field(3, b"\xff")), "key.if_name", utf8),
        case(ATTACH, vec![0; 5_000_000], "message", "message length too large"),
    ]
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_by_field_and_value_and_never_reaches_the_desk() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let table: Vec<Case> = [
        ids(),
        namespaces(),
        options(),
        keys(),
        prefixes(),
        adoptions(),
        bytes(),
    ]
    .concat();
    assert!(table.len() >= 60, "{}", table.len());
    for (method, message, of, text) in table {
        let what = format!("{method}: {of} ... {text}");
        let status = call(&door.channel, method, message).await.expect_err(&what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert!(status.message().contains(&text), "{what}: {}", status.message());
        let details = status.get_error_details();
        let info = details.error_info().expect(&what);
        assert_eq!(
            (&*info.domain, &*info.reason),
            ("workloadnet.v1", "INVALID_FIELD"),
            "{what}"
        );
        assert_eq!(info.metadata["field"], of, "{what}: {}", status.message());
        assert!(info.metadata.contains_key("value"), "{what}");
        assert!(details.retry_info().is_none(), "{what}");
        // A status travels in headers, which have limits.
        assert!(status.message().len() < 1024, "{what}");
    }
    assert_eq!(desk.asked(), 0);
}

#[tokio::test]
async fn what_this_daemon_cannot_do_is_refused_by_name() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let asked = [
        (
            "bandwidth",
            AttachRequest {
                bandwidth: Some(Bandwidth::default()),
                ..good()
            },
        ),
        (
            "alias",
            AttachRequest {
                alias: vec!["db".to_owned()],
                ..good()
            },
        ),
    ];
    for (field, request) in asked {
        let status = call(&door.channel, ATTACH, request.encode_to_vec())
            .await
            .unwrap_err();
        let info = status.get_error_details().error_info().unwrap().clone();
        assert_eq!(
            (status.code(), &*info.reason, &*info.metadata["field"]),
            (Code::Unimplemented, "UNSUPPORTED", field)
        );
    }
    assert_eq!(desk.asked(), 0);
}

#[tokio::test]
async fn a_method_that_is_not_there_is_unimplemented() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let status = call(&door.channel, "/workloadnet.v1.Inspection/Watch", Vec::new())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn what_is_at_the_limit_is_good() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let labels = (0..64).map(|n| (format!("{n:0>128}"), x(256)));
    let full = AttachRequest {
        workload_id: x(77),
        owner: "o".repeat(63),
        netns: netns(&format!("/{}", x(4094)), &x(15)),
        mtu: 65_535,
        labels: labels.collect(),
        requested_ip: vec![vec![0xfd; 16], vec![10, 77, 0, 7]],
        requested_mac: vec![2, 0, 0, 0, 0, 1],
        // One said twice, and one that is another's beside it.
        port_mapping: [
            (80, vec![], 0),
            (80, vec![], 1),
            (443, vec![0; 16], 2),
            (443, vec![0; 4], 2),
        ]
        .map(|(host_port, host_ip, protocol)| PortMapping {
            host_port,
            host_ip,
            container_port: 65_535,
            protocol,
        })
        .to_vec(),
        ..AttachRequest::default()
    };
    call(&door.channel, ATTACH, full.encode_to_vec()).await.unwrap();
    let order = desk.last_attach();
    assert_eq!(
        (order.path.len(), order.mtu, order.labels.len()),
        (4095, Some(65_535), 64)
    );
    assert_eq!(order.v4.unwrap().octets(), [10, 77, 0, 7]);
    assert_eq!(order.v6.unwrap().octets(), [0xfd; 16]);
    assert_eq!(order.mac.unwrap().to_string(), "02:00:00:00:00:01");
    assert_eq!(
        order.ports.to_string(),
        "80:65535/tcp, 0.0.0.0:443:65535/udp, [::]:443:65535/udp"
    );
    let smallest = AttachRequest { mtu: 68, ..good() };
    call(&door.channel, ATTACH, smallest.encode_to_vec())
        .await
        .unwrap();
    let order = desk.last_attach();
    assert_eq!(
        (order.key.to_string(), order.mtu),
        ("/w/eth0".to_owned(), Some(68))
    );
    call(&door.channel, DETACH, good_detach().encode_to_vec())
        .await
        .unwrap();
    assert_eq!(desk.last_detach().path, None);
}
