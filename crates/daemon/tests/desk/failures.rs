//! Orders that fail: what is there afterwards, and to whom addresses belong.

use crate::fake::{Failure, Fake, Place, World};
use crate::orders::{
    attach, detach, give, give_detach, hanging, key, listed, open, open_with, order, order_with, pools,
    settings,
};
use daemon::desk::Desk;
use daemon::desk::order::{Attachment, Detached, Refusal};
use model::datapath::{Event, OpenError, WireError};
use model::plan::LinkPlan;
use model::survey::DYING_GROUPS;
use stage::wait::{A_SECOND, PATIENCE, eventually};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// With a port, so that there is every step that there can be.
#[track_caller]
fn attach_with_port(desk: &Arc<Desk<Fake>>) -> Result<Attachment, Refusal> {
    give(desk, order_with("w", "/n/1", &[8080])).outcome()
}

/// More steps than any attach has.
const MANY: u32 = 100;

#[test]
fn a_failed_attach_at_any_step_leaves_no_trace() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "other", "/n/9").unwrap();
    for step in 1..MANY {
        let before = (world.text(), pools(&desk), desk.list(None).unwrap());
        world.fail(Some(Failure { step, leaves: false }));
        let outcome = attach_with_port(&desk);
        world.fail(None);
        match outcome {
            Err(Refusal::Wire(_)) => assert_eq!(
                (world.text(), pools(&desk), desk.list(None).unwrap()),
                before,
                "step {step}"
            ),
            Err(other) => panic!("step {step}: {other}"),
            Ok(_) => {
                assert!(step > 20, "an attach of {step} steps");
                assert_eq!(detach(&desk, "w", None).unwrap(), Detached::Done);
                return;
            }
        }
    }
    panic!("an attach of more than {MANY} steps");
}

/// The link, and with it a route to its addresses, may still be there.
#[test]
fn what_a_failed_attach_could_not_undo_keeps_its_addresses_and_is_swept() {
    for step in 2..MANY {
        let world = World::default();
        let desk = open(&world);
        let before = pools(&desk);
        world.fail(Some(Failure { step, leaves: true }));
        let outcome = attach_with_port(&desk);
        world.fail(None);
        match outcome {
            Err(Refusal::Wire(WireError::Refused { left, .. })) if !left.is_empty() => {}
            Err(other) => panic!("step {step}: {other}"),
            Ok(_) => {
                assert!(step > 20, "an attach of {step} steps");
                return;
            }
        }
        for ((_, free, _), (_, was_free, _)) in pools(&desk).into_iter().zip(before) {
            assert_eq!(free, was_free - 1, "step {step}: an address is free at once");
        }
        let of_w = world.planned().unwrap();
        let of_x = attach(&desk, "x", "/n/2").unwrap().addresses();
        assert!(
            of_x.iter()
                .all(|address| of_w.iter().all(|other| other != address)),
            "step {step}: {of_x} and {of_w}"
        );
        // The sweep takes away what is half-made, and takes in what has a record: the same order then succeeds.
        let again = eventually(
            PATIENCE,
            "w can be attached",
            || attach_with_port(&desk),
            Result::is_ok,
        );
        assert_eq!(desk.get(&key("w")).unwrap(), Some(again.unwrap()), "step {step}");
        eventually(
            PATIENCE,
            "what is missing is put back",
            || desk.check(None).unwrap(),
            |findings| *findings == Some(Vec::new()),
        );
        assert_eq!(detach(&desk, "w", None).unwrap(), Detached::Done);
        assert_eq!((listed(&desk), world.links()), (vec!["x".to_owned()], 1));
    }
    panic!("an attach of more than {MANY} steps");
}

#[test]
fn a_failed_detach_keeps_the_attachment_and_its_addresses() {
    let world = World::default();
    let desk = open(&world);
    let attached = attach_with_port(&desk).unwrap();
    let before = (world.text(), pools(&desk));
    world.refuse_deletions(true);
    assert!(matches!(detach(&desk, "w", None), Err(Refusal::Kernel(_))));
    assert_eq!(desk.get(&key("w")).unwrap(), Some(attached));
    assert_eq!((world.text(), pools(&desk)), before);
    world.refuse_deletions(false);
    assert_eq!(detach(&desk, "w", None).unwrap(), Detached::Done);
}

/// What is about to go is not put back; the next full round is a minute away.
#[test]
fn what_was_touched_while_a_detach_failed_is_put_back() {
    let world = World::default();
    let desk = open(&world);
    let links = [("w", "/n/1"), ("other", "/n/2")].map(|(id, path)| attach(&desk, id, path).unwrap().link);
    let whole = world.text();
    world.close(Place::Unwire);
    let detaching = give_detach(&desk, "w", None);
    world.wait_at(Place::Unwire);
    world.damage(&links[0].host, |found| found.up = false);
    let half = world.text();
    world.damage(&links[1].host, |found| found.up = false);
    // They are looked at in this order.
    for link in &links {
        world.tell(Event::LinkTouched {
            link: link.host,
            index: link.host_index,
        });
    }
    world.wait_until_it_is(&half);
    world.refuse_deletions(true);
    world.open(Place::Unwire);
    assert!(matches!(detaching.outcome(), Err(Refusal::Kernel(_))));
    world.wait_until_it_is(&whole);
}

#[test]
fn an_order_whose_deadline_has_passed_changes_nothing() {
    let world = World::default();
    let desk = open(&world);
    let before = (world.text(), pools(&desk));
    let mut late = order("w", "/n/1");
    late.deadline = Some(Instant::now());
    let outcome = crate::orders::give(&desk, late).outcome();
    assert!(matches!(outcome, Err(Refusal::TooLate)), "{outcome:?}");
    assert_eq!((world.text(), pools(&desk)), before);
}

/// Names the place in the process that is to end.
const PANICS_AT: &str = "WORKLOADNET_TEST_PANICS_AT";
const PLACES: [(&str, Place); 4] = [
    ("open", Place::Open(1)),
    ("wire", Place::Wire),
    ("unwire", Place::Unwire),
    ("survey", Place::Surveyed),
];

/// A desk that goes on with a thread less would take orders in and never answer. The process of this test starts itself
/// again for each place, because what is to end is a whole process.
#[test]
fn a_panic_in_a_thread_of_the_desk_ends_the_process() {
    if let Ok(name) = std::env::var(PANICS_AT) {
        let (_, place) = PLACES.into_iter().find(|(other, _)| *other == name).unwrap();
        return panic_at(place);
    }
    for (name, _) in PLACES {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "failures::a_panic_in_a_thread_of_the_desk_ends_the_process",
            ])
            .env(PANICS_AT, name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let status = eventually(PATIENCE, name, || child.try_wait().unwrap(), Option::is_some).unwrap();
        assert_eq!(status.signal(), Some(6), "{name}: not aborted but {status}");
    }
}

fn panic_at(place: Place) {
    let no_core = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(rustix::process::Resource::Core, no_core).unwrap();
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "other", "/n/9").unwrap();
    world.panic_at(place);
    match place {
        Place::Surveyed => world.tell(model::datapath::Event::Lost),
        Place::Unwire => drop(crate::orders::give_detach(&desk, "other", None)),
        _ => drop(crate::orders::give(&desk, order("w", "/n/1"))),
    }
    eventually(5 * A_SECOND, "the process ends", || false, |ended| *ended);
}

/// Which namespace is meant cannot be told then, and it may be the attached one under another name.
#[test]
fn a_detach_that_cannot_open_its_path_for_want_of_descriptors_is_refused_and_takes_nothing_off() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "w", "/n/1").unwrap();
    let before = (world.text(), pools(&desk), desk.list(None).unwrap());
    world.exhaust_files(true);
    let refused = detach(&desk, "w", Some("/n/01")).unwrap_err();
    assert!(
        matches!(&refused, Refusal::Namespace(OpenError::Fault(_))),
        "{refused}"
    );
    assert_eq!((world.text(), pools(&desk), desk.list(None).unwrap()), before);
    world.exhaust_files(false);
    assert_eq!(detach(&desk, "w", Some("/n/01")).unwrap(), Detached::Done);
}

/// A link that is in a group to be deleted, with nobody who deletes it.
fn half_deleted(world: &World, desk: &Arc<Desk<Fake>>) -> LinkPlan {
    let link = attach(desk, "w", "/n/1").unwrap().link;
    world.damage(&link.host, |found| found.group = DYING_GROUPS.start() + 7);
    link
}

#[test]
fn what_a_failed_detach_left_half_deleted_is_no_attachment_that_the_same_order_finds() {
    let world = World::default();
    let desk = open(&world);
    let old = half_deleted(&world, &desk);
    let new = attach(&desk, "w", "/n/1").unwrap().link;
    assert_ne!(new.host_index, old.host_index);
    assert_eq!((desk.check(None).unwrap(), world.links()), (Some(Vec::new()), 1));
}

#[test]
fn what_a_failed_detach_left_half_deleted_is_taken_away_once_it_is_touched() {
    let world = World::default();
    let desk = open(&world);
    let link = half_deleted(&world, &desk);
    world.tell(Event::LinkTouched {
        link: link.host,
        index: link.host_index,
    });
    eventually(
        PATIENCE,
        "it is taken away",
        || (listed(&desk), world.links()),
        |left| *left == (vec![], 0),
    );
}

/// The survey of a check has the link as it was when somebody else began to take it off, or to attach it anew.
#[test]
fn a_check_finds_nothing_in_what_is_taken_off_meanwhile() {
    for comes_again in [false, true] {
        let world = World::default();
        let desk = open(&world);
        let link = attach(&desk, "w", "/n/1").unwrap().link;
        world.damage(&link.host, |found| found.mtu = 1);
        world.close(Place::Surveyed);
        let checked = std::thread::spawn({
            let desk = Arc::clone(&desk);
            move || desk.check(None).unwrap()
        });
        world.wait_at(Place::Surveyed);
        detach(&desk, "w", None).unwrap();
        if comes_again {
            attach(&desk, "w", "/n/1").unwrap();
        }
        world.open(Place::Surveyed);
        assert_eq!(checked.join().unwrap(), Some(Vec::new()));
    }
}

/// A full survey leaves alone whose order is in hand; this order changes nothing.
#[test]
fn what_was_touched_while_an_order_was_in_hand_is_put_back_by_a_full_sweep() {
    let world = World::default();
    let desk = open(&world);
    let link = attach(&desk, "w", "/n/1").unwrap().link;
    let whole = world.text();
    world.close(Place::Open(9));
    let older = give_detach(&desk, "w", Some("/n/9"));
    world.wait_at(Place::Open(9));
    world.damage(&link.host, |found| found.neighbours.clear());
    world.tell(Event::Lost);
    world.wait_until_it_is(&whole);
    world.open(Place::Open(9));
    assert_eq!(older.outcome().unwrap(), Detached::IsNewer);
}

#[test]
fn whether_the_daemon_is_ready_is_told_also_where_an_attach_gives_back_the_last_address() {
    let world = World::default();
    let mut small = settings();
    small.prefixes = vec!["10.9.0.0/30".parse().unwrap()];
    let desk = open_with(&world, small);
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    desk.on_ready_change(Box::new(move |ready| sink.lock().unwrap().push(ready)));
    let room = pools(&desk)[0].1;
    for n in 1..room {
        attach(&desk, &format!("w{n}"), &format!("/n/{n}")).unwrap();
    }
    world.fail(Some(Failure {
        step: 3,
        leaves: false,
    }));
    let last = hanging(&world, &desk, "last", "/n/99");
    // Somebody else makes the daemon look whether it is ready.
    world.lose_ruleset();
    world.tell(Event::RulesetTouched);
    let is_told = || told.lock().unwrap().last().copied();
    eventually(PATIENCE, "it is told not to be ready", is_told, |last| {
        *last == Some(false)
    });
    world.open(Place::Wire);
    last.outcome().unwrap_err();
    assert_eq!((desk.unready(), is_told()), (vec![], Some(true)));
}
