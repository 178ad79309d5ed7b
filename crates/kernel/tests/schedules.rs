//! What deletions and surveys share, under a checker that runs threads in orders of its own choice (shuttle): the code is the
//! product's, with a checker's lock; the kernel is a map from links to their groups.
//!
//! `WORKLOADNET_SEED` chooses other schedules, and `WORKLOADNET_SCHEDULES` how many there are of each kind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use model::datapath::Fault;
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::Mutex;
use shuttle::{Config, Runner, thread};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

#[path = "../src/linux/dying.rs"]
mod dying;

use dying::DyingGroups;

/// So few that each is given again and again.
const GROUPS: RangeInclusive<u32> = 10..=12;
/// Where links live.
const OURS: u32 = 8;
/// Changes of priorities in a schedule.
const DEPTH: usize = 3;

/// What the kernel holds: the group of each link.
#[derive(Default)]
struct Node(Mutex<BTreeMap<u32, u32>>);

/// Which message the kernel refuses, of each deletion as a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuses {
    Nothing,
    /// To move the second link.
    Move,
    /// To delete the group.
    Deletion,
    /// To delete the group, and each link alone.
    All,
}

fn refused() -> Fault {
    Fault {
        tried: "ip link delete".to_owned(),
        reason: "Operation not permitted".to_owned(),
        errno: 1,
    }
}

impl Node {
    fn links(&self) -> shuttle::sync::MutexGuard<'_, BTreeMap<u32, u32>> {
        self.0.lock().unwrap()
    }

    /// As `unwire` does it, message by message. Whether they are gone.
    fn unwire(&self, groups: &DyingGroups, own: [u32; 2], refuses: Refuses) -> bool {
        let together = groups.in_one(|group| {
            for (n, link) in own.into_iter().enumerate() {
                if n == 1 && refuses == Refuses::Move {
                    return Err(refused());
                }
                self.links().insert(link, group);
            }
            if matches!(refuses, Refuses::Deletion | Refuses::All) {
                return Err(refused());
            }
            let mut links = self.links();
            let there: BTreeSet<u32> = links
                .iter()
                .filter(|(_, g)| **g == group)
                .map(|(l, _)| *l)
                .collect();
            assert_eq!(there, own.into(), "deleted with group {group}");
            links.retain(|_, of| *of != group);
            Ok(())
        });
        match together {
            Some(Ok(())) => true,
            _ if refuses == Refuses::All => false,
            _ => {
                for link in own {
                    self.links().remove(&link);
                }
                true
            }
        }
    }

    /// As `survey` does it: what is read may be old by the time it is told.
    fn survey(&self, groups: &DyingGroups) {
        let look = || {
            let seen: HashSet<u32> = self
                .links()
                .values()
                .copied()
                .filter(|g| GROUPS.contains(g))
                .collect();
            thread::yield_now();
            Ok(((), seen))
        };
        groups.surveyed(look).unwrap();
    }
}

/// Three threads that delete, with these refusals one after the other, and two that survey.
fn deletions_and_surveys(refusals: [[Refuses; 3]; 3]) {
    let node = Arc::new(Node::default());
    let groups = Arc::new(DyingGroups::new(GROUPS));
    let mut threads = Vec::new();
    for (n, refusals) in (0..).zip(refusals) {
        let (node, groups) = (Arc::clone(&node), Arc::clone(&groups));
        threads.push(thread::spawn(move || {
            for (round, refuses) in (0..).zip(refusals) {
                let first = 100 * n + 10 * round;
                let own = [first, first + 1];
                node.links().extend(own.map(|link| (link, OURS)));
                node.unwire(&groups, own, refuses);
            }
        }));
    }
    for _ in 0..2 {
        let (node, groups) = (Arc::clone(&node), Arc::clone(&groups));
        threads.push(thread::spawn(move || {
            node.survey(&groups);
            node.survey(&groups);
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    // No group is lost: once it was surveyed, each that has no link is given again, and no other.
    node.survey(&groups);
    let mut used: BTreeSet<u32> = node.links().values().copied().collect();
    used.remove(&OURS);
    let mut given = BTreeSet::new();
    for _ in GROUPS {
        let _ = groups.in_one(|group| {
            given.insert(group);
            Ok(())
        });
    }
    assert_eq!(given, GROUPS.filter(|group| !used.contains(group)).collect());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) -> usize {
    Runner::new(scheduler, Config::new()).run(scenario)
}

fn check(what: &str, scenario: fn()) {
    let schedules = number("WORKLOADNET_SCHEDULES").map_or(700, |n| usize::try_from(n).unwrap());
    let seed = number("WORKLOADNET_SEED").unwrap_or(0x77_6b);
    let random = run(RandomScheduler::new_from_seed(seed, schedules), scenario);
    let by_priority = run(PctScheduler::new_from_seed(seed, DEPTH, schedules), scenario);
    let in_depth = run(DfsScheduler::new(Some(schedules), false), scenario);
    println!("{what}: {} schedules", random + by_priority + in_depth);
}

#[test]
fn no_deletion_takes_a_link_along_that_another_one_left_or_is_about_to_delete() {
    use Refuses::{All, Deletion, Move, Nothing};
    check("all goes well", || deletions_and_surveys([[Nothing; 3]; 3]));
    check("some links stay", || {
        deletions_and_surveys([[All, Nothing, Nothing], [Nothing; 3], [Nothing, Nothing, All]]);
    });
    check("some are deleted one by one", || {
        deletions_and_surveys([
            [Move, Deletion, Nothing],
            [Nothing, Move, Nothing],
            [All, Nothing, Nothing],
        ]);
    });
}

#[test]
fn a_group_in_which_a_link_may_be_is_left_out_until_a_later_survey_sees_none() {
    let test = || {
        let groups = DyingGroups::new(GROUPS);
        let given = || {
            let mut given = None;
            let _ = groups.in_one(|group| {
                given = Some(group);
                Ok(())
            });
            given
        };
        let saw = |seen: &[u32]| {
            let seen = seen.iter().copied().collect();
            groups.surveyed(|| Ok(((), seen))).unwrap();
        };
        saw(&[10]);
        assert_eq!([given(), given(), given()], [Some(11), Some(12), Some(11)]);
        assert!(groups.in_one(|_| Err(refused())).unwrap().is_err());
        // 12 was left with something, by now.
        saw(&[12]);
        assert_eq!([given(), given(), given()], [Some(10), Some(11), Some(10)]);
        saw(&[10, 11, 12]);
        assert_eq!(given(), None);
        // A survey that fails says nothing, and one that began before another ended after it does not either.
        assert!(groups.surveyed(|| Err::<((), _), _>(refused())).is_err());
        groups
            .surveyed(|| {
                saw(&[10, 11]);
                Ok(((), HashSet::new()))
            })
            .unwrap();
        assert_eq!([given(), given()], [Some(12), Some(12)]);
        // What a deletion left while a survey was taken may not be in it.
        groups
            .surveyed(|| {
                assert!(groups.in_one(|_| Err(refused())).unwrap().is_err());
                Ok(((), HashSet::from([10, 11])))
            })
            .unwrap();
        assert_eq!(given(), None);
        saw(&[]);
        assert!(given().is_some());
    };
    shuttle::check_random(test, 1);
}
