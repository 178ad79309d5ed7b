//! Many callers at once, orders of one key that cross, and orders that meet the end of the daemon.

use crate::daemon::{Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use crate::witness::links;
use client::Error;
use stage::wait::{A_SECOND, PATIENCE, eventually};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Barrier, Mutex};
use std::thread;

const CALLERS: usize = 16;
const WORKLOADS: usize = 200;

/// Addresses of those that live, as their callers know it: from the answer of an Attach to the sending of a Detach.
#[derive(Default)]
struct Living(Mutex<HashMap<IpAddr, String>>);

impl Living {
    fn begins(&self, id: &str, ips: &[Vec<u8>]) {
        let mut living = self.0.lock().unwrap();
        for address in addresses(ips) {
            if let Some(other) = living.insert(address, id.to_owned()) {
                panic!("{address} was given to {id} while {other} had it");
            }
        }
    }

    fn ends(&self, id: &str) {
        self.0.lock().unwrap().retain(|_, other| other != id);
    }
}

/// A third is attached and taken off again, a third is both at once, a third stays beside detaches of nobody.
#[test]
fn two_hundred_attaches_and_detaches_from_sixteen_callers() {
    let daemon = Daemon::started();
    let empty = daemon.world();
    let namespaces: Vec<Sandbox> = (0..WORKLOADS).map(|_| Sandbox::new()).collect();
    let living = Living::default();
    let (daemon_ref, namespaces_ref, living_ref) = (&daemon, &namespaces, &living);
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || {
                let client = daemon_ref.caller();
                for n in (caller..WORKLOADS).step_by(CALLERS) {
                    let id = format!("w{n}");
                    let request = attach(&id, &namespaces_ref[n]);
                    if n % 3 == 1 {
                        let both = client.talk(async |client| {
                            tokio::join!(client.attach(request), client.detach(detach(&id)))
                        });
                        both.0.unwrap();
                        both.1.unwrap();
                        continue;
                    }
                    living_ref.begins(&id, &client.attach(request).unwrap().ip);
                    if n % 3 == 0 {
                        living_ref.ends(&id);
                        client.detach(detach(&id)).unwrap();
                    } else {
                        client.detach(detach("nobody")).unwrap();
                    }
                }
            });
        }
    });
    let listed = daemon.caller().list();
    let of_kind = |kind: usize| -> HashSet<String> {
        let ids = listed.iter().map(|a| a.key.as_ref().unwrap().workload_id.clone());
        ids.filter(|id| id[1..].parse::<usize>().unwrap() % 3 == kind)
            .collect()
    };
    let staying = (0..WORKLOADS).filter(|n| n % 3 == 2).map(|n| format!("w{n}"));
    assert_eq!(of_kind(0), HashSet::new());
    assert_eq!(of_kind(2), staying.collect());
    let ips: Vec<&String> = listed.iter().flat_map(|attachment| &attachment.ip).collect();
    assert_eq!(
        ips.iter().collect::<HashSet<_>>().len(),
        2 * listed.len(),
        "an address is listed twice"
    );
    assert_eq!(links(&daemon.node.node).len(), listed.len());
    daemon.expect_used(listed.len() as u64);
    assert_eq!(daemon.caller().findings(), Vec::<String>::new());

    thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || {
                let client = daemon_ref.caller();
                for n in (caller..WORKLOADS).step_by(CALLERS) {
                    client.detach(detach(&format!("w{n}"))).unwrap();
                }
            });
        }
    });
    daemon.expect_used(0);
    assert_eq!(daemon.world(), empty);
}

#[test]
fn attach_and_detach_of_one_key_that_cross_leave_all_or_nothing() {
    let daemon = Daemon::started();
    let namespace = Sandbox::new();
    for _ in 0..50 {
        let together = Barrier::new(3);
        let (daemon, namespace, together) = (&daemon, &namespace, &together);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(move || {
                    let client = daemon.caller();
                    together.wait();
                    client.attach(attach("web", namespace)).unwrap();
                });
            }
            scope.spawn(move || {
                let client = daemon.caller();
                together.wait();
                client.detach(detach("web")).unwrap();
            });
        });
        let listed = daemon.caller().list();
        let names: Vec<String> = listed
            .iter()
            .map(|attachment| attachment.host_link.clone())
            .collect();
        assert_eq!(links(&daemon.node.node), names);
        daemon.expect_used(names.len() as u64);
    }
    daemon.caller().detach(detach("web")).unwrap();
    assert_eq!(links(&daemon.node.node), Vec::<String>::new());
}

#[test]
fn a_namespace_that_ends_gives_its_addresses_back() {
    let mut daemon = Daemon::new();
    daemon.set_cool_down(30);
    daemon.start();
    let empty = daemon.world();
    let counts = || -> Vec<(u64, u64)> {
        let prefixes = daemon.caller().node().prefix;
        prefixes
            .iter()
            .map(|prefix| (prefix.used, prefix.cooling))
            .collect()
    };
    let namespace = Sandbox::new();
    daemon.caller().attach(attach("web", &namespace)).unwrap();
    assert_eq!(counts(), [(1, 0); 2]);
    drop(namespace);
    eventually(A_SECOND, "the addresses cool down", counts, |now| {
        *now == [(0, 1); 2]
    });
    assert_eq!(daemon.world(), empty);
    assert_eq!(daemon.caller().list(), []);
}

#[test]
fn a_namespace_that_ends_during_its_attach_leaves_nothing() {
    let daemon = Daemon::started();
    let empty = daemon.world();
    for n in 0..30 {
        let namespace = Sandbox::new();
        let request = attach(&format!("w{n}"), &namespace);
        thread::scope(|scope| {
            let caller = scope.spawn(|| daemon.caller().attach(request));
            drop(namespace);
            // Either is right; what is left is not.
            let _ = caller.join().unwrap();
        });
    }
    eventually(
        A_SECOND,
        "all addresses are free",
        || daemon.caller().node(),
        |node| node.prefix.iter().all(|prefix| prefix.used == 0),
    );
    eventually(
        A_SECOND,
        "nothing is left",
        || daemon.world(),
        |world| *world == empty,
    );
}

/// What was answered stands, what was refused left nothing, and the daemon is out in order.
#[test]
fn a_stop_in_the_middle_of_the_work_finishes_or_refuses() {
    const WORK: usize = 60;
    let mut daemon = Daemon::started();
    let namespaces: Vec<Sandbox> = (0..WORK).map(|_| Sandbox::new()).collect();
    let begun = Barrier::new(4 + 1);
    let attached: Vec<usize> = thread::scope(|scope| {
        let (daemon, namespaces, begun) = (&daemon, &namespaces, &begun);
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                scope.spawn(move || {
                    let client = daemon.caller();
                    let mut mine = Vec::new();
                    for (turn, n) in (caller..WORK).step_by(4).enumerate() {
                        if turn == 3 {
                            begun.wait();
                        }
                        match client.attach(attach(&format!("w{n}"), &namespaces[n])) {
                            Ok(_) => mine.push(n),
                            Err(Error::Refused(refused)) => {
                                assert_eq!(refused.reason, "STOPPING", "{refused:?}")
                            }
                            Err(Error::Unreachable { .. } | Error::Deadline(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    mine
                })
            })
            .collect();
        begun.wait();
        daemon.ask_to_stop();
        callers
            .into_iter()
            .flat_map(|caller| caller.join().unwrap())
            .collect()
    });
    let status = daemon.wait();
    assert!(status.success(), "the daemon ended with {status}");
    assert!(
        attached.len() < WORK,
        "the stop came too late to be in the middle"
    );

    daemon.start();
    let listed: HashSet<String> = daemon
        .caller()
        .list()
        .into_iter()
        .map(|attachment| attachment.key.unwrap().workload_id)
        .collect();
    for n in &attached {
        assert!(listed.contains(&format!("w{n}")), "w{n} was answered and is gone");
    }
    assert_eq!(links(&daemon.node.node).len(), listed.len());
    daemon.expect_used(listed.len() as u64);
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let mut daemon = Daemon::started();
    let namespace = Sandbox::new();
    daemon.caller().attach(attach("web", &namespace)).unwrap();
    // From another network, which has a lock of its own.
    let mut command = daemon.command(crate::daemon::Build::Usual);
    let spawned = daemon.node.outside.within(|| command.spawn());
    let mut second = spawned.unwrap().unwrap();
    let status = eventually(
        PATIENCE,
        "the second daemon ends",
        || second.try_wait().unwrap(),
        Option::is_some,
    )
    .unwrap();
    assert!(!status.success());
    let socket = daemon.socket().display().to_string();
    let text = format!("Error: another daemon serves {socket} (it holds {socket}.lock)");
    assert!(
        daemon.logged().lines().any(|line| line == text),
        "not said: {text}"
    );
    assert_eq!(daemon.caller().list().len(), 1, "the first one still serves");
    daemon.crash();
    // The lock of a daemon that was killed holds nobody up.
    daemon.start();
    assert_eq!(daemon.caller().list().len(), 1);
}
