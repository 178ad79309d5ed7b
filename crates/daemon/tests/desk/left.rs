//! Deletions that clients left while the daemon was down.

use crate::fake::{Fake, Place, World};
use crate::orders::{attach, key, open, settings};
use daemon::desk::order::Refusal;
use daemon::desk::{Desk, Settings};
use queue::{Deletion, Queue};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A desk that was there, has attached `w` and `other`, and is gone; and what was left for the next one.
fn left(world: &World, deletions: &[Deletion]) -> (TempDir, Queue) {
    let before = open(world);
    attach(&before, "w", "/n/1").unwrap();
    attach(&before, "other", "/n/2").unwrap();
    before.stop();
    world.forget_the_daemon();
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::beside(&folder.path().join("socket"));
    for deletion in deletions {
        queue.put(deletion).unwrap();
    }
    (folder, queue)
}

fn next(world: &World, queue: &Queue) -> Arc<Desk<Fake>> {
    let settings = Settings {
        queue: Some(queue.clone()),
        round: Duration::from_millis(20),
        ..settings()
    };
    let desk = Desk::open(Fake::on(world), settings).unwrap();
    desk.wait_until_recovered();
    desk
}

fn waiting(queue: &Queue) -> usize {
    queue.look().unwrap().waiting.len()
}

fn until_nothing_waits(queue: &Queue) {
    let began = Instant::now();
    while waiting(queue) > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "it waits for ever");
        std::thread::yield_now();
    }
}

fn web(netns: &str) -> Deletion {
    Deletion::new("", "w", "eth0", netns)
}

#[test]
fn deletions_that_were_left_are_carried_out_before_anybody_is_served() {
    let world = World::default();
    let stranger = Deletion::new("", "never attached", "eth0", "");
    let (_folder, queue) = left(&world, &[web("/n/1"), stranger]);
    let desk = next(&world, &queue);
    assert_eq!(desk.get(&key("w")).unwrap(), None);
    assert!(desk.get(&key("other")).unwrap().is_some());
    assert_eq!((world.links(), waiting(&queue)), (1, 0));
}

#[test]
fn a_deletion_of_an_older_sandbox_leaves_the_live_one_alone() {
    let world = World::default();
    let (_folder, queue) = left(&world, &[web("/n/7")]);
    let desk = next(&world, &queue);
    assert!(desk.get(&key("w")).unwrap().is_some());
    assert_eq!(waiting(&queue), 0);
}

/// Each caller was told that its own is as good as done.
#[test]
fn deletions_of_several_namespaces_of_a_key_are_all_carried_out() {
    for (paths, stands) in [
        (["/n/1", "/n/7"], false),
        (["/n/7", "/n/1"], false),
        (["/n/7", "/n/8"], true),
    ] {
        let world = World::default();
        let (_folder, queue) = left(&world, &paths.map(web));
        let desk = next(&world, &queue);
        assert_eq!(desk.get(&key("w")).unwrap().is_some(), stands, "{paths:?}");
        assert_eq!(waiting(&queue), 0);
    }
}

#[test]
fn a_deletion_that_fails_stays_and_is_tried_again_in_the_rounds() {
    let world = World::default();
    let (_folder, queue) = left(&world, &[web("")]);
    world.refuse_deletions(true);
    let desk = next(&world, &queue);
    assert!(desk.get(&key("w")).unwrap().is_some());
    assert_eq!(waiting(&queue), 1);
    world.refuse_deletions(false);
    until_nothing_waits(&queue);
    assert_eq!(desk.get(&key("w")).unwrap(), None);
}

/// No round helps here: the next one is an hour away.
#[test]
fn a_deletion_that_comes_after_the_look_is_carried_out_before_anybody_is_served() {
    let world = World::default();
    let (_folder, queue) = left(&world, &[web("/n/1")]);
    world.close(Place::Unwire);
    let settings = Settings {
        queue: Some(queue.clone()),
        round: Duration::from_secs(3600),
        ..settings()
    };
    let desk = Desk::open(Fake::on(&world), settings).unwrap();
    world.wait_at(Place::Unwire);
    queue.put(&Deletion::new("", "other", "eth0", "")).unwrap();
    world.open(Place::Unwire);
    desk.wait_until_recovered();
    assert_eq!(desk.get(&key("other")).unwrap(), None);
    assert_eq!((world.links(), waiting(&queue)), (0, 0));
}

/// Whoever left it was told that it is as good as gone.
#[test]
fn what_is_about_to_be_taken_off_is_shown_to_nobody() {
    let world = World::default();
    let (_folder, queue) = left(&world, &[web("/n/1")]);
    world.close(Place::Unwire);
    let settings = Settings {
        queue: Some(queue.clone()),
        ..settings()
    };
    let desk = Desk::open(Fake::on(&world), settings).unwrap();
    world.wait_at(Place::Unwire);
    let not_ready = |shown: Result<(), Refusal>| matches!(shown, Err(Refusal::NotReady(_)));
    assert!(not_ready(desk.list(None).map(drop)));
    assert!(not_ready(desk.get(&key("w")).map(drop)));
    assert!(not_ready(desk.check(None).map(drop)));
    world.open(Place::Unwire);
    desk.wait_until_recovered();
    assert_eq!(desk.list(None).unwrap().len(), 1);
}

/// What fails at the start is tried again soon, not with the next round.
#[test]
fn a_deletion_that_fails_at_the_start_does_not_wait_for_a_round() {
    let world = World::default();
    let (_folder, queue) = left(&world, &[web("")]);
    world.refuse_deletions(true);
    let settings = Settings {
        queue: Some(queue.clone()),
        round: Duration::from_secs(3600),
        ..settings()
    };
    let desk = Desk::open(Fake::on(&world), settings).unwrap();
    desk.wait_until_recovered();
    world.refuse_deletions(false);
    until_nothing_waits(&queue);
    assert_eq!(desk.get(&key("w")).unwrap(), None);
}

#[test]
fn what_is_no_deletion_is_put_aside_and_holds_nobody_up() {
    let world = World::default();
    let no_key = Deletion::new("", "w", "lo", "");
    let (_folder, queue) = left(&world, &[no_key.clone(), web("")]);
    let torn = queue.folder().join("0123456789abcdef0123456789abcdef");
    std::fs::write(&torn, "{").unwrap();
    let desk = next(&world, &queue);
    assert_eq!(desk.get(&key("w")).unwrap(), None);
    assert_eq!(waiting(&queue), 0);
    let aside = |name: &str| queue.folder().join(format!("{name}.unreadable"));
    assert!(aside("0123456789abcdef0123456789abcdef").exists());
    assert!(aside(&no_key.file_name()).exists());
}
