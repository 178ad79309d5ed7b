//! Questions that cost the daemon much: looks at the kernel, and long lists, as many as anybody can ask.

use crate::daemon::{Build, Daemon};
use crate::frames::{STREAMS, asked, hello, nth};
use crate::siege::{Reads, SERVED, Siege, Stops, Told, flood, pause};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

const CHECK: &str = "/workloadnet.v1.Inspection/Check";
/// What the service manager waits for a sign of life.
const WATCHDOG: Duration = Duration::from_secs(10);

#[test]
fn as_many_looks_at_the_kernel_as_can_be_asked_for_keep_neither_callers_nor_the_service_manager_waiting() {
    let mut manager = None;
    let mut siege = Siege::of(|| {
        let mut daemon = Daemon::new();
        let path = daemon.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        manager = Some(socket);
        let mut command = daemon.command(Build::Usual);
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let child = daemon.spawn(command);
        daemon.adopt(child);
        daemon.wait_until_recovered();
        daemon
    });
    let manager = manager.unwrap();
    let (socket, told) = (siege.daemon.socket(), Told::default());
    let says = |n| match n {
        0 => Some(hello(&[])),
        n if n < 4 * STREAMS => Some(asked(nth(n), CHECK, &[])),
        _ => None,
    };
    let mut longest = Duration::ZERO;
    thread::scope(|scope| {
        let _stops = Stops(&told);
        flood(scope, (&socket, &told), 4, Reads::All, says);
        pause(Duration::from_secs(1));
        for _ in 0..3 {
            siege.serves();
        }
        let began = Instant::now();
        while began.elapsed() < WATCHDOG {
            let waits = Instant::now();
            let mut buffer = [0; 4096];
            let length = match manager.recv(&mut buffer) {
                // Somebody has stopped this process for a moment.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.expect("a sign of life comes in time"),
            };
            if buffer[..length].starts_with(b"WATCHDOG=1") {
                longest = longest.max(waits.elapsed());
            }
        }
    });
    eprintln!("{told:?}, {longest:?} without a sign of life");
    siege.is_withstood();
    let began = Instant::now();
    siege.daemon.stop();
    assert!(began.elapsed() < SERVED);
}
