//! Ports of the node: who has which, for how long, and that they come back.

use crate::fake::{Fake, Place, World};
use crate::orders::{attach, detach, give, give_detach, key, listed, open, order, order_with, pools};
use daemon::desk::Desk;
use daemon::desk::order::{AttachOrder, Attachment, Detached, Refusal};
use model::datapath::Event;
use model::flows::Flow;
use model::ports::{HostPort, Ports, Protocol};
use stage::wait::{PATIENCE, eventually};
use std::net::IpAddr;
use std::sync::Arc;

const W: [&str; 2] = ["8080/tcp to 10.9.0.1 80", "8080/tcp to fd09::1 80"];

/// Each address of the pool is as good as another; these are told by their place.
fn forwards(world: &World) -> Vec<String> {
    let mut all = world.forwards();
    all.iter_mut().for_each(|forward| {
        let (place, to) = forward.split_once(" to ").unwrap();
        let family = if to.contains(':') { "fd09::1" } else { "10.9.0.1" };
        *forward = format!("{place} to {family} {}", to.rsplit(' ').next().unwrap());
    });
    all
}

fn one(address: Option<&str>, protocol: Protocol) -> AttachOrder {
    let port = HostPort {
        protocol,
        port: 8080,
        address: address.map(|a| a.parse().unwrap()),
        to: 81,
    };
    AttachOrder {
        ports: Ports::new([port]).unwrap(),
        ..order("other", "/n/2")
    }
}

#[test]
fn a_port_that_somebody_has_is_refused_with_the_holders_key_and_changes_nothing() {
    let world = World::default();
    let desk = open(&world);
    let got = give(&desk, order_with("w", "/n/1", &[8080])).outcome().unwrap();
    assert_eq!(forwards(&world), W);
    let before = (world.text(), pools(&desk));
    for address in [None, Some("192.0.2.1"), Some("::")] {
        let asked = one(address, Protocol::Tcp);
        let port = asked.ports.to_string();
        let refused = give(&desk, asked).outcome().unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("{port}: this port of the node is held by {}", key("w"))
        );
        assert_eq!((world.text(), pools(&desk)), before, "{address:?}");
    }
    give(&desk, one(Some("192.0.2.1"), Protocol::Udp))
        .outcome()
        .unwrap();
    assert_eq!(forwards(&world).len(), 3);
    detach(&desk, "other", None).unwrap();
    // The same again is the same answer, and anything else is not the same.
    let again = give(&desk, order_with("w", "/n/1", &[8080])).outcome().unwrap();
    assert_eq!(again, got);
    for (ports, why) in [
        (&[][..], "ports [8080:80/tcp] instead of none"),
        (
            &[8080, 8081],
            "ports [8080:80/tcp] instead of [8080:80/tcp, 8081:80/tcp]",
        ),
    ] {
        let refused = give(&desk, order_with("w", "/n/1", ports)).outcome().unwrap_err();
        assert!(refused.to_string().ends_with(why), "{refused}");
    }
    assert_eq!(forwards(&world), W);
}

#[test]
fn a_port_is_held_until_its_link_has_ended() {
    let world = World::default();
    let desk = open(&world);
    give(&desk, order_with("w", "/n/1", &[8080])).outcome().unwrap();
    world.close(Place::Unwire);
    let going = give_detach(&desk, "w", None);
    world.wait_at(Place::Unwire);
    let refused = give(&desk, order_with("other", "/n/2", &[8080])).outcome();
    assert!(matches!(refused, Err(Refusal::PortHeld { .. })), "{refused:?}");
    world.open(Place::Unwire);
    assert_eq!(going.outcome().unwrap(), Detached::Done);
    assert_eq!(world.forwards(), Vec::<String>::new());
    give(&desk, order_with("other", "/n/2", &[8080]))
        .outcome()
        .unwrap();
    // It ends by itself.
    world.vanish("/n/2");
    assert_eq!((world.forwards(), listed(&desk)), (Vec::new(), Vec::new()));
    give(&desk, order_with("w", "/n/1", &[8080])).outcome().unwrap();
}

#[test]
fn a_port_of_a_family_that_the_workload_lacks_is_refused() {
    let world = World::default();
    let desk = open(&world);
    desk.set_prefixes(&["10.9.0.0/28".parse().unwrap()]).unwrap();
    let before = (world.text(), pools(&desk));
    let refused = give(&desk, one(Some("2001:db8::1"), Protocol::Tcp)).outcome();
    let refused = refused.unwrap_err().to_string();
    let why =
        "[2001:db8::1]:8080:81/tcp is for a family that the workload has no address of: it gets 10.9.0.";
    assert!(refused.starts_with(why), "{refused}");
    assert_eq!((world.text(), pools(&desk)), before);
}

#[test]
fn ports_outlive_the_daemon_and_come_back_with_the_table() {
    let world = World::default();
    let before = open(&world);
    give(&before, order_with("w", "/n/1", &[8080])).outcome().unwrap();
    attach(&before, "other", "/n/2").unwrap();
    let (text, got) = (world.text(), before.list(None).unwrap());
    world.forget_the_daemon();
    world.lose_ruleset();
    let desk = open(&world);
    assert_eq!(world.text(), text);
    let now = desk.list(None).unwrap();
    assert_eq!(now.len(), 2);
    for (now, was) in now.iter().zip(&got) {
        assert_eq!(now.record, was.record);
    }
    let refused = give(&desk, order_with("third", "/n/3", &[8080])).outcome();
    assert!(matches!(refused, Err(Refusal::PortHeld { .. })), "{refused:?}");

    world.lose_ruleset();
    world.tell(Event::RulesetTouched);
    world.wait_until_it_is(&text);
    // A deletion that fails closes them for a moment only.
    world.refuse_deletions(true);
    detach(&desk, "w", None).unwrap_err();
    world.wait_until_it_is(&text);
    world.refuse_deletions(false);
    detach(&desk, "w", None).unwrap();
    assert_eq!(world.forwards(), Vec::<String>::new());
}

/// What a crash between the record and the forwards leaves, and what nobody told of.
#[test]
fn a_sweep_puts_back_names_and_forwards() {
    let world = World::default();
    let desk = open(&world);
    let link = give(&desk, order_with("w", "/n/1", &[8080]))
        .outcome()
        .unwrap()
        .link;
    let text = world.text();
    let names = key("w").host_link().to_string() + "-1of1";
    world.damage(&link.host, |found| {
        found.altnames.retain(|name| !name.starts_with(&names));
        found.conf.v4.route_localnet = Some(0);
    });
    world.tell(Event::Lost);
    eventually(
        PATIENCE,
        "what is missing is put back",
        || desk.check(None).unwrap(),
        |findings| *findings == Some(Vec::new()),
    );
    assert_eq!(world.forwards().len(), 2);
    assert_eq!(world.text().len(), text.len());
}

#[test]
fn connections_of_the_past_are_forgotten_and_those_of_the_living_are_not() {
    let world = World::default();
    let desk = open(&world);
    let node = IpAddr::from([192, 0, 2, 1]);
    let flow = |source: IpAddr, port: u16, answers: IpAddr| Flow {
        protocol: Protocol::Udp.number(),
        source,
        destination: node,
        port,
        answers,
    };
    let client = IpAddr::from([203, 0, 113, 1]);
    let to_the_node = [flow(client, 8080, node), flow(client, 8081, node)];
    to_the_node.iter().for_each(|flow| world.track(*flow));
    let asked = one(None, Protocol::Udp);
    give(&desk, asked).outcome().unwrap();
    world.wait_until_only(&to_the_node[1..]);

    let lives = attach(&desk, "lives", "/n/3").unwrap();
    let ends = desk.get(&key("other")).unwrap().unwrap();
    let of = |attachment: &Attachment| {
        let address = attachment.addresses().iter().next().unwrap();
        [flow(client, 8080, address), flow(address, 53, client)]
    };
    let all = [&to_the_node[1..], &of(&ends), &of(&lives)].concat();
    all[1..].iter().for_each(|flow| world.track(*flow));
    detach(&desk, "other", None).unwrap();
    world.wait_until_only(&[&to_the_node[1..], &of(&lives)].concat());
}

#[test]
fn what_went_to_the_node_while_a_port_was_closed_is_forgotten_when_it_opens_again() {
    let world = World::default();
    let desk = open(&world);
    give(&desk, one(None, Protocol::Udp)).outcome().unwrap();
    let node = IpAddr::from([192, 0, 2, 1]);
    let flow = Flow {
        protocol: Protocol::Udp.number(),
        source: [203, 0, 113, 1].into(),
        destination: node,
        port: 8080,
        answers: node,
    };
    world.track(flow);
    world.wait_until_only(&[]);
    world.track(flow);
    world.lose_ruleset();
    world.tell(Event::RulesetTouched);
    world.wait_until_only(&[]);
    // So it is where an earlier daemon ended before it had looked.
    world.forget_the_daemon();
    world.track(flow);
    let desk = open(&world);
    world.wait_until_only(&[]);
    drop(desk);
}

#[test]
fn what_could_not_be_forgotten_for_a_moment_is_forgotten_later() {
    let world = World::default();
    let desk = open(&world);
    let node = IpAddr::from([192, 0, 2, 1]);
    world.track(Flow {
        protocol: Protocol::Udp.number(),
        source: [203, 0, 113, 1].into(),
        destination: node,
        port: 8080,
        answers: node,
    });
    world.refuse_to_forget(2);
    give(&desk, one(None, Protocol::Udp)).outcome().unwrap();
    world.wait_until_only(&[]);
}

/// The cleaner is held up, so that what it does next is known.
#[test]
fn connections_of_who_has_an_address_again_stay_and_however_many_there_are_those_of_the_past_go() {
    let world = World::default();
    let desk = open(&world);
    let client = IpAddr::from([203, 0, 113, 1]);
    let flow = |source: IpAddr, port: u16| Flow {
        protocol: Protocol::Tcp.number(),
        source,
        destination: client,
        port,
        answers: client,
    };
    let each = [("first", "/n/1"), ("again", "/n/2"), ("gone", "/n/3")];
    let [_, again, gone] = each.map(|(id, path)| attach(&desk, id, path).unwrap());
    world.close(Place::Forget);
    detach(&desk, "first", None).unwrap();
    world.wait_at(Place::Forget);
    detach(&desk, "again", None).unwrap();
    detach(&desk, "gone", None).unwrap();
    let v4 = again.addresses().v4().unwrap();
    let asked = AttachOrder {
        v4: Some(v4),
        ..order("heir", "/n/4")
    };
    give(&desk, asked).outcome().unwrap();
    let of_heir = flow(v4.into(), 1);
    world.track(of_heir);
    let of_gone = IpAddr::V4(gone.addresses().v4().unwrap());
    (2..12).for_each(|port| world.track(flow(of_gone, port)));
    world.open(Place::Forget);
    world.wait_until_only(&[of_heir]);
}

/// A link with a port ends when a sweep has seen it, and before its port is put back, which waits for [`Place::OpenForwards`].
fn end_while_put_back(world: &World, desk: &Arc<Desk<Fake>>) {
    give(desk, one(None, Protocol::Tcp)).outcome().unwrap();
    world.close(Place::OpenForwards);
    world.tell(Event::Lost);
    world.wait_at(Place::OpenForwards);
    world.vanish("/n/2");
}

#[test]
fn ports_of_a_link_that_ends_while_they_are_put_back_lead_nowhere() {
    let world = World::default();
    let desk = open(&world);
    end_while_put_back(&world, &desk);
    assert!(desk.get(&key("other")).unwrap().is_none());
    // Where the next survey is, the sweep before it is over.
    world.close(Place::Surveyed);
    world.tell(Event::Lost);
    world.open(Place::OpenForwards);
    world.wait_at(Place::Surveyed);
    let forwards = world.forwards();
    world.open(Place::Surveyed);
    assert_eq!(forwards, Vec::<String>::new());
}

/// The sweep has seen the first one's link, and goes on when the port is the second one's.
#[test]
fn a_port_that_has_passed_on_while_it_was_put_back_leads_to_who_has_it_now() {
    let world = World::default();
    let desk = open(&world);
    end_while_put_back(&world, &desk);
    let heir = give(&desk, order_with("heir", "/n/3", &[8080]))
        .outcome()
        .unwrap();
    let wanted: Vec<String> = heir
        .addresses()
        .iter()
        .map(|address| format!("8080/tcp to {address} 80"))
        .collect();
    assert_eq!(world.forwards(), wanted);
    world.open(Place::OpenForwards);
    eventually(
        PATIENCE,
        "the port leads to its holder",
        || (desk.check(None).unwrap(), world.forwards()),
        |(findings, forwards)| *findings == Some(Vec::new()) && *forwards == wanted,
    );
}
