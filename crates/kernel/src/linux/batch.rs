//! Messages for one send, and what came back of them by position.

use crate::crash;
use crate::message::Message;
use crate::socket::{Answer, Refused, Reply, Socket};
use libc::{EACCES, ENODEV, ENOENT};
use model::datapath::{Fault, WireError};
use model::op::Op;

/// Ops with questions before and after them, for one send.
pub(super) struct Batch<'a> {
    pub(super) messages: Vec<Message>,
    /// Where the ops begin.
    pub(super) first: usize,
    pub(super) ops: &'a [Op],
}

/// What came back. Positions count from the first of the ops, or of the questions of either kind.
#[derive(Default)]
pub(super) struct Sent {
    /// Of the ops.
    pub(super) refused: Vec<Refused>,
    /// What the kernel had against questions.
    pub(super) unanswered: Vec<Refused>,
    pub(super) before: Vec<Reply>,
    pub(super) after: Vec<Reply>,
}

impl Batch<'_> {
    /// Sends everything together.
    ///
    /// A link inherits `disable_ipv6` from its namespace's default, and takes no IPv6 address then (EACCES): it is switched
    /// on for this link, and what was refused is sent once more. A node or a sandbox where it is on pays nothing for that.
    pub(super) fn send(
        &self,
        socket: &mut Socket,
        switch_ipv6_on: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<Sent, WireError> {
        let end = self.first + self.ops.len();
        let mut sent = Sent::default();
        sent.add(send_all(socket, &self.messages)?, self.first, end);
        let off = |refused: &Refused| {
            let op = &self.ops[refused.position];
            refused.fault.errno == EACCES
                && matches!(op, Op::Address { address, .. } if address.addr().is_ipv6())
        };
        if !sent.refused.iter().any(off) {
            return Ok(sent);
        }
        switch_ipv6_on().map_err(gone_or_refused)?;
        let positions: Vec<usize> = sent.refused.drain(..).map(|refused| refused.position).collect();
        let refused = positions.iter().map(|n| &self.messages[self.first + n]);
        let again: Vec<Message> = refused.chain(&self.messages[end..]).cloned().collect();
        sent.after.clear();
        // Those behind the ops are asked once more.
        sent.unanswered.retain(|refused| refused.position < self.first);
        sent.add(send_all(socket, &again)?, 0, positions.len());
        for refused in &mut sent.refused {
            refused.position = positions[refused.position];
        }
        Ok(sent)
    }
}

impl Sent {
    /// An answer to messages of which those from `first` up to `end` are ops.
    fn add(&mut self, answer: Answer, first: usize, end: usize) {
        for Refused { position, fault } in answer.refused {
            match (first..end).contains(&position) {
                true => {
                    let position = position - first;
                    self.refused.push(Refused { position, fault });
                }
                false => self.unanswered.push(Refused { position, fault }),
            }
        }
        for Reply { position, payload } in answer.replies {
            match position.checked_sub(end) {
                Some(position) => self.after.push(Reply { position, payload }),
                None => self.before.push(Reply { position, payload }),
            }
        }
    }
}

/// Sends messages together, or in a build with crash points one by one.
pub(super) fn send_all(socket: &mut Socket, batch: &[Message]) -> Result<Answer, WireError> {
    if !crash::is_stepwise() {
        return socket.batch(batch).map_err(refused);
    }
    let mut all = Answer::default();
    for (position, message) in batch.iter().enumerate() {
        let answer = socket.batch(std::slice::from_ref(message)).map_err(refused)?;
        all.refused.extend(
            answer
                .refused
                .into_iter()
                .map(|refused| Refused { position, ..refused }),
        );
        all.replies.extend(
            answer
                .replies
                .into_iter()
                .map(|reply| Reply { position, ..reply }),
        );
        crash::step();
    }
    Ok(all)
}

pub(super) fn refused(fault: Fault) -> WireError {
    WireError::Refused {
        fault,
        left: Vec::new(),
    }
}

/// A link that is no longer there was taken along by its namespace.
pub(super) fn gone_or_refused(fault: Fault) -> WireError {
    match fault.errno {
        ENODEV | ENOENT => WireError::Vanished(fault),
        _ => refused(fault),
    }
}
