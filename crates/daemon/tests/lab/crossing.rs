//! Many callers at once, orders of one key that cross, and orders that meet the end of the daemon.

use crate::daemon::{Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use crate::wait::{A_SECOND, PATIENCE, eventually};
use crate::witness::links;
use client::Error;
use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;

const CALLERS: usize = 16;
const WORKLOADS: usize = 200;

#[test]
fn two_hundred_attaches_and_detaches_from_sixteen_callers() {
    let daemon = Daemon::started();
    let empty = daemon.world();
    let namespaces: Vec<Sandbox> = (0..WORKLOADS).map(|_| Sandbox::new()).collect();
    let (daemon_ref, namespaces_ref) = (&daemon, &namespaces);
    let given: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn(move || {
                    let client = daemon_ref.caller();
                    let mine = (caller..WORKLOADS).step_by(CALLERS);
                    mine.flat_map(|n| {
                        let answer = client
                            .attach(attach(&format!("w{n}"), &namespaces_ref[n]))
                            .unwrap();
                        addresses(&answer.ip)
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        callers
            .into_iter()
            .flat_map(|caller| caller.join().unwrap())
            .collect()
    });
    assert_eq!(given.len(), 2 * WORKLOADS);
    assert_eq!(
        given.iter().collect::<HashSet<_>>().len(),
        given.len(),
        "an address was given out twice"
    );
    assert_eq!(links(&daemon.node.node).len(), WORKLOADS);
    daemon.expect_used(WORKLOADS as u64);
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
fn a_second_daemon_on_the_same_socket_gives_way() {
    let mut daemon = Daemon::started();
    let namespace = Sandbox::new();
    daemon.caller().attach(attach("web", &namespace)).unwrap();
    let mut second = daemon.spawn(daemon.command(crate::daemon::Build::Usual));
    let status = eventually(
        PATIENCE,
        "the second daemon ends",
        || second.try_wait().unwrap(),
        Option::is_some,
    )
    .unwrap();
    assert!(!status.success());
    assert_eq!(daemon.caller().list().len(), 1, "the first one still serves");
    daemon.crash();
    // The lock of a daemon that was killed holds nobody up.
    daemon.start();
    assert_eq!(daemon.caller().list().len(), 1);
}
