//! Locks, waits, threads and time of the desk: std's in the product. With the feature `schedules` they are a checker's, which
//! runs everything in orders of its own choice (crates/daemon/tests/desk/schedules.rs), and in which nobody is woken who was not called.

use std::sync::PoisonError;
#[cfg(not(feature = "schedules"))]
pub use std::sync::{Condvar, Mutex, MutexGuard, mpsc};
#[cfg(not(feature = "schedules"))]
pub use std::thread::Builder;

#[cfg(feature = "schedules")]
pub use checked::{Builder, Condvar, Mutex, MutexGuard, instant, mpsc};

/// Where a checker tries every order of what threads do, few of them show as much.
pub const fn few(checked: usize, usual: usize) -> usize {
    if cfg!(feature = "schedules") {
        checked
    } else {
        usual
    }
}

/// What is behind a lock, also where a thread has ended with it in hand.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time by which the desk waits.
#[cfg(not(feature = "schedules"))]
pub fn instant() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(feature = "schedules")]
mod checked {
    pub use shuttle::sync::{Mutex, MutexGuard, mpsc};
    use std::cell::Cell;
    use std::io;
    use std::sync::LockResult;
    use std::time::{Duration, Instant};

    /// A wait for this long at most is over at once, and a longer one is not until somebody is called: a wake-up that was lost
    /// is not made up for by time.
    const SHORT: Duration = Duration::from_secs(2);

    thread_local! {
        // A checker runs everything on one thread of the system.
        static CLOCK: Cell<(Option<Instant>, Duration)> = const { Cell::new((None, Duration::ZERO)) };
    }

    /// Goes on only by waits that were over at once.
    pub fn instant() -> Instant {
        CLOCK.with(|clock| {
            let (start, passed) = clock.get();
            let start = start.unwrap_or_else(Instant::now);
            clock.set((Some(start), passed));
            start + passed
        })
    }

    fn pass(time: Duration) {
        CLOCK.with(|clock| {
            let (start, passed) = clock.get();
            clock.set((start, passed + time));
        });
    }

    /// As std's, without a handle: what is started lives as long as the process, and the checker waits for the end of threads,
    /// but not of such tasks.
    #[derive(Debug, Default)]
    pub struct Builder;

    impl Builder {
        /// As std's.
        pub fn new() -> Self {
            Self
        }

        /// As std's; nobody sees it.
        #[must_use]
        pub fn name(self, _: String) -> Self {
            self
        }

        /// As std's.
        pub fn spawn(self, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
            drop(shuttle::future::spawn(async move { run() }));
            Ok(())
        }
    }

    /// As std's.
    #[derive(Debug, Default)]
    pub struct Condvar(shuttle::sync::Condvar);

    /// As std's.
    #[derive(Debug, Clone, Copy)]
    pub struct WaitTimeoutResult(bool);

    impl WaitTimeoutResult {
        /// As std's.
        pub fn timed_out(&self) -> bool {
            self.0
        }
    }

    type Timed<'a, T> = LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>;

    fn held<T>(guard: LockResult<T>) -> T {
        guard.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    impl Condvar {
        /// As std's.
        pub fn new() -> Self {
            Self::default()
        }

        /// As std's.
        pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            self.0.wait(guard)
        }

        /// As std's.
        pub fn wait_while<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            condition: impl FnMut(&mut T) -> bool,
        ) -> LockResult<MutexGuard<'a, T>> {
            self.0.wait_while(guard, condition)
        }

        /// As std's.
        pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, time: Duration) -> Timed<'a, T> {
            if time <= SHORT {
                pass(time);
                return Ok((guard, WaitTimeoutResult(true)));
            }
            Ok((held(self.0.wait(guard)), WaitTimeoutResult(false)))
        }

        /// As std's.
        pub fn wait_timeout_while<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            time: Duration,
            mut condition: impl FnMut(&mut T) -> bool,
        ) -> Timed<'a, T> {
            while condition(&mut *guard) {
                let (again, waited) = held(self.wait_timeout(guard, time));
                if waited.timed_out() {
                    return Ok((again, waited));
                }
                guard = again;
            }
            Ok((guard, WaitTimeoutResult(false)))
        }

        /// As std's.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        /// As std's.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
