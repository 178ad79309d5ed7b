//! What is told of links, routes, addresses and neighbours, and what is told once too much happened at once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "indexes are of no interest here")]
mod witness;

use kernel::linux::Linux;
use kernel::socket::{ROUTE, Socket};
use kernel::{Message, netns};
use model::datapath::{Datapath as _, Event};
use model::key::HostLink;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use witness::run;

const OURS: &str = "wk0123456789abc";
const RENAMED: &str = "wkfedcba9876543";
const INDEX: u32 = 100_000;
/// A second link of ours, whose end says that everything before it has been told.
const MARKER: &str = "wk1111111111111";
/// Within this time everything is to be told (issue 2, section 5).
const SECOND: Duration = Duration::from_secs(1);

fn host_link(name: &str) -> HostLink {
    HostLink::parse(name).unwrap()
}

/// A link as an attach makes it, step by step.
fn attach() {
    for line in [
        format!("ip link add {OURS} index {INDEX} group 8 type veth peer name inside"),
        "ip link set inside up".to_owned(),
        format!("ip link set {OURS} alias record"),
        format!("ip link set {OURS} addrgenmode none"),
        format!("ip link property add dev {OURS} altname wk-a"),
        format!("ip link set {OURS} up"),
        format!("ip address add 169.254.77.1/0 dev {OURS} scope link noprefixroute"),
        format!("ip address add fe80::1/128 dev {OURS} scope link noprefixroute nodad"),
        format!("ip route add 10.77.0.5/32 dev {OURS}"),
        format!("ip route add fd77::5/128 dev {OURS}"),
        format!("ip neighbour add 10.77.0.5 lladdr 02:00:00:00:00:05 dev {OURS} nud permanent"),
        format!("ip neighbour add fd77::5 lladdr 02:00:00:00:00:05 dev {OURS} nud permanent"),
    ] {
        run(&line);
    }
}

/// What is told in a namespace of its own.
fn watched(test: impl FnOnce(Receiver<Event>) + Send) {
    let node = netns::create().unwrap();
    netns::within(node.as_fd(), || {
        let (sender, events) = mpsc::channel();
        Linux::open(8)
            .unwrap()
            .watch(Box::new(move |event| drop(sender.send(event))))
            .unwrap();
        test(events);
    })
    .unwrap();
}

/// All that was told up to here, but the uplink, which every link that is not ours may be.
fn told(events: &Receiver<Event>) -> Vec<Event> {
    let mut told = told_of_routes(events);
    told.retain(|event| *event != Event::RoutesTouched);
    told
}

/// With what concerns routes to other nodes, which any route may be that is not a workload's.
fn told_of_routes(events: &Receiver<Event>) -> Vec<Event> {
    run(&format!("ip link add {MARKER} type veth peer name marker"));
    run(&format!("ip link delete {MARKER}"));
    let mut told = Vec::new();
    loop {
        match events.recv_timeout(Duration::from_secs(5)).unwrap() {
            Event::LinkGone { link, .. } if link == host_link(MARKER) => return told,
            Event::UplinkTouched => {}
            event => told.push(event),
        }
    }
}

fn wait_for(events: &Receiver<Event>, awaited: &Event, limit: Duration) {
    let end = Instant::now() + limit;
    while events
        .recv_timeout(end.saturating_duration_since(Instant::now()))
        .unwrap_or_else(|_| panic!("{awaited:?} was not told"))
        != *awaited
    {}
}

#[test]
fn an_attach_tells_nothing() {
    watched(|events| {
        attach();
        assert_eq!(told_of_routes(&events), []);
    });
}

#[test]
fn what_a_link_loses_is_told() {
    for damage in [
        "ip link set LINK down",
        "ip link set LINK group 9",
        "ip link set LINK alias other",
        "ip link set LINK address 02:00:00:00:00:99",
        "ip link set LINK mtu 1300",
        "ip link set LINK master port-of",
        "ip link property del dev LINK altname wk-a",
        "ip address delete 169.254.77.1/0 dev LINK",
        "ip address delete fe80::1/128 dev LINK",
        "ip neighbour delete 10.77.0.5 dev LINK",
        "ip neighbour delete fd77::5 dev LINK",
        "ip neighbour replace fd77::5 lladdr 02:00:00:00:00:05 dev LINK nud reachable",
        "ip neighbour replace fd77::5 lladdr 02:00:00:00:00:06 dev LINK nud permanent",
    ] {
        watched(|events| {
            attach();
            run("ip link add port-of type bridge");
            told(&events);
            run(&damage.replace("LINK", OURS));
            let touched = Event::LinkTouched {
                link: host_link(OURS),
                index: INDEX,
            };
            assert!(told(&events).contains(&touched), "{damage}");
        });
    }
}

#[test]
fn what_stood_before_the_watch_is_known() {
    let node = netns::create().unwrap();
    netns::within(node.as_fd(), || {
        attach();
        let (sender, events) = mpsc::channel();
        Linux::open(8)
            .unwrap()
            .watch(Box::new(move |event| drop(sender.send(event))))
            .unwrap();
        for damage in [
            "ip neighbour delete fd77::5 dev LINK",
            "ip link set LINK alias other",
        ] {
            run(&damage.replace("LINK", OURS));
            let touched = Event::LinkTouched {
                link: host_link(OURS),
                index: INDEX,
            };
            assert_eq!(told(&events), [touched], "{damage}");
        }
    })
    .unwrap();
}

#[test]
fn what_a_link_keeps_is_not_told() {
    for change in [
        "ip neighbour add 10.77.0.9 lladdr 02:00:00:00:00:09 dev LINK nud reachable",
        "ip neighbour replace 10.77.0.5 lladdr 02:00:00:00:00:05 dev LINK nud permanent",
        "ip link set LINK promisc on",
        // A detach does this.
        "ip link set LINK group DYING",
    ] {
        watched(|events| {
            attach();
            told(&events);
            let dying = model::survey::DYING_GROUPS.start().to_string();
            run(&change.replace("LINK", OURS).replace("DYING", &dying));
            assert_eq!(told(&events), [], "{change}");
        });
    }
}

#[test]
fn a_renamed_link_is_told_by_its_new_name() {
    watched(|events| {
        attach();
        run(&format!("ip link set {OURS} down"));
        told(&events);
        run(&format!("ip link set {OURS} name {RENAMED}"));
        let touched = Event::LinkTouched {
            link: host_link(RENAMED),
            index: INDEX,
        };
        assert_eq!(told(&events), [touched]);
        run(&format!("ip link set {RENAMED} name somebodys"));
        let gone = Event::LinkGone {
            link: host_link(RENAMED),
            index: INDEX,
        };
        assert_eq!(told(&events), [gone]);
    });
}

#[test]
fn the_ends_of_links_and_routes_are_told_within_a_second() {
    watched(|events| {
        attach();
        told(&events);
        for destination in ["10.77.0.5/32", "fd77::5/128"] {
            run(&format!("ip route delete {destination} dev {OURS}"));
            let gone = Event::RouteGone {
                destination: destination.parse().unwrap(),
                index: INDEX,
            };
            wait_for(&events, &gone, SECOND);
        }
        run(&format!("ip link delete {OURS}"));
        let gone = Event::LinkGone {
            link: host_link(OURS),
            index: INDEX,
        };
        wait_for(&events, &gone, SECOND);
    });
}

#[test]
fn a_route_in_the_place_of_ours_and_its_end_are_told() {
    watched(|events| {
        attach();
        run("ip link add other type veth peer name beyond");
        run("ip link set other up");
        told(&events);
        for (family, destination) in [("-4", "10.77.0.5/32"), ("-6", "fd77::5/128")] {
            let gone = Event::RouteGone {
                destination: destination.parse().unwrap(),
                index: INDEX,
            };
            run(&format!("ip {family} route replace {destination} dev other"));
            assert_eq!(
                told(&events),
                std::slice::from_ref(&gone),
                "{destination} is replaced"
            );
            run(&format!("ip {family} route delete {destination} dev other"));
            assert_eq!(
                told(&events),
                std::slice::from_ref(&gone),
                "{destination} is free"
            );
            run(&format!("ip {family} route add {destination} dev {OURS}"));
            assert_eq!(told(&events), [], "{destination} is back");
        }
        // Beside ours, and before it.
        run("ip -6 route add fd77::5/128 dev other metric 1");
        let gone = Event::RouteGone {
            destination: "fd77::5/128".parse().unwrap(),
            index: INDEX,
        };
        assert_eq!(told(&events), [gone]);
    });
}

#[test]
fn addresses_that_others_take_are_told_once() {
    watched(|events| {
        attach();
        run("ip link add other type veth peer name beyond");
        run("ip link set other up");
        told(&events);
        let touched = |address: &str| Event::AddressTouched {
            address: address.parse().unwrap(),
        };
        for (line, address) in [
            ("ip address add 10.77.0.7/24 dev other", "10.77.0.7"),
            (
                "ip address add fd77::7/64 dev other valid_lft 900 preferred_lft 900 nodad",
                "fd77::7",
            ),
            ("ip route add 10.77.0.8/32 dev other", "10.77.0.8"),
        ] {
            run(line);
            // Of an IPv6 address the kernel tells a moment later.
            wait_for(&events, &touched(address), SECOND);
            assert_eq!(told(&events), [], "{line}");
        }
        run("ip address change fd77::7/64 dev other valid_lft 1000 preferred_lft 1000");
        assert_eq!(told(&events), [], "a lifetime was renewed");
        run("ip link delete other");
        let mut awaited = vec![touched("10.77.0.7"), touched("fd77::7")];
        while !awaited.is_empty() {
            let event = events
                .recv_timeout(SECOND)
                .unwrap_or_else(|_| panic!("{awaited:?} were not told"));
            awaited.retain(|awaited| *awaited != event);
        }
    });
}

/// The kernel tells of a port that leaves a bridge as it tells of a link that ends, but for the address family.
#[test]
fn a_link_that_leaves_a_bridge_is_not_gone() {
    watched(|events| {
        attach();
        run("ip link add bridge type bridge");
        run(&format!("ip link set {OURS} master bridge"));
        run(&format!("ip link set {OURS} nomaster"));
        let gone = |event: &Event| matches!(event, Event::LinkGone { .. });
        assert!(!told(&events).iter().any(gone));
        // It is still known.
        run(&format!("ip link set {OURS} down"));
        let touched = Event::LinkTouched {
            link: host_link(OURS),
            index: INDEX,
        };
        wait_for(&events, &touched, SECOND);
    });
}

#[test]
fn the_end_of_a_link_that_may_be_the_uplink_is_told() {
    watched(|events| {
        run("ip link add uplink type bridge");
        told(&events);
        let told_of_the_uplink = || {
            std::iter::from_fn(|| events.recv_timeout(Duration::from_millis(300)).ok())
                .any(|event| event == Event::UplinkTouched)
        };
        while told_of_the_uplink() {}
        run("ip link delete uplink");
        assert!(told_of_the_uplink());
    });
}

/// Each event is handed over, and the next one read only when the test says so.
fn watched_step_by_step(test: impl FnOnce(Receiver<Event>, Sender<()>) + Send) {
    let node = netns::create().unwrap();
    netns::within(node.as_fd(), || {
        let (sender, events) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        Linux::open(8)
            .unwrap()
            .watch(Box::new(move |event| {
                // Once the test has ended, nobody waits.
                let _ = sender.send(event);
                let _ = may_go_on.recv();
            }))
            .unwrap();
        test(events, go_on);
    })
    .unwrap();
}

/// More notifications than any buffer holds: each change of the alias of a link that is up is one of over a kilobyte.
fn flood() {
    const SETLINK: u16 = 19;
    let mut socket = Socket::open(ROUTE).unwrap();
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&INDEX.to_ne_bytes());
    for n in 0..200 {
        let batch: Vec<Message> = (0..50)
            .map(|m| {
                Message::new(SETLINK, 0, "flood")
                    .fixed(&head)
                    .text(20, &format!("{n} {m}"))
            })
            .collect();
        socket.batch(&batch).unwrap().ok().unwrap();
    }
}

#[test]
fn after_a_loss_nothing_more_is_lost_in_silence() {
    watched_step_by_step(|events, go_on| {
        attach();
        flood();
        // Came while nothing could be told.
        let late = "wk2222222222222";
        run(&format!(
            "ip link add {late} index 100001 group 8 type veth peer name other"
        ));
        run(&format!("ip link set {late} up"));
        run(&format!("ip route add 10.77.0.6/32 dev {late}"));
        let next = || events.recv_timeout(Duration::from_secs(5));
        while next().expect("a loss is told") != Event::Lost {
            go_on.send(()).unwrap();
        }
        // Whoever hears of the loss looks at everything from here on, so from here on everything has to be told.
        run("ip route delete 10.77.0.6/32");
        run(&format!("ip link delete {OURS}"));
        let mut awaited = vec![
            Event::RouteGone {
                destination: "10.77.0.6/32".parse().unwrap(),
                index: 100_001,
            },
            Event::LinkGone {
                link: host_link(OURS),
                index: INDEX,
            },
        ];
        while !awaited.is_empty() {
            go_on.send(()).unwrap();
            let event = next().unwrap_or_else(|_| panic!("{awaited:?} were not told"));
            awaited.retain(|awaited| *awaited != event);
        }
    });
}
