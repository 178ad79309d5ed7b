//! What comes of a command that asks the daemon.

use crate::hint::Exit;
use client::Error;

/// Text for standard output, and the exit code.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) exit: Exit,
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// The daemon says no, or nothing.
    Daemon(Error),
    /// What was to be asked could not be found out.
    Own(anyhow::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Daemon(error)
    }
}
