//! Connections of the past, which the kernel is made to forget, so that whoever has a port or an address next gets what is sent
//! there. By a thread of its own: looking through all of them takes its time, and no answer waits for it.

use super::order::Attachment;
use super::{Desk, vital};
use crate::sync::{Condvar, Mutex, instant};
use model::datapath::{Datapath, Fault};
use model::flows::Past;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// What comes close together is looked for together.
const SETTLE: Duration = Duration::from_millis(100);
/// It rests for so many times as long as it has looked: a node with many connections and many workloads that come and go has
/// other things to do.
const REST: u32 = 9;
/// Where it has found more than is forgotten at once: a workload may have filled the table, and its addresses cool down for a
/// while only.
const REST_WITH_MORE: u32 = 1;
/// After what is in the way for a moment, as too little memory, it is looked for again; a kernel that cannot forget never will.
const TRIES: u32 = 5;
const AGAIN: Duration = Duration::from_secs(1);

/// What was in the way, one after the other; the last is said once.
#[derive(Default)]
struct Failed {
    times: u32,
    fault: Option<Fault>,
}

/// What the cleaner is to look for.
#[derive(Default)]
pub(super) struct Cleaner {
    past: Mutex<Past>,
    wake: Condvar,
}

impl Cleaner {
    /// An attachment has ended, and nobody has its addresses.
    pub(super) fn ended(&self, attachment: &Attachment) {
        self.add(|past| past.addresses.extend(attachment.addresses().iter()));
    }

    /// An attachment has come, and its ports lead to it.
    pub(super) fn came(&self, attachment: &Attachment) {
        let forwards = attachment.record.asked.ports.forwards(attachment.addresses());
        if !forwards.is_empty() {
            self.add(|past| past.led(&forwards));
        }
    }

    /// What was looked for is looked for again.
    fn again(&self, past: Past) {
        self.add(|all| {
            all.addresses.extend(past.addresses);
            all.places.extend(past.places);
        });
    }

    fn add(&self, add: impl FnOnce(&mut Past)) {
        add(&mut self.past.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    /// All there is, once it has settled, and no sooner than after a rest from now.
    fn wait(&self, rest: Duration) -> Past {
        let until = instant() + rest;
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let past = self.wake.wait_while(past, |past| past.is_empty());
        let past = past.unwrap_or_else(PoisonError::into_inner);
        let settles = until.saturating_duration_since(instant()).max(SETTLE);
        let (mut past, _) = self
            .wake
            .wait_timeout_while(past, settles, |_| true)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *past)
    }
}

impl<D: Datapath> Desk<D> {
    pub(super) fn start_cleaner(self: &Arc<Self>) -> std::io::Result<()> {
        let desk = Arc::clone(self);
        vital::spawn("cleaner".to_owned(), move || {
            let (mut rest, mut failed) = (Duration::ZERO, Failed::default());
            loop {
                let past = desk.cleaner.wait(rest);
                let began = instant();
                let is_all = desk.clean(past, &mut failed);
                rest = (instant() - began) * if is_all { REST } else { REST_WITH_MORE };
                if failed.times > 0 {
                    rest = rest.max(AGAIN);
                }
            }
        })
    }

    /// Whether there were no more than are forgotten at once.
    fn clean(&self, mut past: Past, failed: &mut Failed) -> bool {
        let state = self.state();
        // Connections of who has an address again cannot be told from those of who had it.
        past.addresses
            .retain(|address| state.ipam.holder(*address).is_none());
        drop(state);
        if past.is_empty() {
            return true;
        }
        match self.datapath.forget(&past) {
            Ok(forgotten) => {
                if forgotten.flows > 0 {
                    let connections = forgotten.flows;
                    tracing::debug!(connections, "connections of the past are forgotten");
                }
                *failed = Failed::default();
                if forgotten.more {
                    self.cleaner.again(past);
                }
                !forgotten.more
            }
            Err(found) => {
                if failed.fault.as_ref() != Some(&found) {
                    tracing::warn!(
                        fault = %found,
                        "connections of the past are not forgotten: a port or an address may get what was sent to who had it"
                    );
                }
                *failed = Failed {
                    times: failed.times.saturating_add(1),
                    fault: Some(found),
                };
                if failed.times < TRIES {
                    self.cleaner.again(past);
                }
                true
            }
        }
    }
}
