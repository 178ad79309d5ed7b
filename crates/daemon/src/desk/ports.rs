//! Ports of the node: who has which, and that they lead there for as long as the link stands.
//!
//! A port is had by an attachment from its attach until the kernel has announced the end of its link, as an address is.

use super::order::{Attachment, Refusal};
use super::standing::number;
use super::{Desk, State};
use model::datapath::Datapath;
use model::ports::{HostPort, PortForward, Ports};

/// Which port forwards lead to which link.
pub(super) type Led = (u32, Vec<PortForward>);

/// The port forwards of an attachment; `None` where it has no ports.
pub(super) fn forwards_of(attachment: &Attachment) -> Option<Led> {
    let forwards = attachment.record.asked.ports.forwards(attachment.addresses());
    (!forwards.is_empty()).then_some((attachment.link.host_index, forwards))
}

impl<D: Datapath> State<D> {
    /// Who has one of these ports, and which of these that is.
    pub(super) fn holder_of(&self, ports: &Ports) -> Option<(HostPort, &Attachment)> {
        let same_number = ports.iter().filter_map(|port| self.by_port.get(&number(port)));
        let mut near = same_number.flatten().filter_map(|key| self.attachments.get(key));
        near.find_map(|attachment| Some((ports.overlap(&attachment.record.asked.ports)?, attachment)))
    }

    pub(super) fn are_free(&self, ports: &Ports) -> Result<(), Refusal> {
        match self.holder_of(ports) {
            None => Ok(()),
            Some((port, holder)) => Err(Refusal::PortHeld {
                port,
                holder: Box::new(holder.key().clone()),
            }),
        }
    }
}

impl<D: Datapath> Desk<D> {
    /// Port forwards of links that stand lead there, as far as they do not yet; whether it went well.
    pub(super) fn hold_forwards(&self, led: &[Led]) -> bool {
        let mut is_good = true;
        for (index, forwards) in led {
            if !self.state().by_index.contains_key(index) {
                continue;
            }
            if let Err(fault) = self.datapath.set_forwards(*index, forwards) {
                tracing::warn!(index, %fault, "ports of the node lead nowhere");
                is_good = false;
            }
            // Who ends a link takes it out of the state first, and closes its forwards then.
            if !self.state().by_index.contains_key(index) {
                self.close_forwards(*index);
                // Somebody may have had its ports already, and has them no more.
                self.sweeper.all_touched();
            }
        }
        is_good
    }

    /// The ports of a link that has ended lead nowhere.
    pub(super) fn close_forwards(&self, index: u32) {
        if let Err(fault) = self.datapath.set_forwards(index, &[]) {
            tracing::warn!(index, %fault, "ports of a link that has ended are not closed yet");
            self.sweeper.ruleset_touched();
        }
    }
}
