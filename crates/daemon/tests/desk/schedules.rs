//! The desk under a checker that runs its threads in orders of its own choice, at random and by priorities that change a few
//! times (PCT): built only with the feature `schedules`.
//!
//! Waits end only because somebody was called, so a wake-up that is lost, an order that is never answered and threads that
//! wait for each other are a deadlock, which the checker finds. The seed is fixed, so that a run can be repeated;
//! `WORKLOADNET_SEED` chooses another one, and `WORKLOADNET_SCHEDULES` how many there are of each kind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "other tests of the desk need more of it")]
mod fake;
#[expect(dead_code, reason = "other tests of the desk need more of it")]
mod orders;

use daemon::desk::Desk;
use daemon::desk::order::{Detached, Refusal};
use daemon::sync::Mutex;
use fake::{Fake, Place, World};
use model::datapath::Event;
use model::peer::Peer;
use model::routes::Mode;
use orders::{
    attach, detach_order, give, give_detach, hanging, key, listed, open, open_with, order, order_with, pools,
    settings,
};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread;
use shuttle::{Config, Runner};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Deletions that are taken together, under the checker.
const TOGETHER: usize = 2;
/// Changes of priorities in a schedule: as many as most races need.
const DEPTH: usize = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a scenario in so many schedules of each kind.
fn check(what: &str, usual: usize, scenario: fn()) {
    let schedules = number("WORKLOADNET_SCHEDULES").map_or(usual, |n| usize::try_from(n).unwrap());
    let seed = number("WORKLOADNET_SEED").unwrap_or(0x77_6b);
    let random = run(RandomScheduler::new_from_seed(seed, schedules), scenario);
    let by_priority = run(PctScheduler::new_from_seed(seed, DEPTH, schedules), scenario);
    // In depth from one schedule on: what differs in their ends.
    let in_depth = run(DfsScheduler::new(Some(schedules), false), scenario);
    println!("{what}: {} schedules", random + by_priority + in_depth);
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) -> usize {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    Runner::new(scheduler, config).run(scenario)
}

/// What became of orders, in the order in which they were answered.
type Story = Arc<Mutex<Vec<(usize, usize, Told)>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Attached,
    Detached(Detached),
    Stopping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Attach,
    Detach,
}

/// Gives orders of one key, one after the other, without waiting for their answers.
fn ask(desk: &Arc<Desk<Fake>>, caller: usize, story: &Story, all: &[Ask]) {
    for (n, ask) in all.iter().enumerate() {
        let story = Arc::clone(story);
        let tell = move |told| story.lock().unwrap().push((caller, n, told));
        match ask {
            Ask::Attach => desk.attach(
                order("w", "/n/1"),
                Box::new(move |outcome| {
                    tell(match outcome {
                        Ok(_) => Told::Attached,
                        Err(Refusal::Stopping) => Told::Stopping,
                        Err(other) => panic!("{other}"),
                    });
                }),
            ),
            Ask::Detach => desk.detach(
                detach_order("w", None),
                Box::new(move |outcome| {
                    tell(match outcome {
                        Ok(detached) => Told::Detached(detached),
                        Err(Refusal::Stopping) => Told::Stopping,
                        Err(other) => panic!("{other}"),
                    });
                }),
            ),
        }
    }
}

/// The answers are those of orders that came one after the other, each caller's in their order.
fn is_one_after_the_other(story: &Story, asked: &[&[Ask]]) {
    let story = story.lock().unwrap();
    let mut next = BTreeMap::new();
    let mut is_attached = false;
    for (caller, n, told) in story.iter() {
        let ask = asked[*caller][*n];
        if *told == Told::Stopping {
            continue;
        }
        let earliest = next.entry(caller).or_insert(0);
        assert!(*n >= *earliest, "{story:?}");
        *earliest = n + 1;
        let expected = match (ask, is_attached) {
            (Ask::Attach, _) => Told::Attached,
            (Ask::Detach, true) => Told::Detached(Detached::Done),
            (Ask::Detach, false) => Told::Detached(Detached::WasAbsent),
        };
        assert_eq!(*told, expected, "{story:?}");
        is_attached = ask == Ask::Attach;
    }
}

const ASKED: [&[Ask]; 2] = [
    &[Ask::Attach, Ask::Detach, Ask::Attach],
    &[Ask::Detach, Ask::Attach],
];

#[test]
fn orders_of_one_key_are_carried_out_one_at_a_time_in_their_order_and_each_is_answered() {
    check("one key", 600, || {
        let world = World::default();
        world.tell_later();
        let desk = open(&world);
        let story = Story::default();
        let other = {
            let (desk, story) = (Arc::clone(&desk), Arc::clone(&story));
            thread::spawn(move || ask(&desk, 1, &story, ASKED[1]))
        };
        ask(&desk, 0, &story, ASKED[0]);
        other.join().unwrap();
        desk.stop();
        assert_eq!(story.lock().unwrap().len(), 5);
        is_one_after_the_other(&story, &ASKED);
        assert_eq!(listed(&desk).len(), world.links());
    });
}

#[test]
fn a_stop_ends_once_what_runs_is_answered_and_nothing_waits_for_ever() {
    check("stop", 600, || {
        let world = World::default();
        world.tell_later();
        let desk = open(&world);
        let story = Story::default();
        let stopping = {
            let (desk, story) = (Arc::clone(&desk), Arc::clone(&story));
            thread::spawn(move || {
                desk.stop();
                // Who was not refused was answered by then.
                story
                    .lock()
                    .unwrap()
                    .iter()
                    .filter(|(_, _, told)| *told != Told::Stopping)
                    .count()
            })
        };
        ask(&desk, 0, &story, ASKED[0]);
        let served = stopping.join().unwrap();
        is_one_after_the_other(&story, &ASKED);
        let story = story.lock().unwrap();
        assert_eq!(story.len(), 3);
        assert_eq!(
            story
                .iter()
                .filter(|(_, _, told)| *told != Told::Stopping)
                .count(),
            served
        );
        drop(story);
        assert_eq!(listed(&desk).len(), world.links());
    });
}

/// The fake fails the test where two write at once.
#[test]
fn whoever_finds_nobody_writing_writes_and_nothing_is_left_unwritten() {
    check("writers", 600, || {
        let world = World::default();
        let desk = open(&world);
        let callers: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .zip(["/n/1", "/n/2", "/n/3"])
            .map(|(id, path)| {
                let desk = Arc::clone(&desk);
                thread::spawn(move || attach(&desk, id, path).unwrap().addresses())
            })
            .collect();
        let mut given: Vec<String> = callers
            .into_iter()
            .map(|c| c.join().unwrap().to_string())
            .collect();
        given.sort();
        given.dedup();
        assert_eq!((given.len(), world.links()), (3, 3));
    });
}

#[test]
fn detaches_are_taken_together_up_to_the_most_and_each_end_is_told_once() {
    check("together", 400, || {
        let world = World::default();
        let desk = open(&world);
        for (id, path) in [("a", "/n/1"), ("b", "/n/2"), ("c", "/n/3"), ("d", "/n/4")] {
            attach(&desk, id, path).unwrap();
        }
        world.tell_later();
        let all: Vec<_> = ["a", "b", "c", "d"].map(|id| give_detach(&desk, id, None)).into();
        // One of them goes by itself meanwhile.
        world.vanish("/n/2");
        let ends = all.into_iter().map(|given| given.outcome().unwrap());
        let absent = ends.filter(|end| *end == Detached::WasAbsent).count();
        assert!(absent <= 1);
        assert_eq!((world.links(), listed(&desk).len()), (0, 0));
        for (used, _, cooling) in pools(&desk) {
            assert_eq!((used, cooling), (0, 4));
        }
        let most = world.most_together();
        assert!((1..=TOGETHER).contains(&most), "{most}");
        desk.stop();
    });
}

/// Nobody's patience ends here: who waits for attaches goes because they are over.
#[test]
fn a_detach_goes_when_the_attaches_before_it_are_over() {
    check("behind", 400, || {
        let world = World::default();
        world.tell_later();
        let desk = open(&world);
        attach(&desk, "a", "/n/1").unwrap();
        let others: Vec<_> = [("b", "/n/2"), ("c", "/n/3")]
            .into_iter()
            .map(|(id, path)| give(&desk, order(id, path)))
            .collect();
        let detaching = give_detach(&desk, "a", None);
        assert_eq!(detaching.outcome().unwrap(), Detached::Done);
        for other in others {
            other.outcome().unwrap();
        }
        assert_eq!((world.links(), listed(&desk).len()), (2, 2));
        desk.stop();
    });
}

/// The attach before it has not ended, and will not before it has.
#[test]
fn a_detach_that_somebody_waits_for_does_not_go_behind_the_attaches() {
    check("urgent", 200, || {
        let world = World::default();
        let desk = open(&world);
        attach(&desk, "a", "/n/1").unwrap();
        let other = hanging(&world, &desk, "b", "/n/2");
        let detaching = give_detach(&desk, "a", None);
        let again = give(&desk, order("a", "/n/1"));
        assert_eq!(detaching.outcome().unwrap(), Detached::Done);
        world.open(Place::Wire);
        other.outcome().unwrap();
        again.outcome().unwrap();
        desk.stop();
    });
}

#[test]
fn the_table_has_every_change_whoever_makes_it() {
    check("table", 400, || {
        let world = World::default();
        let mut routing = settings();
        routing.routes.mode = Mode::Auto;
        routing.routes.addresses = vec![IpAddr::from([192, 0, 2, 1])];
        let desk = open_with(&world, routing);
        let published = world.published();
        let given = give(&desk, order_with("w", "/n/1", &[8080]));
        let peer = Peer::new(
            "b",
            vec!["192.0.2.2".parse().unwrap()],
            vec!["10.10.0.0/24".parse().unwrap()],
        );
        desk.set_peers(vec![peer.unwrap()]);
        world.lose_ruleset();
        world.tell(Event::RulesetTouched);
        given.outcome().unwrap();
        world.wait_for_the_table(published, "10.10.0.0/24".parse().unwrap(), 2);
    });
}

#[test]
fn a_path_that_hangs_is_given_up_once_and_holds_nobody_up() {
    check("hangs", 400, || {
        let world = World::default();
        let mut hasty = settings();
        hasty.open_limit = Duration::from_secs(1);
        let desk = open_with(&world, hasty);
        world.close(Place::Open(1));
        let hanging = give(&desk, order("hangs", "/n/1"));
        let other = give(&desk, order("other", "/n/2"));
        match other.outcome() {
            Ok(_) | Err(Refusal::NamespaceHangs { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(matches!(hanging.outcome(), Err(Refusal::NamespaceHangs { .. })));
        world.open(Place::Open(1));
        desk.stop();
        assert_eq!(world.links(), listed(&desk).len());
    });
}

#[test]
fn what_is_touched_while_something_else_is_put_back_is_put_back_too() {
    check("touched", 400, || {
        let world = World::default();
        let desk = open(&world);
        let index = attach(&desk, "w", "/n/1").unwrap().link.host_index;
        let link = key("w").host_link();
        let before = world.text();
        let teller = {
            let (world, link) = (world.clone(), link);
            thread::spawn(move || {
                world.damage(&link, |found| found.up = false);
                world.tell(Event::LinkTouched { link, index });
            })
        };
        world.damage(&link, |found| found.neighbours.clear());
        world.tell(Event::LinkTouched { link, index });
        teller.join().unwrap();
        world.wait_until_it_is(&before);
        desk.stop();
    });
}
