//! What happened: every call with its answer, every blow, every namespace, in microseconds since the run began.

use crate::plan::{Act, Operation, Strike};
use serde::Serialize;
use std::net::IpAddr;

/// A call and its one answer.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// Its place in the round.
    pub number: usize,
    /// Who called.
    pub caller: usize,
    /// Just before it was sent.
    pub begin: u64,
    /// Just after the answer was there, or the caller gave up.
    pub end: u64,
    /// What was asked.
    pub operation: Operation,
    /// What came of it.
    pub answer: Answer,
}

impl Call {
    /// What was asked.
    pub fn act(&self) -> &Act {
        &self.operation.act
    }

    /// By nobody in particular.
    #[cfg(test)]
    pub(crate) fn made(act: Act, begin: u64, end: u64, answer: Answer) -> Self {
        Self {
            number: 0,
            caller: 0,
            begin,
            end,
            operation: Operation::patient(act),
            answer,
        }
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Answer {
    /// Attached so.
    Attached(Attached),
    /// Yes.
    Done,
    /// What is attached, by the number of the key.
    Listed(Vec<(usize, Attached)>),
    /// Attachments of keys that nobody has attached.
    Strange(String),
    /// What was found to be wrong.
    Findings(Vec<String>),
    /// No, and why.
    Refused(Refused),
    /// Nobody can know: no connection, no answer in time, or the caller hung up.
    Unknown(String),
}

/// An attachment as an answer shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The workload's addresses.
    pub addresses: Vec<IpAddr>,
    /// The host end's name.
    pub link: String,
    /// MAC of the workload's end.
    pub mac: String,
    /// The namespace's inode, where the answer names it.
    pub inode: Option<u64>,
    /// It is being detached.
    pub is_leaving: bool,
}

impl Attached {
    /// What is the same each time that it is told.
    pub fn text(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!("{} {} {}", self.link, addresses.join(" "), self.mac)
    }
}

/// A no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The code's name, or the plugin's number.
    pub code: String,
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A namespace's life at one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Life {
    /// Number of the path.
    pub slot: usize,
    /// Of the namespace.
    pub inode: u64,
    /// When its path began to lead to it: after `from`.
    pub from: u64,
    /// When its path was about to be taken away; `u64::MAX`: it leads there still.
    pub until: u64,
    /// When its path was gone.
    pub gone: u64,
}

/// What a strike did.
#[derive(Debug, Clone, Serialize)]
pub struct Blow {
    /// As it was planned.
    pub strike: Strike,
    /// When it began.
    pub begin: u64,
    /// When it was over.
    pub end: u64,
    /// In words.
    pub what: String,
    /// Keys whose link was taken away.
    pub cut: Vec<usize>,
    /// What the daemon should have done about it, and did not.
    pub complaint: Option<String>,
}

/// A daemon's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reign {
    /// When it was about to be started.
    pub from: u64,
    /// When it was seen to be dead; `u64::MAX`: it lives.
    pub until: u64,
}

/// A round.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    /// In the order of their ends.
    pub calls: Vec<Call>,
    /// In their order.
    pub blows: Vec<Blow>,
    /// Every namespace that there was or is. The index is its number.
    pub lives: Vec<Life>,
    /// Every daemon that there was or is.
    pub reigns: Vec<Reign>,
}

impl History {
    /// When the daemon was dead that lived at a moment, or the first one after it.
    pub fn death_after(&self, moment: u64) -> u64 {
        let deaths = self.reigns.iter().map(|reign| reign.until);
        deaths.filter(|until| *until >= moment).min().unwrap_or(u64::MAX)
    }

    /// Whether a daemon died, or was not there, at any time between two moments.
    pub fn was_interrupted(&self, begin: u64, end: u64) -> bool {
        let changed = |reign: &Reign| {
            [reign.from, reign.until]
                .iter()
                .any(|moment| (begin..=end).contains(moment))
        };
        self.reigns.iter().any(changed) || self.living(begin).next().is_none()
    }

    /// Whether a daemon looked at what was there before it, or may have, at any time between two moments.
    pub fn may_have_looked(&self, begin: u64, end: u64) -> bool {
        self.was_interrupted(begin, end) || !self.living(begin).any(|reign| self.had_looked(reign, begin))
    }

    fn living(&self, moment: u64) -> impl Iterator<Item = &Reign> {
        self.reigns
            .iter()
            .filter(move |reign| reign.from < moment && moment < reign.until)
    }

    /// A daemon that has shown an attachment knows all that it found at its start.
    fn had_looked(&self, reign: &Reign, moment: u64) -> bool {
        self.calls.iter().any(|call| {
            reign.from < call.begin
                && call.end < moment
                && matches!(call.answer, Answer::Attached(_) | Answer::Listed(_))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_has_shown_nothing_yet_may_be_looking() {
        let listed = Call::made(Act::List, 20, 30, Answer::Listed(Vec::new()));
        let history = |from| History {
            calls: vec![listed.clone()],
            reigns: vec![
                Reign {
                    from: 0,
                    until: from - 1,
                },
                Reign {
                    from,
                    until: u64::MAX,
                },
            ],
            ..History::default()
        };
        assert!(!history(10).may_have_looked(40, 50));
        assert!(history(25).may_have_looked(40, 50));
        assert!(history(45).may_have_looked(40, 50));
    }
}
