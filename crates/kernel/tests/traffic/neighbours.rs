//! Neighbours that a workload makes up.

use crate::world::{LIMIT, World};
use model::address::{FIRST_HOP_V4, FIRST_HOP_V6};
use stage::change::Links;
use stage::{packets, ping};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Senders that a workload makes up, more than it may ask from at once.
const MADE_UP: u16 = 60;

/// The node's neighbours on a link that it has learned, but the last few that it may have forgotten.
fn learned(world: &World, link: &str) -> usize {
    let all = world.ip(&format!("neighbour show dev {link} nud all"));
    all.lines()
        .filter(|line| line.contains("lladdr") && !line.contains("PERMANENT"))
        .count()
}

#[test]
fn a_workload_cannot_fill_the_nodes_neighbour_table_by_solicitations() {
    let world = World::new();
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    for n in 0..MADE_UP {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xbad, n);
        one.add_address(&format!("{source}/128"));
        packets::send_neighbour_solicitation(&one.namespace, "eth0", source, FIRST_HOP_V6).unwrap();
    }
    ping(&one.namespace, FIRST_HOP_V6.into(), LIMIT).unwrap();
    let learned = learned(&world, &one.host_link);
    assert!((1..=15).contains(&learned), "{learned}");
    // Others are not limited by what one has sent.
    let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
    let mut links = Links::of(&other.namespace).unwrap();
    links.delete_neighbour("eth0", FIRST_HOP_V6.into()).unwrap();
    ping(&other.namespace, FIRST_HOP_V6.into(), LIMIT).unwrap();
}

#[test]
fn a_workload_cannot_fill_the_nodes_neighbour_table_by_arp() {
    let world = World::new();
    // With the strict check, which a larger number here overrules, the node remembers no sender that it does not route back.
    world.sysctl("net/ipv4/conf/all/rp_filter", "2");
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    let mut links = Links::of(&one.namespace).unwrap();
    for n in 0..MADE_UP {
        let source = IpAddr::from(Ipv4Addr::new(10, 99, 0, u8::try_from(n).unwrap()));
        one.add_address(&format!("{source}/32"));
        // Gone already where it was not answered.
        let _ = links.delete_neighbour("eth0", FIRST_HOP_V4.into());
        let to = SocketAddr::from((FIRST_HOP_V4, 9));
        packets::udp_send(&one.namespace, source, to, "who has it").unwrap();
    }
    let learned = learned(&world, &one.host_link);
    assert!((1..=15).contains(&learned), "{learned}");
    let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
    let mut links = Links::of(&other.namespace).unwrap();
    links.delete_neighbour("eth0", FIRST_HOP_V4.into()).unwrap();
    ping(&other.namespace, FIRST_HOP_V4.into(), LIMIT).unwrap();
}
