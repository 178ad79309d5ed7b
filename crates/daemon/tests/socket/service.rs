//! What the service manager hears of a daemon.

use crate::process::{Daemon, PATIENCE, Place};
use stage::Namespace;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn of(place: &Place, watchdog: Duration) -> (Self, Daemon) {
        let path = place.path("notify");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let network = Namespace::new().unwrap();
        let daemon = place.start_notifying("daemon", &network, &path, watchdog);
        let heard = Vec::new();
        (Self { socket, heard }, daemon)
    }

    /// Listens until a line is heard.
    fn hears(&mut self, line: &str) {
        let from = self.heard.len();
        while !self.heard[from..].iter().any(|heard| heard == line) {
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer).unwrap();
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    /// What was said until the daemon had ended.
    fn all(mut self, mut daemon: Daemon) -> Vec<String> {
        assert!(daemon.ended().success());
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            self.heard.extend(text.lines().map(str::to_owned));
        }
        self.heard
    }
}

#[test]
fn the_watchdog_is_fed_for_as_long_as_the_desk_answers() {
    let place = Place::new();
    let (mut manager, daemon) = Manager::of(&place, Duration::from_millis(300));
    manager.hears("READY=1");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    daemon.ask_to_stop();
    manager.hears("STOPPING=1");
    manager.all(daemon);
}

#[test]
fn a_daemon_that_is_stopped_before_it_is_ready_never_says_that_it_is() {
    let place = Place::new();
    for _ in 0..5 {
        let (mut manager, daemon) = Manager::of(&place, PATIENCE);
        manager.hears("STATUS=recovering: the kernel is being read");
        daemon.ask_to_stop();
        let heard = manager.all(daemon);
        let stopping = heard.iter().position(|line| line == "STOPPING=1").unwrap();
        assert!(!heard[stopping..].contains(&"READY=1".to_owned()), "{heard:?}");
    }
}
