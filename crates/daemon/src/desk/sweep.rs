//! Survey, then recover, prune, put back: at the start as a whole, and later wherever something was touched.

use super::order::Attachment;
use super::{Desk, FIRST_INDEX, LAST_INDEX, Phase};
use crate::memory::Memory;
use model::datapath::{Datapath, Fault, Target};
use model::key::HostLink;
use model::plan::{Op, Plan, PlanSettings};
use model::record::Record;
use model::survey::{FoundLink, Standing, Survey};
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Touches that come close together are handled together.
const SETTLE: Duration = Duration::from_millis(50);
/// What no notification tells of is found after this time.
const ROUND: Duration = Duration::from_secs(60);

/// What the sweeper is to look at.
#[derive(Default)]
pub(super) struct Nudges {
    pending: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Default)]
struct Pending {
    links: BTreeSet<u32>,
    ruleset: bool,
    uplink: bool,
    all: bool,
    memory: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.links.is_empty() && !(self.ruleset || self.uplink || self.all || self.memory)
    }
}

impl Nudges {
    pub(super) fn link_touched(&self, index: u32) {
        self.nudge(|pending| {
            pending.links.insert(index);
        });
    }

    pub(super) fn ruleset_touched(&self) {
        self.nudge(|pending| pending.ruleset = true);
    }

    pub(super) fn uplink_touched(&self) {
        self.nudge(|pending| pending.uplink = true);
    }

    pub(super) fn all_touched(&self) {
        self.nudge(|pending| pending.all = true);
    }

    pub(super) fn memory_is_old(&self) {
        self.nudge(|pending| pending.memory = true);
    }

    fn nudge(&self, mark: impl FnOnce(&mut Pending)) {
        mark(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    /// What was touched, once it has settled; everything where nothing was for a round.
    fn wait(&self) -> Pending {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (pending, timeout) = self
            .wake
            .wait_timeout_while(pending, ROUND, |pending| pending.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Pending {
                all: true,
                ..Pending::default()
            };
        }
        let (mut pending, _) = self
            .wake
            .wait_timeout_while(pending, SETTLE, |_| true)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pending)
    }
}

impl<D: Datapath> Desk<D> {
    /// The sweeper's thread.
    pub(super) fn sweep_for_ever(self: Arc<Self>) {
        while let Err(fault) = self.recover() {
            tracing::error!(%fault, "recovery failed, it is tried again");
            self.state().unpublished = Some(fault);
            let pending = self
                .sweeper
                .pending
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            drop(
                self.sweeper
                    .wake
                    .wait_timeout_while(pending, Duration::from_secs(1), |_| true),
            );
        }
        loop {
            let touched = self.sweeper.wait();
            if touched.ruleset || touched.all {
                self.publish();
            }
            if touched.all {
                if let Err(fault) = self.sweep() {
                    tracing::warn!(%fault, "sweep failed");
                    self.sweeper.all_touched();
                }
            } else {
                touched
                    .links
                    .into_iter()
                    .for_each(|index| self.put_back_link(index));
            }
            if touched.uplink && !touched.all {
                match self.datapath.uplink() {
                    Ok(uplink) => self.state().uplink = uplink,
                    Err(fault) => tracing::warn!(%fault, "the uplink's MTU is not known"),
                }
            }
            if touched.memory {
                self.remember();
            }
        }
    }

    /// The first sweep: nothing is known but what the kernel holds.
    fn recover(self: &Arc<Self>) -> Result<(), Fault> {
        let sink = Arc::clone(self);
        self.datapath.watch(Box::new(move |event| sink.on_event(event)))?;
        let survey = self.datapath.survey()?;
        let mut memory = Memory::default();
        if let Some(path) = &self.settings.memory {
            let why;
            (memory, why) = Memory::load(path);
            if let Some(why) = why {
                tracing::warn!("{why}");
            }
        }
        let work = self.take_in(&survey, Some(&memory));
        self.publish();
        self.act_on(work);
        let mut state = self.state();
        if state.phase == Phase::Recovering {
            state.phase = Phase::Serving;
        }
        tracing::info!(attachments = state.attachments.len(), "recovered");
        self.tell_readiness(&mut state);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// A later full survey.
    fn sweep(self: &Arc<Self>) -> Result<(), Fault> {
        let known: HashSet<u32> = self.state().by_index.keys().copied().collect();
        let survey = self.datapath.survey()?;
        let found: HashSet<u32> = survey.links.iter().map(|link| link.index).collect();
        // What came while the survey was taken is not in it.
        known.difference(&found).for_each(|index| self.ended(*index));
        let work = self.take_in(&survey, None);
        self.act_on(work);
        Ok(())
    }

    /// Makes the state what a survey says, and tells what is left to do in the kernel.
    fn take_in(&self, survey: &Survey, memory: Option<&Memory>) -> Work {
        let mut work = Work::default();
        let mut state = self.state();
        let busy: HashSet<HostLink> = state.turns.running().map(|key| key.host_link()).collect();
        state.uplink.clone_from(&survey.uplink);
        state.oddities = survey.warnings(&self.settings.prefixes);
        let mut taken = survey.taken.clone();
        for link in &survey.links {
            // An index is never used twice, not even that of a link which is about to be pruned: its end is announced by it.
            if (FIRST_INDEX..LAST_INDEX).contains(&link.index) {
                state.next_index = state.next_index.max(link.index + 1);
            }
            match link.standing(self.settings.group) {
                Standing::Foreign => {}
                Standing::Unreadable(error) => {
                    taken.extend(link.routes.iter().map(|route| route.addr()));
                    state
                        .oddities
                        .push(format!("link {} is left alone: {error}", link.name));
                }
                // An order that runs knows of its link what no survey can tell.
                _ if HostLink::parse(&link.name).is_some_and(|name| busy.contains(&name)) => {}
                Standing::HalfMade => work.prune.extend(target(link)),
                Standing::Regrouped(record) if !state.by_index.contains_key(&link.index) => {
                    taken.extend(record.addresses.iter());
                    let (group, ours) = (link.group, self.settings.group);
                    state.oddities.push(format!(
                        "link {} carries group {group} instead of {ours}",
                        link.name
                    ));
                }
                Standing::Attached(record) | Standing::Regrouped(record) => {
                    if !state.by_index.contains_key(&link.index) {
                        let labels = memory
                            .and_then(|m| m.labels.get(&link.name))
                            .cloned()
                            .unwrap_or_default();
                        let attachment = attachment(&record, link, labels);
                        if let Err(conflict) = state.ipam.hold(&record.key, record.addresses) {
                            let (address, holder) = (conflict.address, conflict.holder);
                            state
                                .oddities
                                .push(format!("link {}: {address} is held by {holder}", link.name));
                            continue;
                        }
                        state.next_index = state
                            .next_index
                            .max(link.index.saturating_add(1))
                            .max(FIRST_INDEX);
                        state.by_index.insert(link.index, record.key.clone());
                        state.attachments.insert(record.key.clone(), attachment);
                    }
                    state.oddities.extend(link.beyond_us());
                    let Some(attachment) = state.attachments.get(&record.key) else {
                        continue;
                    };
                    let missing = link.missing(&record, &attachment.link);
                    if !missing.is_empty() {
                        work.put_back.push((Self::target(attachment), missing));
                    }
                }
            }
        }
        state.ipam.set_taken(taken);
        if let Some(memory) = memory {
            memory
                .cooling()
                .for_each(|(address, since)| state.ipam.cool(address, since));
        }
        self.tell_readiness(&mut state);
        work
    }

    fn act_on(&self, work: Work) {
        for (target, ops) in work.put_back {
            self.restore(&target, &ops);
        }
        if !work.prune.is_empty() {
            tracing::info!(links = work.prune.len(), "half-made links are taken away");
            for fault in self
                .datapath
                .unwire(&work.prune)
                .into_iter()
                .filter_map(Result::err)
            {
                tracing::warn!(%fault, "a half-made link stays");
            }
        }
    }

    fn restore(&self, target: &Target, ops: &[Op]) {
        let what: Vec<String> = ops
            .iter()
            .map(|op| op.on(target.link.as_str()).to_string())
            .collect();
        tracing::info!(link = %target.link, ?what, "put back");
        for fault in self.datapath.restore(target, ops) {
            tracing::warn!(link = %target.link, %fault, "cannot be put back");
        }
    }

    fn put_back_link(self: &Arc<Self>, index: u32) {
        let state = self.state();
        let Some(attachment) = state
            .by_index
            .get(&index)
            .and_then(|key| state.attachments.get(key))
        else {
            return;
        };
        if attachment.detaching {
            return;
        }
        let attachment = attachment.clone();
        drop(state);
        match self.datapath.find(&attachment.link.host) {
            Ok(Some(link)) if link.index == index => {
                let missing = link.missing(&attachment.record, &attachment.link);
                if !missing.is_empty() {
                    self.restore(&Self::target(&attachment), &missing);
                }
            }
            Ok(_) => self.ended(index),
            Err(fault) => tracing::warn!(%fault, "a link could not be looked at"),
        }
    }

    fn publish(&self) {
        let outcome = match self.datapath.drift(&self.ruleset) {
            Ok(drift) if drift.is_empty() => Ok(()),
            Ok(drift) => {
                tracing::info!(?drift, "table and forwarding are put in place");
                self.datapath.publish(&self.ruleset)
            }
            Err(_) => self.datapath.publish(&self.ruleset),
        };
        if let Err(fault) = &outcome {
            tracing::error!(%fault, "the table is not in place");
        }
        let mut state = self.state();
        state.unpublished = outcome.err();
        self.tell_readiness(&mut state);
    }
}

/// What a survey leaves to do in the kernel.
#[derive(Default)]
struct Work {
    put_back: Vec<(Target, Vec<Op>)>,
    prune: Vec<Target>,
}

fn target(link: &FoundLink) -> Option<Target> {
    Some(Target {
        link: HostLink::parse(&link.name)?,
        index: link.index,
        group: link.group,
    })
}

fn attachment(record: &Record, link: &FoundLink, labels: super::order::Labels) -> Attachment {
    let settings = PlanSettings {
        group: link.group,
        // Where none was asked for, nobody remembers what it was.
        mtu: record
            .asked
            .mtu
            .unwrap_or_else(|| u16::try_from(link.mtu).unwrap_or(u16::MAX)),
    };
    let plan = Plan::new(record.clone(), &settings, link.index);
    Attachment {
        record: plan.record,
        link: plan.link,
        labels,
        detaching: false,
    }
}
