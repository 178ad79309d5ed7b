//! Many callers at once, orders of one key that cross, and orders that meet the end of the daemon.

use crate::daemon::{Daemon, addresses, attach, detach, is_read};
use crate::sandbox::Sandbox;
use crate::witness::links;
use client::{Client, Error};
use stage::wait::{A_SECOND, PATIENCE, eventually};
use stage::{OUTSIDE, ping};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Barrier, Mutex};
use std::thread;
use tokio::task::JoinHandle;

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
    let namespace = Sandbox::new();
    daemon.caller().attach(attach("web", &namespace)).unwrap();
    assert_eq!(daemon.counts(), [(1, 0); 2]);
    drop(namespace);
    eventually(
        A_SECOND,
        "the addresses cool down",
        || daemon.counts(),
        |now| *now == [(0, 1); 2],
    );
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

/// Many orders at once over a connection; returns when the daemon has them all and answered few.
async fn in_flight<T: Send + 'static>(
    client: &Client,
    orders: impl Iterator<Item = impl Future<Output = Result<T, Error>> + Send + 'static>,
) -> Vec<JoinHandle<Result<T, Error>>> {
    client.status().await.unwrap();
    let tasks: Vec<_> = orders.map(tokio::spawn).collect();
    is_read(client).await;
    let answered = tasks.iter().filter(|task| task.is_finished()).count();
    assert!(2 * answered < tasks.len(), "{answered} are answered already");
    tasks
}

/// What the daemon has when the signal comes is done and answered, and it is out in order.
#[test]
fn a_stop_in_the_middle_of_the_work_finishes_or_refuses() {
    const WORK: usize = 60;
    let mut daemon = Daemon::started();
    let namespaces: Vec<Sandbox> = (0..WORK + 1).map(|_| Sandbox::new()).collect();
    let (old, new) = namespaces[..WORK].split_at(WORK / 3);
    let named = |kind: &str, n: usize| format!("{kind}{n}");
    for (n, namespace) in old.iter().enumerate() {
        daemon
            .caller()
            .attach(attach(&named("old", n), namespace))
            .unwrap();
    }
    let late = daemon.caller().talk(async |client| {
        let attaches = new.iter().enumerate().map(|(n, namespace)| {
            let (client, request) = (client.clone(), attach(&named("new", n), namespace));
            async move { client.attach(request).await.map(drop) }
        });
        let detaches = (0..old.len()).map(|n| {
            let (client, request) = (client.clone(), detach(&named("old", n)));
            async move { client.detach(request).await }
        });
        let attaches = in_flight(client, attaches).await;
        let detaches: Vec<_> = detaches.map(tokio::spawn).collect();
        is_read(client).await;
        daemon.ask_to_stop();
        let late = client.attach(attach("late", &namespaces[WORK])).await;
        for order in attaches.into_iter().chain(detaches) {
            order.await.unwrap().unwrap();
        }
        late
    });
    let status = daemon.wait();
    assert!(status.success(), "the daemon ended with {status}");
    // What comes later is done, too, or refused in words.
    match &late {
        Ok(_) => {}
        Err(Error::Refused(refused)) => assert_eq!(refused.reason, "STOPPING", "{refused:?}"),
        Err(other) => panic!("{other}"),
    }

    let mut attached: Vec<String> = (0..new.len()).map(|n| named("new", n)).collect();
    attached.extend(late.is_ok().then(|| "late".to_owned()));
    attached.sort();
    assert_eq!(links(&daemon.node.node).len(), attached.len());
    daemon.start();
    let listed = daemon.caller().list();
    let ids: Vec<String> = listed.into_iter().map(|a| a.key.unwrap().workload_id).collect();
    assert_eq!(ids, attached);
    daemon.expect_used(ids.len() as u64);
}

#[test]
fn a_caller_that_hangs_up_does_not_stop_an_attach() {
    const BEFORE: usize = 40;
    let daemon = Daemon::started();
    let namespaces: Vec<Sandbox> = (0..BEFORE).map(|_| Sandbox::new()).collect();
    let namespace = Sandbox::new();
    daemon.caller().talk(async |client| {
        let orders = namespaces.iter().enumerate().map(|(n, namespace)| {
            let (client, request) = (client.clone(), attach(&format!("w{n}"), namespace));
            async move { client.attach(request).await }
        });
        let hasty = Client::connect(daemon.socket());
        hasty.status().await.unwrap();
        let before = in_flight(client, orders).await;
        let attaching = tokio::spawn({
            let (hasty, request) = (hasty.clone(), attach("web", &namespace));
            async move { hasty.attach(request).await }
        });
        is_read(&hasty).await;
        assert!(!attaching.is_finished(), "web was not behind the others");
        attaching.abort();
        assert!(attaching.await.unwrap_err().is_cancelled());
        drop(hasty);
        for order in before {
            order.await.unwrap().unwrap();
        }
    });
    eventually(
        A_SECOND,
        "web is attached",
        || daemon.caller().list().len(),
        |&n| n == BEFORE + 1,
    );
    for outside in OUTSIDE {
        ping(&namespace, outside.parse().unwrap(), A_SECOND).unwrap();
    }
    assert_eq!(daemon.caller().findings(), Vec::<String>::new());
    daemon.expect_used(BEFORE as u64 + 1);
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
    let text = format!("workloadnetd: another daemon serves {socket} (it holds {socket}.lock)");
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
