//! Survey, then recover, prune, put back: at the start as a whole, and later wherever something was touched.

mod nudges;
mod put_back;
mod take_in;

pub(super) use nudges::Nudges;
pub(super) use take_in::attachment_of;

use super::replay::LIMIT;
use super::{Desk, Phase, vital};
use crate::sync::instant;
use model::datapath::{Datapath, Fault};
use model::key::HostLink;
use model::survey::Survey;
use nudges::Pending;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The state file is written at most this often.
const STATE_FILE_PACE: Duration = Duration::from_secs(1);
/// What failed is tried again after this time, after twice as long the next time, and so on up to a round.
const AGAIN: Duration = Duration::from_millis(250);

/// When what is due.
struct Rounds {
    /// A full survey, whatever was touched meanwhile.
    full: Instant,
    /// How long after the next failure.
    again: Duration,
    /// The state file is old since.
    state_file: Option<Instant>,
    saved: Instant,
}

impl<D: Datapath> Desk<D> {
    /// The sweeper's thread.
    pub(super) fn sweep_for_ever(self: Arc<Self>) {
        let mut again = AGAIN;
        let mut is_watching = false;
        let is_whole = loop {
            let fault = match self.recover(&mut is_watching) {
                Ok(is_whole) => break is_whole,
                Err(fault) => fault,
            };
            tracing::error!(%fault, "recovery failed, it is tried again");
            self.counters.fault(fault.errno);
            let mut state = self.state();
            state.unread = Some(fault);
            let stopping = |state: &mut super::State<D>| state.phase != Phase::Stopping;
            drop(self.changed.wait_timeout_while(state, again, stopping));
            if self.state().phase == Phase::Stopping {
                return;
            }
            again = (2 * again).min(self.settings.round);
        };
        let start = instant();
        let mut rounds = Rounds {
            full: start + self.settings.round,
            again: AGAIN,
            state_file: None,
            saved: start,
        };
        if !is_whole {
            rounds.full = start + AGAIN;
        }
        loop {
            let save = rounds.state_file.map(|_| rounds.saved + STATE_FILE_PACE);
            let touched = self
                .sweeper
                .wait(save.map_or(rounds.full, |save| save.min(rounds.full)));
            self.sweep_what(touched, &mut rounds);
        }
    }

    fn sweep_what(self: &Arc<Self>, touched: Pending, rounds: &mut Rounds) {
        let now = instant();
        // First, because the rest may take long.
        if touched.state_file {
            rounds.state_file.get_or_insert(now);
        }
        if rounds.state_file.is_some() && rounds.saved + STATE_FILE_PACE <= now {
            self.write_state_file();
            (rounds.state_file, rounds.saved) = (None, now);
        }
        let all = touched.all || rounds.full <= now;
        let mut is_good = true;
        if touched.ruleset || all {
            is_good &= self.publish();
        }
        if all {
            rounds.full = now + self.settings.round;
            match self.sweep() {
                Ok(done) => {
                    self.counters.sweeps.ended(done);
                    is_good &= done & self.carry_out_deletions(Instant::now() + LIMIT);
                }
                Err(fault) => {
                    tracing::warn!(%fault, "sweep failed");
                    self.counters.sweeps.ended(false);
                    self.counters.fault(fault.errno);
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
                Ok(uplink) => {
                    let mut state = self.state();
                    state.uplink = uplink;
                    self.tell_readiness(&mut state);
                }
                Err(fault) => {
                    tracing::warn!(%fault, "the uplink's MTU is not known");
                    self.counters.fault(fault.errno);
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
    }

    /// The first sweep: nothing is known but what the kernel holds. Whether all is as it is to be, and all deletions that were
    /// left are carried out.
    fn recover(self: &Arc<Self>, is_watching: &mut bool) -> Result<bool, Fault> {
        let survey = match *is_watching {
            true => self.survey(Datapath::survey)?,
            false => {
                let sink = Arc::clone(self);
                let sink = Box::new(move |event| vital::guarded(|| sink.on_event(event)));
                self.survey(|datapath| datapath.watch(sink))?
            }
        };
        *is_watching = true;
        let repairs = self.take_in(&survey);
        self.resume_spared()?;
        // What fails is tried again in the rounds, the first of which then comes at once.
        let is_good = self.hold_forwards(&repairs.forwards) & self.publish() & self.act_on(repairs);
        // Who is held by now, and by nobody at the next start, was freed between.
        self.write_state_file();
        self.state().unread = None;
        // Nobody waits for what fails.
        let end = Instant::now() + LIMIT;
        self.enter(Phase::Recovering, Phase::Replaying);
        self.carry_out_deletions(end);
        self.enter(Phase::Replaying, Phase::Closing);
        let is_replayed = self.carry_out_deletions(end);
        self.enter(Phase::Closing, Phase::Serving);
        let mut state = self.state();
        tracing::info!(attachments = state.attachments.len(), "recovered");
        self.tell_readiness(&mut state);
        drop(state);
        self.changed.notify_all();
        Ok(is_good & is_replayed)
    }

    /// The next phase of the start, unless the daemon is asked to stop.
    fn enter(&self, from: Phase, to: Phase) {
        let mut state = self.state();
        if state.phase == from {
            state.phase = to;
        }
    }

    /// A later full survey; whether all that was missing was put back.
    fn sweep(self: &Arc<Self>) -> Result<bool, Fault> {
        let known: Vec<(u32, HostLink)> = {
            let state = self.state();
            let links = state.attachments.values().map(|a| &a.link);
            links.map(|link| (link.host_index, link.host)).collect()
        };
        let survey = self.survey(Datapath::survey)?;
        let found: HashSet<u32> = survey.links.iter().map(|link| link.index).collect();
        // What came while the survey was taken is not in it.
        for (index, link) in known.iter().filter(|(index, _)| !found.contains(index)) {
            self.ended(link, *index);
        }
        let repairs = self.take_in(&survey);
        Ok(self.hold_forwards(&repairs.forwards) & self.act_on(repairs))
    }

    /// A survey, while which what ends is remembered: it may still be in it.
    fn survey(&self, take: impl FnOnce(&D) -> Result<Survey, Fault>) -> Result<Survey, Fault> {
        self.state().ended_in_survey = Some(HashSet::new());
        take(&self.datapath)
    }
}
