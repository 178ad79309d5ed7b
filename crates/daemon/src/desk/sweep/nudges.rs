//! What the sweeper is to look at, and when.

use crate::sync::{Condvar, Mutex, instant};
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Touches that come close together are handled together.
const SETTLE: Duration = Duration::from_millis(50);

/// What the sweeper is to look at.
#[derive(Default)]
pub(in crate::desk) struct Nudges {
    pending: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Default)]
pub(super) struct Pending {
    pub(super) links: BTreeSet<u32>,
    pub(super) ruleset: bool,
    pub(super) uplink: bool,
    pub(super) all: bool,
    pub(super) state_file: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.links.is_empty() && !(self.ruleset || self.uplink || self.all || self.state_file)
    }
}

impl Nudges {
    pub(in crate::desk) fn link_touched(&self, index: u32) {
        self.nudge(|pending| {
            pending.links.insert(index);
        });
    }

    pub(in crate::desk) fn ruleset_touched(&self) {
        self.nudge(|pending| pending.ruleset = true);
    }

    pub(in crate::desk) fn uplink_touched(&self) {
        self.nudge(|pending| pending.uplink = true);
    }

    pub(in crate::desk) fn all_touched(&self) {
        self.nudge(|pending| pending.all = true);
    }

    /// Told with each attach and detach: who sweeps is woken once for many.
    pub(in crate::desk) fn state_file_is_old(&self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut pending.state_file, true) {
            self.wake.notify_one();
        }
    }

    fn nudge(&self, mark: impl FnOnce(&mut Pending)) {
        mark(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    /// What was touched, once it has settled, or nothing at a moment.
    pub(super) fn wait(&self, until: Instant) -> Pending {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(instant());
        let (pending, timeout) = self
            .wake
            .wait_timeout_while(pending, left, |pending| pending.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Pending::default();
        }
        let (mut pending, _) = self
            .wake
            .wait_timeout_while(pending, SETTLE, |_| true)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pending)
    }
}
