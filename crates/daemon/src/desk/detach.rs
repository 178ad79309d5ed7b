//! Detaches, on a deleter's thread: those that wait together are taken together.

use super::Desk;
use super::order::{Attachment, Detached, Refusal};
use super::turns::Deleting;
use model::datapath::{Datapath, Target};
use model::record::PathDigest;
use model::survey::Standing;
use std::sync::Arc;

/// What a detach comes to.
enum Verdict {
    /// There is nothing to take off.
    Settled(Detached),
    /// This link is to go.
    Go(Target),
    /// A link of ours that nobody knew of is to go.
    Stray(Target),
}

impl<D: Datapath> Desk<D> {
    pub(super) fn take_off(self: &Arc<Self>, jobs: Vec<Deleting>) {
        let mut going = Vec::new();
        for job in jobs {
            let key = job.order.key.clone();
            match self.verdict(&job) {
                Err(refusal) => {
                    (job.done)(Err(refusal));
                    self.turn_ends(&key);
                }
                Ok(Verdict::Settled(outcome)) => {
                    (job.done)(Ok(outcome));
                    self.turn_ends(&key);
                }
                Ok(Verdict::Stray(target)) => {
                    let outcome = self
                        .datapath
                        .unwire(&[target])
                        .into_iter()
                        .collect::<Result<(), _>>();
                    (job.done)(outcome.map(|()| Detached::Done).map_err(Refusal::from));
                    self.turn_ends(&key);
                }
                Ok(Verdict::Go(target)) => {
                    let mut state = self.state();
                    if state.by_index.contains_key(&target.index) {
                        if let Some(attachment) = state.attachments.get_mut(&key) {
                            attachment.detaching = true;
                        }
                        state.leaving.insert(target.index, job.done);
                        going.push(target);
                    } else {
                        // It ended between the look and now.
                        drop(state);
                        (job.done)(Ok(Detached::Done));
                        self.turn_ends(&key);
                    }
                }
            }
        }
        if going.is_empty() {
            return;
        }
        // The answers go out as the kernel announces the links' ends, on the watching thread; what was not announced by the
        // time of the acknowledgement is answered here.
        for (target, outcome) in going.iter().zip(self.datapath.unwire(&going)) {
            match outcome {
                Ok(()) => self.ended(target.index),
                Err(fault) => {
                    let mut state = self.state();
                    let Some(done) = state.leaving.remove(&target.index) else {
                        continue;
                    };
                    let Some(key) = state.by_index.get(&target.index).cloned() else {
                        continue;
                    };
                    if let Some(attachment) = state.attachments.get_mut(&key) {
                        attachment.detaching = false;
                    }
                    drop(state);
                    done(Err(fault.into()));
                    self.turn_ends(&key);
                }
            }
        }
    }

    fn verdict(&self, job: &Deleting) -> Result<Verdict, Refusal> {
        match self.get(&job.order.key) {
            Some(attachment) if is_older(&attachment, job) => Ok(Verdict::Settled(Detached::IsNewer)),
            Some(attachment) => Ok(Verdict::Go(Self::target(&attachment))),
            None => self.stray(job),
        }
    }

    /// What is not known may still be in the kernel: the key alone leads to it.
    fn stray(&self, job: &Deleting) -> Result<Verdict, Refusal> {
        let name = job.order.key.host_link();
        let Some(found) = self.datapath.find(&name)? else {
            return Ok(Verdict::Settled(Detached::WasAbsent));
        };
        let group = found.group;
        let target = Target {
            link: name,
            index: found.index,
            group,
        };
        Ok(match found.standing(self.settings.group) {
            Standing::Attached(_) | Standing::HalfMade => Verdict::Stray(target),
            // It lives, and nothing of it may be touched.
            Standing::Regrouped(_) => {
                return Err(Refusal::InTheWay {
                    link: target.link.to_string(),
                    why: format!("it carries link group {group} instead of {}", self.settings.group),
                });
            }
            // Nothing of ours is attached there.
            Standing::Foreign | Standing::Unreadable(_) => Verdict::Settled(Detached::WasAbsent),
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
