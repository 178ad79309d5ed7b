//! Blows to namespaces.

use super::{last, pause};
use crate::caller::Office;
use crate::history::Blow;
use crate::steady::FIRST_SLOT;
use anyhow::Result;
use rustix::process::Signal;
use std::time::Duration;

/// How long the kernel may take to end a namespace.
const CLEANED: Duration = Duration::from_millis(300);

/// The namespaces that a blow is for.
fn slots(blow: &Blow) -> Vec<usize> {
    let number = usize::try_from(blow.strike.number >> 1).unwrap_or_default();
    (0..=number % 4)
        .map(|n| (number / 4 + n * 7) % FIRST_SLOT)
        .collect()
}

/// Takes namespaces away; fresh ones come to their paths after a while.
pub(super) fn end(office: &Office, blow: &mut Blow) -> Result<()> {
    let slots = slots(blow);
    blow.what = format!("namespaces {slots:?} end");
    for slot in &slots {
        office.room.close(*slot)?;
    }
    last(blow);
    office.room.reopen()
}

/// The same, while the daemon can notice nothing of it; a fresh one may get the inode of one that ended.
pub(super) fn end_while_frozen(office: &Office, blow: &mut Blow) -> Result<()> {
    office.daemon.signal(Signal::STOP);
    let slots = slots(blow);
    blow.what = format!("namespaces {slots:?} end and begin while the daemon is frozen");
    for slot in &slots {
        office.room.close(*slot)?;
    }
    pause(CLEANED, || false);
    let outcome = office.room.reopen();
    office.daemon.signal(Signal::CONT);
    outcome
}
