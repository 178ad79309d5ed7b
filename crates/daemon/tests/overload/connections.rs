//! Ten thousand connections that say nothing, the preface and no more, or one byte a second.

use crate::frames::{HEADERS, PREFACE, call, frame, hello, nth};
use crate::siege::{Siege, Stops, Told, pause};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use stage::wait::{PATIENCE, eventually};
use std::collections::VecDeque;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PEERS: usize = 20;
/// Of each of them.
const CONNECTIONS: usize = 500;

/// `None`: the listener's queue is full. Who waited there would wait for ever where a test fails.
fn connected(socket: &Path) -> Option<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let address = SocketAddrUnix::new(socket).unwrap();
    connect(&stream, &address).ok()?;
    Some(UnixStream::from(stream))
}

/// Says what one kind of connection says at its begin.
fn begin(kind: usize, stream: &mut UnixStream) {
    // Where it has been ended already, the next one comes soon.
    let _ = match kind % 4 {
        0 => Ok(()),
        1 => stream.write_all(PREFACE),
        2 => stream.write_all(&hello(&[])),
        _ => stream.write_all(&PREFACE[..1]),
    };
}

/// Says the next byte on each that is slow.
fn go_on(n: usize, open: &mut VecDeque<UnixStream>) {
    let mut said = hello(&[]);
    said.extend(frame(
        HEADERS,
        0,
        nth(0),
        &call("/workloadnet.v1.Inspection/List"),
    ));
    for stream in open.iter_mut().skip(3).step_by(4) {
        let _ = stream.write_all(&said[n % said.len()..][..1]);
    }
}

#[test]
fn ten_thousand_connections_that_say_nothing_or_little_keep_nobody_out() {
    let siege = Siege::new();
    let socket = siege.daemon.socket();
    let (told, made) = (Told::default(), AtomicUsize::new(0));
    let full = Mutex::new(0);
    thread::scope(|scope| {
        let _stops = Stops(&told);
        for _ in 0..PEERS {
            scope.spawn(|| {
                let mut open = VecDeque::with_capacity(CONNECTIONS);
                let (mut second, mut was_full) = (0, false);
                let mut last = Instant::now();
                while !told.is_over() {
                    if open.len() == CONNECTIONS {
                        if !was_full {
                            *full.lock().unwrap() += 1;
                            was_full = true;
                        }
                        // In the order in which they came, so that each kind goes.
                        open.pop_front();
                    }
                    let Some(mut stream) = connected(&socket) else {
                        pause(Duration::from_millis(1));
                        continue;
                    };
                    let n = made.fetch_add(1, Ordering::Relaxed);
                    begin(n, &mut stream);
                    open.push_back(stream);
                    if last.elapsed() > Duration::from_secs(1) {
                        go_on(second + 1, &mut open);
                        second += 1;
                        last = Instant::now();
                    }
                }
            });
        }
        siege.serves();
        eventually(
            PATIENCE,
            "ten thousand connections are open",
            || *full.lock().unwrap(),
            |&full| full == PEERS,
        );
        eprintln!("full: {}", made.load(Ordering::Relaxed));
        for _ in 0..2 {
            siege.serves();
        }
    });
    eprintln!("{made:?}");
    siege.is_withstood();
}
