//! Threads outside of Landlock, which opens `/proc/PID/ns/net` of nobody but those inside (it takes a look there for a
//! ptrace(2)). They open files by name only (`O_PATH`), and may do nothing else to one: what the others do with such a
//! descriptor is theirs, and confined.
//!
//! One of them always waits, so that a path that hangs holds nobody up: whoever takes the last one's place starts another.
//!
//! They take no signals: the kernel gives one to any thread that takes it, and a handler, which writes to a socket, could not do
//! its work here. A SIGTERM would be lost.

use super::calls;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Opens by name what nobody inside may look up.
#[derive(Debug)]
pub(crate) struct Outside(Arc<Window>);

/// Where those inside ask those outside.
#[derive(Debug, Default)]
struct Window {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: VecDeque<Asked>,
    /// Threads that wait, or are about to.
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
struct Asked {
    path: String,
    answer: SyncSender<Result<OwnedFd, Errno>>,
}

/// Opens a name, and nothing else: a FIFO would block, a device might act on being opened.
pub(crate) fn by_name(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

impl Outside {
    /// Starts the first thread.
    pub(super) fn start() -> io::Result<Self> {
        let outside = Self(Arc::default());
        start(&outside.0, || {
            take_no_signals();
            calls::confine_to_names();
        })?;
        Ok(outside)
    }

    /// Opens a path by name. Blocks for as long as that takes.
    pub(crate) fn open(&self, path: &str) -> Result<OwnedFd, Errno> {
        let (answer, answered) = sync_channel(1);
        let path = path.to_owned();
        self.0.state().asked.push_back(Asked { path, answer });
        self.0.wake.notify_one();
        // Without an answer where the thread ended, which only a panic does.
        answered.recv().unwrap_or(Err(Errno::ACCESS))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.wake.notify_all();
    }
}

impl Window {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked for next, and whether somebody else waits for what comes after it.
    fn next(&self) -> Option<(Asked, bool)> {
        let nothing = |state: &mut State| state.asked.is_empty() && !state.closed;
        let waiting = self.wake.wait_while(self.state(), nothing);
        let mut state = waiting.unwrap_or_else(PoisonError::into_inner);
        let asked = state.asked.pop_front()?;
        state.idle -= 1;
        Some((asked, state.idle > 0))
    }
}

/// Keeps signals from the calling thread, and from all that it starts.
#[expect(unsafe_code, reason = "neither std nor rustix sets a thread's signal mask")]
fn take_no_signals() {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: sigfillset(3) initialises the set, which pthread_sigmask(3) reads; both fail only for bad arguments.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
    }
}

/// Starts a thread. It inherits what the one that starts it has given up.
fn start(window: &Arc<Window>, confine: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let outside = Arc::clone(window);
    window.state().idle += 1;
    let started = std::thread::Builder::new()
        .name("outside".to_owned())
        .spawn(move || {
            confine();
            serve(&outside);
        });
    if started.is_err() {
        window.state().idle -= 1;
    }
    started.map(drop)
}

fn serve(window: &Arc<Window>) {
    while let Some((asked, somebody_waits)) = window.next() {
        if !somebody_waits && let Err(error) = start(window, || ()) {
            tracing::warn!(%error, "a path that hangs will hold others up");
        }
        // Whoever asked may have given up.
        let _ = asked.answer.send(by_name(&asked.path));
        window.state().idle += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn names_are_opened_side_by_side_and_what_is_not_there_is_said() {
        let outside = Outside::start().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let own = outside.open("/proc/self/ns/net").unwrap();
                    assert!(rustix::fs::fstat(own).is_ok());
                    assert_eq!(outside.open("/proc/self/ns/none").unwrap_err(), Errno::NOENT);
                });
            }
        });
        let state = outside.0.state();
        assert!((1..=21).contains(&state.idle), "{state:?}");
    }

    /// Of each thread outside of a process, the signals that it does not take (proc(5)).
    fn blocked() -> Vec<u64> {
        let mut masks = Vec::new();
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap().path();
            // Threads of other tests come and go.
            let Ok(status) = std::fs::read_to_string(task.join("status")) else {
                continue;
            };
            let value = |key: &str| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix(key))
                    .unwrap()
                    .trim()
            };
            if value("Name:") == "outside" {
                masks.push(u64::from_str_radix(value("SigBlk:"), 16).unwrap());
            }
        }
        masks
    }

    #[test]
    fn those_outside_take_no_signal_that_others_could_act_on() {
        let outside = Outside::start().unwrap();
        // The second thread is started by the first.
        for _ in 0..4 {
            outside.open("/proc/self/ns/net").unwrap();
        }
        let asked = 1 << (libc::SIGTERM - 1) | 1 << (libc::SIGINT - 1);
        let began = Instant::now();
        loop {
            let masks = blocked();
            if !masks.is_empty() && masks.iter().all(|mask| mask & asked == asked) {
                break;
            }
            // Those of another test may have just begun.
            assert!(began.elapsed() < Duration::from_secs(10), "{masks:x?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn those_outside_open_names_and_nothing_else() {
        let tried = std::thread::spawn(|| {
            assert!(calls::confine_to_names());
            [
                std::fs::read("/etc/hostname").map(drop),
                std::fs::write("/tmp/workloadnet-trial", ""),
                std::fs::remove_file("/tmp/workloadnet-trial"),
                std::fs::read_dir("/etc").map(drop),
                std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
                crate::netns::create().map(drop),
                by_name("/etc").map(drop).map_err(io::Error::from),
            ]
        });
        let errors = tried
            .join()
            .unwrap()
            .map(|tried| tried.err().and_then(|error| error.raw_os_error()));
        let no = Some(libc::ENOSYS);
        assert_eq!(errors, [no, no, no, no, no, no, None]);
    }
}
