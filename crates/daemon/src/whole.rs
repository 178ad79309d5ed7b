//! A file that is read whole, whoever put it there: a regular one, of a bounded size, and without waiting for anybody.

use mishap::{Kind, at};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Its bytes, at most so many.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    at(Kind::File, format_args!("open {}", path.display()))?;
    // A FIFO would block.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    at(Kind::File, format_args!("read {}", path.display()))?;
    let mut bytes = Vec::new();
    // It may have grown since.
    let all = match found.len() {
        length if length > limit => length,
        _ => file.take(limit + 1).read_to_end(&mut bytes)? as u64,
    };
    match all > limit {
        true => Err(io::Error::other(format!(
            "it has {all} bytes, {limit} is the most"
        ))),
        false => Ok(bytes),
    }
}

/// The same, as text.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|_| io::Error::other("it is not valid UTF-8"))
}
