//! Refusals as gRPC statuses: one code, one reason for programs, one sentence for people.

use super::field::FieldError;
use crate::desk::order::Refusal;
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
        OpenError::Fault(fault) => return unreadable(fault, text),
    };
    blamed(code, reason, &text, &[("value", path)])
}

/// The path's fault, the node's for the moment, or the kernel's.
fn unreadable(fault: &Fault, text: String) -> Status {
    let errno = fault.errno.to_string();
    match Errno::from_raw_os_error(fault.errno) {
        Errno::ACCESS | Errno::NAMETOOLONG | Errno::LOOP => blamed(
            Code::FailedPrecondition,
            "NAMESPACE_UNREADABLE",
            &text,
            &[("errno", &errno)],
        ),
        // Too many open files here or on the node, no memory.
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => status(
            Code::Unavailable,
            "NODE_EXHAUSTED",
            text,
            &[("errno", &errno)],
            Some(LATER),
        ),
        _ => status(Code::Internal, "KERNEL", text, &[("errno", &errno)], None),
    }
}

/// A namespace's path is to blame.
fn blamed(code: Code, reason: &str, text: &str, more: &[(&str, &str)]) -> Status {
    let field = "netns.netns_path";
    let metadata = [&[("field", field)], more].concat();
    status(code, reason, format!("{field}: {text}"), &metadata, None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use model::address::Addresses;
    use model::key::{InterfaceName, Key, Owner, WorkloadId};
    use model::ports::{HostPort, Protocol};

    fn key() -> Key {
        Key::new(
            Owner::new("k8s.io").unwrap(),
            WorkloadId::new("pod-1").unwrap(),
            InterfaceName::new("eth0").unwrap(),
        )
        .unwrap()
    }

    fn fault() -> Fault {
        Fault {
            tried: "ip link add wk0".to_owned(),
            reason: "Operation not permitted".to_owned(),
            errno: 1,
        }
    }

    fn unopened(errno: Errno) -> Refusal {
        let fault = Fault {
            tried: "open \"/run/netns/a\"".to_owned(),
            reason: errno.to_string(),
            errno: errno.raw_os_error(),
        };
        OpenError::Fault(fault).into()
    }

    /// How many kinds of refusal there are. A new one does not compile here, and then belongs into the table.
    fn kind(refusal: &Refusal) -> usize {
        use {OpenError as O, Refusal as R, WireError as W};
        match refusal {
            R::NotReady(_) => 0,
            R::Overloaded { .. } => 1,
            R::Stopping => 2,
            R::TooLate => 5,
            R::Namespace(O::NotFound { .. }) => 6,
            R::Namespace(O::NotANamespace { .. }) => 7,
            R::Namespace(O::Forbidden { .. }) => 8,
            R::Namespace(O::Fault(_)) => 9,
            R::NamespaceHangs { .. } => 10,
            R::Different { .. } => 11,
            R::InTheWay { .. } => 12,
            R::Exhausted(_) => 13,
            R::Held { .. } => 14,
            R::NotOurs { .. } => 15,
            R::MtuTooSmall { .. } => 16,
            R::Wire(W::LinkTaken { .. }) => 17,
            R::Wire(W::InterfaceTaken { .. }) => 18,
            R::Wire(W::Routed { .. }) => 19,
            R::Wire(W::InsideTaken { .. }) => 20,
            R::Wire(W::Vanished(_)) => 21,
            R::Wire(W::Refused { .. }) => 22,
            R::Kernel(_) => 23,
            R::PortHeld { .. } => 24,
            R::PortAstray { .. } => 25,
            R::OtherSource { .. } => 3,
            R::Unservable(_) => 4,
        }
    }
    const KINDS: usize = 26;

    fn all() -> Vec<Refusal> {
        let path = || "/run/netns/a".to_owned();
        vec![
            Refusal::NotReady(vec!["recovering".to_owned(), "no prefix".to_owned()]),
            Refusal::Overloaded { waiting: 7 },
            Refusal::Stopping,
            Refusal::OtherSource {
                source_kind: crate::source::Kind::File,
            },
            Refusal::Unservable(crate::desk::order::Unservable::Empty),
            Refusal::TooLate,
            OpenError::NotFound { path: path() }.into(),
            OpenError::NotANamespace {
                path: path(),
                what: "a directory".to_owned(),
            }
            .into(),
            OpenError::Forbidden {
                path: path(),
                whose: "the node's init",
            }
            .into(),
            unopened(Errno::ACCESS),
            Refusal::NamespaceHangs {
                path: path(),
                limit: Duration::from_secs(5),
            },
            Refusal::Different {
                key: Box::new(key()),
                differences: vec!["MTU 1500 instead of 1400".to_owned()],
            },
            Refusal::InTheWay {
                link: "wk0".to_owned(),
                why: "no record".to_owned(),
            },
            Refusal::Exhausted(vec!["10.77.0.0/24".parse().unwrap()]),
            Refusal::Held {
                address: [10, 77, 0, 5].into(),
                holder: key().to_string(),
            },
            Refusal::NotOurs {
                address: [10, 77, 0, 0].into(),
                why: "it is the network address".to_owned(),
            },
            Refusal::MtuTooSmall { mtu: 1279 },
            WireError::LinkTaken {
                link: key().host_link(),
            }
            .into(),
            WireError::InterfaceTaken {
                interface: key().interface().clone(),
            }
            .into(),
            WireError::Routed {
                destination: "10.77.0.5/32".parse().unwrap(),
            }
            .into(),
            WireError::InsideTaken {
                what: "a route to 0.0.0.0/0".to_owned(),
            }
            .into(),
            WireError::Vanished(fault()).into(),
            WireError::Refused {
                fault: fault(),
                left: vec![fault()],
            }
            .into(),
            fault().into(),
            Refusal::PortHeld {
                port: port(),
                holder: Box::new(key()),
            },
            Refusal::PortAstray {
                port: port(),
                addresses: Addresses::from_list([[10, 77, 0, 5].into()]).unwrap(),
            },
        ]
    }

    fn port() -> HostPort {
        HostPort {
            protocol: Protocol::Udp,
            port: 53,
            address: Some([192, 0, 2, 1].into()),
            to: 5353,
        }
    }

    /// Code, reason, whether a retry helps, metadata: as a program sees a refusal.
    fn line(status: &Status) -> String {
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.domain, DOMAIN);
        let mut metadata: Vec<String> = info
            .metadata
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        metadata.sort();
        let retry = match details.retry_info().and_then(|retry| retry.retry_delay) {
            Some(delay) => format!(" again in {delay:?}"),
            None => String::new(),
        };
        let code = status.code();
        format!("{code:?} {}{retry} {}", info.reason, metadata.join(" "))
    }

    #[test]
    fn every_refusal_has_a_code_a_reason_and_what_programs_need() {
        let all = all();
        let lines: Vec<String> = all
            .iter()
            .map(|refusal| line(&refused(refusal)).trim_end().to_owned())
            .collect();
        let expected = "\
            Unavailable NOT_READY again in 250ms
            Unavailable OVERLOADED again in 250ms waiting=7
            Unavailable STOPPING again in 1s
            FailedPrecondition OTHER_SOURCE source=file
            InvalidArgument INVALID_FIELD field=prefix value=it names no prefix
            DeadlineExceeded NOT_BEGUN
            NotFound NAMESPACE_NOT_FOUND field=netns.netns_path value=/run/netns/a
            FailedPrecondition NOT_A_NAMESPACE field=netns.netns_path value=/run/netns/a
            FailedPrecondition NAMESPACE_FORBIDDEN field=netns.netns_path value=/run/netns/a
            FailedPrecondition NAMESPACE_UNREADABLE errno=13 field=netns.netns_path
            DeadlineExceeded NAMESPACE_HANGS field=netns.netns_path value=/run/netns/a
            AlreadyExists DIFFERENT holder=k8s.io/pod-1/eth0
            FailedPrecondition LINK_IN_THE_WAY link=wk0
            ResourceExhausted ADDRESSES_EXHAUSTED again in 1s
            ResourceExhausted ADDRESS_HELD field=requested_ip holder=k8s.io/pod-1/eth0 value=10.77.0.5
            InvalidArgument INVALID_FIELD field=requested_ip value=10.77.0.0
            InvalidArgument INVALID_FIELD field=mtu value=1279
            FailedPrecondition LINK_IN_THE_WAY link=HOST_LINK
            FailedPrecondition INTERFACE_TAKEN field=netns.if_name value=eth0
            FailedPrecondition ADDRESS_ROUTED destination=10.77.0.5/32
            FailedPrecondition NAMESPACE_TAKEN field=netns.netns_path
            FailedPrecondition NAMESPACE_VANISHED
            Internal KERNEL errno=1
            Internal KERNEL errno=1
            ResourceExhausted PORT_HELD field=port_mapping holder=k8s.io/pod-1/eth0 value=192.0.2.1:53:5353/udp
            InvalidArgument INVALID_FIELD field=port_mapping value=192.0.2.1:53:5353/udp"
            .replace("HOST_LINK", key().host_link().as_str());
        let expected: Vec<&str> = expected.lines().map(str::trim_start).collect();
        assert_eq!(lines, expected);
        let kinds: Vec<usize> = all.iter().map(kind).collect();
        assert_eq!(kinds, (0..KINDS).collect::<Vec<_>>());
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_the_callers_fault_only_where_it_can_be() {
        let lines = [
            (
                Errno::ACCESS,
                "FailedPrecondition NAMESPACE_UNREADABLE errno=13 field=netns.netns_path",
            ),
            (
                Errno::NAMETOOLONG,
                "FailedPrecondition NAMESPACE_UNREADABLE errno=36 field=netns.netns_path",
            ),
            (
                Errno::LOOP,
                "FailedPrecondition NAMESPACE_UNREADABLE errno=40 field=netns.netns_path",
            ),
            (Errno::MFILE, "Unavailable NODE_EXHAUSTED again in 1s errno=24"),
            (Errno::NFILE, "Unavailable NODE_EXHAUSTED again in 1s errno=23"),
            (Errno::NOMEM, "Unavailable NODE_EXHAUSTED again in 1s errno=12"),
            (Errno::IO, "Internal KERNEL errno=5"),
            (Errno::PERM, "Internal KERNEL errno=1"),
            (Errno::STALE, "Internal KERNEL errno=116"),
        ];
        for (errno, expected) in lines {
            assert_eq!(line(&refused(&unopened(errno))).trim_end(), expected);
        }
    }

    #[test]
    fn a_refusal_says_in_words_what_it_is() {
        for (refusal, status) in all().iter().map(|refusal| (refusal, refused(refusal))) {
            // The field comes first where one is to blame; then what the desk says.
            assert!(status.message().ends_with(&refusal.to_string()), "{status}");
        }
        let kernel = refused(&fault().into());
        assert_eq!(
            kernel.message(),
            "ip link add wk0: Operation not permitted (errno 1)"
        );
    }

    #[test]
    fn long_texts_are_shortened_between_characters() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcd", 3), "abc…");
        assert_eq!(shortened("aéé", 4), "aé…");
        assert_eq!(shortened("", 0), "");
    }
}
