//! The one who strikes, one blow after the other, each when so many operations have begun. What a blow withholds it gives back
//! at its end; what it takes away it does not.

mod files;
mod limits;
mod links;
mod spaces;

use crate::caller::{Caller, Office};
use crate::history::Blow;
use crate::plan::{Kind, Strike};
use anyhow::Result;
use rustix::process::Signal;
use stage::wait::PATIENCE;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Nobody waits longer for the next strike's turn: callers take their operations by then.
const TURN: Duration = Duration::from_secs(120);

/// Strikes until all has come, or the callers have done everything.
pub fn strike(office: &Arc<Office>, strikes: &[Strike], are_done: &AtomicBool) -> Result<Vec<Blow>> {
    let asker = Caller::new(usize::MAX, Arc::clone(office))?;
    let mut blows = Vec::new();
    for strike in strikes {
        let is_due =
            || office.begun.load(Ordering::Relaxed) >= strike.after || are_done.load(Ordering::Relaxed);
        pause(TURN, is_due);
        if are_done.load(Ordering::Relaxed) {
            break;
        }
        pause(Duration::from_micros(strike.delay), || false);
        if needs_service(strike.kind) {
            pause(PATIENCE, || serves(&asker));
        }
        let begin = office.room.now();
        let mut blow = Blow {
            strike: strike.clone(),
            begin,
            end: begin,
            what: String::new(),
            cut: Vec::new(),
            complaint: None,
        };
        deal(office, &mut blow)?;
        blow.end = office.room.now();
        blows.push(blow);
    }
    Ok(blows)
}

/// A daemon that starts may end for want of files, and leaves alone what has lost group or record before it looked
/// (docs/reliability.md): these strikes are for one that serves.
fn needs_service(kind: Kind) -> bool {
    matches!(kind, Kind::OpenFiles | Kind::Unroute)
}

fn serves(asker: &Caller) -> bool {
    asker.question(async |client| client.list(None).await).is_ok()
}

fn deal(office: &Office, blow: &mut Blow) -> Result<()> {
    match blow.strike.kind {
        Kind::Kill | Kind::Stop => end_daemon(office, blow),
        Kind::Pause => freeze(office, blow),
        Kind::FillRun => files::fill_run(office, blow),
        Kind::SpoilState => files::spoil_state(office, blow),
        Kind::EndNamespace => spaces::end(office, blow),
        Kind::EndFrozen => spaces::end_while_frozen(office, blow),
        Kind::DeleteLink => links::delete(office, blow),
        Kind::Rename => links::rename(office, blow),
        Kind::LinkDown => links::set_down(office, blow),
        Kind::Unroute => links::unroute(office, blow),
        Kind::StrangeLink => links::put_in_the_way(office, blow),
        Kind::Churn => links::churn(office, blow),
        Kind::Table => links::clear_table(office, blow),
        Kind::OpenFiles => limits::open_files(office, blow),
        Kind::Memory => limits::memory(office, blow),
    }
}

fn pause(limit: Duration, is_over: impl Fn() -> bool) {
    stage::wait::within(limit, is_over);
}

/// As long as a blow lasts.
fn last(blow: &Blow) {
    pause(Duration::from_millis(blow.strike.lasts), || false);
}

/// Ends the daemon; another one comes after a while.
fn end_daemon(office: &Office, blow: &mut Blow) -> Result<()> {
    let (signal, word) = match blow.strike.kind {
        Kind::Stop => (Signal::TERM, "stopped"),
        _ => (Signal::KILL, "killed"),
    };
    let status = office.daemon.end(signal)?;
    blow.what = format!("{word}: {status:?}");
    pause(Duration::from_millis(blow.strike.lasts.min(1000)), || false);
    office.daemon.start()?;
    Ok(())
}

fn freeze(office: &Office, blow: &mut Blow) -> Result<()> {
    blow.what = "frozen".to_owned();
    office.daemon.signal(Signal::STOP);
    last(blow);
    office.daemon.signal(Signal::CONT);
    Ok(())
}
