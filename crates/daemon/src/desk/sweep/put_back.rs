//! What a survey, or a touch, has shown to be missing is put back, and what is half-made is taken away.

use super::take_in::Repairs;
use crate::desk::order::Notable;
use crate::desk::ports::forwards_of;
use crate::desk::{Desk, Phase};
use crate::tally::PutBack;
use model::datapath::{Datapath, Target};
use model::op::Op;
use std::sync::Arc;

impl<D: Datapath> Desk<D> {
    /// Whether all of it could be done.
    pub(super) fn act_on(self: &Arc<Self>, repairs: Repairs) -> bool {
        let mut is_done = true;
        for (link, claim, undo) in repairs.release {
            is_done &= self.release(&link, &claim, &undo);
        }
        for index in repairs.look {
            is_done &= self.put_back_link(index);
        }
        for (target, ops) in repairs.put_back {
            is_done &= self.restore(&target, &ops);
        }
        if !repairs.prune.is_empty() {
            tracing::info!(links = repairs.prune.len(), "half-made links are taken away");
            self.counters.pruned.up_by(repairs.prune.len());
            let outcomes = self.datapath.unwire(&repairs.prune);
            for fault in outcomes.into_iter().filter_map(Result::err) {
                tracing::warn!(%fault, "a half-made link stays");
                self.counters.fault(fault.errno);
                is_done = false;
            }
        }
        is_done
    }

    fn restore(&self, target: &Target, ops: &[Op]) -> bool {
        let what: Vec<String> = ops
            .iter()
            .map(|op| op.on(target.link.as_str()).to_string())
            .collect();
        tracing::info!(link = %target.link, ?what, "put back");
        // What a daemon finds at its start may be what another one had begun.
        if self.state().phase == Phase::Serving {
            self.note(Notable::Drift(format!(
                "link {}: {}",
                target.link,
                what.join(", ")
            )));
        }
        for op in ops {
            self.counters.put_back(kind_of(op), 1);
        }
        let faults = self.datapath.restore(target, ops);
        for fault in &faults {
            self.counters.fault(fault.errno);
            tracing::warn!(link = %target.link, %fault, "cannot be put back");
        }
        faults.is_empty()
    }

    pub(super) fn put_back_link(self: &Arc<Self>, index: u32) -> bool {
        let state = self.state();
        let Some(attachment) = state.at(index).filter(|known| !known.detaching).cloned() else {
            return true;
        };
        drop(state);
        match self.datapath.find_at(&attachment.link.host, index) {
            // A detach of it has failed half-way, or begins: a full sweep takes away what nobody takes off.
            Ok(Some(link)) if link.is_dying() => {
                self.sweeper.all_touched();
                true
            }
            Ok(Some(link)) => {
                let missing = link.missing(&attachment.record, &attachment.link);
                let is_led = self.hold_forwards(forwards_of(&attachment).as_slice());
                is_led & (missing.is_empty() || self.restore(&Self::target(&attachment), &missing))
            }
            Ok(None) => {
                self.ended(&attachment.link.host, index);
                true
            }
            Err(fault) => {
                tracing::warn!(%fault, "a link could not be looked at");
                self.counters.fault(fault.errno);
                false
            }
        }
    }

    /// Whether the table and forwarding are in place.
    pub(super) fn publish(&self) -> bool {
        // What is not there yet at the start was taken away by nobody.
        let is_first = self.state().phase == Phase::Recovering;
        let turn = self.table_turn();
        let ruleset = self.ruleset();
        let mut was_put = true;
        let outcome = match self.datapath.drift(&ruleset) {
            Ok(drift) if drift.is_empty() => {
                was_put = false;
                Ok(())
            }
            Ok(drift) => {
                tracing::info!(?drift, "table and forwarding are put in place");
                if !is_first {
                    self.counters.put_back(PutBack::Table, drift.len());
                    self.note(Notable::Drift(drift.join(", ")));
                }
                self.datapath.publish(&ruleset)
            }
            Err(_) => self.datapath.publish(&ruleset),
        };
        if let Err(fault) = &outcome {
            tracing::error!(%fault, "the table is not in place");
            self.counters.fault(fault.errno);
        }
        drop(turn);
        let is_good = outcome.is_ok();
        let mut state = self.state();
        if is_good && (was_put || is_first) {
            // What was sent meanwhile went to the node itself, and an earlier daemon may have ended before it looked for that.
            state
                .attachments
                .values()
                .for_each(|attachment| self.cleaner.came(attachment));
        }
        state.unpublished = outcome.err();
        self.tell_readiness(&mut state);
        is_good
    }
}

fn kind_of(op: &Op) -> PutBack {
    match op {
        Op::Describe { .. }
        | Op::Mark(_)
        | Op::Claim(_)
        | Op::DropName(_)
        | Op::AltName(_)
        | Op::PortName(_) => PutBack::Record,
        Op::Group(_) | Op::NoMaster | Op::Mac(_) | Op::Mtu(_) | Op::Up | Op::LoopbackUp => PutBack::Link,
        Op::Set(_) | Op::RouteLocalnet => PutBack::Setting,
        Op::Address { .. } => PutBack::Address,
        Op::Route { .. } => PutBack::Route,
        Op::Neighbour { .. } => PutBack::Neighbour,
    }
}
