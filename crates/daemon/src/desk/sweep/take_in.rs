//! The state becomes what a survey says; what that leaves to do in the kernel.

use crate::desk::order::{Attachment, Labels};
use crate::desk::ports::{Led, forwards_of};
use crate::desk::{Desk, State, now};
use crate::state_file::StateFile;
use model::datapath::{Datapath, Target};
use model::key::HostLink;
use model::op::Op;
use model::plan::{LinkPlan, PlanSettings};
use model::record::Record;
use model::survey::{FoundLink, Standing, Survey};
use model::undo::Undo;
use std::collections::HashSet;
use std::net::IpAddr;

/// What a survey leaves to do in the kernel.
#[derive(Default)]
pub(super) struct Repairs {
    pub(super) put_back: Vec<(Target, Vec<Op>)>,
    pub(super) prune: Vec<Target>,
    /// Ports of links that stand.
    pub(super) forwards: Vec<Led>,
    /// Links of others that were about to be taken over, and how they were.
    pub(super) release: Vec<(FoundLink, HostLink, Undo)>,
    /// Attachments whose links are not as they should be.
    pub(super) look: Vec<u32>,
}

impl<D: Datapath> Desk<D> {
    /// Makes the state what a survey says, and tells what is left to do in the kernel.
    pub(super) fn take_in(&self, survey: &Survey) -> Repairs {
        let mut repairs = Repairs::default();
        let mut state = self.state();
        let state_file = state.state_file.take();
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
                // The record of what is known is known, too, whatever somebody has written over it.
                Standing::Unreadable(_) | Standing::HalfMade if state.stands_at(link) => {
                    repairs.look.push(link.index);
                }
                Standing::Unreadable(error) => {
                    taken.extend(link.routes.iter().map(|route| route.addr()));
                    state
                        .left_alone
                        .extend(link.routes.iter().map(|route| route.addr()));
                    state
                        .oddities
                        .push(format!("link {} is left alone: {error}", link.name));
                }
                Standing::Regrouped(record) if !state.by_index.contains_key(&link.index) => {
                    taken.extend(record.addresses.iter());
                    state.left_alone.extend(record.addresses.iter());
                    let (group, ours) = (link.group, self.settings.group);
                    state.oddities.push(format!(
                        "link {} carries group {group} instead of {ours}",
                        link.name
                    ));
                }
                // An order that runs knows of its link what no survey can tell.
                // What stands is looked at once more, because an order that changes nothing would leave it as it is.
                _ if link.host_link().is_some_and(|name| busy.contains(&name)) => {
                    if state.stands_at(link) {
                        repairs.look.push(link.index);
                    }
                }
                // What is known, a damaged one, too, is put back where it was touched.
                Standing::HalfAdopted(..) if state.by_index.contains_key(&link.index) => {
                    repairs.look.push(link.index);
                }
                Standing::HalfAdopted(claim, undo) => repairs.release.push((link.clone(), claim, undo)),
                Standing::HalfMade => {
                    let name = link.host_link();
                    repairs.prune.extend(name.map(|name| Target::of(name, link)));
                }
                Standing::Attached(record) | Standing::Regrouped(record) => {
                    if !state.by_index.contains_key(&link.index) {
                        let name = record.key.host_link();
                        let labels = state_file
                            .as_ref()
                            .and_then(|file| file.labels.get(name.as_str()));
                        if !state.recover(link, &record, labels.cloned().unwrap_or_default()) {
                            continue;
                        }
                        // The first sweep is followed by the file.
                        if state_file.is_none() {
                            self.sweeper.state_file_is_old();
                        }
                    }
                    state.oddities.extend(link.beyond_us());
                    // The next one to be attached may not have the gateway of one that lives.
                    taken.extend(record.adopted.iter().flat_map(|adopted| adopted.gateways.iter()));
                    let Some(attachment) = state.attachments.get(&record.key) else {
                        continue;
                    };
                    repairs.forwards.extend(forwards_of(attachment));
                    let missing = link.missing(&attachment.record, &attachment.link);
                    if !missing.is_empty() {
                        repairs.put_back.push((Self::target(attachment), missing));
                    }
                }
            }
        }
        let taken: HashSet<IpAddr> = taken.into_iter().collect();
        state.ipam.set_taken(taken.iter().copied());
        if let Some(state_file) = state_file {
            self.remind(&mut state, &state_file, survey);
        }
        if state.cool_what_is_left_alone_no_more(&taken) {
            self.sweeper.state_file_is_old();
        }
        state.ipam.complete();
        state.ipam.end_drained(now());
        if state.own() != own {
            self.router.peers_changed();
        }
        self.tell_readiness(&mut state);
        repairs
    }

    /// What cooled down goes on. Where that was lost, all addresses do; but a node without the file and without a link of ours
    /// has just come up.
    fn remind(&self, state: &mut State<D>, state_file: &StateFile, survey: &Survey) {
        let is_ours = |link: &FoundLink| !matches!(link.standing(self.settings.group), Standing::Foreign);
        let is_new = state.is_missing && !survey.links.iter().any(is_ours);
        if let Some(moment) = state_file.unknown_before().filter(|_| !is_new) {
            state.ipam.nothing_is_known_before(moment);
            if state.ipam.unknown_before(now()).is_some() {
                tracing::warn!(cool_down = ?self.settings.cool_down, "what was freed lately is not known: all addresses cool down");
            }
        }
        for (address, since) in state_file.cooling() {
            state.ipam.cool(address, since);
        }
        // Freed when nobody wrote it down any more: by a daemon that was killed, or by the kernel, with a namespace.
        for address in state_file.held() {
            if !state.left_alone.contains(&address) {
                state.ipam.cool(address, now());
            }
        }
    }
}

impl<D: Datapath> State<D> {
    /// What a link's record says is attached from now on; `false` where somebody else has one of its addresses.
    fn recover(&mut self, link: &FoundLink, record: &Record, labels: Labels) -> bool {
        let attachment = attachment_of(record, link, labels);
        if let Err(conflict) = self.ipam.hold(&record.key, record.addresses) {
            let (address, holder) = (conflict.address, conflict.holder);
            self.oddities
                .push(format!("link {}: {address} is held by {holder}", link.name));
            return false;
        }
        if let Some((port, holder)) = self.holder_of(&record.asked.ports)
            && *holder.key() != record.key
        {
            let text = format!("link {}: port {port} is held by {}, too", link.name, holder.key());
            self.oddities.push(text);
        }
        self.enter(attachment);
        true
    }

    /// Addresses of links that were left alone and are gone cool down; whether there are any. `taken` are those that links or
    /// routes of others have.
    fn cool_what_is_left_alone_no_more(&mut self, taken: &HashSet<IpAddr>) -> bool {
        let gone: Vec<IpAddr> = self.left_alone.difference(taken).copied().collect();
        for address in &gone {
            self.ipam.cool(*address, now());
        }
        self.left_alone.retain(|address| taken.contains(address));
        !gone.is_empty()
    }

    /// Whether a link is that of an attachment which is to stay.
    fn stands_at(&self, link: &FoundLink) -> bool {
        let known = self.at(link.index).filter(|known| !known.detaching);
        !link.is_dying() && known.is_some_and(|known| Some(&known.link.host) == link.host_link().as_ref())
    }
}

pub(in crate::desk) fn attachment_of(record: &Record, link: &FoundLink, labels: Labels) -> Attachment {
    let settings = PlanSettings {
        group: link.group,
        // Where none was asked for, nobody remembers what it was.
        mtu: record
            .asked
            .mtu
            .unwrap_or_else(|| u16::try_from(link.mtu).unwrap_or(u16::MAX)),
    };
    Attachment {
        link: LinkPlan::new(record, &settings, link.index),
        record: record.clone(),
        labels,
        detaching: false,
        undoable: link.undo().is_some(),
        since: now(),
    }
}
