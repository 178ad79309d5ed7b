//! A daemon under siege: one attachment that is there all the time, a caller that behaves, and the daemon's memory.

use crate::daemon::{Daemon, attach, detach};
use crate::frames::{WINDOW_UPDATE, frame};
use crate::sandbox::Sandbox;
use client::{Deadlines, Error};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// By when whoever behaves is served, whatever others do. Half a second is what an idle connection is left alone for; the rest is
/// for a debug build on a busy machine.
pub(crate) const SERVED: Duration = Duration::from_secs(30);
/// What a daemon may come to take, in KiB. Messages of 64 MiB may be in hand, and each is copied once when it has come; 4,096
/// calls and 1,024 connections take some KiB each; and there is what the allocator does not give back.
pub(crate) const MOST: u64 = 256 << 10;

/// Each of these tests wants the machine for itself.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The daemon, and what must not be lost.
pub(crate) struct Siege {
    pub(crate) daemon: Daemon,
    world: Vec<String>,
    held: Sandbox,
    guest: Sandbox,
    _alone: MutexGuard<'static, ()>,
}

impl Siege {
    pub(crate) fn new() -> Self {
        Self::of(Daemon::started)
    }

    pub(crate) fn of(start: impl FnOnce() -> Daemon) -> Self {
        let alone = alone();
        may_open(12_000);
        let daemon = start();
        let (held, guest) = (Sandbox::new(), Sandbox::new());
        daemon.caller().attach(attach("held", &held)).unwrap();
        Self {
            world: daemon.world(),
            daemon,
            held,
            guest,
            _alone: alone,
        }
    }

    /// Somebody comes, asks, attaches and detaches, and is served in time.
    #[track_caller]
    pub(crate) fn serves(&self) {
        let began = Instant::now();
        let caller = self.daemon.caller();
        // Its own deadline is not what is tried here.
        let patient = Deadlines {
            orders: SERVED,
            questions: SERVED,
        };
        let patient = caller.talk(async |client| client.clone().with_deadlines(patient));
        insist(began, || caller.talk(async |_| patient.status().await));
        insist(began, || {
            caller.talk(async |_| patient.attach(attach("guest", &self.guest)).await)
        });
        insist(began, || {
            caller.talk(async |_| patient.detach(detach("guest")).await)
        });
        let took = began.elapsed();
        eprintln!("served within {took:?}, {} MiB", high_water(&self.daemon) >> 10);
        assert!(took < SERVED, "somebody was served within {took:?} only");
    }

    /// The end of it: all is as it was, and the daemon never took more than it may.
    #[track_caller]
    pub(crate) fn is_withstood(&self) {
        self.is_withstood_with(1);
    }

    /// The same, with so many attachments.
    #[track_caller]
    pub(crate) fn is_withstood_with(&self, attachments: u64) {
        self.serves();
        let most = high_water(&self.daemon);
        assert!(most < MOST, "the daemon took {} MiB", most >> 10);
        assert_eq!(self.daemon.world(), self.world);
        self.daemon.expect_used(attachments);
        // Who asks again is told the same.
        self.daemon.caller().attach(attach("held", &self.held)).unwrap();
        assert_eq!(self.daemon.world(), self.world);
    }
}

/// Asks until it is answered, where the answer is to come again.
#[track_caller]
fn insist<T>(began: Instant, mut ask: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => {
                let may_come_again = match &error {
                    Error::Refused(refused) => refused.retry_after.is_some(),
                    Error::Unreachable { .. } | Error::Deadline(_) => true,
                    _ => false,
                };
                assert!(may_come_again && began.elapsed() < SERVED, "not served: {error}");
                pause(Duration::from_millis(10));
            }
        }
    }
}

/// The most that the daemon ever had in memory, in KiB (proc(5), VmHWM).
pub(crate) fn high_water(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Raises how many files this process, and what it starts, may open.
fn may_open(files: u64) {
    let have = getrlimit(Resource::Nofile);
    let most = have.maximum.unwrap_or(files).max(files);
    let raised = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Nofile, raised).expect("root may open many files");
}

#[expect(clippy::disallowed_methods, reason = "a peer that is slow on purpose")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// What became of those who did harm.
#[derive(Debug, Default)]
pub(crate) struct Told {
    over: AtomicBool,
    /// Bytes that the daemon took.
    pub(crate) sent: AtomicUsize,
    /// Connections that it ended.
    pub(crate) ended: AtomicUsize,
}

impl Told {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Ends them with this value, also where a test fails: their threads are waited for.
pub(crate) struct Stops<'a>(pub(crate) &'a Told);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Whether somebody reads what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Nothing,
    All,
}

/// Lets so many peers say what `says` makes of 0, 1, 2 and so on, until it is over; where that has ended, they stay. Whoever is
/// thrown out comes again after a moment.
pub(crate) fn flood<'scope>(
    scope: &'scope Scope<'scope, '_>,
    (socket, told): (&'scope Path, &'scope Told),
    peers: usize,
    reads: Reads,
    says: impl Fn(u32) -> Option<Vec<u8>> + Send + Copy + 'scope,
) {
    for _ in 0..peers {
        scope.spawn(move || {
            while !told.is_over() {
                let Ok(stream) = UnixStream::connect(socket) else {
                    pause(Duration::from_millis(10));
                    continue;
                };
                if speak(stream, told, reads, says).is_err() {
                    told.ended.fetch_add(1, Ordering::Relaxed);
                    pause(Duration::from_millis(200));
                }
            }
        });
    }
}

/// Speaks to the end. An error: the daemon has ended the connection.
fn speak(
    mut stream: UnixStream,
    told: &Told,
    reads: Reads,
    says: impl Fn(u32) -> Option<Vec<u8>>,
) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut heard = vec![0; 64 << 10];
    for n in 0.. {
        let said = says(n).unwrap_or_else(|| {
            // Only to see whether the connection is still there.
            pause(Duration::from_millis(50));
            frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())
        });
        let mut rest = &said[..];
        loop {
            if told.is_over() {
                return Ok(());
            }
            if reads == Reads::All {
                loop {
                    match stream.read(&mut heard) {
                        Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
            }
            if rest.is_empty() {
                break;
            }
            match stream.write(rest) {
                Ok(written) => {
                    told.sent.fetch_add(written, Ordering::Relaxed);
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => pause(Duration::from_millis(2)),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
