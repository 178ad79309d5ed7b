//! Detaches that wait for a thread, and when they are carried out: many for the price of one, and behind the attaches.

use super::Done;
use super::idle::{Bell, Idle, wait_until};
use super::order::{DetachOrder, Detached};
use super::turns::{few, locked};
use crate::sync::{Condvar, Mutex, MutexGuard, instant};
use model::record::NamespaceId;
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Deletions that are taken together: more would hold RTNL for too long.
const TOGETHER: usize = few(2, 16);
/// How long a detach waits for attaches at most.
const PATIENCE: Duration = Duration::from_millis(20);

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
    /// With the time since when.
    queue: VecDeque<(Instant, Deleting)>,
    /// A thread waits until what is in the queue may go.
    is_in_hand: bool,
    idle: Idle,
    /// Somebody attaches.
    is_written: bool,
    /// Those that were taken and not answered yet: they have, or want, RTNL. What comes after the answer goes on without it.
    unanswered: usize,
}

impl Waiting {
    /// How long the next ones have to wait if nothing happens; zero: they go. `None`: until those before are answered.
    fn left(&self) -> Option<Duration> {
        if self.unanswered > 0 {
            return None;
        }
        let waits = self.is_written && self.queue.len() < TOGETHER;
        let since = self.queue.front().filter(|_| waits).map(|(since, _)| *since);
        Some(since.map_or(Duration::ZERO, |since| {
            (since + PATIENCE).saturating_duration_since(instant())
        }))
    }
}

impl Deletions {
    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().queue.len()
    }

    pub(super) fn submit(&self, job: Deleting) {
        let mut state = self.state();
        state.queue.push_back((instant(), job));
        match state.is_in_hand {
            true => self.go.notify_one(),
            false => state.idle.call(),
        }
    }

    /// Somebody attaches from now on, or nobody does any more.
    pub(super) fn let_pass(&self, is_written: bool) {
        let mut state = self.state();
        state.is_written = is_written;
        let may_go = !is_written && state.is_in_hand;
        drop(state);
        if may_go {
            self.go.notify_one();
        }
    }

    /// One of those that were taken has been answered, or is about to be.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        state.unanswered -= 1;
        let may_go = state.unanswered == 0 && state.is_in_hand;
        drop(state);
        if may_go {
            self.go.notify_one();
        }
    }

    /// Waits for the next ones, which are then to be answered one by one.
    pub(super) fn next(&self, bell: &Bell) -> Vec<Deleting> {
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
        let jobs: Vec<_> = state.queue.drain(..together).map(|(_, job)| job).collect();
        state.unanswered = jobs.len();
        state.is_in_hand = false;
        if !state.queue.is_empty() {
            state.idle.call();
        }
        jobs
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        locked(&self.state)
    }
}
