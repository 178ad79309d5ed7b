//! Messages as they come in at the door.

use crate::is_bounded;
use api::inspection::{CheckRequest, CollectGarbageRequest, GetRequest, ListRequest, SetPrefixesRequest};
use api::workload::AttachRequest;
use daemon::desk::order::{AttachOrder, Step};
use daemon::door::field::{self, FieldError};
use model::address::Addresses;
use model::key::{HostLink, Key};
use model::ports::Ports;
use model::record::{ALIAS_BYTES, Asked, NamespaceId, PathDigest, Record};
use prost::Message;
use std::fmt::Debug;

/// The method's number, then the message.
pub(crate) fn door(bytes: &[u8]) {
    let Some((number, message)) = bytes.split_first() else {
        return;
    };
    match number % 8 {
        0 => attach(message),
        1 => tried(message, field::detach, |order| is_a_key(&order.key)),
        2 => tried(message, |request: GetRequest| field::key(request.key), is_a_key),
        3 => tried(message, |request: CheckRequest| field::key(request.key), is_a_key),
        4 => tried(
            message,
            |request: ListRequest| field::owner(&request.owner.unwrap_or_default()),
            |owner| assert!(owner.as_str().len() <= 63),
        ),
        5 => tried(
            message,
            |request: CollectGarbageRequest| field::valid(&field::owner(&request.owner)?, request.valid),
            |keys| keys.iter().for_each(is_a_key),
        ),
        6 => tried(
            message,
            |request: SetPrefixesRequest| field::prefixes(&request.prefix),
            |prefixes| assert!(!prefixes.is_empty()),
        ),
        _ => tried(message, field::adopt, |orders| {
            for order in orders {
                is_a_key(&order.key);
                if let Step::Take { path, .. } | Step::Check { path, .. } = &order.step {
                    assert!(path.starts_with('/'), "{path}");
                }
            }
        }),
    }
}

fn attach(message: &[u8]) {
    if let Ok(request) = AttachRequest::decode(message) {
        // Asked twice: it does not depend on anything else.
        assert_eq!(field::unsupported(&request), field::unsupported(&request.clone()));
    }
    let read = |request| field::attach(request, None);
    tried(message, read, |order| {
        is_a_key(&order.key);
        is_remembered(order);
    });
}

/// Reads a message, and looks at what comes of it.
fn tried<M: Message + Default + Clone + PartialEq, T: Debug>(
    message: &[u8],
    read: impl Fn(M) -> Result<T, FieldError>,
    is_good: impl Fn(&T),
) {
    let request = match M::decode(message) {
        Ok(request) => request,
        Err(error) => return is_named(&field::undecodable(message, &error.to_string()), message),
    };
    let again = M::decode(&*request.encode_to_vec()).expect("it was just written");
    assert!(again == request, "what was written is not what was read");
    match read(request) {
        Ok(value) => is_good(&value),
        Err(error) => is_named(&error, message),
    }
}

/// A refusal says which field, and shows no more of it than a line.
fn is_named(error: &FieldError, message: &[u8]) {
    let shown = error.to_string();
    assert!(!error.field.is_empty() && !error.why.is_empty(), "{shown}");
    assert!(shown.starts_with(&error.field), "{shown}");
    assert!(!error.field.contains(char::is_control), "{shown:?}");
    is_bounded(&error.why, message);
    // 64 characters, each escaped, and quotes.
    assert!(error.value.len() <= 64 * 10 + 5, "{shown}");
}

fn is_a_key(key: &Key) {
    let link = key.host_link();
    assert_eq!(HostLink::parse(link.as_str()), Some(link));
    assert!(key.altname().is_none_or(|name| name.len() < 128));
}

/// Everything that an attach may ask for fits on its link, and is read from there as it was asked for.
fn is_remembered(order: &AttachOrder) {
    let asked = Asked {
        mtu: order.mtu,
        v4: order.v4.is_some(),
        v6: order.v6.is_some(),
        mac: order.mac,
        ports: Ports::default(),
    };
    let longest = (
        "255.255.255.255".parse().expect("it is one"),
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            .parse()
            .expect("it is one"),
    );
    let (v4, v6) = (order.v4.unwrap_or(longest.0), order.v6.unwrap_or(longest.1));
    let record = Record {
        key: order.key.clone(),
        addresses: Addresses::new(Some(v4), Some(v6)).expect("there are two"),
        namespace: NamespaceId {
            device: 0xffff_ffff,
            inode: 0xffff_ffff,
        },
        path: PathDigest::of(&order.path),
        asked,
        // Where none was asked for the link's may be a large one, of which more is written.
        outward_mtu: order.mtu.is_none().then_some(u16::MAX - 1),
        adopted: None,
    };
    let alias = record.to_string();
    assert!(alias.len() <= ALIAS_BYTES, "{alias}");
    assert_eq!(Record::parse(&alias), Ok(record), "{alias}");
    let link = order.key.host_link();
    let names = order.ports.names(&link);
    assert_eq!(Ports::read(&link, &names).as_ref(), Ok(&order.ports), "{names:?}");
}
