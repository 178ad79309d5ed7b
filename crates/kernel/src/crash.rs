//! Crash points: with the feature `crash-points`, the process kills itself after the n-th kernel step, n being the
//! environment's `WORKLOADNET_CRASH_AFTER`. Without the feature there is nothing here.

#[cfg(feature = "crash-points")]
static LIMIT: std::sync::LazyLock<Option<u64>> =
    std::sync::LazyLock::new(|| std::env::var("WORKLOADNET_CRASH_AFTER").ok()?.parse().ok());

/// Whether each message is a step of its own, and so has to be sent alone.
#[cfg(feature = "crash-points")]
pub(crate) fn is_stepwise() -> bool {
    LIMIT.is_some()
}

/// As above.
#[cfg(not(feature = "crash-points"))]
pub(crate) fn is_stepwise() -> bool {
    false
}

/// One kernel step was done.
#[cfg(feature = "crash-points")]
pub(crate) fn step() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static DONE: AtomicU64 = AtomicU64::new(0);
    if let Some(limit) = *LIMIT
        && DONE.fetch_add(1, Ordering::SeqCst) + 1 == limit
    {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL)
            .expect("the own process can be killed");
    }
}

/// One kernel step was done.
#[cfg(not(feature = "crash-points"))]
pub(crate) fn step() {}
