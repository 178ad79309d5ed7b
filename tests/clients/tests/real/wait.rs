//! Waiting for a value with a limit: the only place where a test sleeps.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// For what no promise is about: a test that waits this long hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds; panics with what was waited for, and what was seen last.
#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that waits between two looks at a value"
)]
pub(crate) fn eventually<T: Debug>(
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
        std::thread::sleep(Duration::from_millis(5));
    }
}
