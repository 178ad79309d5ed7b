//! Carries out deletions that were left while the daemon was down: at its start before anybody is served, once more when it
//! serves detaches and nothing else, for those that came between, and in each full round, for those that failed.

use super::order::Detached;
use super::{Desk, Phase, now, turns};
use crate::queue;
use crate::sync::mpsc;
use model::datapath::Datapath;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anybody waits for them. What is not done by then is in the queue still.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

impl<D: Datapath> Desk<D> {
    /// Whether all of them had succeeded before a moment.
    pub(super) fn carry_out_deletions(self: &Arc<Self>, end: Instant) -> bool {
        let Some(folder) = &self.settings.queue else {
            return true;
        };
        let queue::Looked {
            left: deletions,
            is_all,
        } = queue::look(folder, now());
        if deletions.is_empty() {
            return is_all;
        }
        tracing::info!(
            deletions = deletions.len(),
            "deletions that were left are carried out"
        );
        let (sender, outcomes) = mpsc::channel();
        for (n, left) in deletions.iter().enumerate() {
            for order in &left.orders {
                let sender = sender.clone();
                let done = Box::new(move |outcome| {
                    // Nobody waits any longer than the limit.
                    let _ = sender.send((n, outcome));
                });
                let state = self.state();
                if state.phase == Phase::Stopping {
                    return true;
                }
                self.admit(state, turns::Job::Detach(order.clone(), Instant::now(), done));
            }
        }
        // Of each, how many of its orders have not succeeded.
        let mut open: Vec<usize> = deletions.iter().map(|left| left.orders.len()).collect();
        let mut failed = deletions.len();
        for _ in 0..open.iter().sum() {
            let Ok((n, outcome)) = outcomes.recv_timeout(end.saturating_duration_since(Instant::now()))
            else {
                tracing::warn!("deletions that were left still run");
                break;
            };
            let (left, open) = (&deletions[n], &mut open[n]);
            let key = &left.key;
            match outcome {
                Ok(outcome) => {
                    match outcome {
                        Detached::Done => tracing::info!(%key, "detached, as was left to do"),
                        Detached::WasAbsent => tracing::debug!(%key, "nothing to detach"),
                        Detached::IsNewer => {
                            tracing::debug!(%key, "not detached: what is attached is another sandbox");
                        }
                    }
                    *open -= 1;
                    failed -= usize::from(*open == 0 && queue::settle(folder, left));
                }
                Err(error) => tracing::warn!(%key, %error, "not detached, though it was left to do"),
            }
        }
        failed == 0 && is_all
    }
}
