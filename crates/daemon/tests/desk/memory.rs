//! The file below /run of a daemon that is killed: what was freed is known, whoever freed it and whether it was written or not.

use crate::fake::{Fake, World};
use crate::orders::{as_left, attach, detach, open_with, pools, settings};
use daemon::desk::{Desk, Settings};
use daemon::memory::Memory;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn open(world: &World, file: &Path) -> Arc<Desk<Fake>> {
    let settings = Settings {
        memory: Some(file.to_path_buf()),
        ..settings()
    };
    open_with(world, settings)
}

/// The next daemon, after a SIGKILL.
fn next(world: &World, file: &mut PathBuf) -> Arc<Desk<Fake>> {
    world.forget_the_daemon();
    *file = as_left(file);
    open(world, file)
}

/// How many addresses the file says that somebody has, once it says so many.
fn until_held(file: &Path, held: usize) {
    let began = Instant::now();
    while Memory::load(file).unwrap().held().count() != held {
        assert!(began.elapsed() < Duration::from_secs(20), "it is not written");
        std::thread::yield_now();
    }
}

/// Of both prefixes: in use, and cooling.
fn use_of(desk: &Desk<Fake>) -> Vec<(u128, u128)> {
    pools(desk)
        .into_iter()
        .map(|(used, _, cooling)| (used, cooling))
        .collect()
}

#[test]
fn what_a_daemon_that_is_killed_before_it_frees_anything_has_attached_is_all_that_is_not_cool() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let mut file = folder.path().join("state.json");
    let desk = open(&world, &file);
    attach(&desk, "w", "/n/1").unwrap();
    for _ in 0..2 {
        let desk = next(&world, &mut file);
        assert_eq!(use_of(&desk), [(1, 0), (1, 0)]);
        assert_eq!(desk.node().warnings, [""; 0]);
    }
}

#[test]
fn what_was_freed_and_not_written_any_more_cools_down_all_the_same() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let mut file = folder.path().join("state.json");
    let desk = open(&world, &file);
    attach(&desk, "w", "/n/1").unwrap();
    attach(&desk, "other", "/n/2").unwrap();
    until_held(&file, 4);
    // Killed between the answer and the file.
    let written = std::fs::read(&file).unwrap();
    detach(&desk, "w", None).unwrap();
    world.forget_the_daemon();
    file = as_left(&file);
    std::fs::write(&file, &written).unwrap();
    let desk = open(&world, &file);
    assert_eq!(use_of(&desk), [(1, 1), (1, 1)]);
    // And once more, with what the one between has written at its start.
    let desk = next(&world, &mut file);
    assert_eq!(use_of(&desk), [(1, 1), (1, 1)]);
    assert_eq!(desk.node().warnings, [""; 0]);
}

#[test]
fn what_ended_while_no_daemon_was_there_cools_down() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let mut file = folder.path().join("state.json");
    let desk = open(&world, &file);
    attach(&desk, "w", "/n/1").unwrap();
    until_held(&file, 2);
    world.forget_the_daemon();
    world.vanish("/n/1");
    let desk = next(&world, &mut file);
    assert_eq!(use_of(&desk), [(0, 1), (0, 1)]);
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_is_once_it_can() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let file = folder.path().join("state.json");
    // A folder is in its way.
    std::fs::create_dir(&file).unwrap();
    // Nothing is attached, which would have it written, too.
    let desk = open(&world, &file);
    let is_said = || {
        let text = "labels, cooling addresses and generations are not kept: ";
        desk.node()
            .warnings
            .iter()
            .any(|warning| warning.starts_with(text))
    };
    assert!(is_said());
    std::fs::remove_dir(&file).unwrap();
    let began = Instant::now();
    while !file.is_file() || is_said() {
        assert!(began.elapsed() < Duration::from_secs(20), "it is not written");
        std::thread::yield_now();
    }
}
