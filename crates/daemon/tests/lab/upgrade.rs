//! An upgrade under load: the service manager holds the socket (LISTEN_FDS), one daemon is stopped and the next is started,
//! and no caller gets anything but an answer or the advice to ask again.

use crate::daemon::{Build, Caller, Daemon, attach, detach};
use crate::sandbox::Sandbox;
use client::Error;
use queue::{Deletion, Queue};
use stage::wait::{PATIENCE, eventually};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

const CALLERS: usize = 4;
const UPGRADES: usize = 3;

/// Starts the daemon as systemd does (sd_listen_fds(3)): the socket is descriptor 3, and LISTEN_PID is the id of the process
/// itself, which a shell knows before it becomes the daemon.
fn start_activated(daemon: &Daemon, listener: &UnixListener) -> Child {
    let product = daemon.command(Build::Usual);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null")
        .arg(product.get_program())
        .args(product.get_args())
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())))
        .stdout(Stdio::null())
        .stderr(daemon.log_file());
    daemon.spawn(command)
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks again for as long as the answer is the advice to do so.
fn insist<T>(mut ask: impl FnMut() -> Result<T, Error>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(Error::Refused(refused)) if refused.retry_after.is_some() && start.elapsed() < PATIENCE => {
                thread::yield_now();
            }
            Err(other) => panic!("a request was lost: {other}"),
        }
    }
}

#[test]
fn an_upgrade_under_load_loses_no_request() {
    let mut daemon = Daemon::new();
    std::fs::create_dir_all(daemon.socket().parent().unwrap()).unwrap();
    let listener = UnixListener::bind(daemon.socket()).unwrap();
    let child = start_activated(&daemon, &listener);
    daemon.adopt(child);
    daemon.wait_until_recovered();
    let empty = daemon.world();

    let over = AtomicBool::new(false);
    let socket = daemon.socket();
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (over, socket, answered) = (&over, &socket, &answered);
        // Where the test fails the callers end, too.
        let _at_the_end = Over(over);
        for caller in 0..CALLERS {
            scope.spawn(move || {
                let (client, id) = (Caller::new(socket), format!("w{caller}"));
                let namespace = Sandbox::new();
                while !over.load(Ordering::Relaxed) {
                    insist(|| client.attach(attach(&id, &namespace)));
                    answered.fetch_add(1, Ordering::Relaxed);
                    insist(|| client.detach(detach(&id)));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let look = || answered.load(Ordering::Relaxed);
        for _ in 0..UPGRADES {
            let before = look();
            eventually(PATIENCE, "the callers are at work", look, |&now| {
                now > before + 2 * CALLERS
            });
            daemon.stop();
            let child = start_activated(&daemon, &listener);
            daemon.adopt(child);
            daemon.wait_until_recovered();
        }
    });
    assert_eq!(daemon.world(), empty);
    daemon.expect_used(0);
}

/// Clients leave deletions beside the socket that they know, and the settings do not say where the service manager has it.
#[test]
fn deletions_are_looked_for_beside_the_socket_that_was_handed_over() {
    let mut daemon = Daemon::started();
    let namespace = Sandbox::new();
    daemon.caller().attach(attach("web", &namespace)).unwrap();
    daemon.stop();
    let folder = daemon.folder().join("elsewhere");
    std::fs::create_dir_all(&folder).unwrap();
    let socket = folder.join("socket");
    let left = Deletion::new("", "web", "eth0", "");
    Queue::beside(&socket).put(&left).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let child = start_activated(&daemon, &listener);
    daemon.adopt(child);
    let caller = Caller::new(&socket);
    eventually(PATIENCE, "the daemon is ready", || caller.status(), Result::is_ok).unwrap();
    assert_eq!(caller.list(), []);
    assert_eq!(Queue::beside(&socket).find(&left).unwrap(), None);
}
