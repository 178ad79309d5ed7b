//! Attaches and detaches, one call of which fails.

use crate::daemon::{attach_with_port, detach};
use crate::node::{Stand, differences, web};
use crate::sandbox::Sandbox;
use crate::seam::{Calls, Mishap, mishaps};
use client::Error;
use mishap::Kind;
use stage::wait::{PATIENCE, eventually};

/// A daemon with one attachment that nothing happens to, and a sandbox for another one.
fn stand() -> (Stand, [Sandbox; 2]) {
    let stand = Stand::started();
    let sandboxes = [Sandbox::new(), Sandbox::new()];
    let steady = attach_with_port("steady", &sandboxes[0], 8080, 80);
    stand.daemon.caller().attach(steady).unwrap();
    (stand, sandboxes)
}

fn refused(error: Error, mishap: &Mishap) -> String {
    let Error::Refused(refused) = error else {
        panic!("{mishap}: {error}")
    };
    if let Some(reason) = mishap.reason().filter(|_| !mishap.is_no_error()) {
        assert!(refused.message.contains(&reason), "{mishap}: {}", refused.message);
    }
    if mishap.kind() == Kind::Message && !mishap.is_no_error() {
        assert!(
            refused.message.contains(mishap.what()),
            "{mishap}: {}",
            refused.message
        );
    }
    refused.message
}

#[test]
fn an_attach_whose_daemon_fails_at_any_call_is_refused_by_name_or_whole() {
    let (stand, [_steady, sandbox]) = stand();
    let web = || web(&sandbox);
    let caller = stand.daemon.caller();
    let without = stand.world();
    stand.seam.record();
    caller.attach(web()).unwrap();
    let calls = stand.seam.recorded();
    let with = stand.world();
    caller.detach(detach("web")).unwrap();
    stand.becomes(&without, &"before");
    let (mut tried, mut told) = (0, 0);
    for mishap in mishaps(&calls, Calls::All, 2) {
        stand.seam.plan(Some(&mishap));
        let answer = caller.attach(web());
        if !stand.seam.has_fired() {
            answer.unwrap();
            caller.detach(detach("web")).unwrap();
            continue;
        }
        tried += 1;
        if let Err(error) = answer {
            told += 1;
            let message = refused(error, &mishap);
            // What could not be undone is named, and swept.
            stand.becomes(&without, &format!("{mishap}: {message}"));
            assert_eq!(sandbox.links("eth").unwrap(), Vec::<String>::new(), "{mishap}");
            stand.daemon.expect_used(1);
            caller
                .attach(web())
                .unwrap_or_else(|error| panic!("{mishap}: again: {error}"));
        }
        stand.becomes(&with, &mishap);
        stand.daemon.expect_used(2);
        caller.detach(detach("web")).unwrap();
        stand.becomes(&without, &mishap);
        stand.daemon.expect_used(1);
    }
    println!(
        "{tried} mishaps of {} calls of an attach, {told} told",
        calls.len()
    );
    assert!(tried > 30 && told > 10, "{tried}, {told}");
}

#[test]
fn a_detach_whose_daemon_fails_at_any_call_is_refused_by_name_or_done() {
    let (stand, [_steady, sandbox]) = stand();
    let web = || web(&sandbox);
    let caller = stand.daemon.caller();
    let without = stand.world();
    caller.attach(web()).unwrap();
    let with = stand.world();
    stand.seam.record();
    caller.detach(detach("web")).unwrap();
    stand.becomes(&without, &"before");
    let calls = stand.seam.recorded();
    let (mut tried, mut told) = (0, 0);
    for mishap in mishaps(&calls, Calls::All, 2) {
        caller.attach(web()).unwrap();
        stand.becomes(&with, &mishap);
        stand.seam.plan(Some(&mishap));
        let answer = caller.detach(detach("web"));
        let has_fired = stand.seam.has_fired();
        tried += usize::from(has_fired);
        if let Err(error) = answer {
            told += 1;
            let message = refused(error, &mishap);
            let look = || (differences(&stand.world(), &with), stand.daemon.counts());
            eventually(
                PATIENCE,
                &format!("{mishap}: {message}: it stays, or goes after all"),
                look,
                |(missing, counts)| missing.is_empty() || counts.iter().all(|(used, _)| *used == 1),
            );
            caller
                .detach(detach("web"))
                .unwrap_or_else(|error| panic!("{mishap}: again: {error}"));
        }
        stand.daemon.expect_used(1);
        stand.becomes(&without, &mishap);
    }
    println!(
        "{tried} mishaps of {} calls of a detach, {told} told",
        calls.len()
    );
    assert!(tried > 30 && told > 10, "{tried}, {told}");
}
