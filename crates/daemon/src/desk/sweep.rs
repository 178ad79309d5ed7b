//! Survey, then recover, prune, put back: at the start as a whole, and later wherever something was touched.

use super::order::{Attachment, Notable};
use super::ports::{Led, doors_of};
use super::{Desk, Phase, now, vital};
use crate::memory::Memory;
use crate::tally::PutBack;
use model::adopt::Undo;
use model::datapath::{Datapath, Fault, Target};
use model::key::HostLink;
use model::plan::{Op, Plan, PlanSettings};
use model::record::Record;
use model::survey::{FoundLink, Standing, Survey};
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Touches that come close together are handled together.
const SETTLE: Duration = Duration::from_millis(50);
/// Labels and cooling addresses are written at most this often.
const MEMORY_PACE: Duration = Duration::from_secs(1);
/// What failed is tried again after this time, after twice as long the next time, and so on up to a round.
const AGAIN: Duration = Duration::from_millis(250);

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

    /// What was touched, once it has settled, or nothing at a moment.
    fn wait(&self, until: Instant) -> Pending {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
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

/// When what is due.
struct Rounds {
    /// A full survey, whatever was touched meanwhile.
    full: Instant,
    /// How long after the next failure.
    again: Duration,
    /// Labels and cooling addresses are old since.
    memory: Option<Instant>,
    saved: Instant,
}

impl<D: Datapath> Desk<D> {
    /// The sweeper's thread.
    pub(super) fn sweep_for_ever(self: Arc<Self>) {
        let mut again = AGAIN;
        let mut is_watching = false;
        while let Err(fault) = self.recover(&mut is_watching) {
            tracing::error!(%fault, "recovery failed, it is tried again");
            self.work.fault(fault.errno);
            let mut state = self.state();
            state.unread = Some(fault);
            let stopping = |state: &mut super::State<D>| state.phase != Phase::Stopping;
            drop(self.changed.wait_timeout_while(state, again, stopping));
            again = (2 * again).min(self.settings.round);
        }
        let start = Instant::now();
        let mut rounds = Rounds {
            full: start + self.settings.round,
            again: AGAIN,
            memory: None,
            saved: start,
        };
        // What was left after the look of the start, by clients who were told then that nobody is served. Who leaves something
        // from now on asks once more, and is served.
        if !self.carry_out_deletions() {
            rounds.full = start + AGAIN;
        }
        loop {
            let save = rounds.memory.map(|_| rounds.saved + MEMORY_PACE);
            let touched = self
                .sweeper
                .wait(save.map_or(rounds.full, |save| save.min(rounds.full)));
            self.sweep_what(touched, &mut rounds);
        }
    }

    fn sweep_what(self: &Arc<Self>, touched: Pending, rounds: &mut Rounds) {
        let now = Instant::now();
        let all = touched.all || rounds.full <= now;
        let mut is_good = true;
        if touched.ruleset || all {
            is_good &= self.publish();
        }
        if all {
            rounds.full = now + self.settings.round;
            match self.sweep() {
                Ok(done) => {
                    self.work.sweeps.ended(done);
                    is_good &= done & self.carry_out_deletions();
                }
                Err(fault) => {
                    tracing::warn!(%fault, "sweep failed");
                    self.work.sweeps.ended(false);
                    self.work.fault(fault.errno);
                    is_good = false;
                }
            }
        } else {
            for index in touched.links {
                is_good &= self.put_back_link(index);
            }
        }
        if touched.uplink && !all {
            match self.datapath.uplink() {
                Ok(uplink) => self.state().uplink = uplink,
                Err(fault) => {
                    tracing::warn!(%fault, "the uplink's MTU is not known");
                    self.work.fault(fault.errno);
                    is_good = false;
                }
            }
        }
        match is_good {
            true if all => rounds.again = AGAIN,
            true => {}
            false => {
                rounds.full = rounds.full.min(now + rounds.again);
                rounds.again = (2 * rounds.again).min(self.settings.round);
            }
        }
        if touched.memory {
            rounds.memory.get_or_insert(now);
        }
        if rounds.memory.is_some() && rounds.saved + MEMORY_PACE <= now {
            self.remember();
            (rounds.memory, rounds.saved) = (None, now);
        }
    }

    /// The first sweep: nothing is known but what the kernel holds.
    fn recover(self: &Arc<Self>, is_watching: &mut bool) -> Result<(), Fault> {
        if !*is_watching {
            let sink = Arc::clone(self);
            self.datapath.watch(Box::new(move |event| {
                vital::guarded(|| sink.on_event(event));
            }))?;
            *is_watching = true;
        }
        let survey = self.survey()?;
        let work = self.take_in(&survey);
        self.resume_spared()?;
        self.hold_doors(&work.doors);
        self.publish();
        self.act_on(work);
        let mut state = self.state();
        state.unread = None;
        if state.phase == Phase::Recovering {
            state.phase = Phase::Replaying;
        }
        drop(state);
        // What fails is tried again in the rounds; nobody waits for it.
        self.carry_out_deletions();
        let mut state = self.state();
        if state.phase == Phase::Replaying {
            state.phase = Phase::Serving;
        }
        tracing::info!(attachments = state.attachments.len(), "recovered");
        self.tell_readiness(&mut state);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// A later full survey; whether all that was missing was put back.
    fn sweep(self: &Arc<Self>) -> Result<bool, Fault> {
        let known: Vec<(u32, HostLink)> = {
            let state = self.state();
            let links = state.attachments.values().map(|a| &a.link);
            links.map(|link| (link.host_index, link.host.clone())).collect()
        };
        let survey = self.survey()?;
        let found: HashSet<u32> = survey.links.iter().map(|link| link.index).collect();
        // What came while the survey was taken is not in it.
        for (index, link) in known.iter().filter(|(index, _)| !found.contains(index)) {
            self.ended(link, *index);
        }
        let work = self.take_in(&survey);
        Ok(self.hold_doors(&work.doors) & self.act_on(work))
    }

    /// A survey, while which what ends is remembered: it may still be in it.
    fn survey(&self) -> Result<Survey, Fault> {
        self.state().ended_in_survey = Some(HashSet::new());
        self.datapath.survey()
    }

    /// Makes the state what a survey says, and tells what is left to do in the kernel.
    fn take_in(&self, survey: &Survey) -> Work {
        let mut work = Work::default();
        let mut state = self.state();
        let memory = state.memory.take();
        let ended = state.ended_in_survey.take().unwrap_or_default();
        let busy: HashSet<HostLink> = state.turns.running().map(|key| key.host_link()).collect();
        state.uplink.clone_from(&survey.uplink);
        let own = state.own();
        let prefixes: Vec<_> = state.ipam.prefixes().collect();
        state.oddities = survey.warnings(&prefixes);
        let mut taken = survey.taken.clone();
        for link in &survey.links {
            // Not even that of a link which is about to be pruned: its end is announced by it.
            state.use_up(link.index);
            if ended.contains(&link.index) {
                continue;
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
                _ if link.host_link().is_some_and(|name| busy.contains(&name)) => {}
                // What is known, a damaged one, too, is put back where it was touched.
                Standing::HalfAdopted(..) if state.by_index.contains_key(&link.index) => {
                    work.look.push(link.index);
                }
                Standing::HalfAdopted(claim, undo) => work.release.push((link.clone(), claim, undo)),
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
                            .as_ref()
                            .and_then(|m| m.labels.get(record.key.host_link().as_str()))
                            .cloned()
                            .unwrap_or_default();
                        let attachment = attachment_of(&record, link, labels);
                        if let Err(conflict) = state.ipam.hold(&record.key, record.addresses) {
                            let (address, holder) = (conflict.address, conflict.holder);
                            state
                                .oddities
                                .push(format!("link {}: {address} is held by {holder}", link.name));
                            continue;
                        }
                        if let Some((port, holder)) = state.holder_of(&record.asked.ports)
                            && *holder.key() != record.key
                        {
                            let text =
                                format!("link {}: port {port} is held by {}, too", link.name, holder.key());
                            state.oddities.push(text);
                        }
                        state.enter(attachment);
                    }
                    state.oddities.extend(link.beyond_us());
                    // The next one to be attached may not have the gateway of one that lives.
                    taken.extend(record.adopted.iter().flat_map(|adopted| adopted.gateways.iter()));
                    let Some(attachment) = state.attachments.get(&record.key) else {
                        continue;
                    };
                    work.doors.extend(doors_of(attachment));
                    let missing = link.missing(&attachment.record, &attachment.link);
                    if !missing.is_empty() {
                        work.put_back.push((Self::target(attachment), missing));
                    }
                }
            }
        }
        state.ipam.set_taken(taken);
        if let Some(memory) = memory {
            self.remind(&mut state, &memory, survey);
        }
        state.ipam.end_drained(now());
        if state.own() != own {
            self.router.peers_changed();
        }
        self.tell_readiness(&mut state);
        work
    }

    /// What cooled down goes on. Where that was lost, all addresses do; but a node without the file and without a link of ours
    /// has just come up.
    fn remind(&self, state: &mut super::State<D>, memory: &Memory, survey: &Survey) {
        let is_ours = |link: &FoundLink| !matches!(link.standing(self.settings.group), Standing::Foreign);
        let is_new = state.is_missing && !survey.links.iter().any(is_ours);
        if let Some(moment) = memory.unknown_before().filter(|_| !is_new) {
            state.ipam.nothing_is_known_before(moment);
            if state.ipam.unknown_before(now()).is_some() {
                tracing::warn!(cool_down = ?self.settings.cool_down, "what was freed lately is not known: all addresses cool down");
            }
        }
        for (address, since) in memory.cooling() {
            state.ipam.cool(address, since);
        }
    }

    /// Whether all of it could be done.
    fn act_on(self: &Arc<Self>, work: Work) -> bool {
        let mut is_done = true;
        for (link, claim, undo) in work.release {
            is_done &= self.release(&link, &claim, &undo);
        }
        for index in work.look {
            is_done &= self.put_back_link(index);
        }
        for (target, ops) in work.put_back {
            is_done &= self.restore(&target, &ops);
        }
        if !work.prune.is_empty() {
            tracing::info!(links = work.prune.len(), "half-made links are taken away");
            self.work.pruned.up_by(work.prune.len());
            let outcomes = self.datapath.unwire(&work.prune);
            for fault in outcomes.into_iter().filter_map(Result::err) {
                tracing::warn!(%fault, "a half-made link stays");
                self.work.fault(fault.errno);
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
            self.work.put_back(kind_of(op), 1);
        }
        let faults = self.datapath.restore(target, ops);
        for fault in &faults {
            self.work.fault(fault.errno);
            tracing::warn!(link = %target.link, %fault, "cannot be put back");
        }
        faults.is_empty()
    }

    fn put_back_link(self: &Arc<Self>, index: u32) -> bool {
        let state = self.state();
        let Some(attachment) = state.at(index).filter(|known| !known.detaching).cloned() else {
            return true;
        };
        drop(state);
        match self.datapath.find_at(&attachment.link.host, index) {
            Ok(Some(link)) => {
                let missing = link.missing(&attachment.record, &attachment.link);
                let is_led = self.hold_doors(doors_of(&attachment).as_slice());
                is_led & (missing.is_empty() || self.restore(&Self::target(&attachment), &missing))
            }
            Ok(None) => {
                self.ended(&attachment.link.host, index);
                true
            }
            Err(fault) => {
                tracing::warn!(%fault, "a link could not be looked at");
                self.work.fault(fault.errno);
                false
            }
        }
    }

    /// Whether the table and forwarding are in place.
    fn publish(&self) -> bool {
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
                    self.work.put_back(PutBack::Table, drift.len());
                    self.note(Notable::Drift(drift.join(", ")));
                }
                self.datapath.publish(&ruleset)
            }
            Err(_) => self.datapath.publish(&ruleset),
        };
        if let Err(fault) = &outcome {
            tracing::error!(%fault, "the table is not in place");
            self.work.fault(fault.errno);
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

/// What a survey leaves to do in the kernel.
#[derive(Default)]
struct Work {
    put_back: Vec<(Target, Vec<Op>)>,
    prune: Vec<Target>,
    /// Ports of links that stand.
    doors: Vec<Led>,
    /// Links of others that were about to be taken over, and how they were.
    release: Vec<(FoundLink, HostLink, Undo)>,
    /// Attachments whose links are not as they should be.
    look: Vec<u32>,
}

fn target(link: &FoundLink) -> Option<Target> {
    Some(Target {
        link: link.host_link()?,
        index: link.index,
        group: link.group,
    })
}

pub(super) fn attachment_of(record: &Record, link: &FoundLink, labels: super::order::Labels) -> Attachment {
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
        undoable: link.undo().is_some(),
        since: now(),
    }
}
