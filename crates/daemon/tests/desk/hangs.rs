//! Paths that hang while they are opened: somebody's file system does not answer.

use crate::fake::{Place, World};
use crate::orders::{attach, detach, give, give_detach, listed, open_with, order, pools, settings};
use daemon::desk::order::{Detached, Refusal};
use stage::wait::{PATIENCE, eventually};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(100);
/// The paths that hang are those from here on.
const HANGING: u64 = 100;

fn path(n: u64) -> String {
    format!("/n/{}", HANGING + n)
}

#[test]
fn eight_paths_that_hang_stop_nobody_else_and_are_refused_by_name() {
    let world = World::default();
    let mut hasty = settings();
    hasty.open_limit = LIMIT;
    let desk = open_with(&world, hasty);
    attach(&desk, "other", "/n/9").unwrap();
    let before = pools(&desk);
    (0..8).for_each(|n| world.close(Place::Open(HANGING + n)));
    let began = Instant::now();
    let hanging: Vec<_> = (0..8)
        .map(|n| give(&desk, order(&format!("h{n}"), &path(n))))
        .collect();

    // These name paths that do not hang.
    attach(&desk, "ninth", "/n/1").unwrap();
    assert_eq!(detach(&desk, "ninth", Some("/n/1")).unwrap(), Detached::Done);
    // And this one a path that does: it is another one than the attachment's.
    assert_eq!(detach(&desk, "other", Some(&path(0))).unwrap(), Detached::IsNewer);

    for (n, given) in (0..).zip(&hanging) {
        match given.outcome() {
            Err(Refusal::NamespaceHangs { path: named, limit }) => {
                assert_eq!((named, limit), (path(n), LIMIT))
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(began.elapsed() >= LIMIT);
    assert_eq!(detach(&desk, "h0", None).unwrap(), Detached::WasAbsent);

    // What comes back late was given up.
    (0..8).for_each(|n| world.open(Place::Open(HANGING + n)));
    attach(&desk, "h0", &path(0)).unwrap();
    assert_eq!(listed(&desk), ["h0", "other"]);
    assert_eq!(world.links(), 2);
    assert_eq!(detach(&desk, "h0", Some(&path(0))).unwrap(), Detached::Done);
    let used = |pools: &[(u128, u128, u128)]| pools.iter().map(|p| p.0).collect::<Vec<_>>();
    assert_eq!(used(&pools(&desk)), used(&before));
}

/// Threads are not replaced for ever; then the desk says so, and detaches go on.
#[test]
fn so_many_paths_that_hang_that_nothing_can_be_opened_are_a_reason_not_to_be_ready() {
    let world = World::default();
    let mut hasty = settings();
    hasty.open_limit = Duration::from_millis(10);
    hasty.prefixes = vec!["10.9.0.0/24".parse().unwrap()];
    let desk = open_with(&world, hasty);
    attach(&desk, "other", "/n/9").unwrap();
    let unmet = "too many namespaces hang while they are opened".to_owned();
    (0..90).for_each(|n| world.close(Place::Open(HANGING + n)));
    let hanging: Vec<_> = (0..90)
        .map(|n| give(&desk, order(&format!("h{n}"), &path(n))))
        .collect();
    eventually(PATIENCE, &unmet, || desk.unready(), |all| all.contains(&unmet));
    assert_eq!(detach(&desk, "other", None).unwrap(), Detached::Done);
    let waiting = give_detach(&desk, "other", Some("/n/9"));
    (0..90).for_each(|n| world.open(Place::Open(HANGING + n)));
    eventually(PATIENCE, "the desk is ready", || desk.unready(), Vec::is_empty);
    assert_eq!(waiting.outcome().unwrap(), Detached::WasAbsent);
    // Refused, or opened at last.
    for given in hanging {
        match given.outcome() {
            Ok(_) | Err(Refusal::NamespaceHangs { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
