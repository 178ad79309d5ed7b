//! Adoptions that a crash of the daemon cuts short: the pods are Debian's ptp's.

use crate::adopt::{LOST, Pod, adopt, expect, node, picture};
use crate::daemon::{Build, Daemon};
use crate::witness::run;
use client::inspection::adopt_request::Step;
use client::inspection::adoption::State;
use client::inspection::attachment::Origin;
use client::inspection::{AdoptRequest, Adoption};
use stage::wait::{PATIENCE, eventually};

/// More steps than an adoption has.
const MANY: u32 = 40;

#[test]
fn a_crash_at_any_step_of_an_adoption_leaves_the_link_as_it_was_or_taken_over() {
    for giving_back in [false, true] {
        let mut over = false;
        for step in 1..MANY {
            let mut daemon = node();
            let pod = Pod::made_at_once("ptp", &daemon, "a");
            stage::ping(&pod.sandbox, "fd01::1".parse().unwrap(), PATIENCE).unwrap();
            let before = picture(&daemon, &[&pod]);
            if giving_back {
                expect(&adopt(&daemon, Step::Take, &[&pod]), State::Taken);
            }
            daemon.stop();
            assert!(daemon.try_start(Build::CrashingAfter(step)));
            let mut request = AdoptRequest::default();
            match giving_back {
                true => request.set_step(Step::Undo),
                false => {
                    request.set_step(Step::Take);
                    request.candidate = vec![pod.candidate()];
                }
            }
            let answer = daemon.caller().talk(async |client| client.adopt(request).await);
            if answer.is_ok() {
                over = true;
                break;
            }
            eventually(PATIENCE, "the crash", || daemon.has_crashed(), |&crashed| crashed);
            for gateway in ["10.1.0.1", "fd01::1"] {
                stage::ping(&pod.sandbox, gateway.parse().unwrap(), LOST).unwrap();
            }
            daemon.start();
            let listed = daemon.caller().list();
            daemon.expect_used(listed.len() as u64);
            if listed.is_empty() {
                assert_eq!(picture(&daemon, &[&pod]), before, "after step {step}");
                expect(&adopt(&daemon, Step::Take, &[&pod]), State::Taken);
            }
            assert_eq!(
                daemon.caller().findings(),
                Vec::<String>::new(),
                "after step {step}"
            );
            expect(&adopt(&daemon, Step::Undo, &[&pod]), State::Undone);
            assert_eq!(picture(&daemon, &[&pod]), before, "after step {step}");
        }
        assert!(over, "more than {MANY} steps");
    }
}

/// What the node has of one pod, and the pod itself: the other one may be in another state.
fn alone(daemon: &Daemon, pod: &Pod) -> Vec<String> {
    // What comes first is of all links.
    let mut all = picture(daemon, &[pod]).split_off(4);
    for words in ["-d link", "address", "route", "-6 route"] {
        let line = format!("ip {words} show dev {}", pod.host_link);
        all.push(run(&daemon.node.node, &line));
    }
    all
}

/// A daemon that has taken over two pods, and comes back to crash after some steps.
struct Taken {
    daemon: Daemon,
    pods: [Pod; 2],
    before: [Vec<String>; 2],
}

impl Taken {
    fn about_to_crash_after(step: u32) -> Self {
        let mut daemon = node();
        let pods = ["a", "b"].map(|id| Pod::made_at_once("ptp", &daemon, id));
        let before = [&pods[0], &pods[1]].map(|pod| alone(&daemon, pod));
        expect(&adopt(&daemon, Step::Take, &[&pods[0], &pods[1]]), State::Taken);
        daemon.stop();
        assert!(daemon.try_start(Build::CrashingAfter(step)));
        Self { daemon, pods, before }
    }

    /// Asks for a step of all that is taken over; whether there was an answer.
    fn ask(&self, step: Step) -> bool {
        let mut request = AdoptRequest::default();
        request.set_step(step);
        let answer = self
            .daemon
            .caller()
            .talk(async |client| client.adopt(request).await);
        answer.is_ok()
    }

    /// The daemon has crashed, packets flow, and it is started again: what became of each pod.
    fn after_the_crash(&mut self) -> [Origin; 2] {
        eventually(
            PATIENCE,
            "the crash",
            || self.daemon.has_crashed(),
            |&crashed| crashed,
        );
        self.all_reach_their_gateway();
        self.daemon.start();
        assert_eq!(self.daemon.caller().findings(), Vec::<String>::new());
        self.all_reach_their_gateway();
        self.origins()
    }

    fn all_reach_their_gateway(&self) {
        for pod in &self.pods {
            for gateway in ["10.1.0.1", "fd01::1"] {
                stage::ping(&pod.sandbox, gateway.parse().unwrap(), LOST).unwrap();
            }
        }
    }

    /// Of each pod; `Unspecified` where the daemon does not have it.
    fn origins(&self) -> [Origin; 2] {
        let listed = self.daemon.caller().list();
        let origins = [&self.pods[0], &self.pods[1]].map(|pod| {
            let of = listed
                .iter()
                .find(|of| of.key.as_ref().is_some_and(|key| *key == pod.key()));
            of.map_or(Origin::Unspecified, |of| of.origin())
        });
        let held = origins
            .iter()
            .filter(|origin| **origin != Origin::Unspecified)
            .count();
        self.daemon.expect_used(held as u64);
        origins
    }

    fn each(&self, step: Step) -> [Adoption; 2] {
        [&self.pods[0], &self.pods[1]].map(|pod| adopt(&self.daemon, step, &[pod]).remove(0))
    }
}

#[test]
fn after_a_crash_at_any_step_of_a_commit_what_is_not_kept_for_good_can_be_given_back_or_committed() {
    let mut over = false;
    let mut seen = Vec::new();
    for step in 1..MANY {
        let mut ends = Vec::new();
        for then in [Step::Commit, Step::Undo] {
            let mut taken = Taken::about_to_crash_after(step);
            if taken.ask(Step::Commit) {
                over = true;
                break;
            }
            let origins = taken.after_the_crash();
            assert!(!origins.contains(&Origin::Unspecified), "{step}: {origins:?}");
            ends.push(origins);
            let answers = taken.each(then);
            for (n, origin) in origins.iter().enumerate() {
                let state = match (then, origin) {
                    (Step::Commit, _) => State::Committed,
                    (_, Origin::Taken) => State::Undone,
                    _ => State::Refused,
                };
                assert_eq!(answers[n].state(), state, "{step}, {then:?}: {answers:#?}");
                if state == State::Undone {
                    assert_eq!(alone(&taken.daemon, &taken.pods[n]), taken.before[n], "{step}");
                }
                if state == State::Refused {
                    assert_eq!(answers[n].reason, ["it is committed"], "{step}");
                }
            }
            if then == Step::Commit {
                // Once more changes nothing, and neither does a crash.
                let again = taken.each(Step::Commit);
                assert!(
                    again.iter().all(|of| of.state() == State::Committed),
                    "{again:#?}"
                );
                taken.daemon.crash();
                taken.daemon.start();
                assert_eq!(taken.origins(), [Origin::Committed; 2], "{step}");
            }
            taken.all_reach_their_gateway();
        }
        if over {
            break;
        }
        assert_eq!(ends[0], ends[1], "the same step, the same end");
        seen.push(ends[0]);
    }
    assert!(over, "more than {MANY} steps");
    assert!(
        seen.iter().any(|[a, b]| a != b),
        "no crash came between the pods: {seen:?}"
    );
}

#[test]
fn after_a_crash_at_any_step_of_giving_back_two_pods_each_is_as_it_was_or_still_taken_over() {
    let mut over = false;
    let mut between = false;
    for step in 1..MANY {
        let mut taken = Taken::about_to_crash_after(step);
        if taken.ask(Step::Undo) {
            over = true;
            break;
        }
        let origins = taken.after_the_crash();
        assert!(!origins.contains(&Origin::Committed), "{step}: {origins:?}");
        between |= origins[0] != origins[1];
        for answer in taken.each(Step::Undo) {
            assert_eq!(answer.state(), State::Undone, "{step}");
        }
        for n in [0, 1] {
            assert_eq!(alone(&taken.daemon, &taken.pods[n]), taken.before[n], "{step}");
        }
        assert_eq!(taken.origins(), [Origin::Unspecified; 2], "{step}");
        taken.all_reach_their_gateway();
    }
    assert!(over, "more than {MANY} steps");
    assert!(between, "no crash came between the pods");
}
