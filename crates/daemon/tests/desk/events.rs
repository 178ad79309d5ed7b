//! What the kernel tells, or fails to tell, and what the desk does then.

use crate::fake::{Place, World};
use crate::orders::{attach, detach, give_detach, key, listed, open, open_with, pools, settings};
use daemon::desk::order::Detached;
use model::datapath::Event;
use stage::wait::{PATIENCE, eventually};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn what_is_told_to_be_touched_is_put_back() {
    let world = World::default();
    let desk = open(&world);
    let index = attach(&desk, "w", "/n/1").unwrap().link.host_index;
    let link = key("w").host_link();
    let before = world.text();

    world.damage(&link, |found| found.up = false);
    world.tell(Event::LinkTouched { link, index });
    world.wait_until_it_is(&before);

    let destination = "10.9.0.0/32".parse().unwrap();
    world.damage(&link, |found| found.routes.truncate(1));
    world.tell(Event::RouteGone { destination, index });
    world.wait_until_it_is(&before);

    world.lose_ruleset();
    world.tell(Event::RulesetTouched);
    world.wait_until_it_is(&before);

    world.set_uplink_mtu(1400);
    world.tell(Event::UplinkTouched);
    eventually(
        PATIENCE,
        "the uplink's MTU",
        || desk.node().mtu,
        |mtu| *mtu == 1400,
    );
    assert_eq!(attach(&desk, "x", "/n/2").unwrap().link.mtu, 1400);
}

/// Notifications that were lost may have told anything.
#[test]
fn a_loss_of_notifications_leads_to_a_full_survey() {
    let world = World::default();
    let desk = open(&world);
    for (id, path) in [("gone", "/n/1"), ("hurt", "/n/2"), ("well", "/n/3")] {
        attach(&desk, id, path).unwrap();
    }
    world.damage(&key("hurt").host_link(), |found| found.neighbours.clear());
    world.lose(&key("gone").host_link());
    world.lose_ruleset();
    world.set_uplink_mtu(1300);
    assert_eq!(listed(&desk), ["gone", "hurt", "well"]);
    world.tell(Event::Lost);
    eventually(
        PATIENCE,
        "what is gone is noticed",
        || listed(&desk),
        |all| *all == ["hurt", "well"],
    );
    eventually(
        PATIENCE,
        "what is missing is put back",
        || desk.check(None).unwrap(),
        |findings| *findings == Some(Vec::new()),
    );
    assert_eq!(
        pools(&desk).iter().map(|p| (p.0, p.2)).collect::<Vec<_>>(),
        [(2, 1); 2]
    );
    assert_eq!(desk.node().mtu, 1300);
}

/// Who clears or overwrites the record while much happens at once neither ends the attachment nor has his way.
#[test]
fn a_record_that_somebody_damages_is_put_back_by_a_full_survey_too() {
    for alias in ["", "nobody"] {
        let world = World::default();
        let desk = open(&world);
        attach(&desk, "w", "/n/1").unwrap();
        let before = world.text();
        world.damage(&key("w").host_link(), |found| found.alias = alias.to_owned());
        world.tell(Event::Lost);
        world.wait_until_it_is(&before);
        assert_eq!(listed(&desk), ["w"]);
    }
}

#[test]
fn an_end_counts_only_for_the_link_of_that_name_and_index() {
    let world = World::default();
    let desk = open(&world);
    let index = attach(&desk, "w", "/n/1").unwrap().link.host_index;
    let before = pools(&desk);
    let (link, other) = (key("w").host_link(), key("x").host_link());
    let next = index + 1;
    for event in [
        Event::LinkGone { link: other, index },
        Event::LinkGone { link, index: next },
        Event::LinkGone {
            link,
            index: index - 1,
        },
    ] {
        world.tell(event);
        assert_eq!(
            (listed(&desk), pools(&desk)),
            (vec!["w".to_owned()], before.clone())
        );
    }
    world.tell(Event::LinkGone { link, index });
    assert_eq!(listed(&desk), Vec::<String>::new());
}

/// The kernel announces an end long before it acknowledges it.
#[test]
fn a_late_acknowledgement_is_not_taken_for_another_links_end() {
    let world = World::default();
    world.occupy(100_000);
    let desk = open(&world);
    attach(&desk, "a", "/n/1").unwrap();
    world.close(Place::Unwired);
    assert_eq!(detach(&desk, "a", None).unwrap(), Detached::Done);
    world.wait_at(Place::Unwired);
    // Of the same name, and of another one.
    let of_a = attach(&desk, "a", "/n/1").unwrap();
    let of_b = attach(&desk, "b", "/n/2").unwrap();
    let before = (world.text(), pools(&desk));
    world.open(Place::Unwired);
    // One more order on every thread that deletes.
    let others: Vec<_> = (0..32)
        .map(|n| give_detach(&desk, &format!("w{n}"), None))
        .collect();
    for given in others {
        given.outcome().unwrap();
    }
    desk.stop();
    assert_eq!(desk.list(None).unwrap(), [of_a, of_b]);
    assert_eq!((world.text(), pools(&desk)), before);
}

/// The sweeper has done with everything that was told before.
fn settle(world: &World) {
    let before = world.text();
    world.lose_ruleset();
    world.tell(Event::RulesetTouched);
    world.wait_until_it_is(&before);
}

#[test]
fn what_comes_and_goes_while_a_survey_is_taken_is_neither_lost_nor_brought_back() {
    let world = World::default();
    let desk = open(&world);
    attach(&desk, "stays", "/n/1").unwrap();
    attach(&desk, "goes", "/n/2").unwrap();
    attach(&desk, "vanishes", "/n/3").unwrap();
    attach(&desk, "moves", "/n/4").unwrap();
    world.close(Place::Surveyed);
    world.tell(Event::Lost);
    world.wait_at(Place::Surveyed);
    assert_eq!(detach(&desk, "goes", None).unwrap(), Detached::Done);
    world.vanish("/n/3");
    assert_eq!(detach(&desk, "moves", None).unwrap(), Detached::Done);
    attach(&desk, "moves", "/n/5").unwrap();
    attach(&desk, "comes", "/n/6").unwrap();
    let before = (desk.list(None).unwrap(), pools(&desk));
    world.open(Place::Surveyed);
    settle(&world);
    assert_eq!((desk.list(None).unwrap(), pools(&desk)), before);
    assert_eq!(listed(&desk), ["comes", "moves", "stays"]);
    assert_eq!(desk.check(None).unwrap(), Some(Vec::new()));
}

/// Ends a thread that a scope waits for, also where the test fails.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_full_round_comes_although_something_is_always_touched() {
    let world = World::default();
    let mut often = settings();
    often.round = Duration::from_millis(200);
    let desk = open_with(&world, often);
    attach(&desk, "w", "/n/1").unwrap();
    attach(&desk, "gone", "/n/2").unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetWhenDropped(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                world.tell(Event::UplinkTouched);
                thread::yield_now();
            }
        });
        for _ in 0..3 {
            world.damage(&key("w").host_link(), |found| found.routes.clear());
            let is_whole = |desk: &std::sync::Arc<daemon::desk::Desk<crate::fake::Fake>>| {
                desk.check(Some(&key("w"))).unwrap() == Some(Vec::new())
            };
            eventually(
                PATIENCE,
                "nobody told of it, and it is put back",
                || is_whole(&desk),
                |whole| *whole,
            );
        }
        world.lose(&key("gone").host_link());
        eventually(
            PATIENCE,
            "nobody told of it, and it is noticed",
            || listed(&desk),
            |all| *all == ["w"],
        );
    });
}
