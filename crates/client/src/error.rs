//! Why a call did not succeed: what the daemon said, or why it could not say anything.

use crate::connection::Broken;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers on the socket.
    #[error("workloadnetd cannot be reached on {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// `NotFound`, `ConnectionRefused` and `PermissionDenied` come from connecting; `ConnectionAborted` says that the
        /// connection was lost twice.
        source: io::Error,
    },
    /// The socket's path cannot be one.
    #[error("{} cannot be a socket's path", .0.display())]
    BadSocket(PathBuf),
    /// The deadline, which this was, passed. An Attach or Detach may still be carried out.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(Box<Refused>),
    /// The daemon is too old for what was asked, or was built without it. Nothing was changed.
    #[error("workloadnetd (version {version}) cannot do {feature:?}")]
    Lacks {
        /// As GetNode names it.
        feature: String,
        /// What the daemon says of itself, or `unknown`.
        version: String,
    },
    /// An answer has a field that cannot be read.
    #[error("the daemon's answer cannot be read: {0}")]
    Garbled(&'static str),
    /// The daemon cannot be reached, and the deletion could not be left for it.
    #[error("{why}, and the deletion could not be left in {}", folder.display())]
    NotQueued {
        /// The queue.
        folder: PathBuf,
        /// Why it was to be queued.
        why: Box<Error>,
        /// Why it was not.
        source: io::Error,
    },
    /// The queue of deletions could not be changed.
    #[error("the queue of deletions {} could not be changed", folder.display())]
    Queue {
        /// The queue.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What the daemon said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// gRPC status code.
    pub code: Code,
    /// Reason for programs, e.g. `ADDRESS_HELD`; empty where the daemon gave none.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field that is wrong, where one is.
    pub field: Option<String>,
    /// When to try again, where that helps.
    pub retry_after: Option<Duration>,
    /// All that was said for programs.
    pub metadata: HashMap<String, String>,
}

/// How one try of a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection: the daemon has heard nothing.
    NotConnected(io::Error),
    /// The connection ended under the call.
    Lost(io::Error),
    /// The deadline passed, here or there.
    Deadline,
    /// The daemon answered.
    Refused(Box<Refused>),
}

impl Failure {
    pub(crate) fn of(status: &Status) -> Self {
        // A status that came over the wire has no source.
        if status.source().is_some() {
            return match find::<Broken>(status) {
                Some(Broken::NotConnected(error)) => Self::NotConnected(copy(error)),
                _ => Self::Lost(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    innermost(status).to_string(),
                )),
            };
        }
        let details = status.get_error_details();
        let (reason, metadata) = match details.error_info() {
            Some(info) => (info.reason.clone(), info.metadata.clone()),
            // The server's own timer says this, without details.
            None if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => {
                return Self::Deadline;
            }
            None => Default::default(),
        };
        Self::Refused(Box::new(Refused {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            field: metadata.get("field").cloned(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            metadata,
        }))
    }
}

fn find<T: StdError + 'static>(status: &Status) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn innermost(status: &Status) -> &dyn StdError {
    let mut error: &dyn StdError = status;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// An `io::Error` cannot be cloned.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
