//! Blows to what the daemon may use.

use super::last;
use crate::caller::Office;
use crate::history::Blow;
use anyhow::Result;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::fs;

/// Lets the daemon open a few more files than it has, for a while.
pub(super) fn open_files(office: &Office, blow: &mut Blow) -> Result<()> {
    let Some(pid) = office.daemon.pid() else {
        return Ok(());
    };
    let Ok(open) = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) else {
        return Ok(());
    };
    let limit = open.count() as u64 + blow.strike.number % 6;
    blow.what = format!("{limit} files may be open");
    squeezed(blow, pid, Resource::Nofile, limit);
    Ok(())
}

/// Lets the daemon have little more memory than it has, for a while. It may die of that.
pub(super) fn memory(office: &Office, blow: &mut Blow) -> Result<()> {
    let Some(pid) = office.daemon.pid() else {
        return Ok(());
    };
    let Ok(statm) = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_nonzero())) else {
        return Ok(());
    };
    let pages: u64 = statm
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .unwrap_or_default();
    let limit = pages * 4096 + blow.strike.number % (4 << 20);
    blow.what = format!("{limit} bytes of addresses");
    office.daemon.let_end(true);
    squeezed(blow, pid, Resource::As, limit);
    office.daemon.revive()?;
    office.daemon.let_end(false);
    Ok(())
}

/// A lower limit for as long as the blow lasts. A daemon that is gone has none.
fn squeezed(blow: &Blow, pid: Pid, resource: Resource, limit: u64) {
    let usual = prlimit(
        Some(pid),
        resource,
        Rlimit {
            current: Some(limit),
            maximum: getrlimit(resource).maximum,
        },
    );
    last(blow);
    if let Ok(usual) = usual {
        let _ = prlimit(Some(pid), resource, usual);
    }
}
