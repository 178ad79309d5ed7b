//! Files that the daemon reads while it lives: the one below /run, those of the queue, and those of the sources.

use crate::{is_bounded, text};
use api::workload::{DetachRequest, NetNsAttachment};
use daemon::source::{file, peers};
use daemon::state_file::{Remembered, StateFile};
use daemon::{door, queue as left};
use model::ipam::{Ipam, Moment, Wanted};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::peer::Peer;
use model::prefix::Prefix;
use queue::Deletion;
use std::time::Duration;

const COOL_DOWN: Duration = Duration::from_secs(150);

/// The state file: whatever it says, addresses can be given out from what it told.
pub(crate) fn state_file(bytes: &[u8]) {
    let state_file = match StateFile::from_json(bytes) {
        Ok(state_file) => state_file,
        Err(error) => return is_bounded(&error.to_string(), bytes),
    };
    let mut written = Vec::new();
    state_file.to_json(&mut written).expect("a vector takes all");
    assert_eq!(
        StateFile::from_json(&written).expect("it was just written"),
        state_file
    );
    let past = state_file.prefixes.past().expect("it was looked at");
    let mut ipam = Ipam::resumed(COOL_DOWN, &past, &mut || 7);
    let serving: Vec<Prefix> = past.serving.iter().map(|(prefix, _)| *prefix).collect();
    ipam.set_prefixes(&serving, &mut || 7);
    let now = state_file.cooling().map(|(_, since)| since).max();
    let now = now.unwrap_or(Moment(Duration::ZERO));
    if let Some(moment) = state_file.unknown_before() {
        ipam.nothing_is_known_before(moment);
    }
    for (address, since) in state_file.cooling() {
        ipam.cool(address, since);
    }
    for address in state_file.held() {
        ipam.cool(address, now);
    }
    let cooling = ipam.cooling(now);
    assert!(cooling.len() <= state_file.cooling().count() + state_file.held().count());
    if let Ok(granted) = ipam.lease(&key(), Wanted::default(), now) {
        for address in granted.addresses.iter() {
            assert!(
                serving.iter().any(|prefix| prefix.net().contains(&address)),
                "{address}"
            );
        }
    }
    ipam.end_drained(now);
    let again = Remembered::new(state_file.prefixes.source, &ipam.past());
    again.past().expect("what is remembered next can be read");
}

fn key() -> Key {
    let (owner, workload) = (Owner::new("k8s.io"), WorkloadId::new("web"));
    let interface = InterfaceName::new("eth0").expect("it is one");
    Key::new(owner.expect("it is one"), workload.expect("it is one"), interface).expect("it is short")
}

/// A file of the queue: what it asks for is what the door would take as a Detach.
pub(crate) fn queue(bytes: &[u8]) {
    let deletion = match Deletion::from_json(bytes) {
        Ok(deletion) => deletion,
        Err(error) => return is_bounded(&error.to_string(), bytes),
    };
    assert_eq!(
        Deletion::from_json(&deletion.to_json()).expect("it was just written"),
        deletion
    );
    assert_eq!(deletion.file_name().len(), 32);
    let paths: Vec<&str> = deletion.netns_paths().collect();
    let asked = left::orders(&deletion, Moment(Duration::ZERO));
    if let Ok((_, orders)) = &asked {
        assert_eq!(orders.len(), paths.len());
    }
    for (n, path) in paths.into_iter().enumerate() {
        let request = DetachRequest {
            owner: deletion.owner.clone(),
            workload_id: deletion.workload_id.clone(),
            netns: Some(NetNsAttachment {
                netns_path: path.to_owned(),
                if_name: deletion.if_name.clone(),
            }),
        };
        match (door::field::detach(request), &asked) {
            (Ok(order), Ok((key, orders))) => {
                assert_eq!((&order.key, &order.path), (key, &orders[n].path));
            }
            // A path is looked at by whoever opens it.
            (Err(error), Ok(_)) => assert_eq!(error.field, "netns.netns_path"),
            (Ok(order), Err(error)) => panic!("{error}: {order:?}"),
            (Err(_), Err(error)) => is_bounded(&error.to_string(), bytes),
        }
    }
}

/// The files of prefixes and of peers.
pub(crate) fn sources(bytes: &[u8]) {
    let Some(toml) = text(bytes) else { return };
    match file::parse(toml) {
        Ok(prefixes) => {
            let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
            assert_eq!(file::parse(&format!("prefixes = {texts:?}")), Ok(prefixes));
        }
        Err(why) => {
            assert_eq!(why.lines().count(), 1, "{why:?}");
            is_bounded(&why, bytes);
        }
    }
    match peers::parse(toml) {
        Ok(listed) => {
            let written: String = listed.iter().map(peer).collect();
            let written = if listed.is_empty() {
                "peer = []".to_owned()
            } else {
                written
            };
            let again = peers::parse(&written).unwrap_or_else(|error| panic!("{error:#}: {written}"));
            assert_eq!(again, listed);
        }
        Err(error) => is_bounded(&format!("{error:#}"), bytes),
    }
}

fn peer(peer: &Peer) -> String {
    let texts = |all: Vec<String>| format!("{all:?}");
    let addresses = texts(peer.addresses.iter().map(ToString::to_string).collect());
    let prefixes = texts(peer.prefixes.iter().map(ToString::to_string).collect());
    let name = serde_json::to_string(&peer.name).expect("a text has a form in JSON, which is one in TOML");
    format!("[[peer]]\nname = {name}\naddresses = {addresses}\nprefixes = {prefixes}\n")
}
