//! Orders that fail: what is there afterwards, and to whom addresses belong.

use crate::fake::{Failure, Fake, Place, World};
use crate::orders::{attach, detach, give, give_detach, key, listed, open, order, order_with, pools};
use daemon::desk::Desk;
use daemon::desk::order::{Attachment, Detached, Refusal};
use model::datapath::{Event, WireError};
use stage::wait::{A_SECOND, PATIENCE, eventually};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
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
