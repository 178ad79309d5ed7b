//! The link groups in which links are deleted, one for each deletion: never one in which there may be another link, because that
//! would be deleted, too. All that deletions and surveys share is here; `tests/schedules.rs` runs it in every order.
//!
//! ```text
//!  free --in_one--> in hand --all deleted--> free
//!                      '--else--> left --a survey that began later--> seen, or free where it saw no link there
//! ```

// A checker's in tests/schedules.rs, which has this file as a module of its own.
use super::Mutex;
use model::datapath::Fault;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::PoisonError;

/// Which group the next links are deleted in.
#[derive(Debug)]
pub(super) struct DyingGroups {
    all: RangeInclusive<u32>,
    groups: Mutex<Groups>,
}

#[derive(Debug, Default)]
struct Groups {
    /// How many were given so far.
    given: u32,
    /// Somebody is about to delete what is in them.
    in_hand: HashSet<u32>,
    /// A deletion failed, and links may have stayed there; with the number of the last survey that had begun by then.
    left: HashMap<u32, u64>,
    /// A link was there when the kernel was surveyed last.
    seen: HashSet<u32>,
    /// Surveys that have begun.
    begun: u64,
    /// The number of the one that `seen` is of.
    newest: u64,
}

/// A group that nobody else gets until this is dropped.
struct InHand<'a> {
    groups: &'a Mutex<Groups>,
    group: u32,
    is_empty: bool,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.in_hand.remove(&self.group);
        if !self.is_empty {
            let begun = groups.begun;
            groups.left.insert(self.group, begun);
        }
    }
}

impl DyingGroups {
    pub(super) fn new(all: RangeInclusive<u32>) -> Self {
        Self {
            all,
            groups: Mutex::new(Groups::default()),
        }
    }

    /// Deletes links in a group in which there is no other one. A success says that it is empty again. `None`: there is no such
    /// group, and nothing was done.
    pub(super) fn in_one(&self, delete: impl FnOnce(u32) -> Result<(), Fault>) -> Option<Result<(), Fault>> {
        let mut in_hand = self.take()?;
        let outcome = delete(in_hand.group);
        in_hand.is_empty = outcome.is_ok();
        Some(outcome)
    }

    /// Takes a survey, which tells in which groups it saw links.
    pub(super) fn surveyed<T>(
        &self,
        survey: impl FnOnce() -> Result<(T, HashSet<u32>), Fault>,
    ) -> Result<T, Fault> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.begun += 1;
        let number = groups.begun;
        drop(groups);
        let (survey, seen) = survey()?;
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        // Two may be taken at once, and the older one may end last.
        if number > groups.newest {
            (groups.newest, groups.seen) = (number, seen);
            groups.left.retain(|_, begun| *begun >= number);
        }
        Ok(survey)
    }

    fn take(&self) -> Option<InHand<'_>> {
        let size = self.all.end() - self.all.start() + 1;
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..size {
            let group = self.all.start() + groups.given % size;
            groups.given = groups.given.wrapping_add(1);
            let is_used = groups.seen.contains(&group) || groups.left.contains_key(&group);
            if !is_used && groups.in_hand.insert(group) {
                return Some(InHand {
                    groups: &self.groups,
                    group,
                    is_empty: false,
                });
            }
        }
        None
    }
}
