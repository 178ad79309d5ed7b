//! Detaches that wait for a thread, and when they are carried out: many for the price of one, and behind the attaches.

use super::Done;
use super::idle::{Bell, Idle, wait_until};
use super::order::{DetachOrder, Detached};
use crate::sync::{Condvar, Mutex, MutexGuard, few, instant, locked};
use model::key::Key;
use model::record::NamespaceId;
use std::collections::{HashSet, VecDeque};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Deletions that are taken together: more would hold RTNL for too long.
const TOGETHER: usize = few(2, 16);
/// How long a detach waits for attaches at most; where a checker tries every order, longer than it waits for anything: somebody
/// has to be called.
const PATIENCE: Duration = Duration::from_millis(few(3_600_000, 20) as u64);

/// A detach whose namespace, where it names one, was looked at.
pub(super) struct Deleting {
    pub(super) order: DetachOrder,
    /// What the path is today; `None` where it is no namespace any more, or none was named.
    pub(super) namespace: Option<NamespaceId>,
    /// When it came.
    pub(super) came: Instant,
    pub(super) done: Done<Detached>,
}

/// What is deleted next, and when.
///
/// RTNL is one lock. Whoever waits for it to delete a link while others are deleted would only be the next to hold up
/// everybody; taken together, the links cost about half as much. So one lot of them at a time is deleted, and those that come
/// meanwhile are the next. Nobody waits for a link's end as for its beginning: attaches go first, but not for ever.
#[derive(Default)]
pub(super) struct Deletions {
    state: Mutex<Waiting>,
    /// What the thread that has it in hand waits for may have come to pass.
    go: Condvar,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Queued>,
    /// A thread waits until what is in the queue may go.
    is_in_hand: bool,
    idle: Idle,
    somebody_attaches: bool,
    /// The lots that were taken so far.
    lots: u64,
    /// Those of the last one that have not ended yet: they have, or want, RTNL. What comes after goes on without it.
    under_way: HashSet<Key>,
}

struct Queued {
    since: Instant,
    /// Somebody waits for it.
    is_urgent: bool,
    job: Deleting,
}

/// What is deleted together.
pub(super) struct Lot {
    pub(super) number: u64,
    pub(super) jobs: Vec<Deleting>,
}

impl Waiting {
    /// How long the next ones have to wait if nothing happens; zero: they go. `None`: until those before have ended.
    fn left(&self) -> Option<Duration> {
        if !self.under_way.is_empty() {
            return None;
        }
        let is_urgent = self.queue.iter().any(|queued| queued.is_urgent);
        let waits = self.somebody_attaches && !is_urgent && self.queue.len() < TOGETHER;
        let since = self.queue.front().filter(|_| waits).map(|queued| queued.since);
        Some(since.map_or(Duration::ZERO, |since| {
            (since + PATIENCE).saturating_duration_since(instant())
        }))
    }

    /// Whether the thread that has them in hand waits in vain.
    fn may_go(&self) -> bool {
        self.is_in_hand && self.left() == Some(Duration::ZERO)
    }
}

impl Deletions {
    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().queue.len()
    }

    pub(super) fn submit(&self, job: Deleting, is_urgent: bool) {
        let mut state = self.state();
        state.queue.push_back(Queued {
            since: instant(),
            is_urgent,
            job,
        });
        match state.is_in_hand {
            true => self.go_if(state.may_go()),
            false => state.idle.call(),
        }
    }

    /// Somebody attaches from now on, or nobody does any more.
    pub(super) fn let_pass(&self, somebody_attaches: bool) {
        let mut state = self.state();
        state.somebody_attaches = somebody_attaches;
        self.go_if(state.may_go());
    }

    /// Somebody waits for a key's turn, which may be a detach's.
    pub(super) fn hurry(&self, key: &Key) {
        let mut state = self.state();
        let waits = state.queue.iter_mut().find(|queued| queued.job.order.key == *key);
        if let Some(queued) = waits {
            queued.is_urgent = true;
            self.go_if(state.may_go());
        }
    }

    /// One of those that were taken has ended, or was none. Said again it means nothing.
    pub(super) fn ended(&self, key: &Key) {
        let mut state = self.state();
        let was_last = state.under_way.remove(key) && state.under_way.is_empty();
        // It has waited without knowing for how long.
        self.go_if(was_last && state.is_in_hand);
    }

    /// Whatever was not announced of a lot has ended, too.
    pub(super) fn is_over(&self, lot: u64) {
        let mut state = self.state();
        if state.lots == lot && !state.under_way.is_empty() {
            state.under_way.clear();
            self.go_if(state.is_in_hand);
        }
    }

    fn go_if(&self, may_go: bool) {
        if may_go {
            self.go.notify_one();
        }
    }

    /// Waits for the next ones. They are under way until they have [`Self::ended`].
    pub(super) fn next(&self, bell: &Bell) -> Lot {
        let is_there = |state: &Waiting| !state.is_in_hand && !state.queue.is_empty();
        let mut state = wait_until(self.state(), bell, |state| &mut state.idle, is_there);
        state.is_in_hand = true;
        loop {
            state = match state.left() {
                None => self.go.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.go.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let together = state.queue.len().min(TOGETHER);
        let jobs: Vec<_> = state.queue.drain(..together).map(|queued| queued.job).collect();
        state.under_way = jobs.iter().map(|job| job.order.key.clone()).collect();
        state.lots += 1;
        state.is_in_hand = false;
        if !state.queue.is_empty() {
            state.idle.call();
        }
        let number = state.lots;
        Lot { number, jobs }
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        locked(&self.state)
    }
}
