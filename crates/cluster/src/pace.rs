//! How soon after a failure something is tried again: later each time, and each node at another moment.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);

/// The pace of one thing that is tried.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Pace {
    /// It has worked.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait, from half of it to one and a half: twice as long the next time.
    pub(crate) fn step(&mut self) -> Duration {
        let wait = self.next;
        self.next = (2 * wait).min(LAST);
        wait / 2 + wait * below(1000) / 1000
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }
}

/// A number below a limit, random enough to keep nodes apart.
pub(crate) fn below(limit: u32) -> u32 {
    let random = RandomState::new().hash_one(0_u8) % u64::from(limit);
    u32::try_from(random).expect("a number below one of 32 bits has 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_longer_up_to_a_limit_and_begins_anew() {
        let mut pace = Pace::default();
        for expected in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let wait = pace.step().as_millis();
            assert!(
                (expected / 2..=expected * 3 / 2).contains(&wait),
                "{wait} of {expected}"
            );
        }
        pace.reset();
        assert!(pace.step() <= FIRST * 2);
    }
}
