//! Arbitrary bytes in every field, and arbitrary bytes instead of a message: an answer, or INVALID_ARGUMENT.

use crate::played::{Door, Played, open, ourselves};
use crate::raw::{ATTACH, CHECK, DETACH, GET, LIST, METHODS, call, field, number};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn opened() -> (Runtime, Played, Door) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let desk = Played::default();
    let door = runtime.block_on(async { open(&desk, ourselves()) });
    (runtime, desk, door)
}

/// A text that is good, nearly good, or nothing of the kind.
fn text(good: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(good.as_bytes().to_vec()),
        1 => ".{0,20}".prop_map(String::into_bytes),
        1 => "[ -~]{0,200}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..40),
    ]
}

fn address() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 4), vec(any::<u8>(), 16), vec(any::<u8>(), 0..20)]
}

fn namespace() -> impl Strategy<Value = Vec<u8>> {
    (text("/run/netns/w"), text("eth0")).prop_map(|(path, name)| [field(1, &path), field(2, &name)].concat())
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    (text(""), text("w"), text("eth0"))
        .prop_map(|(owner, id, name)| [field(1, &owner), field(2, &id), field(3, &name)].concat())
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    (text("key"), text("value")).prop_map(|(key, value)| [field(1, &key), field(2, &value)].concat())
}

/// An attach or, without its last fields, a detach.
fn order() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let mtu = prop_oneof![Just(0), Just(1400), any::<u64>()];
    let options = (
        mtu,
        vec(label(), 0..3),
        vec(address(), 0..3),
        vec(any::<u8>(), 0..3),
    );
    let method = prop_oneof![Just(ATTACH), Just(DETACH)];
    (method, text("w"), namespace(), text("k8s.io"), options).prop_map(
        |(method, id, netns, owner, (mtu, labels, addresses, rest))| {
            let mut message = [
                field(1, &id),
                field(2, &netns),
                field(16, &owner),
                number(17, mtu),
            ]
            .concat();
            message.extend(labels.iter().flat_map(|label| field(18, label)));
            message.extend(addresses.iter().flat_map(|address| field(19, address)));
            message.extend(rest);
            (method, message)
        },
    )
}

fn question() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    prop_oneof![
        (prop_oneof![Just(GET), Just(CHECK)], key()).prop_map(|(method, key)| (method, field(1, &key))),
        text("k8s.io").prop_map(|owner| (LIST, field(1, &owner))),
    ]
}

/// An answer, a key that is not attached, or a refusal that names field and value.
fn is_in_order(outcome: &Result<Vec<u8>, Status>) -> Result<(), TestCaseError> {
    let Err(status) = outcome else { return Ok(()) };
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        return Err(TestCaseError::fail(format!("no ErrorInfo: {status}")));
    };
    match status.code() {
        Code::InvalidArgument => {
            prop_assert_eq!(&info.reason, "INVALID_FIELD");
            let of = info.metadata.get("field").cloned().unwrap_or_default();
            prop_assert!(!of.is_empty() && status.message().starts_with(&of), "{}", status);
            prop_assert!(info.metadata.contains_key("value"), "{}", status);
        }
        code => prop_assert_eq!(code, Code::NotFound, "{}", status),
    }
    Ok(())
}

#[test]
fn arbitrary_bytes_in_every_field_are_answered_or_invalid() {
    let (runtime, desk, door) = opened();
    proptest!(config(1000), |((method, message) in prop_oneof![3 => order(), 1 => question()])| {
        is_in_order(&runtime.block_on(call(&door.channel, method, message)))?;
    });
    assert!(desk.asked() > 0, "nothing was good");
}

#[test]
fn arbitrary_bytes_instead_of_a_message_are_answered_or_invalid() {
    let (runtime, desk, door) = opened();
    proptest!(config(500), |(method in proptest::sample::select(&METHODS[..]), message in vec(any::<u8>(), 0..100))| {
        is_in_order(&runtime.block_on(call(&door.channel, method, message)))?;
    });
    assert!(desk.asked() > 0, "nothing was good");
}
