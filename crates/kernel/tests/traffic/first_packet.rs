//! Nothing is lost between a link and its first packet.

use crate::world::{GROUP, World, of};
use model::address::Family;
use model::datapath::{Datapath as _, Target};
use model::key::HostLink;
use model::survey::Standing;
use stage::change::Links;
use stage::pinger::Pinger;
use stage::{Namespace, OUTSIDE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What is lost is sent again by the kernel after a second; an answer within half of one was not waited for.
#[test]
fn the_first_packet_after_an_attach_gets_through() {
    const ATTACHES: u32 = 300;
    const QUICK: Duration = Duration::from_millis(500);
    let world = World::new();
    let mut slow = Vec::new();
    for family in Family::ALL {
        for n in 0..ATTACHES {
            let address = match family {
                Family::V4 => IpAddr::from(Ipv4Addr::from(0x0a4d_0002 + n)),
                Family::V6 => IpAddr::from(Ipv6Addr::from((0xfd77_u128 << 112) + 2 + u128::from(n))),
            };
            let namespace = Namespace::new().unwrap();
            let mut from_inside = Some(Pinger::open(&namespace, address).unwrap());
            let mut from_the_node = Some(Pinger::open(&world.node.node, address).unwrap());
            let id = format!("{family}-{n}");
            let workload = world.attach_to(namespace, &id, &[&address.to_string()], 100_000 + n);
            let (what, aimed) = match n % 3 {
                0 => (
                    "first hop",
                    from_inside.take().unwrap().aim(family.first_hop(), Some("eth0")),
                ),
                1 => (
                    "outside",
                    from_inside.take().unwrap().aim(of(family, OUTSIDE), None),
                ),
                _ => (
                    "from the node",
                    from_the_node.take().unwrap().aim(workload.address(family), None),
                ),
            };
            match aimed.unwrap().ping(QUICK) {
                Ok(_) => {}
                Err(error) => slow.push(format!("{id} {what}: {error}")),
            }
        }
    }
    assert_eq!(slow, Vec::<String>::new());
}

#[test]
fn the_first_packet_after_a_link_was_put_back_gets_through() {
    const TIMES: u32 = 100;
    const QUICK: Duration = Duration::from_millis(500);
    let world = World::new();
    // IPv4 alone, because an IPv6 address that is put back is waited for, which gives the carrier time.
    let one = world.attach("one", &["10.77.0.2"], 100_000);
    let link = HostLink::parse(&one.host_link).unwrap();
    let mut links = Links::of(&world.node.node).unwrap();
    let mut inside = Links::of(&one.namespace).unwrap();
    let mut slow = Vec::new();
    for n in 0..TIMES {
        let family = Family::V4;
        let from_inside = Pinger::open(&one.namespace, family.first_hop()).unwrap();
        links.set_up(&one.host_link, false).unwrap();
        // From here on the workload's end has no carrier, and sends nothing.
        inside.index("eth0").unwrap();
        world.on_the_node(|| {
            let found = world.linux.find(&link).unwrap().unwrap();
            let Standing::Attached(record) = found.standing(GROUP) else {
                panic!("{found:?}")
            };
            let target = Target {
                link,
                index: found.index,
                group: GROUP,
            };
            assert_eq!(
                world.linux.restore(&target, &found.missing(&record, &one.plan)),
                Vec::new()
            );
        });
        let aimed = match n % 2 {
            0 => from_inside.aim(family.first_hop(), Some("eth0")),
            _ => from_inside.aim(of(family, OUTSIDE), None),
        };
        if let Err(error) = aimed.unwrap().ping(QUICK) {
            slow.push(format!("{n}: {error}"));
        }
    }
    assert_eq!(slow, Vec::<String>::new());
}
