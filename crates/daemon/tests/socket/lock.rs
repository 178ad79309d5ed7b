//! One daemon per network namespace, whatever it is told to listen on; and nobody else can stop it.

use crate::process::{Place, eventually, listens};
use crate::wait_for;
use client::Client;
use daemon::lock::{self, NAME, NetworkLock};
use rustix::thread::set_thread_res_uid;
use stage::Namespace;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

/// Somebody who is not root.
const NOBODY: u32 = 65_534;
const NO_TIME: Duration = Duration::ZERO;

/// Takes the lock inside a namespace.
fn take(network: &Namespace, patience: Duration) -> anyhow::Result<NetworkLock> {
    network.within(|| wait_for(lock::network(patience))).unwrap()
}

/// Binds the lock's name as a user.
fn taken_by(network: &Namespace, uid: u32) -> UnixListener {
    let bind = || {
        let uid = rustix::fs::Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid).unwrap();
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME).unwrap()).unwrap()
    };
    network.within(bind).unwrap()
}

/// Asks until the daemon is ready. Nothing else may come in between.
#[track_caller]
pub(crate) fn is_served(socket: &std::path::Path) {
    let patience = Duration::from_secs(10);
    let client = || Client::connect(socket).with_patience(patience);
    eventually("the daemon is ready", || {
        match wait_for(async { client().status().await }) {
            Ok(()) => true,
            Err(client::Error::Refused(refused)) if refused.retry_after.is_some() => false,
            Err(other) => panic!("{other}"),
        }
    });
}

#[test]
fn the_network_lock_is_one_for_each_network() {
    let (network, other) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let held = take(&network, NO_TIME).unwrap();
    assert!(held.is_held());
    assert!(take(&other, NO_TIME).unwrap().is_held());
    let text = take(&network, NO_TIME).unwrap_err().to_string();
    let expected = format!(
        "another daemon serves this network namespace (process {} holds the abstract socket @workloadnetd)",
        std::process::id()
    );
    assert_eq!(text, expected);
    drop(held);
    assert!(take(&network, NO_TIME).unwrap().is_held());
}

#[test]
fn whoever_waits_for_the_network_lock_waits_with_a_limit() {
    let network = Namespace::new().unwrap();
    let held = take(&network, NO_TIME).unwrap();
    let text = take(&network, Duration::from_millis(200))
        .unwrap_err()
        .to_string();
    assert!(text.ends_with(", after 200ms still"), "{text}");
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take(&network, Duration::from_secs(20)));
        drop(held);
        waiting.join().unwrap()
    });
    assert!(waiting.unwrap().is_held());
}

#[test]
fn another_user_who_has_the_locks_name_cannot_keep_the_daemon_away() {
    let network = Namespace::new().unwrap();
    let theirs = taken_by(&network, NOBODY);
    assert!(!take(&network, NO_TIME).unwrap().is_held());
    // Nor by a queue, which is full by now, that lets nobody in who could ask whose it is.
    rustix::net::listen(&theirs, 0).unwrap();
    assert!(!take(&network, NO_TIME).unwrap().is_held());
}

#[test]
fn another_user_who_binds_the_locks_name_and_does_not_listen_cannot_either() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
    let network = Namespace::new().unwrap();
    let bound = network
        .within(|| {
            let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            bind(
                &bound,
                &SocketAddrUnix::new_abstract_name(NAME.as_bytes()).unwrap(),
            )
            .unwrap();
            bound
        })
        .unwrap();
    assert!(!take(&network, NO_TIME).unwrap().is_held());
    drop(bound);
    assert!(take(&network, NO_TIME).unwrap().is_held());
}

#[test]
fn a_second_daemon_of_the_same_network_is_refused_whatever_its_socket_and_group() {
    let (network, place) = (Namespace::new().unwrap(), Place::new());
    let mut first = place.start("first", &network, &[]);
    is_served(&place.path("first.sock"));
    let settings = place.path("other.toml");
    std::fs::write(&settings, "[network]\ngroup = 9\n").unwrap();
    for more in [&[] as &[&str], &["--config", settings.to_str().unwrap()]] {
        let mut second = place.start("second", &network, more);
        assert_eq!(second.ended().code(), Some(1));
        let holder = format!(
            "another daemon serves this network namespace (process {} holds the abstract socket @workloadnetd)",
            first.id()
        );
        assert!(second.log().contains(&holder), "{}", second.log());
        assert!(!place.path("second.sock").exists());
    }
    // In a network of its own it may.
    let other = Namespace::new().unwrap();
    let _second = place.start("second", &other, &[]);
    is_served(&place.path("second.sock"));
    assert!(first.runs());
    is_served(&place.path("first.sock"));
}

#[test]
fn a_daemon_by_path_leaves_the_service_managers_socket_alone() {
    let place = Place::new();
    let path = place.path("managed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let activated = place.activate("managed", &Namespace::new().unwrap(), &listener);
    is_served(&path);
    // From another network, where only the path is shared.
    let mut by_path = place.start("managed", &Namespace::new().unwrap(), &[]);
    assert_eq!(by_path.ended().code(), Some(1));
    is_served(&path);
    drop(activated);
    let mut by_path = place.start("managed", &Namespace::new().unwrap(), &[]);
    assert_eq!(by_path.ended().code(), Some(1));
    assert!(listens(&path));
}

#[test]
fn a_daemon_that_replaces_another_one_waits_for_its_end_and_no_call_is_lost() {
    let (network, place) = (Namespace::new().unwrap(), Place::new());
    let path = place.path("managed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut first = place.activate("managed", &network, &listener);
    is_served(&path);
    let second = place.activate("second", &network, &listener);
    second.logs("waiting 40s at most for its end");
    assert!(!second.log().contains("listening"));
    is_served(&path);
    first.ask_to_stop();
    assert!(first.ended().success());
    is_served(&path);
    second.logs("listening");
}

#[test]
fn a_daemon_starts_although_another_user_has_the_locks_name() {
    let (network, place) = (Namespace::new().unwrap(), Place::new());
    let _theirs = taken_by(&network, NOBODY);
    let daemon = place.start("mine", &network, &[]);
    is_served(&place.path("mine.sock"));
    daemon.logs("is held by a user who may not");
}
