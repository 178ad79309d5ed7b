//! Blows to the daemon's files.

use super::{end_daemon, last};
use crate::caller::Office;
use crate::history::Blow;
use anyhow::Result;
use std::fs::{self, File};
use std::io::Write as _;

/// More than the small file system holds.
const MUCH: usize = 64 << 20;

/// Fills the file system for a while.
pub(super) fn fill_run(office: &Office, blow: &mut Blow) -> Result<()> {
    let path = office.room.run().join("filler");
    let mut file = File::create(&path)?;
    let block = [0x77; 4096];
    let written = (0..MUCH / block.len())
        .take_while(|_| file.write_all(&block).is_ok())
        .count();
    // The rest, byte by byte.
    while file.write_all(&[0x77]).is_ok() {}
    blow.what = format!("filled with {written} blocks");
    last(blow);
    fs::remove_file(path)?;
    Ok(())
}

/// Tears the state file, replaces it by garbage, or takes it away; and ends the daemon now and then, so that it is read.
pub(super) fn spoil_state(office: &Office, blow: &mut Blow) -> Result<()> {
    let path = office.room.state();
    let text = fs::read(&path).unwrap_or_default();
    let number = blow.strike.number;
    // What cannot be done because the daemon writes at the same time is no matter.
    let (how, _) = match number % 4 {
        0 => ("torn", fs::write(&path, &text[..text.len() / 2])),
        1 => ("garbage", fs::write(&path, b"\0\xffnonsense")),
        2 => ("empty", fs::write(&path, b"")),
        _ => ("gone", fs::remove_file(&path)),
    };
    if number & 0x100 != 0 {
        end_daemon(office, blow)?;
    }
    blow.what = format!("state file {how}; {}", blow.what);
    Ok(())
}
