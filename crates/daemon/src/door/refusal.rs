//! Refusals as gRPC statuses: one code, one reason for programs, one sentence for people.

use super::field::FieldError;
use crate::desk::order::Refusal;
use model::datapath::{OpenError, WireError};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of every google.rpc.ErrorInfo.
pub const DOMAIN: &str = "workloadnet.v1";

/// When to try again what a recovery or a full queue refused.
const SOON: Duration = Duration::from_millis(250);
/// When to try again what waits for another daemon, or for addresses.
const LATER: Duration = Duration::from_secs(1);

/// Puts a status together.
pub fn status(
    code: Code,
    reason: &str,
    text: String,
    metadata: &[(&str, &str)],
    retry: Option<Duration>,
) -> Status {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if let Some(retry) = retry {
        details.set_retry_info(Some(retry));
    }
    Status::with_error_details(code, text, details)
}

/// A field's value cannot be used.
pub fn invalid(error: &FieldError) -> Status {
    let metadata = [("field", error.field.as_str()), ("value", error.value.as_str())];
    status(
        Code::InvalidArgument,
        "INVALID_FIELD",
        error.to_string(),
        &metadata,
        None,
    )
}

/// Nothing is attached under a key.
pub fn not_attached(key: &model::key::Key) -> Status {
    let name = key.to_string();
    status(
        Code::NotFound,
        "NOT_ATTACHED",
        format!("{name} is not attached"),
        &[("key", &name)],
        None,
    )
}

/// The order was not carried out.
pub fn refused(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::NotReady(_) => status(Code::Unavailable, "NOT_READY", text, &[], Some(SOON)),
        Refusal::Overloaded { waiting } => status(
            Code::Unavailable,
            "OVERLOADED",
            text,
            &[("waiting", &waiting.to_string())],
            Some(SOON),
        ),
        Refusal::Stopping => status(Code::Unavailable, "STOPPING", text, &[], Some(LATER)),
        Refusal::TooLate => status(Code::DeadlineExceeded, "DEADLINE", text, &[], None),
        Refusal::NamespaceHangs { path, .. } => status(
            Code::DeadlineExceeded,
            "NAMESPACE_HANGS",
            text,
            &[("field", "netns.netns_path"), ("value", path)],
            None,
        ),
        Refusal::Namespace(error) => namespace(error, text),
        Refusal::Different { key, .. } => status(
            Code::AlreadyExists,
            "DIFFERENT",
            text,
            &[("holder", &key.to_string())],
            None,
        ),
        Refusal::InTheWay { link, .. } => status(
            Code::FailedPrecondition,
            "LINK_IN_THE_WAY",
            text,
            &[("link", link)],
            None,
        ),
        Refusal::Exhausted(_) => status(
            Code::ResourceExhausted,
            "ADDRESSES_EXHAUSTED",
            text,
            &[],
            Some(LATER),
        ),
        Refusal::Held { address, holder } => {
            let metadata = [
                ("field", "requested_ip"),
                ("value", &*address.to_string()),
                ("holder", holder),
            ];
            status(Code::ResourceExhausted, "ADDRESS_HELD", text, &metadata, None)
        }
        Refusal::NotOurs { address, .. } => {
            let metadata = [("field", "requested_ip"), ("value", &*address.to_string())];
            status(
                Code::InvalidArgument,
                "INVALID_FIELD",
                format!("requested_ip: {text}"),
                &metadata,
                None,
            )
        }
        Refusal::MtuTooSmall { mtu } => {
            let metadata = [("field", "mtu"), ("value", &*mtu.to_string())];
            status(
                Code::InvalidArgument,
                "INVALID_FIELD",
                format!("mtu: {text}"),
                &metadata,
                None,
            )
        }
        Refusal::Wire(error) => wire(error, text),
        Refusal::Kernel(fault) => status(
            Code::Internal,
            "KERNEL",
            text,
            &[("errno", &fault.errno.to_string())],
            None,
        ),
    }
}

fn namespace(error: &OpenError, text: String) -> Status {
    let (code, reason, path) = match error {
        OpenError::NotFound { path } => (Code::NotFound, "NAMESPACE_NOT_FOUND", path.as_str()),
        OpenError::NotANamespace { path, .. } => (Code::FailedPrecondition, "NOT_A_NAMESPACE", path.as_str()),
        OpenError::Forbidden { path, .. } => (Code::FailedPrecondition, "NAMESPACE_FORBIDDEN", path.as_str()),
        OpenError::Fault(_) => (Code::FailedPrecondition, "NAMESPACE_UNREADABLE", ""),
    };
    status(
        code,
        reason,
        format!("netns.netns_path: {text}"),
        &[("field", "netns.netns_path"), ("value", path)],
        None,
    )
}

fn wire(error: &WireError, text: String) -> Status {
    match error {
        WireError::LinkTaken { link } => status(
            Code::FailedPrecondition,
            "LINK_IN_THE_WAY",
            text,
            &[("link", link.as_str())],
            None,
        ),
        WireError::InterfaceTaken { interface } => {
            let metadata = [("field", "netns.if_name"), ("value", interface.as_str())];
            status(
                Code::FailedPrecondition,
                "INTERFACE_TAKEN",
                format!("netns.if_name: {text}"),
                &metadata,
                None,
            )
        }
        WireError::Routed { destination } => {
            let metadata = [("destination", &*destination.to_string())];
            status(Code::FailedPrecondition, "ADDRESS_ROUTED", text, &metadata, None)
        }
        WireError::InsideTaken { .. } => {
            let text = format!("netns.netns_path: {text}");
            status(
                Code::FailedPrecondition,
                "NAMESPACE_TAKEN",
                text,
                &[("field", "netns.netns_path")],
                None,
            )
        }
        WireError::Vanished(_) => status(Code::FailedPrecondition, "NAMESPACE_VANISHED", text, &[], None),
        WireError::Refused { fault, .. } => status(
            Code::Internal,
            "KERNEL",
            text,
            &[("errno", &fault.errno.to_string())],
            None,
        ),
    }
}
