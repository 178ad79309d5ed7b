//! Links of another plugin: taken over, given back, kept for good. In the turn of their key, on an opener's thread.

use super::order::{AdoptOrder, Adopted, Attachment, Refusal, Step};
use super::sweep::attachment_of;
use super::{Desk, now};
use model::adopt::{Adoption, Candidate, MasqueradeRule, decide};
use model::datapath::{Datapath, Fault, OpenError};
use model::ipam::Unheld;
use model::key::{HostLink, Key};
use model::op::Op;
use model::record::NamespaceId;
use model::survey::FoundLink;
use model::undo::Undo;
use std::sync::Arc;

impl<D: Datapath> Desk<D> {
    /// The rules by which the CNI project's plugins masquerade in nftables.
    pub fn masquerade_rules(&self) -> Result<Vec<MasqueradeRule>, Refusal> {
        Ok(self.datapath.masquerade_rules()?)
    }

    /// One order, whose namespace, where it names one, was opened.
    pub(super) fn adopt_now(
        self: &Arc<Self>,
        order: &AdoptOrder,
        opened: Result<(D::Namespace, NamespaceId), OpenError>,
    ) -> Result<Adopted, Refusal> {
        match &order.step {
            Step::Check { path, addresses } | Step::Take { path, addresses } => {
                let candidate = Candidate {
                    key: order.key.clone(),
                    path: path.clone(),
                    addresses: *addresses,
                };
                let take = matches!(order.step, Step::Take { .. });
                match opened {
                    Ok((namespace, id)) => self.take(&candidate, &namespace, id, take),
                    Err(error) => Ok(Adopted::Refused(vec![error.to_string()])),
                }
            }
            Step::Undo => self.give_back(&order.key),
            Step::Commit => self.commit(&order.key),
        }
    }

    fn take(
        self: &Arc<Self>,
        candidate: &Candidate,
        namespace: &D::Namespace,
        id: NamespaceId,
        take: bool,
    ) -> Result<Adopted, Refusal> {
        if let Some(standing) = self.attached(&candidate.key)? {
            let same = standing.record.adopted.is_some()
                && standing.namespace() == id
                && standing.addresses() == candidate.addresses;
            return Ok(match (same, self.undo_of(&standing)?) {
                (false, _) => Adopted::Refused(vec![format!("{} is attached already", candidate.key)]),
                (true, Some(_)) => Adopted::Taken,
                (true, None) => Adopted::Committed,
            });
        }
        let seen = self.datapath.look(namespace, candidate.key.interface())?;
        let found = match &seen {
            model::adopt::Seen::Pair(pair) => Some(pair.host.clone()),
            _ => None,
        };
        let decided = decide(candidate, id, seen, self.settings.group);
        let mut reasons = self.unheld(candidate);
        let claim = candidate.key.host_link();
        if let Some(holder) = self.datapath.find(&claim)?
            && found.as_ref().is_none_or(|found| found.index != holder.index)
        {
            reasons.push(format!("the link {} has the name {claim}", holder.name));
        }
        let adoption = match decided {
            Err(more) => {
                reasons.extend(more);
                return Ok(Adopted::Refused(reasons));
            }
            Ok(_) if !reasons.is_empty() => return Ok(Adopted::Refused(reasons)),
            Ok(adoption) => adoption,
        };
        let link = found.expect("what was decided on was seen");
        match take {
            false => Ok(Adopted::Possible),
            true => self.make_ours(&candidate.key, &link, adoption),
        }
    }

    /// Why the addresses cannot be held, in words.
    fn unheld(&self, candidate: &Candidate) -> Vec<String> {
        let state = self.state();
        let why = candidate.addresses.iter().filter_map(|address| {
            Some(match state.ipam.unheld(address)? {
                Unheld::NotOurs => format!("{address} is in none of this node's prefixes"),
                Unheld::Reserved(what) => format!("{address} is {what}"),
                Unheld::Held(holder) => format!("{address} is held by {holder}"),
            })
        });
        why.collect()
    }

    fn make_ours(
        self: &Arc<Self>,
        key: &Key,
        link: &FoundLink,
        adoption: Adoption,
    ) -> Result<Adopted, Refusal> {
        let Adoption { record, ops, undo } = adoption;
        // Held before anything is changed, so that nobody is given them meanwhile.
        let addresses = record.addresses;
        if let Err(conflict) = self.lease_otherwise(&mut self.state(), |ipam| ipam.hold(key, addresses)) {
            let why = format!("{} is held by {}", conflict.address, conflict.holder);
            return Ok(Adopted::Refused(vec![why]));
        }
        let claim = key.host_link();
        if let Err(fault) = self.datapath.change(link, &ops) {
            let fault = match self.datapath.give_back(link, &undo.ops(&claim, Some(key))) {
                Ok(()) => fault,
                Err(left) => {
                    // It tells how it was, and a sweep tries again.
                    self.sweeper.all_touched();
                    Fault {
                        reason: format!("{}; could not be undone: {left}", fault.reason),
                        ..fault
                    }
                }
            };
            self.lease_otherwise(&mut self.state(), |ipam| ipam.free(addresses, now()));
            self.sweeper.state_file_is_old();
            return Err(fault.into());
        }
        let adopted = FoundLink {
            group: self.settings.group,
            ..link.clone()
        };
        let attachment = Attachment {
            undoable: true,
            ..attachment_of(&record, &adopted, super::order::Labels::default())
        };
        let mut state = self.state();
        state.enter(attachment);
        self.tell_readiness(&mut state);
        drop(state);
        self.sweeper.state_file_is_old();
        // It may have ended meanwhile, unnoticed. Where that cannot be seen, it is ours all the same, and the sweep looks again;
        // and what was others' before is ours.
        if let Ok(None) = self.datapath.find_at(&claim, link.index) {
            self.ended(&claim, link.index);
        }
        self.sweeper.all_touched();
        Ok(Adopted::Taken)
    }

    /// How the link of an attachment was; `None` where the adoption is committed.
    fn undo_of(&self, attachment: &Attachment) -> Result<Option<(FoundLink, Undo)>, Fault> {
        let link = &attachment.link;
        let found = self.datapath.find_at(&link.host, link.host_index)?;
        Ok(found.and_then(|found| {
            let (_, undo) = found.undo()?;
            Some((found, undo))
        }))
    }

    fn give_back(self: &Arc<Self>, key: &Key) -> Result<Adopted, Refusal> {
        let Some(attachment) = self.attached(key)? else {
            return Ok(Adopted::Undone);
        };
        if attachment.record.adopted.is_none() {
            return Ok(Adopted::Refused(vec!["it was not taken over".to_owned()]));
        }
        let Some((link, undo)) = self.undo_of(&attachment)? else {
            return Ok(Adopted::Refused(vec!["it is committed".to_owned()]));
        };
        // What is taken away from it is not to be put back.
        self.set_detaching(key, true);
        let claim = &attachment.link.host;
        if let Err(fault) = self.datapath.give_back(&link, &undo.ops(claim, Some(key))) {
            self.set_detaching(key, false);
            self.sweeper.link_touched(link.index);
            return Err(fault.into());
        }
        self.ended(claim, link.index);
        self.sweeper.all_touched();
        Ok(Adopted::Undone)
    }

    fn commit(&self, key: &Key) -> Result<Adopted, Refusal> {
        let Some(attachment) = self.attached(key)? else {
            return Ok(Adopted::Refused(vec!["it is not attached".to_owned()]));
        };
        if attachment.record.adopted.is_none() {
            return Ok(Adopted::Refused(vec!["it was not taken over".to_owned()]));
        }
        if let Some((link, undo)) = self.undo_of(&attachment)? {
            let name = undo.name(&attachment.link.host);
            self.datapath.change(&link, &[Op::DropName(name)])?;
        }
        if let Some(attachment) = self.state().attachments.get_mut(key) {
            attachment.undoable = false;
        }
        Ok(Adopted::Committed)
    }

    fn set_detaching(&self, key: &Key, detaching: bool) {
        if let Some(attachment) = self.state().attachments.get_mut(key) {
            attachment.detaching = detaching;
        }
    }

    /// A crash came before a link was taken over, or when it was all but given back.
    pub(super) fn release(&self, link: &FoundLink, claim: &HostLink, undo: &Undo) -> bool {
        tracing::info!(
            link = link.name,
            "a link that was about to be taken over is as it was"
        );
        match self.datapath.give_back(link, &undo.ops(claim, None)) {
            Ok(()) => true,
            Err(fault) => {
                tracing::warn!(link = link.name, %fault, "cannot be made as it was");
                false
            }
        }
    }
}
