//! Neighbours that a workload makes up.

use crate::world::{LIMIT, World};
use model::address::{FIRST_HOP_V4, FIRST_HOP_V6};
use stage::change::Links;
use stage::wait::{PATIENCE, eventually, within};
use stage::{packets, ping};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

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

/// What the node has received over a link, and how much of it was to groups and looked up.
fn received(world: &World, link: &str) -> [u64; 2] {
    let path = format!("/proc/thread-self/net/dev_snmp6/{link}");
    let text = world.on_the_node(|| std::fs::read_to_string(path)).unwrap();
    ["Ip6InReceives", "Ip6InMcastPkts"].map(|name| {
        let mut words = text.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).unwrap().parse().unwrap()
    })
}

/// Each look at where a packet to a group goes takes the kernel the longer the more links there are, and each workload says
/// several times of which groups it is.
#[test]
fn what_a_workload_says_of_its_groups_is_not_looked_up() {
    for (world, is_guarded) in [(World::new(), true), (World::unguarded(), false)] {
        let one = world.attach("one", &["fd77::2"], 100_000);
        // What it says of itself when its link comes up.
        let quiet = |link: &str| {
            let before = received(&world, link);
            !within(Duration::from_secs(2), || received(&world, link) != before)
        };
        eventually(PATIENCE, "it is quiet", || quiet(&one.host_link), |quiet| *quiet);
        let [all, to_groups] = received(&world, &one.host_link);
        let join = || {
            let socket = UdpSocket::bind("[::]:0")?;
            let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x77);
            socket.join_multicast_v6(&group, one.plan.workload_index)?;
            std::io::Result::Ok(socket)
        };
        let _member = one.namespace.within(join).unwrap().unwrap();
        let heard = |[now, _]: &[u64; 2]| *now > all;
        eventually(
            PATIENCE,
            "it is heard",
            || received(&world, &one.host_link),
            heard,
        );
        let looked_up = received(&world, &one.host_link)[1] - to_groups;
        assert_eq!(looked_up == 0, is_guarded, "{looked_up}");
    }
}
