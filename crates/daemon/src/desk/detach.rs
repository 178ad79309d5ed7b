//! Detaches, on a deleter's thread: those that wait together are taken together.

use super::deletions::Deleting;
use super::order::{Attachment, Detached, Refusal};
use super::ports::forwards_of;
use super::{Desk, Done};
use model::datapath::{Datapath, Target};
use model::key::Key;
use model::record::PathDigest;
use model::survey::Standing;
use std::sync::Arc;
use std::time::Instant;

/// What a detach comes to.
enum Decision {
    /// There is nothing to take off.
    Settled(Detached),
    /// This link is to go.
    Go(Target),
    /// A link of ours that nobody knew of is to go.
    Stray(Target),
}

impl<D: Datapath> Desk<D> {
    pub(super) fn take_off(self: &Arc<Self>, jobs: Vec<Deleting>) {
        // With the links go the ways to answer for those that nobody announces: nobody knew of them.
        let (mut going, mut strays) = (Vec::new(), Vec::new());
        for job in jobs {
            let key = job.order.key.clone();
            self.counters.detach_waits.took(job.came.elapsed());
            match self.decide(&job) {
                Err(refusal) => self.answer(&key, job.done, Err(refusal)),
                Ok(Decision::Settled(outcome)) => self.answer(&key, job.done, Ok(outcome)),
                Ok(Decision::Stray(target)) => {
                    // The others of its kind are not to wait until it is acknowledged.
                    self.lanes.deletions.ended(&key);
                    strays.push((target, key, job.done));
                }
                Ok(Decision::Go(target)) => {
                    let mut state = self.state();
                    if state.by_index.contains_key(&target.index) {
                        if let Some(attachment) = state.attachments.get_mut(&key) {
                            attachment.detaching = true;
                        }
                        state.leaving.insert(target.index, (Instant::now(), job.done));
                        going.push(target);
                    } else {
                        // It ended between the look and now.
                        drop(state);
                        self.answer(&key, job.done, Ok(Detached::Done));
                    }
                }
            }
        }
        let targets: Vec<Target> = going
            .iter()
            .chain(strays.iter().map(|(target, ..)| target))
            .cloned()
            .collect();
        if targets.is_empty() {
            return;
        }
        // The answers go out as the kernel announces the links' ends, on the watching thread; what was not announced by the
        // time of the acknowledgement is answered here.
        let mut outcomes = self.datapath.unwire(&targets).into_iter();
        for target in going {
            match outcomes.next().unwrap_or(Ok(())) {
                Ok(()) if self.state().leaving.contains_key(&target.index) => {
                    self.ended(&target.link, target.index);
                }
                Ok(()) => {}
                Err(fault) => {
                    self.counters.fault(fault.errno);
                    self.stays(&target, fault.into());
                }
            }
        }
        let outcomes = outcomes.chain(std::iter::repeat_with(|| Ok(())));
        for ((_, key, done), outcome) in strays.into_iter().zip(outcomes) {
            self.answer(
                &key,
                done,
                outcome.map(|()| Detached::Done).map_err(Refusal::from),
            );
        }
    }

    pub(super) fn answer(
        self: &Arc<Self>,
        key: &Key,
        done: Done<Detached>,
        outcome: Result<Detached, Refusal>,
    ) {
        self.lanes.deletions.ended(key);
        done(outcome);
        self.turn_ends(key);
    }

    /// A link could not be deleted: its attachment stays as it was.
    fn stays(self: &Arc<Self>, target: &Target, refusal: Refusal) {
        let mut state = self.state();
        let Some((_, done)) = state.leaving.remove(&target.index) else {
            return;
        };
        let Some(key) = state.by_index.get(&target.index).cloned() else {
            return;
        };
        let mut led = None;
        if let Some(attachment) = state.attachments.get_mut(&key) {
            attachment.detaching = false;
            led = forwards_of(attachment);
        }
        drop(state);
        // What was touched meanwhile was not looked at.
        self.sweeper.link_touched(target.index);
        // They were closed first.
        if !self.hold_forwards(led.as_slice()) {
            self.sweeper.ruleset_touched();
        }
        self.answer(&key, done, Err(refusal));
    }

    fn decide(&self, job: &Deleting) -> Result<Decision, Refusal> {
        match self.attached(&job.order.key)? {
            Some(attachment) if job.order.before.is_some_and(|moment| attachment.since >= moment) => {
                Ok(Decision::Settled(Detached::IsNewer))
            }
            Some(attachment) if is_older(&attachment, job) => Ok(Decision::Settled(Detached::IsNewer)),
            Some(attachment) => Ok(Decision::Go(Self::target(&attachment))),
            None => self.stray(job),
        }
    }

    /// What is not known may still be in the kernel: the key alone leads to it.
    fn stray(&self, job: &Deleting) -> Result<Decision, Refusal> {
        let name = job.order.key.host_link();
        let Some(found) = self.datapath.find(&name)? else {
            return Ok(Decision::Settled(Detached::WasAbsent));
        };
        let group = found.group;
        let target = Target::of(name, &found);
        Ok(match found.standing(self.settings.group) {
            Standing::Attached(_) | Standing::HalfMade => Decision::Stray(target),
            // It lives, and nothing of it may be touched.
            Standing::Regrouped(_) => {
                return Err(Refusal::InTheWay {
                    link: target.link.to_string(),
                    why: format!("it carries link group {group} instead of {}", self.settings.group),
                });
            }
            // Nothing of ours is attached there.
            Standing::Foreign | Standing::Unreadable(_) | Standing::HalfAdopted(..) => {
                Decision::Settled(Detached::WasAbsent)
            }
        })
    }
}

/// Whether the caller means an older sandbox of the same id: by its namespace's identity, or by the path's text where no
/// namespace is there any more.
fn is_older(attachment: &Attachment, job: &Deleting) -> bool {
    match (&job.order.path, job.namespace) {
        (None, _) => false,
        (Some(_), Some(namespace)) => namespace != attachment.namespace(),
        (Some(path), None) => PathDigest::of(path) != attachment.record.path,
    }
}
