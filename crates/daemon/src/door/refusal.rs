//! Refusals as gRPC statuses: one code, one reason for programs, one sentence for people.

#[cfg(test)]
mod tests;

use super::field::FieldError;
use crate::desk::order::Refusal;
use crate::fault::{is_exhaustion, number};
use model::datapath::{Fault, OpenError, WireError};
use rustix::io::Errno;
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

/// Bytes that a text may have. A status travels in headers, percent-encoded and once more in base64, and clients take 16
/// KiB of headers (hyper's default).
const TEXT_BYTES: usize = 1024;
/// Bytes that a value for programs may have.
const VALUE_BYTES: usize = 512;

fn shortened(text: &str, limit: usize) -> String {
    let end = text.floor_char_boundary(limit);
    let more = if end < text.len() { "…" } else { "" };
    format!("{}{more}", &text[..end])
}

/// Puts a status together, and shortens what is too long for one.
pub fn status(
    code: Code,
    reason: &str,
    text: String,
    metadata: &[(&str, &str)],
    retry: Option<Duration>,
) -> Status {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), shortened(value, VALUE_BYTES)))
        .collect();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if let Some(retry) = retry {
        details.set_retry_info(Some(retry));
    }
    Status::with_error_details(code, shortened(&text, TEXT_BYTES), details)
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

/// A field asks for what this daemon cannot do.
pub fn unsupported(field: &str) -> Status {
    let text = format!("{field}: this daemon cannot do that");
    status(
        Code::Unimplemented,
        "UNSUPPORTED",
        text,
        &[("field", field)],
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
        Refusal::OtherSource { source_kind } => status(
            Code::FailedPrecondition,
            "OTHER_SOURCE",
            text,
            &[("source", &source_kind.to_string())],
            None,
        ),
        Refusal::Unservable(why) => status(
            Code::InvalidArgument,
            "INVALID_FIELD",
            text,
            &[("field", "prefix"), ("value", &why.to_string())],
            None,
        ),
        Refusal::Stopping => status(Code::Unavailable, "STOPPING", text, &[], Some(LATER)),
        Refusal::TooLate => status(Code::DeadlineExceeded, "NOT_BEGUN", text, &[], None),
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
        Refusal::PortHeld { port, holder } => {
            let metadata = [
                ("field", "port_mapping"),
                ("value", &*port.to_string()),
                ("holder", &*holder.to_string()),
            ];
            status(
                Code::ResourceExhausted,
                "PORT_HELD",
                format!("port_mapping: {text}"),
                &metadata,
                None,
            )
        }
        Refusal::PortAstray { port, .. } => {
            let metadata = [("field", "port_mapping"), ("value", &*port.to_string())];
            status(
                Code::InvalidArgument,
                "INVALID_FIELD",
                format!("port_mapping: {text}"),
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
        Refusal::Kernel(fault) => kernel(fault, text),
    }
}

/// The node's fault for the moment, or the kernel's.
fn kernel(fault: &Fault, text: String) -> Status {
    let errno = fault.errno.to_string();
    match is_exhaustion(fault) {
        true => status(
            Code::Unavailable,
            "NODE_EXHAUSTED",
            text,
            &[("errno", &errno)],
            Some(LATER),
        ),
        false => status(Code::Internal, "KERNEL", text, &[("errno", &errno)], None),
    }
}

fn namespace(error: &OpenError, text: String) -> Status {
    let (code, reason, path) = match error {
        OpenError::NotFound { path } => (Code::NotFound, "NAMESPACE_NOT_FOUND", path.as_str()),
        OpenError::NotANamespace { path, .. } => (Code::FailedPrecondition, "NOT_A_NAMESPACE", path.as_str()),
        OpenError::Forbidden { path, .. } => (Code::FailedPrecondition, "NAMESPACE_FORBIDDEN", path.as_str()),
        OpenError::Fault(fault) => return unreadable(fault, text),
    };
    blamed(code, reason, &text, &[("value", path)])
}

/// The path's fault, or as [`kernel()`].
fn unreadable(fault: &Fault, text: String) -> Status {
    let errno = fault.errno.to_string();
    match number(fault) {
        Some(Errno::ACCESS | Errno::NAMETOOLONG | Errno::LOOP) => blamed(
            Code::FailedPrecondition,
            "NAMESPACE_UNREADABLE",
            &text,
            &[("errno", &errno)],
        ),
        _ => kernel(fault, text),
    }
}

/// A namespace's path is to blame.
fn blamed(code: Code, reason: &str, text: &str, more: &[(&str, &str)]) -> Status {
    let field = "netns.netns_path";
    let metadata = [&[("field", field)], more].concat();
    status(code, reason, format!("{field}: {text}"), &metadata, None)
}

fn in_the_way(link: &str, text: String) -> Status {
    let about = [("link", link)];
    status(Code::FailedPrecondition, "LINK_IN_THE_WAY", text, &about, None)
}

fn wire(error: &WireError, text: String) -> Status {
    match error {
        WireError::LinkTaken { link } => in_the_way(link.as_str(), text),
        WireError::NameTaken { name } => in_the_way(name, text),
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
        WireError::Refused { fault, .. } => kernel(fault, text),
    }
}
