//! Who is next, how much may wait, and what a stop waits for.

use crate::fake::{Place, World};
use crate::orders::{
    attach, detach, detach_order, give, give_detach, hanging, key, listed, open, open_with, order,
    order_with, pools, settings,
};
use daemon::desk::order::{Detached, Refusal};
use model::datapath::Event;
use stage::wait::{PATIENCE, eventually, throughout};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_detach_waits_for_the_attach_of_its_key_and_undoes_it() {
    let world = World::default();
    let desk = open(&world);
    let before = world.links();
    let attaching = hanging(&world, &desk, "w", "/n/1");
    let detaching = give_detach(&desk, "w", None);
    let attaching_again = give(&desk, order("w", "/n/1"));
    // Whoever came later and does not have to wait is answered.
    assert_eq!(detach(&desk, "nobody", None).unwrap(), Detached::WasAbsent);
    assert!(attaching.by_now().is_none() && detaching.by_now().is_none());
    world.open(Place::Wire);
    attaching.outcome().unwrap();
    assert_eq!(detaching.outcome().unwrap(), Detached::Done);
    attaching_again.outcome().unwrap();
    assert_eq!(detach(&desk, "w", None).unwrap(), Detached::Done);
    assert_eq!(world.links(), before);
}

#[test]
fn an_attach_waits_for_the_detach_of_its_key() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "w", "/n/1").unwrap();
    world.close(Place::Unwire);
    let detaching = give_detach(&desk, "w", None);
    world.wait_at(Place::Unwire);
    let attaching = give(&desk, order("w", "/n/2"));
    attach(&desk, "other", "/n/9").unwrap();
    assert!(attaching.by_now().is_none() && detaching.by_now().is_none());
    assert!(desk.get(&key("w")).unwrap().unwrap().detaching);
    world.open(Place::Unwire);
    assert_eq!(detaching.outcome().unwrap(), Detached::Done);
    assert_eq!(attaching.outcome().unwrap().namespace().inode, 2);
}

/// How long a detach waits for attaches at most.
const BEHIND_ATTACHES: Duration = Duration::from_millis(20);
/// Far longer than a thread takes to come.
const A_MOMENT: Duration = Duration::from_millis(200);

#[test]
fn a_detach_goes_behind_the_attaches_and_does_not_wait_for_ever() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "w", "/n/1").unwrap();
    let attaching = hanging(&world, &desk, "other", "/n/2");
    let began = Instant::now();
    assert_eq!(detach(&desk, "w", None).unwrap(), Detached::Done);
    assert!(began.elapsed() >= BEHIND_ATTACHES, "{:?}", began.elapsed());
    assert!(attaching.by_now().is_none());
    world.open(Place::Wire);
    attaching.outcome().unwrap();
}

/// Its patience begins while those before it are under way, and nothing else happens when they have ended.
#[test]
fn a_detach_does_not_wait_for_ever_for_an_attach_that_hangs() {
    let world = World::default();
    let desk = open(&world);
    for (id, path) in [("a", "/n/1"), ("b", "/n/2")] {
        attach(&desk, id, path).unwrap();
    }
    world.close(Place::Unwire);
    let before = give_detach(&desk, "a", None);
    world.wait_at(Place::Unwire);
    let attaching = hanging(&world, &desk, "other", "/n/3");
    let behind = give_detach(&desk, "b", None);
    world.open(Place::Unwire);
    for given in [before, behind] {
        assert_eq!(given.outcome().unwrap(), Detached::Done);
    }
    assert!(attaching.by_now().is_none());
    world.open(Place::Wire);
    attaching.outcome().unwrap();
}

#[test]
fn detaches_that_come_while_links_are_deleted_are_taken_together() {
    let world = World::default();
    let desk = open(&world);
    for (id, path) in [("a", "/n/1"), ("b", "/n/2"), ("c", "/n/3")] {
        attach(&desk, id, path).unwrap();
    }
    world.close(Place::Unwire);
    let first = give_detach(&desk, "a", None);
    world.wait_at(Place::Unwire);
    // No thread takes the next one alone, though many have nothing to do.
    let others = [("b", 1), ("c", 2)].map(|(id, waiting)| {
        let given = give_detach(&desk, id, None);
        let to_be_deleted = || desk.figures().waiting[3];
        throughout(A_MOMENT, "it waits", to_be_deleted, |all| *all == waiting);
        given
    });
    world.open(Place::Unwire);
    for given in others.iter().chain([&first]) {
        assert_eq!(given.outcome().unwrap(), Detached::Done);
    }
    assert_eq!(world.most_together(), 2);
}

#[test]
fn the_next_ones_are_deleted_when_those_before_are_announced_as_gone() {
    let world = World::default();
    let desk = open(&world);
    for (id, path) in [("a", "/n/1"), ("b", "/n/2")] {
        attach(&desk, id, path).unwrap();
    }
    // Nothing is acknowledged.
    world.close(Place::Unwired);
    for id in ["a", "b"] {
        assert_eq!(detach(&desk, id, None).unwrap(), Detached::Done);
    }
    world.open(Place::Unwired);
}

#[test]
fn what_is_too_much_is_refused_at_once_and_what_waits_is_answered() {
    let world = World::default();
    let mut few = settings();
    few.max_queued = 4;
    let desk = open_with(&world, few);
    world.close(Place::Wire);
    let waiting = [
        give(&desk, order("a", "/n/1")),
        give(&desk, order("b", "/n/2")),
        give(&desk, order("c", "/n/3")),
        // One that waits for its key's turn counts, too.
        give(&desk, order("a", "/n/1")),
    ];
    world.wait_at(Place::Wire);
    for _ in 0..2 {
        let refused = attach(&desk, "d", "/n/4");
        assert!(
            matches!(refused, Err(Refusal::Overloaded { waiting: 4 })),
            "{refused:?}"
        );
        let refused = detach(&desk, "a", None);
        assert!(
            matches!(refused, Err(Refusal::Overloaded { waiting: 4 })),
            "{refused:?}"
        );
    }
    assert!(waiting.iter().all(|given| given.by_now().is_none()));
    world.open(Place::Wire);
    let mut all: Vec<_> = waiting.iter().map(|given| given.outcome().unwrap()).collect();
    assert_eq!(all.pop(), Some(all[0].clone()));
    // The answer goes out before the turn ends.
    eventually(
        PATIENCE,
        "d has room",
        || attach(&desk, "d", "/n/4"),
        Result::is_ok,
    )
    .unwrap();
    assert_eq!(listed(&desk), ["a", "b", "c", "d"]);
}

#[test]
fn ends_that_are_told_by_a_thread_of_its_own_are_answered_and_what_is_put_back_meanwhile_has_every_port() {
    let world = World::default();
    world.tell_later();
    let desk = open(&world);
    for (id, path) in [("a", "/n/1"), ("b", "/n/2"), ("c", "/n/3")] {
        attach(&desk, id, path).unwrap();
    }
    let all = ["a", "b", "c"].map(|id| give_detach(&desk, id, None));
    let published = world.published();
    let with_a_port = give(&desk, order_with("d", "/n/4", &[8080]));
    world.lose_ruleset();
    world.tell(Event::RulesetTouched);
    for detaching in all {
        assert_eq!(detaching.outcome().unwrap(), Detached::Done);
    }
    with_a_port.outcome().unwrap();
    world.wait_for_the_table(published, "10.9.0.0/28".parse().unwrap(), 2);
    assert!((1..=3).contains(&world.most_together()));
    assert_eq!(listed(&desk), ["d"]);
}

/// What happened, in its order.
type Story = Arc<Mutex<Vec<&'static str>>>;

#[test]
fn a_stop_waits_for_the_answers_to_what_runs_and_refuses_what_comes() {
    for place in [Place::Wire, Place::Unwire] {
        let world = World::default();
        let desk = open(&world);
        attach(&desk, "other", "/n/9").unwrap();
        world.close(place);
        let story = Story::default();
        let answered = Arc::clone(&story);
        let write = move || answered.lock().unwrap().push("answered");
        if place == Place::Wire {
            desk.attach(
                order("w", "/n/1"),
                Box::new(move |outcome| drop(outcome.map(|_| write()))),
            );
        } else {
            let order = detach_order("other", None);
            desk.detach(order, Box::new(move |outcome| drop(outcome.map(|_| write()))));
        }
        world.wait_at(place);
        let stopping = {
            let (desk, story) = (Arc::clone(&desk), Arc::clone(&story));
            thread::spawn(move || {
                desk.stop();
                story.lock().unwrap().push("stopped");
            })
        };
        eventually(
            PATIENCE,
            "the desk is stopping",
            || desk.unready(),
            |unmet| unmet.iter().any(|text| text == "the daemon is stopping"),
        );
        assert!(matches!(attach(&desk, "x", "/n/2"), Err(Refusal::Stopping)));
        assert!(matches!(detach(&desk, "x", None), Err(Refusal::Stopping)));
        assert_eq!(*story.lock().unwrap(), Vec::<&str>::new());
        world.open(place);
        stopping.join().unwrap();
        assert_eq!(*story.lock().unwrap(), ["answered", "stopped"], "{place:?}");
        let left = if place == Place::Wire { 2 } else { 0 };
        assert_eq!(world.links(), left, "{place:?}");
        assert_eq!(listed(&open(&world)).len(), left, "{place:?}");
    }
}

#[test]
fn a_desk_that_stopped_leaves_everything_as_it_is() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "w", "/n/1").unwrap();
    let (before, full) = (world.text(), pools(&desk));
    desk.stop();
    assert!(matches!(attach(&desk, "x", "/n/2"), Err(Refusal::Stopping)));
    assert_eq!(world.text(), before);
    let next = open(&world);
    assert_eq!((world.text(), pools(&next)), (before, full));
    assert_eq!(listed(&next), ["w"]);
}
