//! Why a call did not succeed: what the daemon said, or why it could not say anything.

use crate::details;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tonic::Code;

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
    #[error("workloadnetd (version {version}) cannot do {feature:?}{}", with(value))]
    Lacks {
        /// As GetNode names it.
        feature: String,
        /// What was asked for; empty where it is no value.
        value: String,
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

fn with(value: &str) -> String {
    match value {
        "" => String::new(),
        value => format!(": {value}"),
    }
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
    /// The daemon says that the same call again tells the outcome.
    NoOutcomeYet,
    /// The daemon answered.
    Refused(Box<Refused>),
}

/// A status as gRPC sends it.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) message: String,
    /// A `google.rpc.Status`.
    pub(crate) details: Vec<u8>,
}

impl Failure {
    pub(crate) fn lost(error: h2::Error) -> Self {
        Self::garbled(&error.to_string())
    }

    /// What answers does not speak gRPC, or not to its end.
    pub(crate) fn garbled(what: &str) -> Self {
        Self::Lost(io::Error::new(io::ErrorKind::ConnectionAborted, what))
    }

    pub(crate) fn said(said: Said) -> Self {
        let Said {
            code,
            message,
            details,
        } = said;
        let code = Code::from_i32(code);
        let details = details::read(&details);
        if matches!(&*details.reason, "ORDER_GOES_ON" | "NOT_BEGUN") {
            return Self::NoOutcomeYet;
        }
        // Another server's timer says this, without details.
        if details.reason.is_empty() && matches!(code, Code::DeadlineExceeded | Code::Cancelled) {
            return Self::Deadline;
        }
        Self::Refused(Box::new(Refused {
            code,
            reason: details.reason,
            message,
            field: details.metadata.get("field").cloned(),
            retry_after: details.retry_after,
            metadata: details.metadata,
        }))
    }
}
