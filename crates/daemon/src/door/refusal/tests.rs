//! Every kind of refusal, as programs and as people read it.

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
        R::Wire(W::NameTaken { .. }) => 26,
    }
}
const KINDS: usize = 27;

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
        WireError::NameTaken {
            name: "wk0123456789abc-1of1-t80-80".to_owned(),
        }
        .into(),
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
        InvalidArgument INVALID_FIELD field=port_mapping value=192.0.2.1:53:5353/udp
        FailedPrecondition LINK_IN_THE_WAY link=wk0123456789abc-1of1-t80-80"
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
fn what_the_node_has_run_out_of_may_be_asked_for_again_whatever_was_tried() {
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS] {
        let fault = || Fault {
            tried: "open a netlink socket".to_owned(),
            reason: errno.to_string(),
            errno: errno.raw_os_error(),
        };
        let refusals: [Refusal; 3] = [
            fault().into(),
            OpenError::Fault(fault()).into(),
            WireError::Refused {
                fault: fault(),
                left: vec![],
            }
            .into(),
        ];
        for refusal in refusals {
            let expected = format!(
                "Unavailable NODE_EXHAUSTED again in 1s errno={}",
                errno.raw_os_error()
            );
            assert_eq!(line(&refused(&refusal)).trim_end(), expected);
        }
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
