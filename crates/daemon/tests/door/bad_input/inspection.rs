//! What of the inspection service cannot be used.

use super::{Case, x};
use crate::raw::{ADOPT, CHECK, GET, LIST, SET_PREFIXES};
use api::inspection as inspect;
use api::inspection::adopt_request::Step;
use prost::Message as _;

fn key(method: &'static str, of: &'static str, text: &str, key: Option<(&str, &str, &str)>) -> Case {
    let key = key.map(|(owner, id, name)| inspect::Key {
        owner: owner.to_owned(),
        workload_id: id.to_owned(),
        if_name: name.to_owned(),
    });
    // Both requests have the key as their first field.
    (
        method,
        inspect::GetRequest { key }.encode_to_vec(),
        of,
        text.to_owned(),
    )
}

pub(super) fn keys() -> Vec<Case> {
    let owner = |text: &str| {
        let owner = Some(text.to_owned());
        inspect::ListRequest { owner }.encode_to_vec()
    };
    vec![
        key(GET, "key", "key \"\": must be set", None),
        key(
            GET,
            "key.workload_id",
            "key.workload_id \"\": must not be empty",
            Some(("", "", "eth0")),
        ),
        key(
            GET,
            "key.if_name",
            "key.if_name \"\": must not be empty",
            Some(("", "w", "")),
        ),
        key(GET, "key.if_name", "the name is reserved", Some(("", "w", "lo"))),
        key(
            GET,
            "key.owner",
            "has the control character '\\r'",
            Some(("\r", "w", "eth0")),
        ),
        key(
            CHECK,
            "key.workload_id",
            "has 129 bytes",
            Some(("", &x(129), "eth0")),
        ),
        key(CHECK, "key.owner", "has 64 bytes", Some((&x(64), "w", "eth0"))),
        key(CHECK, "key.if_name", "has 16 bytes", Some(("", "w", &x(16)))),
        (
            LIST,
            owner("\0"),
            "owner",
            "owner \"\\0\": has the control character '\\0'".to_owned(),
        ),
        (
            LIST,
            owner(&x(64)),
            "owner",
            "has 64 bytes, 63 is the most".to_owned(),
        ),
    ]
}

pub(super) fn prefixes() -> Vec<Case> {
    let told = |text: &str, all: &[&str]| {
        let prefix = all.iter().map(|&prefix| prefix.to_owned()).collect();
        let message = inspect::SetPrefixesRequest { prefix }.encode_to_vec();
        let of = if text.starts_with("prefix[") {
            "prefix[1]"
        } else {
            "prefix"
        };
        (SET_PREFIXES, message, of, text.to_owned())
    };
    vec![
        told("prefix \"\": must name at least one", &[]),
        told(
            "prefix[1] \"10.0.0.0/33\": \"10.0.0.0/33\" is not a prefix",
            &["fd00::/64", "10.0.0.0/33"],
        ),
        told(
            "10.0.0.0/8 and 10.1.0.0/16 overlap",
            &["10.0.0.0/8", "10.1.0.0/16"],
        ),
        told(
            "prefix \"\": 40000 prefixes are too many: a node serves at most 256",
            &["10.0.0.0/30"; 40_000],
        ),
    ]
}

pub(super) fn adoptions() -> Vec<Case> {
    let key = || {
        Some(inspect::Key {
            owner: String::new(),
            workload_id: "w".to_owned(),
            if_name: "eth0".to_owned(),
        })
    };
    let asked = |of, text: &str, step: Step, change: &dyn Fn(&mut inspect::AdoptRequest)| {
        let candidate = inspect::Candidate {
            key: key(),
            netns_path: "/run/netns/w".to_owned(),
            ip: vec!["10.0.0.5".to_owned()],
        };
        let mut request = inspect::AdoptRequest {
            step: step.into(),
            candidate: vec![candidate],
            ..inspect::AdoptRequest::default()
        };
        change(&mut request);
        (ADOPT, request.encode_to_vec(), of, text.to_owned())
    };
    vec![
        asked("step", "is no step", Step::Unspecified, &|_| {}),
        asked("candidate", "is not for this step", Step::Undo, &|_| {}),
        asked("key", "is not for this step", Step::Take, &|r| {
            r.key.extend(key())
        }),
        asked("partial", "is not for this step", Step::Check, &|r| {
            r.partial = true
        }),
        asked("candidate.key", "must be set", Step::Take, &|r| {
            r.candidate[0].key = None
        }),
        asked(
            "candidate.netns_path",
            "candidate.netns_path \"w\": must be absolute",
            Step::Check,
            &|r| "w".clone_into(&mut r.candidate[0].netns_path),
        ),
        asked(
            "candidate.ip",
            "must be one address for each family",
            Step::Take,
            &|r| {
                r.candidate[0].ip.clear();
            },
        ),
        asked("candidate.ip", "invalid IP address", Step::Take, &|r| {
            "x".clone_into(&mut r.candidate[0].ip[0]);
        }),
        asked("candidate.key", "is named twice", Step::Take, &|r| {
            let again = r.candidate[0].clone();
            r.candidate.push(again);
        }),
        asked("key", "is named twice", Step::Commit, &|r| {
            r.candidate.clear();
            r.key.extend([key(), key()].into_iter().flatten());
        }),
    ]
}
