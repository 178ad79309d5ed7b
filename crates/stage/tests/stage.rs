//! The stage itself, without anything of the product on it.

use model::address::Family;
use stage::{Held, Links, Namespace, Node, packets, ping, tcp};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn node_and_outside_host_reach_each_other_on_both_families() {
    let node = Node::create().unwrap();
    for family in Family::ALL {
        ping::ping(&node.namespace, Node::outside(family), LIMIT).unwrap();
        ping::ping(&node.outside, Node::address(family), LIMIT).unwrap();
        let server = tcp::Server::start(&node.outside, Node::outside(family)).unwrap();
        let mut talk = tcp::Conversation::open(&node.namespace, server.address(), LIMIT).unwrap();
        assert_eq!(talk.seen_as(), Node::address(family));
        talk.exchange(1 << 20).unwrap();
    }
}

#[test]
fn what_is_not_there_does_not_answer() {
    let node = Node::create().unwrap();
    let silent = "203.0.113.77".parse().unwrap();
    let error = ping::ping(&node.namespace, silent, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.to_string(), "no answer from 203.0.113.77 within 50ms");
    // Nor is there a way from the outside to anything behind the node.
    let error = ping::ping(&node.outside, "10.77.0.2".parse().unwrap(), LIMIT).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "find a way to 10.77.0.2: Network is unreachable (os error 101)"
    );
}

#[test]
fn a_held_namespace_has_a_path_until_it_ends() {
    let held = Held::create().unwrap();
    let path = held.path();
    let name = std::fs::read_link(&path).unwrap();
    assert!(name.to_str().unwrap().starts_with("net:["));
    assert_ne!(name, std::fs::read_link("/proc/self/ns/net").unwrap());
    drop(held);
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn a_mounted_namespace_outlives_its_value_until_unmounted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pod");
    let (namespace, inode) = {
        let namespace = Namespace::create().unwrap();
        let inode = namespace
            .within(|| Ok(std::fs::metadata("/proc/thread-self/ns/net")?))
            .unwrap();
        (
            namespace.mounted(&path).unwrap(),
            std::os::unix::fs::MetadataExt::ino(&inode),
        )
    };
    let found = std::fs::metadata(namespace.path()).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&found), inode);
    drop(namespace);
    assert!(!path.exists());
}

#[test]
fn datagrams_tell_their_source() {
    let node = Node::create().unwrap();
    let mut links = Links::of(&node.namespace).unwrap();
    for (family, other) in [(Family::V4, "203.0.113.3/24"), (Family::V6, "2001:db8:113::3/64")] {
        let other: ipnet::IpNet = other.parse().unwrap();
        links.add_address(stage::node::UPLINK, other).unwrap();
        let listener = packets::udp_listener(&node.outside, Node::outside(family)).unwrap();
        let to = listener.local_addr().unwrap();
        packets::udp_send(&node.namespace, other.addr(), to, "hello").unwrap();
        let received = packets::udp_receive(&listener, LIMIT).unwrap();
        assert_eq!(received, Some(("hello".to_owned(), other.addr())));
        assert_eq!(
            packets::udp_receive(&listener, Duration::from_millis(20)).unwrap(),
            None
        );
    }
}
