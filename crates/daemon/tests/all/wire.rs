//! What comes over the socket: the reference's contract, and values that cannot be used.
use crate::common::{self, Host, refusal};
use client::workload::{AttachRequest, DetachRequest, NetNsAttachment};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use stage::Namespace;

fn good() -> AttachRequest {
    common::request("w", "/proc/self/ns/net")
}

/// A request that is good but for one thing.
fn but(change: impl FnOnce(&mut AttachRequest)) -> AttachRequest {
    let mut request = good();
    change(&mut request);
    request
}

fn inside(change: impl FnOnce(&mut NetNsAttachment)) -> AttachRequest {
    but(|request| change(request.netns.as_mut().unwrap()))
}

fn id(text: &str) -> AttachRequest {
    but(|request| request.workload_id = text.to_owned())
}

fn if_name(text: &str) -> AttachRequest {
    inside(|netns| netns.if_name = text.to_owned())
}

fn path(text: &str) -> AttachRequest {
    inside(|netns| netns.netns_path = text.to_owned())
}

fn ips(all: &[&[u8]]) -> AttachRequest {
    but(|request| request.requested_ip = all.iter().map(|ip| ip.to_vec()).collect())
}

fn label(key: &str, value: &str) -> AttachRequest {
    but(|request| drop(request.labels.insert(key.to_owned(), value.to_owned())))
}

#[test]
fn bad_input_is_refused_by_name_and_changes_nothing() {
    const INVALID: &str = "InvalidArgument";
    const FAILED: &str = "FailedPrecondition";
    let host = Host::new(&["--prefix", "10.9.0.0/24", "--prefix", "fd09::/64"]);
    let before = host.on_node("ip -j address show");
    let long = |n: usize| "x".repeat(n);
    let table: Vec<(AttachRequest, &str, &str)> = vec![
        (AttachRequest::default(), INVALID, "netns \"\": must be set"),
        (but(|r| r.netns = None), INVALID, "netns \"\": must be set"),
        (id(""), INVALID, "workload_id \"\": must not be empty"),
        (id(&long(129)), INVALID, "has 129 bytes, 128 is the most"),
        (id(&long(100_000)), INVALID, "has 100000 bytes, 128 is the most"),
        (
            id("a\nb"),
            INVALID,
            "workload_id \"a\\nb\": has the control character '\\n'",
        ),
        (id("\0"), INVALID, "has the control character '\\0'"),
        (id("a\u{7f}"), INVALID, "has the control character '\\u{7f}'"),
        (id("a\u{85}"), INVALID, "has the control character '\\u{85}'"),
        (id("\u{1b}[31m"), INVALID, "has the control character '\\u{1b}'"),
        (but(|r| r.owner = long(64)), INVALID, "owner"),
        (
            but(|r| r.owner = "a\tb".into()),
            INVALID,
            "owner \"a\\tb\": has the control character '\\t'",
        ),
        (
            but(|r| (r.owner, r.workload_id) = (long(63), long(78))),
            INVALID,
            "have 141 bytes together, 140 is the most",
        ),
        (if_name(""), INVALID, "netns.if_name \"\": must not be empty"),
        (if_name(&long(16)), INVALID, "has 16 bytes, 15 is the most"),
        (
            if_name("lo"),
            INVALID,
            "netns.if_name \"lo\": is not an interface name: the name is reserved",
        ),
        (if_name("."), INVALID, "the name is reserved"),
        (if_name(".."), INVALID, "the name is reserved"),
        (if_name("all"), INVALID, "the name is reserved"),
        (if_name("default"), INVALID, "the name is reserved"),
        (if_name("a/b"), INVALID, "white space"),
        (if_name("a:b"), INVALID, "white space"),
        (if_name("a b"), INVALID, "white space"),
        (if_name("eth%d"), INVALID, "white space"),
        (if_name("\u{a0}x"), INVALID, "white space"),
        (if_name("é"), INVALID, "it is not ASCII"),
        (if_name("a\0"), INVALID, "has the control character"),
        (path(""), INVALID, "netns.netns_path \"\": must not be empty"),
        (
            path("run/netns/a"),
            INVALID,
            "netns.netns_path \"run/netns/a\": must be absolute",
        ),
        (path("."), INVALID, "must be absolute"),
        (path("/a\0b"), INVALID, "has a NUL"),
        (
            path(&format!("/{}", long(4095))),
            INVALID,
            "has 4096 bytes, 4095 is the most",
        ),
        (path("/nowhere"), "NotFound", "there is nothing at \"/nowhere\""),
        (
            path("/nowhere/else"),
            "NotFound",
            "there is nothing at \"/nowhere/else\"",
        ),
        (path("/etc/passwd/x"), "NotFound", "there is nothing at"),
        (path("/proc/999999999/ns/net"), "NotFound", "there is nothing at"),
        (path(&format!("/{}", long(300))), FAILED, "name too long"),
        (path("/"), FAILED, "a directory"),
        (path("/etc/passwd"), FAILED, "a regular file"),
        (path("/dev/null"), FAILED, "a character device"),
        (path("/dev/zero"), FAILED, "a character device"),
        (path("/proc/self/ns/mnt"), FAILED, "a namespace of another kind"),
        (path("/proc/self/ns/user"), FAILED, "a namespace of another kind"),
        (path("/proc/self/ns/pid"), FAILED, "a namespace of another kind"),
        (
            path("/proc/self/ns/net"),
            FAILED,
            "is the network namespace of the daemon itself",
        ),
        (
            path("/proc/thread-self/ns/net"),
            FAILED,
            "is the network namespace of the daemon itself",
        ),
        (path("/proc/1/ns/net"), FAILED, "/proc/1/ns/net"),
        (
            but(|r| r.mtu = 1),
            INVALID,
            "mtu \"1\": must be 0, or 68 to 65535",
        ),
        (
            but(|r| r.mtu = 67),
            INVALID,
            "mtu \"67\": must be 0, or 68 to 65535",
        ),
        (but(|r| r.mtu = 65_536), INVALID, "mtu \"65536\""),
        (but(|r| r.mtu = u32::MAX), INVALID, "mtu \"4294967295\""),
        (
            ips(&[b""]),
            INVALID,
            "requested_ip \"\": has 0 bytes, an address has 4 or 16",
        ),
        (ips(&[b"abc"]), INVALID, "requested_ip \"616263\": has 3 bytes"),
        (ips(&[b"10.9.0.7"]), INVALID, "has 8 bytes"),
        (ips(&[&[0xff; 17]]), INVALID, "has 17 bytes"),
        (ips(&[&[0; 4000]]), INVALID, "has 4000 bytes"),
        (
            ips(&[&[10, 9, 0, 7], &[10, 9, 0, 8]]),
            INVALID,
            "requested_ip \"0a090008\": is the second of its family",
        ),
        (
            ips(&[&[0xfd; 16], &[0xfd; 16]]),
            INVALID,
            "is the second of its family",
        ),
        (label("", "x"), INVALID, "a key must not be empty"),
        (
            label(&long(129), "x"),
            INVALID,
            "a key has 129 bytes, 128 is the most",
        ),
        (
            label("k", &long(257)),
            INVALID,
            "a value has 257 bytes, 256 is the most",
        ),
        (
            label("a\nb", "x"),
            INVALID,
            "a key has the control character '\\n'",
        ),
        (
            label("k", "\u{7}"),
            INVALID,
            "a value has the control character '\\u{7}'",
        ),
        (
            but(|r| r.labels = (0..65).map(|n| (n.to_string(), String::new())).collect()),
            INVALID,
            "there are 65, 64 is the most",
        ),
    ];
    assert!(table.len() >= 60, "{}", table.len());
    for (request, code, expected) in table {
        let (is, reason, text) = refusal(host.runtime.block_on(host.client.attach(request)));
        assert!(
            is == code && text.to_lowercase().contains(&expected.to_lowercase()),
            "{expected}: {is} {text}"
        );
        assert!(!reason.is_empty(), "{text}");
    }
    let workload = Namespace::new().unwrap();
    for (ip, why) in [
        ([10, 9, 0, 0], "it is the network address of 10.9.0.0/24"),
        ([10, 9, 0, 1], "it is the node's own address of 10.9.0.0/24"),
        ([10, 9, 0, 255], "it is the broadcast address of 10.9.0.0/24"),
        ([10, 9, 1, 7], "it is in none of this node's prefixes"),
        ([127, 0, 0, 1], "it is in none of this node's prefixes"),
        ([0, 0, 0, 0], "0.0.0.0 is no host's address"),
    ] {
        let mut request = common::request("w", &workload.path());
        request.requested_ip = vec![ip.to_vec()];
        let (code, _, text) = refusal(host.runtime.block_on(host.client.attach(request)));
        assert!(code == INVALID && text.contains(why), "{text}");
    }
    let detach = |request: DetachRequest| refusal(host.runtime.block_on(host.client.detach(request)));
    assert_eq!(detach(DetachRequest::default()).0, INVALID);
    assert_eq!(
        detach(common::detach_request("", "")).2,
        "workload_id \"\": must not be empty"
    );
    assert_eq!(detach(common::detach_request("w", "relative")).0, INVALID);
    let get = |key| refusal(host.runtime.block_on(host.client.get(key)));
    assert_eq!(
        get(client::inspection::Key::default()).2,
        "key.workload_id \"\": must not be empty"
    );
    let unknown = client::inspection::Key {
        workload_id: "w".into(),
        if_name: "eth0".into(),
        ..Default::default()
    };
    assert_eq!(get(unknown).0, "NotFound");
    assert_eq!(
        refusal(host.runtime.block_on(host.client.list(Some("\0".into())))).0,
        INVALID
    );

    host.nothing_is_left();
    assert_eq!(host.on_node("ip -j address show"), before);
}

/// The reference's messages, as a client that was generated from it has them.
fn reference() -> DescriptorPool {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    DescriptorPool::from_file_descriptor_set(protox::compile(["reference.proto"], [folder]).unwrap()).unwrap()
}

#[test]
fn every_field_and_method_of_the_reference_is_ours_on_the_wire() {
    let ours = DescriptorPool::decode(api::DESCRIPTORS).unwrap();
    for message in reference().all_messages() {
        let mine = ours.get_message_by_name(message.full_name()).unwrap();
        for field in message.fields() {
            let other = mine.get_field(field.number()).unwrap();
            assert_eq!(
                (other.name(), other.cardinality(), format!("{:?}", other.kind())),
                (field.name(), field.cardinality(), format!("{:?}", field.kind())),
                "{}",
                field.full_name()
            );
        }
        let added = mine
            .fields()
            .filter(|field| message.get_field(field.number()).is_none());
        assert!(
            added.into_iter().all(|field| field.number() >= 16),
            "{}",
            message.full_name()
        );
    }
    for service in reference().services() {
        let mine = ours.get_service_by_name(service.full_name()).unwrap();
        for method in service.methods() {
            let other = mine
                .methods()
                .find(|other| other.name() == method.name())
                .unwrap();
            assert_eq!(other.input().full_name(), method.input().full_name());
            assert_eq!(other.output().full_name(), method.output().full_name());
        }
    }
}

#[test]
fn what_a_client_of_the_reference_sends_and_reads_is_understood() {
    let host = Host::new(&[]);
    let workload = Namespace::new().unwrap();
    let pool = reference();
    let message = |name: &str| {
        let full = format!("metropolis.node.core.network.workloads.{name}");
        DynamicMessage::new(pool.get_message_by_name(&full).unwrap())
    };
    let mut netns = message("NetNSAttachment");
    netns.set_field_by_name("netns_path", Value::String(workload.path()));
    netns.set_field_by_name("if_name", Value::String("eth0".to_owned()));
    let mut attach = message("AttachRequest");
    attach.set_field_by_name("workload_id", Value::String("pod-1".to_owned()));
    attach.set_field_by_name("netns", Value::Message(netns));
    let sent = AttachRequest::decode(&*attach.encode_to_vec()).unwrap();
    let answer = host.runtime.block_on(host.client.attach(sent)).unwrap();
    let mut read = message("AttachResponse");
    read.merge(&*answer.encode_to_vec()).unwrap();
    let ips = read.get_field_by_name("ip").unwrap();
    let lengths: Vec<usize> = ips
        .as_list()
        .unwrap()
        .iter()
        .map(|ip| ip.as_bytes().unwrap().len())
        .collect();
    assert_eq!(lengths, [4, 16]);
    assert_eq!(host.listed(), ["pod-1"]);
}
