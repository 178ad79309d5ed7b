//! The state file of a daemon that is killed: what was freed is known, whoever freed it and whether it was written or not.

use crate::fake::{Fake, World};
use crate::orders::{as_left, attach, detach, open_with, pools, settings};
use daemon::desk::{Desk, Settings};
use daemon::door::Orders;
use daemon::source::Kind;
use daemon::state_file::StateFile;
use model::datapath::Event;
use model::key::HostLink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A node, and the file of its daemon.
struct Node {
    world: World,
    file: PathBuf,
    _folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            world: World::default(),
            file: folder.path().join("state.json"),
            _folder: folder,
        }
    }

    fn open(&self) -> Arc<Desk<Fake>> {
        self.open_of(settings().source)
    }

    fn open_of(&self, source: Kind) -> Arc<Desk<Fake>> {
        let settings = Settings {
            state_file: Some(self.file.clone()),
            source,
            ..settings()
        };
        open_with(&self.world, settings)
    }

    /// As a SIGKILL leaves it.
    fn kill(&mut self) {
        self.world.forget_the_daemon();
        self.file = as_left(&self.file);
    }

    /// A daemon attached one workload, which was written down, and was killed; the workload's link.
    fn left_with_one(&mut self) -> HostLink {
        let link = attach(&self.open(), "w", "/n/1").unwrap().link.host;
        self.until_held(2);
        self.kill();
        link
    }

    /// The next daemon, after a SIGKILL.
    fn next(&mut self) -> Arc<Desk<Fake>> {
        self.kill();
        self.open()
    }

    /// Returns once the file says that somebody has so many addresses.
    fn until_held(&self, held: usize) {
        let began = Instant::now();
        while StateFile::load(&self.file).unwrap().held().count() != held {
            assert!(began.elapsed() < Duration::from_secs(20), "it is not written");
            std::thread::yield_now();
        }
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
    let mut node = Node::new();
    attach(&node.open(), "w", "/n/1").unwrap();
    for _ in 0..2 {
        let desk = node.next();
        assert_eq!(use_of(&desk), [(1, 0), (1, 0)]);
        assert_eq!(desk.node().warnings, [""; 0]);
    }
}

#[test]
fn what_was_freed_and_not_written_any_more_cools_down_all_the_same() {
    let mut node = Node::new();
    let desk = node.open();
    attach(&desk, "w", "/n/1").unwrap();
    attach(&desk, "other", "/n/2").unwrap();
    node.until_held(4);
    // Killed between the answer and the file.
    let written = std::fs::read(&node.file).unwrap();
    detach(&desk, "w", None).unwrap();
    node.kill();
    std::fs::write(&node.file, &written).unwrap();
    assert_eq!(use_of(&node.open()), [(1, 1), (1, 1)]);
    // And once more, with what the one between has written at its start.
    let desk = node.next();
    assert_eq!(use_of(&desk), [(1, 1), (1, 1)]);
    assert_eq!(desk.node().warnings, [""; 0]);
}

#[test]
fn what_ended_while_no_daemon_was_there_cools_down() {
    let mut node = Node::new();
    node.left_with_one();
    node.world.vanish("/n/1");
    assert_eq!(use_of(&node.open()), [(0, 1), (0, 1)]);
}

#[test]
fn the_addresses_of_a_link_that_is_left_alone_cool_down_when_it_has_gone() {
    let mut node = Node::new();
    let link = node.left_with_one();
    // Somebody has changed its group.
    node.world.damage(&link, |link| link.group = 9);
    for _ in 0..2 {
        let desk = node.next();
        assert_eq!(use_of(&desk), [(0, 0), (0, 0)]);
        assert!(desk.node().warnings[0].contains("carries group 9"));
        node.until_held(2);
    }
    let desk = node.next();
    node.world.lose(&link);
    node.world.tell(Event::Lost);
    node.until_held(0);
    assert_eq!(use_of(&desk), [(0, 1), (0, 1)]);
}

#[test]
fn what_a_later_sweep_finds_attached_is_written_down() {
    let mut node = Node::new();
    let link = node.left_with_one();
    // Somebody has taken both away by which it is known.
    let mut record = String::new();
    node.world.damage(&link, |link| {
        (link.group, record) = (9, std::mem::take(&mut link.alias));
    });
    let desk = node.open();
    node.until_held(0);
    node.world.damage(&link, |link| {
        (link.group, link.alias) = (8, record.clone());
    });
    node.world.tell(Event::Lost);
    node.until_held(2);
    let used: Vec<u128> = use_of(&desk).into_iter().map(|(used, _)| used).collect();
    assert_eq!(used, [1, 1]);
}

#[test]
fn a_generation_that_is_not_written_is_not_answered() {
    let node = Node::new();
    let desk = node.open_of(Kind::Api);
    let tell = |third: u8| Orders::set_prefixes(&desk, &[format!("10.9.{third}.0/24").parse().unwrap()]);
    let first = tell(0).unwrap();
    std::fs::remove_file(&node.file).unwrap();
    std::fs::create_dir(&node.file).unwrap();
    // What was kept is answered, whatever cannot be written now.
    assert_eq!(tell(0).unwrap(), first);
    for _ in 0..2 {
        let refused = tell(1).unwrap_err().to_string();
        assert!(
            refused.contains("the prefixes serve, and are not kept: "),
            "{refused}"
        );
    }
    std::fs::remove_dir(&node.file).unwrap();
    assert_eq!(tell(1).unwrap(), first + 1);
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_is_once_it_can() {
    let node = Node::new();
    // A folder is in its way.
    std::fs::create_dir(&node.file).unwrap();
    // Nothing is attached, which would have it written, too.
    let desk = node.open();
    let is_said = || {
        let text = "labels, addresses that are held or cool down, and generations are not kept: ";
        desk.node()
            .warnings
            .iter()
            .any(|warning| warning.starts_with(text))
    };
    assert!(is_said());
    std::fs::remove_dir(&node.file).unwrap();
    let began = Instant::now();
    while !node.file.is_file() || is_said() {
        assert!(began.elapsed() < Duration::from_secs(20), "it is not written");
        std::thread::yield_now();
    }
}
