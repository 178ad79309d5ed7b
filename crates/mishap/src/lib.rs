//! The seam at which system calls are made to fail: whoever is about to make one asks here, and with the feature `faults`
//! a plan may answer with an error. Without the feature there is nothing here, and the product asks nobody.
//!
//! ```text
//!  thread's plan   arm, of a test that makes all calls on its own thread
//!  process's plan  the folder WORKLOADNET_FAULTS: `plan` is taken up at the next call and removed, `calls` gets a line for
//!                  each call where it exists, `fired` one for each that failed
//! ```
//! A plan is strikes, one a line: `KIND NTH EFFECT`, e.g. `message 3 errno 12`; calls are counted from 1 on, each kind alone,
//! from when the plan was taken up. With ` of TEXT` behind it, it is the NTH of the calls of its kind that are about this, so
//! that what other threads call meanwhile does not count. Who writes a plan renames it into its place.

use std::io;

#[cfg(feature = "faults")]
mod plan;

#[cfg(feature = "faults")]
pub use plan::{Call, Effect, Strike, arm, calls, disarm};

/// What kind of call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A netlink socket is opened.
    Socket,
    /// Messages are sent.
    Send,
    /// An answer is waited for.
    Receive,
    /// An answer was received.
    Answer,
    /// A notification was received.
    Notice,
    /// One message of a request, which the kernel may refuse.
    Message,
    /// A network namespace is entered.
    Enter,
    /// A path that is to be a namespace is looked at.
    Path,
    /// A setting below /proc/sys is written.
    Setting,
    /// Anything about the state file, the queue, a socket, or a lock.
    File,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Socket,
        Self::Send,
        Self::Receive,
        Self::Answer,
        Self::Notice,
        Self::Message,
        Self::Enter,
        Self::Path,
        Self::Setting,
        Self::File,
    ];

    /// As plans have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Answer => "answer",
            Self::Notice => "notice",
            Self::Message => "message",
            Self::Enter => "enter",
            Self::Path => "path",
            Self::Setting => "setting",
            Self::File => "file",
        }
    }
}

/// A call is about to be made, of which `what` tells more. An error: it fails with that, and is not made.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn at(_: Kind, _: impl std::fmt::Display) -> io::Result<()> {
    Ok(())
}

/// As above.
#[cfg(feature = "faults")]
pub fn at(kind: Kind, what: impl std::fmt::Display) -> io::Result<()> {
    match plan::strike(kind, &what) {
        Some(Effect::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
        _ => Ok(()),
    }
}

/// A datagram was received, of which `what` tells more, and may be spoilt. An error: it is lost, and that was told instead.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn received(_: Kind, _: impl std::fmt::Display, _: &mut Vec<u8>) -> io::Result<()> {
    Ok(())
}

/// As above.
#[cfg(feature = "faults")]
pub fn received(kind: Kind, what: impl std::fmt::Display, datagram: &mut Vec<u8>) -> io::Result<()> {
    match plan::strike(kind, &what) {
        Some(effect) => effect.spoil(datagram),
        None => Ok(()),
    }
}
