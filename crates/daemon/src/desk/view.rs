//! What the desk knows, for those who ask: from memory, but for a check, which asks the kernel.

use super::order::{Attachment, Finding, Garbage, Node, PrefixUse, Refusal, SourceState};
use super::{Desk, Phase, State, UNKEPT, USUAL_MTU, now};
use crate::sync::MutexGuard;
use model::address::{Family, IPV6_MTU};
use model::datapath::Datapath;
use model::ipam::Moment;
use model::key::{Key, Owner};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

impl<D: Datapath> Desk<D> {
    /// Attachments in the order of their keys. Refused until the kernel has been read, because who takes a list for the truth
    /// must not be told that nothing is attached; and until what was to be taken off is.
    pub fn list(&self, owner: Option<&Owner>) -> Result<Vec<Attachment>, Refusal> {
        let state = self.shown()?;
        let of = |a: &&Attachment| owner.is_none_or(|owner| a.key().owner() == owner);
        Ok(state.attachments.values().filter(of).cloned().collect())
    }

    /// One attachment. Refused as [`Self::list`].
    pub fn get(&self, key: &Key) -> Result<Option<Attachment>, Refusal> {
        Ok(self.shown()?.attachments.get(key).cloned())
    }

    /// One attachment, for orders.
    pub(super) fn attached(&self, key: &Key) -> Result<Option<Attachment>, Refusal> {
        Ok(self.read()?.attachments.get(key).cloned())
    }

    /// What an owner has beside what it says that lives, and has had since before a time ago.
    pub fn garbage(&self, owner: &Owner, valid: &HashSet<Key>, age: Duration) -> Result<Garbage, Refusal> {
        let before = Moment(now().0.saturating_sub(age));
        let is_garbage = |a: &Attachment| a.since < before && !valid.contains(a.key());
        let all = self.list(Some(owner))?;
        let keys = all.iter().filter(|a| is_garbage(a)).map(|a| a.key().clone());
        Ok(Garbage {
            keys: keys.collect(),
            before,
        })
    }

    /// Compares what the kernel holds with what it is to hold; `None` where the key is not attached. Blocks.
    pub fn check(&self, key: Option<&Key>) -> Result<Option<Vec<Finding>>, Refusal> {
        let (attachments, links) = match key {
            Some(key) => {
                let Some(attachment) = self.get(key)? else {
                    return Ok(None);
                };
                let link = &attachment.link;
                let found = self.datapath.find_at(&link.host, link.host_index)?;
                (vec![attachment], found.into_iter().collect())
            }
            None => (self.list(None)?, self.datapath.survey()?.links),
        };
        let links: HashMap<u32, _> = links.into_iter().map(|link| (link.index, link)).collect();
        let mut findings = Vec::new();
        for attachment in attachments {
            let link = attachment.link.host.as_str();
            let texts = match links.get(&attachment.link.host_index) {
                None => vec![format!("link {link} is missing")],
                Some(found) => {
                    let mut texts: Vec<String> = found
                        .missing(&attachment.record, &attachment.link)
                        .iter()
                        .map(|op| format!("not as made: {}", op.on(link)))
                        .collect();
                    texts.extend(found.beyond_us());
                    texts
                }
            };
            if texts.is_empty() || !self.stays_attached(&attachment) {
                continue;
            }
            findings.extend(texts.into_iter().map(|text| Finding {
                key: Some(attachment.key().clone()),
                text,
            }));
        }
        if key.is_none() {
            let node = self.table_drift()?;
            let node = node.into_iter().chain(self.route_drift()?);
            findings.extend(node.map(|text| Finding { key: None, text }));
        }
        Ok(Some(findings))
    }

    /// Whether it is there still, on the same link, and nobody takes it off: what was seen of others means nothing.
    fn stays_attached(&self, attachment: &Attachment) -> bool {
        let state = self.state();
        let now = state.at(attachment.link.host_index);
        now.is_some_and(|now| now.key() == attachment.key() && !now.detaching)
    }

    /// The node.
    pub fn node(&self) -> Node {
        let state = self.state();
        let (mtu, mtu_source) = self.mtu(&state, None);
        let prefixes: Vec<PrefixUse> = state.ipam.usage(now()).into_iter().map(PrefixUse::from).collect();
        let mut warnings = state.oddities.clone();
        let peers_known = !self.awaits_peers(&state);
        warnings.extend(state.routes.said(peers_known, state.peer_trouble.as_deref()));
        let generation = state.ipam.generation();
        if let Some(why) = state
            .trouble
            .as_ref()
            .filter(|_| state.ipam.serving().next().is_some())
        {
            warnings.push(format!("the prefixes of generation {generation} stay: {why}"));
        }
        if state.ipam.unknown_before(now()).is_some() {
            warnings.push("what was freed lately is not known, so all addresses cool down".to_owned());
        }
        warnings.extend(state.unkept.iter().map(|why| format!("{UNKEPT}: {why}")));
        match state.ipam.strays() {
            0 => {}
            n => warnings.push(format!("{n} addresses in use are of no prefix that is known")),
        }
        for p in prefixes
            .iter()
            .filter(|p| !p.draining && p.used * 10 >= p.capacity * 9)
        {
            warnings.push(format!(
                "{} of {} addresses of {} are in use",
                p.used, p.capacity, p.prefix
            ));
        }
        Node {
            source: SourceState {
                kind: self.settings.source,
                generation,
                trouble: state.trouble.clone(),
            },
            prefixes,
            unready: self.unmet(&state),
            warnings,
            attachments: state.attachments.len(),
            mtu,
            mtu_source,
            max_queued: self.settings.max_queued,
            routes: Arc::clone(&state.routes),
        }
    }

    /// Why an Attach could not succeed now, in words; empty: it could.
    pub fn unready(&self) -> Vec<String> {
        self.unmet(&self.state())
    }

    /// Whether an Attach could succeed now, and workloads reach those of other nodes, as far as this node can do that.
    pub fn is_connected(&self) -> bool {
        let state = self.state();
        let is_routed = state.peers.is_some() && state.routes.made && state.routes.faults.is_empty();
        is_routed && self.unmet(&state).is_empty()
    }

    /// The state once it is what the kernel holds.
    pub(super) fn read(&self) -> Result<MutexGuard<'_, State<D>>, Refusal> {
        let state = self.state();
        match state.phase {
            Phase::Recovering => Err(Refusal::NotReady(self.unmet(&state))),
            Phase::Replaying | Phase::Closing | Phase::Serving | Phase::Stopping => Ok(state),
        }
    }

    /// The state once it is what callers were told.
    fn shown(&self) -> Result<MutexGuard<'_, State<D>>, Refusal> {
        let state = self.state();
        match state.phase {
            Phase::Recovering | Phase::Replaying | Phase::Closing => {
                Err(Refusal::NotReady(self.unmet(&state)))
            }
            Phase::Serving | Phase::Stopping => Ok(state),
        }
    }

    /// The MTU that a link gets, and where it comes from: the smallest of the uplink's and those of the ways to other nodes.
    pub(super) fn mtu(&self, state: &State<D>, asked: Option<u16>) -> (u16, String) {
        if let Some(mtu) = asked.or(self.settings.mtu) {
            return (mtu, "settings".to_owned());
        }
        let uplink = match &state.uplink {
            Some(uplink) => (
                u16::try_from(uplink.mtu).unwrap_or(u16::MAX),
                format!("uplink {}", uplink.name),
            ),
            None => (USUAL_MTU, "default".to_owned()),
        };
        match &state.routes.mtu {
            Some((mtu, which)) if *mtu < uplink.0 => (*mtu, which.clone()),
            _ => uplink,
        }
    }

    pub(super) fn unmet(&self, state: &State<D>) -> Vec<String> {
        let mut unmet = Vec::new();
        match state.phase {
            Phase::Recovering => unmet.push("recovering: the kernel is being read".to_owned()),
            Phase::Replaying | Phase::Closing => {
                unmet.push("recovering: deletions that were left are carried out".to_owned())
            }
            Phase::Stopping => unmet.push("the daemon is stopping".to_owned()),
            Phase::Serving => {}
        }
        if let Some(fault) = &state.unread {
            unmet.push(format!("the kernel could not be read: {fault}"));
        }
        if let Some(fault) = &state.unpublished {
            unmet.push(format!("the nftables table is not in place: {fault}"));
        }
        if !Family::ALL.iter().any(|family| state.ipam.serves(*family)) {
            unmet.push(self.no_prefix(state));
        }
        for family in Family::ALL {
            if state.ipam.serves(family) && !state.ipam.has_room(family) {
                unmet.push(format!("no {family} address is left"));
            }
        }
        for family in Family::ALL {
            if state.ipam.serves(family) && !self.datapath.supports(family) {
                unmet.push(format!(
                    "a prefix is of {family}, which this kernel does not have"
                ));
            }
        }
        let (mtu, source) = self.mtu(state, None);
        if mtu < IPV6_MTU && state.ipam.serves(Family::V6) {
            unmet.push(format!(
                "the MTU of {mtu} ({source}) is below {IPV6_MTU}, which IPv6 needs"
            ));
        }
        if self.lanes.hanging() {
            unmet.push("too many namespaces hang while they are opened".to_owned());
        }
        unmet
    }

    pub(super) fn no_prefix(&self, state: &State<D>) -> String {
        let why = state.trouble.as_deref().unwrap_or(self.settings.source.awaited());
        format!("no prefix yet: {why}")
    }
}
