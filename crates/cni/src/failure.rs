//! Why a call failed, in the specification's codes (SPEC.md, section 5) and our own from 100 on.

use client::{Code, Error, Refused};
use serde_json::{Value, json};
use std::error::Error as _;
use std::io;

/// Error, as it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u32,
    /// What, and which value.
    pub(crate) msg: String,
    /// What the daemon said for programs.
    pub(crate) details: String,
}

/// Codes that are our own.
pub(crate) mod own {
    /// No address is left, or a requested one is held.
    pub(crate) const ADDRESS: u32 = 101;
    /// The key is attached in another way, or a link is in the way.
    pub(crate) const IN_THE_WAY: u32 = 102;
    /// CHECK found differences.
    pub(crate) const DIFFERS: u32 = 103;
    /// GC left something.
    pub(crate) const LEFT: u32 = 104;
}

const INCOMPATIBLE: u32 = 1;
const UNSUPPORTED: u32 = 2;
const UNKNOWN_CONTAINER: u32 = 3;
const ENVIRONMENT: u32 = 4;
const IO: u32 = 5;
const DECODE: u32 = 6;
const CONFIG: u32 = 7;
/// In the specification's library only (types.ErrInvalidNetNS).
const NETNS: u32 = 8;
const LATER: u32 = 11;
/// STATUS: ADD cannot be served.
const UNAVAILABLE: u32 = 50;
/// STATUS: nor may what stands have all of its network.
const LIMITED: u32 = 51;
const INTERNAL: u32 = 999;

impl Failure {
    pub(crate) fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    pub(crate) fn incompatible(msg: String) -> Self {
        Self::new(INCOMPATIBLE, msg)
    }

    /// A field and its value that this plugin cannot act on.
    pub(crate) fn unsupported(field: &str, value: &Value, why: &str) -> Self {
        Self::new(UNSUPPORTED, format!("{field} {}: {why}", shortened(value)))
    }

    pub(crate) fn environment(msg: String) -> Self {
        Self::new(ENVIRONMENT, msg)
    }

    pub(crate) fn io(msg: String) -> Self {
        Self::new(IO, msg)
    }

    pub(crate) fn decode(msg: String) -> Self {
        Self::new(DECODE, msg)
    }

    /// A field of the configuration, its value, and what is wrong with it.
    pub(crate) fn config(field: &str, value: &Value, why: &str) -> Self {
        Self::new(CONFIG, format!("{field} {}: {why}", shortened(value)))
    }

    pub(crate) fn limited(msg: String) -> Self {
        Self::new(LIMITED, msg)
    }

    pub(crate) fn to_json(&self, version: &str) -> Value {
        let mut shown = json!({ "cniVersion": version, "code": self.code, "msg": self.msg });
        if !self.details.is_empty() {
            shown["details"] = json!(self.details);
        }
        shown
    }

    /// An order or a question that the daemon did not answer with yes.
    pub(crate) fn of(error: &Error) -> Self {
        let msg = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        match error {
            Error::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::new(IO, msg)
            }
            Error::Unreachable { .. } | Error::Deadline(_) => Self::new(LATER, msg),
            Error::BadSocket(_) => Self::new(CONFIG, format!("socket: {msg}")),
            Error::Lacks { .. } => Self::new(UNSUPPORTED, msg),
            Error::NotQueued { .. } | Error::Queue { .. } => Self::new(IO, msg),
            Error::Refused(refused) => Self {
                code: code_of(refused),
                msg,
                details: details(refused),
            },
            _ => Self::new(INTERNAL, msg),
        }
    }

    /// As [`Self::of`], for a daemon that was asked how it is.
    pub(crate) fn of_status(error: &Error) -> Self {
        match Self::of(error) {
            failure if failure.code == LATER => Self {
                code: UNAVAILABLE,
                ..failure
            },
            failure => failure,
        }
    }
}

fn code_of(refused: &Refused) -> u32 {
    match refused.reason.as_str() {
        "INVALID_FIELD" => match refused.field.as_deref() {
            Some("workload_id" | "netns.if_name" | "netns.netns_path") => ENVIRONMENT,
            _ => CONFIG,
        },
        "UNSUPPORTED" => UNSUPPORTED,
        "NOT_ATTACHED" => UNKNOWN_CONTAINER,
        "ADDRESSES_EXHAUSTED" | "ADDRESS_HELD" | "ADDRESS_ROUTED" => own::ADDRESS,
        "DIFFERENT" | "LINK_IN_THE_WAY" | "INTERFACE_TAKEN" | "NAMESPACE_TAKEN" | "PORT_HELD" => {
            own::IN_THE_WAY
        }
        "NAMESPACE_NOT_FOUND"
        | "NOT_A_NAMESPACE"
        | "NAMESPACE_FORBIDDEN"
        | "NAMESPACE_UNREADABLE"
        | "NAMESPACE_VANISHED" => NETNS,
        _ => match refused.code {
            Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => LATER,
            Code::PermissionDenied => IO,
            Code::Unimplemented => UNSUPPORTED,
            _ => INTERNAL,
        },
    }
}

/// `REASON key=value ...`
fn details(refused: &Refused) -> String {
    let mut pairs: Vec<String> = refused
        .metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.sort();
    pairs.insert(0, refused.reason.clone());
    pairs.join(" ").trim_start().to_owned()
}

/// A value as a message shows it.
pub(crate) fn shortened(value: &Value) -> String {
    const SHOWN: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
