//! What is told of prefixes, and what the state file keeps of it.

use crate::fake::{Fake, World};
use crate::orders::{as_left, attach, detach, open_with, settings};
use daemon::desk::order::Unservable;
use daemon::desk::{Desk, Settings};
use daemon::source::Kind;
use model::prefix::{MOST, Prefix, PrefixError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(world: &World, file: &Path) -> Arc<Desk<Fake>> {
    let settings = Settings {
        source: Kind::Api,
        prefixes: Vec::new(),
        state_file: Some(file.to_path_buf()),
        cool_down: Duration::ZERO,
        ..settings()
    };
    open_with(world, settings)
}

/// So many /24, all others than those of another number.
fn many(of: u8, number: usize) -> Vec<Prefix> {
    let prefix = |n: usize| format!("{}.{}.{}.0/24", of, n / 256, n % 256).parse().unwrap();
    (0..number).map(prefix).collect()
}

#[test]
fn more_prefixes_than_a_node_serves_are_refused_by_number_and_change_nothing() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let desk = open(&world, &folder.path().join("state.json"));
    assert_eq!(desk.set_prefixes(&many(10, MOST)), Ok(1));
    let refused = desk.set_prefixes(&many(11, MOST + 1)).unwrap_err();
    assert_eq!(refused, Unservable::Prefix(PrefixError::TooMany(257)));
    assert_eq!(
        refused.to_string(),
        "257 prefixes are too many: a node serves at most 256"
    );
    let node = desk.node();
    assert_eq!((node.source.generation, node.prefixes.len()), (1, MOST));
}

/// What is in use drains, but a control plane that gives each workload a prefix of its own and takes it away cannot make the
/// node look at ever more of them.
#[test]
fn more_than_may_drain_is_refused_and_what_is_in_use_stays() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let file = folder.path().join("state.json");
    let mut desk = open(&world, &file);
    let one = |n: usize| many(10, n + 1)[n..].to_vec();
    for n in 0..=MOST {
        assert_eq!(desk.set_prefixes(&one(n)), Ok(n as u64 + 1));
        attach(&desk, &format!("w{n}"), &format!("/n/{n}")).unwrap();
    }
    let before = desk.node().prefixes;
    let refused = desk.set_prefixes(&one(300)).unwrap_err();
    assert_eq!(refused, Unservable::Draining(257));
    assert!(refused.to_string().ends_with("at most 256 may"), "{refused}");
    assert_eq!(desk.node().prefixes, before);
    // Nor does a restart help,
    world.forget_the_daemon();
    desk = open(&world, &as_left(&file));
    assert_eq!(desk.set_prefixes(&one(300)), Err(Unservable::Draining(257)));
    assert_eq!(desk.set_prefixes(&one(MOST)), Ok(257));
    assert_eq!(desk.node().prefixes, before);
    // but the end of a workload does.
    detach(&desk, "w7", None).unwrap();
    assert_eq!(desk.set_prefixes(&one(300)), Ok(258));
}

#[test]
fn an_answered_generation_is_never_given_to_another_list() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let mut file = folder.path().join("state.json");
    for n in 0..5_u8 {
        // Nothing is told the last one, as by a SIGKILL right after its answer.
        world.forget_the_daemon();
        file = as_left(&file);
        let desk = open(&world, &file);
        assert_eq!(desk.node().source.generation, u64::from(n));
        assert_eq!(desk.set_prefixes(&many(10 + n, 2)), Ok(u64::from(n) + 1));
        attach(&desk, &format!("w{n}"), &format!("/n/{n}")).unwrap();
    }
    world.forget_the_daemon();
    let desk = open(&world, &as_left(&file));
    assert_eq!(desk.set_prefixes(&many(14, 2)), Ok(5));
    let node = desk.node();
    let generations: Vec<u64> = node.prefixes.iter().map(|prefix| prefix.generation).collect();
    assert_eq!(generations, [5, 5, 5, 4, 3, 2], "{:?}", node.prefixes);
    assert_eq!(node.warnings, [""; 0]);
}

/// Its API server may be away for hours.
#[test]
fn what_kubernetes_said_last_serves_on_after_a_restart_and_is_in_doubt_until_it_is_said_again() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let mut file = folder.path().join("state.json");
    let mut open = |source| {
        world.forget_the_daemon();
        file = as_left(&file);
        let settings = Settings {
            source,
            prefixes: Vec::new(),
            state_file: Some(file.clone()),
            ..settings()
        };
        open_with(&world, settings)
    };
    let desk = open(Kind::Kubernetes);
    assert_eq!(
        desk.unready(),
        ["no prefix yet: the Kubernetes API is being asked"]
    );
    desk.set_prefixes(&many(10, 1)).unwrap();
    assert_eq!(desk.set_prefixes(&many(10, 2)), Ok(2));
    let desk = open(Kind::Kubernetes);
    assert_eq!(desk.unready(), [""; 0]);
    attach(&desk, "w", "/n/1").unwrap();
    let node = desk.node();
    let doubt = "the Kubernetes API is being asked";
    assert_eq!(
        (node.source.generation, node.source.trouble.as_deref()),
        (2, Some(doubt))
    );
    assert_eq!(
        node.warnings,
        [format!("the prefixes of generation 2 stay: {doubt}")]
    );
    assert_eq!(desk.set_prefixes(&many(10, 2)), Ok(2));
    assert_eq!(
        (desk.node().source.trouble, desk.node().warnings.len()),
        (None, 0)
    );
    // Nobody vouches for it where another source was chosen since.
    assert_eq!(
        open(Kind::Api).unready(),
        ["no prefix yet: nobody has called SetPrefixes"]
    );
}

/// A source may be quicker than the kernel is read.
#[test]
fn what_is_told_before_the_kernel_is_read_counts_on_and_loses_nothing_of_the_file() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let file = folder.path().join("state.json");
    let desk = open(&world, &file);
    desk.set_prefixes(&many(10, 2)).unwrap();
    let mut order = crate::orders::order("w", "/n/1");
    order.labels.insert("a".to_owned(), "b".to_owned());
    crate::orders::give(&desk, order).outcome().unwrap();
    desk.stop();
    world.forget_the_daemon();
    let file = as_left(&file);
    world.close(crate::fake::Place::Surveyed);
    let settings = Settings {
        source: Kind::Api,
        prefixes: Vec::new(),
        state_file: Some(file.clone()),
        ..settings()
    };
    let desk = Desk::open(Fake::on(&world), settings).unwrap();
    world.wait_at(crate::fake::Place::Surveyed);
    assert_eq!(desk.set_prefixes(&many(11, 1)), Ok(2));
    let told = daemon::state_file::StateFile::load(&file).unwrap();
    assert_eq!(told.labels.len(), 1);
    assert_eq!(told.prefixes.past().unwrap().generation, 2);
    world.open(crate::fake::Place::Surveyed);
    desk.wait_until_recovered();
    let node = desk.node();
    let generations: Vec<_> = node.prefixes.iter().map(|p| (p.draining, p.generation)).collect();
    assert_eq!(generations, [(false, 2), (true, 2)]);
    assert_eq!(desk.list(None).unwrap()[0].labels["a"], "b");
}

/// What drains and is in use is so, too, while nobody has yet read that it is in use.
#[test]
fn what_drains_stays_where_a_list_is_told_before_the_kernel_is_read() {
    let (world, folder) = (World::default(), tempfile::tempdir().unwrap());
    let file = folder.path().join("state.json");
    let settings = |file: &Path| Settings {
        source: Kind::Api,
        prefixes: Vec::new(),
        state_file: Some(file.to_path_buf()),
        ..settings()
    };
    let desk = open_with(&world, settings(&file));
    desk.set_prefixes(&many(10, 1)).unwrap();
    attach(&desk, "w", "/n/1").unwrap();
    assert_eq!(desk.set_prefixes(&many(11, 1)), Ok(2));
    world.forget_the_daemon();
    world.close(crate::fake::Place::Surveyed);
    let desk = Desk::open(Fake::on(&world), settings(&as_left(&file))).unwrap();
    world.wait_at(crate::fake::Place::Surveyed);
    assert_eq!(desk.set_prefixes(&many(11, 1)), Ok(2));
    world.open(crate::fake::Place::Surveyed);
    desk.wait_until_recovered();
    let used = |desk: &Arc<Desk<Fake>>| -> Vec<_> {
        let all = desk.node().prefixes;
        all.iter().map(|p| (p.draining, p.used, p.cooling)).collect()
    };
    assert_eq!(used(&desk), [(false, 0, 0), (true, 1, 0)]);
    // Nor is what was freed of it given out before it has cooled down.
    detach(&desk, "w", None).unwrap();
    assert_eq!(desk.set_prefixes(&many(10, 1)), Ok(3));
    assert_eq!(used(&desk), [(false, 0, 1)]);
}
