//! Waiting for a value with a limit: the only place where a test sleeps.

use std::time::{Duration, Instant};

/// What the product promises to have mended or noticed "within a second".
pub const A_SECOND: Duration = Duration::from_secs(1);
/// For what no promise is about: a test that waits this long hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds; panics with what was waited for, and what was seen last.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that waits between two looks at a value"
)]
pub fn eventually<T: std::fmt::Debug>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    let start = Instant::now();
    loop {
        let seen = look();
        if holds(&seen) {
            return seen;
        }
        assert!(
            start.elapsed() < limit,
            "not within {limit:?}: {what}; last seen: {seen:#?}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether something comes to hold within a limit.
#[expect(clippy::disallowed_methods, reason = "it waits between two looks at a value")]
pub fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Looks again and again for the whole of a time; panics where something does not hold, with what was seen.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "it waits between two looks at a value")]
pub fn throughout<T: std::fmt::Debug>(
    time: Duration,
    what: &str,
    mut look: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) {
    let start = Instant::now();
    while start.elapsed() < time {
        let seen = look();
        assert!(
            holds(&seen),
            "after {:?}, no longer: {what}; seen: {seen:#?}",
            start.elapsed()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
