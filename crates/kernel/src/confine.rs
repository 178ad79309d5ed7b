//! What the process gives up once it has started, for good: capabilities, system calls, files. Which, and why:
//! `docs/decisions/0041-what-is-given-up-after-the-start.md`.
//!
//! ```text
//!  capabilities   gone from every set        each thread inherits all three from the one that starts it, so they are taken
//!  calls          seccomp, a list of those   from the first one, before there is another
//!                 that may be made
//!  files          Landlock: written only     but for `outside`, whose threads may open no file but by name
//!                 below a few folders
//! ```

mod calls;
mod capabilities;
mod files;
mod outside;

use crate::fault::{io, sys};
use model::datapath::Fault;
pub(crate) use outside::{Outside, by_name};
use rustix::thread::set_no_new_privs;
use std::fmt;
use std::path::{Path, PathBuf};

/// What the process will still do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Folders below which files are made, written, renamed and removed.
    pub folders: Vec<PathBuf>,
    /// Whether TCP connections are made.
    pub connects: bool,
}

/// What was given up. Capabilities always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confined {
    /// Whether other calls than the listed ones fail.
    pub calls: bool,
    /// Whether other files than the needed ones cannot be written.
    pub files: Files,
}

/// How far files are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// The kernel has no Landlock, or does not use it.
    Free,
    /// An older Landlock does not know of all that was asked for.
    Partly,
    /// All of it.
    Wholly,
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "free",
            Self::Partly => "partly",
            Self::Wholly => "wholly",
        })
    }
}

/// Confines the calling thread and all that it starts from here on. `settings` is the folder of the kernel's settings that are
/// written.
pub(crate) fn confine(needs: &Needs, settings: &Path) -> Result<(Confined, Option<Outside>), Fault> {
    capabilities::drop_unneeded()?;
    // Without it only root could give up calls and files.
    set_no_new_privs(true).map_err(|errno| sys("prctl PR_SET_NO_NEW_PRIVS", errno))?;
    let calls = calls::confine(needs.connects);
    // Started while this thread may still look up everything.
    let outside = Outside::start().map_err(|error| io("start a thread", &error))?;
    let files = files::confine(needs, settings)?;
    let outside = (files != Files::Free).then_some(outside);
    Ok((Confined { calls, files }, outside))
}
