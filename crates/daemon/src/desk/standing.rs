//! Which attachments stand, and what each is found by: its key, its link's index, its ports of the node.

use super::State;
use super::order::Attachment;
use model::datapath::Datapath;
use model::key::Key;
use model::ports::{HostPort, Protocol};

/// A port of the node, at whatever address.
pub(super) fn number(port: &HostPort) -> (Protocol, u16) {
    (port.protocol, port.port)
}

impl<D: Datapath> State<D> {
    /// It is attached from now on. Two links cannot have one name: an older one of its key has ended.
    pub(super) fn enter(&mut self, attachment: Attachment) {
        let key = attachment.key().clone();
        self.leave(&key);
        self.by_index.insert(attachment.link.host_index, key.clone());
        for port in attachment.record.asked.ports.iter() {
            self.by_port.entry(number(port)).or_default().insert(key.clone());
        }
        self.attachments.insert(key, attachment);
    }

    /// It is attached no more.
    pub(super) fn leave(&mut self, key: &Key) {
        let Some(attachment) = self.attachments.remove(key) else {
            return;
        };
        self.by_index.remove(&attachment.link.host_index);
        for port in attachment.record.asked.ports.iter() {
            let number = number(port);
            if let Some(keys) = self.by_port.get_mut(&number) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_port.remove(&number);
                }
            }
        }
    }

    /// That of a link.
    pub(super) fn at(&self, index: u32) -> Option<&Attachment> {
        self.attachments.get(self.by_index.get(&index)?)
    }
}
