//! Histories that a daemon with a fault would have left, and the verdicts on them.

use super::*;

fn step(begin: u64, end: u64, what: What) -> Step {
    Step {
        begin,
        end,
        is_certain: true,
        what,
        label: format!("at {begin}"),
    }
}

fn perhaps(begin: u64, end: u64, what: What) -> Step {
    Step {
        is_certain: false,
        ..step(begin, end, what)
    }
}

fn attach_in(place: usize, answer: &str) -> What {
    What::Attach {
        ask: "usual".into(),
        places: vec![place],
        answer: Some(answer.into()),
    }
}

fn attach(answer: &str) -> What {
    attach_in(0, answer)
}

fn unknown_attach() -> What {
    What::Attach {
        ask: "usual".into(),
        places: vec![0],
        answer: None,
    }
}

fn detach() -> What {
    What::Detach(Named::Any)
}

fn seen(answer: &str) -> What {
    What::Seen(answer.into(), vec![0])
}

#[track_caller]
fn possible(steps: &[Step]) {
    let verdict = judge(&[State::Absent], steps);
    assert!(matches!(verdict, Verdict::Possible(_)), "{verdict:?}");
}

#[track_caller]
fn impossible(steps: &[Step]) {
    let verdict = judge(&[State::Absent], steps);
    assert!(matches!(verdict, Verdict::Impossible(_)), "{verdict:?}");
}

#[test]
fn an_attachment_that_was_acknowledged_and_is_lost_is_found() {
    possible(&[step(0, 1, attach("a")), step(5, 5, seen("a"))]);
    impossible(&[step(0, 1, attach("a")), step(5, 5, What::Missed)]);
}

#[test]
fn a_detach_that_was_acknowledged_and_is_undone_is_found() {
    let steps = |last| [step(0, 1, attach("a")), step(2, 3, detach()), step(5, 5, last)];
    possible(&steps(What::Missed));
    impossible(&steps(seen("a")));
}

#[test]
fn another_answer_to_the_same_request_is_found() {
    impossible(&[step(0, 1, attach("a")), step(2, 3, attach("b"))]);
    possible(&[
        step(0, 1, attach("a")),
        step(1, 3, detach()),
        step(2, 4, attach("b")),
    ]);
}

#[test]
fn an_attach_to_another_namespace_that_is_answered_as_the_same_is_found() {
    impossible(&[step(0, 1, attach_in(0, "a")), step(2, 3, attach_in(1, "a"))]);
    possible(&[
        step(0, 1, attach_in(0, "a")),
        step(2, 9, What::Ends(0)),
        step(3, 4, attach_in(1, "a")),
    ]);
}

#[test]
fn what_nobody_knows_may_be_either_and_becomes_known() {
    for last in [seen("a"), What::Missed] {
        possible(&[perhaps(0, 9, unknown_attach()), step(5, 5, last)]);
    }
    for last in [seen("a"), What::Missed] {
        possible(&[step(0, 1, attach("a")), perhaps(2, 9, detach()), step(5, 5, last)]);
    }
    // Once it is seen to be gone it does not come back.
    impossible(&[
        step(0, 1, attach("a")),
        perhaps(2, 9, detach()),
        step(5, 5, What::Missed),
        step(6, 6, seen("a")),
    ]);
    // Nor does it have its effect after the daemon that had heard it is dead.
    impossible(&[
        step(0, 1, attach("a")),
        perhaps(2, 4, detach()),
        step(5, 5, seen("a")),
        step(6, 6, What::Missed),
    ]);
}

#[test]
fn a_refusal_because_of_another_way_needs_one() {
    let differs = |ask: &str| What::Differs {
        ask: ask.into(),
        places: vec![0],
    };
    impossible(&[step(0, 1, differs("usual"))]);
    impossible(&[step(0, 1, attach("a")), step(2, 3, differs("usual"))]);
    possible(&[step(0, 1, attach("a")), step(2, 3, differs("other"))]);
}

#[test]
fn who_asks_for_what_it_has_is_not_refused_for_it() {
    let in_the_way = || What::InTheWay {
        ask: "usual".into(),
        places: vec![0],
    };
    impossible(&[step(0, 1, attach("a")), step(2, 3, in_the_way())]);
    possible(&[step(0, 1, in_the_way())]);
    possible(&[
        step(0, 1, attach("a")),
        step(2, 5, detach()),
        step(3, 4, in_the_way()),
    ]);
}

#[test]
fn a_detach_of_an_older_namespace_leaves_the_live_one() {
    let of = |life| {
        What::Detach(Named::One {
            surely: vec![life],
            maybe: vec![],
        })
    };
    impossible(&[
        step(0, 1, attach("a")),
        step(2, 3, of(7)),
        step(5, 5, What::Missed),
    ]);
    impossible(&[step(0, 1, attach("a")), step(2, 3, of(0)), step(5, 5, seen("a"))]);
}

#[test]
fn garbage_is_taken_off_unless_it_is_young() {
    let collect = |since| What::Collect {
        since,
        all_may_be_young: false,
    };
    impossible(&[
        step(0, 1, attach("a")),
        step(2, 3, collect(2)),
        step(5, 5, seen("a")),
    ]);
    possible(&[
        step(0, 3, attach("a")),
        step(2, 4, collect(2)),
        step(5, 5, seen("a")),
    ]);
    possible(&[
        step(0, 3, attach("a")),
        step(2, 4, collect(2)),
        step(5, 5, What::Missed),
    ]);
}

#[test]
fn what_a_nemesis_takes_away_is_nobodys_fault() {
    possible(&[
        step(0, 1, attach("a")),
        step(2, 9, What::Ends(0)),
        step(5, 5, What::Missed),
    ]);
    possible(&[
        step(0, 1, attach("a")),
        perhaps(2, 9, What::Cut),
        step(5, 5, What::Missed),
    ]);
    impossible(&[
        step(0, 1, attach("a")),
        step(2, 9, What::Ends(0)),
        step(10, 10, seen("a")),
    ]);
}

#[test]
fn every_way_in_which_a_key_can_have_ended_is_told() {
    let Verdict::Possible(all) = judge(&[State::Absent], &[perhaps(0, 9, unknown_attach())]) else {
        panic!("possible");
    };
    assert_eq!(all.len(), 2);
}
