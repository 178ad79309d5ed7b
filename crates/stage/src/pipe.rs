//! Pipes that nobody reads.

use anyhow::Result;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::io::{PipeWriter, Write as _};

/// Fills a pipe, and tells by how many bytes. It blocks as before afterwards.
pub fn fill(mut writer: &PipeWriter) -> Result<usize> {
    let flags = fcntl_getfl(writer)?;
    fcntl_setfl(writer, flags | OFlags::NONBLOCK)?;
    let mut filled = 0;
    while let Ok(written) = writer.write(&[b'.'; 4096]) {
        filled += written;
    }
    fcntl_setfl(writer, flags)?;
    Ok(filled)
}
