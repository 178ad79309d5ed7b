//! An attach of both families and with a port.

use crate::effects::{EBUSY, EEXIST, EPERM, Errors, each, recorded, under};
use crate::world::{Workload, on_a_node, same, sweep, world};
use kernel::linux::Linux;
use mishap::{Call, Effect, Kind, Strike, arm, disarm};
use model::datapath::{Datapath as _, WireError};

/// The calls of an attach that had to look least often whether an address is answered.
fn shortest(linux: &Linux) -> Vec<Call> {
    let attach = |_| {
        let workload = Workload::new(linux, 0);
        let mut index = 0;
        let calls = recorded(|| index = workload.attach(linux).unwrap());
        assert_eq!(linux.unwire(&[workload.target(index)]), [Ok(())]);
        calls
    };
    (0..8).map(attach).min_by_key(Vec::len).unwrap()
}

#[test]
fn an_attach_that_fails_at_any_call_leaves_no_trace() {
    on_a_node(|linux| {
        let workload = Workload::new(linux, 0);
        let (empty, inside) = (world(), workload.inside());
        let calls = shortest(linux);
        let (mut got_over, mut unknown) = (0, 0);
        let cases = each(&calls, Errors::All, |mut mishap| {
            let workload = Workload::new(linux, 0);
            let index = match under(&mut mishap, || workload.attach(linux)) {
                Ok(index) => {
                    got_over += 1;
                    index
                }
                Err(error) => {
                    match &error {
                        WireError::Refused { .. } | WireError::Vanished(_) => {
                            mishap.is_named_in(&error.to_string());
                        }
                        // Words of its own for what is there already.
                        _ => assert_eq!(mishap.errno(), Some(EEXIST), "{mishap:?}: {error}"),
                    }
                    same(&world(), &empty, &(&mishap, &error));
                    match &error {
                        // Whether it was down before was to be told by the answer that was lost.
                        WireError::Refused { left, .. } if !left.is_empty() => {
                            unknown += 1;
                            assert_eq!(left[0].tried, "ip link set lo down", "{mishap:?}: {error}");
                        }
                        _ => same(&workload.inside(), &inside, &(&mishap, &error)),
                    }
                    workload
                        .attach(linux)
                        .unwrap_or_else(|error| panic!("{mishap:?}: again: {error}"))
                }
            };
            workload.is_whole(linux, &mishap);
            assert_eq!(linux.unwire(&[workload.target(index)]), [Ok(())]);
            same(&world(), &empty, &mishap);
        });
        println!(
            "{cases} mishaps of {} calls, {got_over} got over, {unknown} with loopback left up",
            calls.len()
        );
    });
}

/// Somebody has the name of one of the ends, and who that is cannot be looked at, as for want of descriptors: that is said, and
/// not that the kernel has refused a name which nobody has.
#[test]
fn an_attach_that_cannot_look_whose_the_name_is_says_why() {
    on_a_node(|linux| {
        let first = Workload::new(linux, 0);
        first.attach(linux).unwrap();
        let same_namespace = Workload {
            namespace: first.namespace.try_clone().unwrap(),
            ..Workload::new(linux, 1)
        };
        let before = world();
        for (second, why) in [(&first, "LinkTaken"), (&same_namespace, "InterfaceTaken")] {
            let refused = || format!("{:?}", second.attach(linux).unwrap_err());
            let calls = recorded(|| assert!(refused().starts_with(why), "{}", refused()));
            // Behind the first answer all are looks.
            let looks = calls.iter().position(|call| call.kind == Kind::Answer).unwrap() + 1;
            let cases = each(&calls[looks..], Errors::All, |mut mishap| {
                match under(&mut mishap, || second.attach(linux)).unwrap_err() {
                    WireError::Refused { fault, .. } => mishap.is_named_in(&fault.to_string()),
                    other => assert!(format!("{other:?}").starts_with(why), "{mishap:?}: {other}"),
                }
                same(&world(), &before, &mishap);
            });
            assert!(cases > 10, "{cases}");
        }
    });
}

/// The undoing fails, too: what is left is said, and a sweep makes it good.
#[test]
fn what_an_attach_cannot_undo_is_said_and_swept() {
    on_a_node(|linux| {
        let empty = world();
        let calls = shortest(linux);
        let messages: Vec<_> = calls.iter().filter(|call| call.kind == Kind::Message).collect();
        let (mut cases, mut left_over) = (0, 0);
        // From the second one on there is something to undo.
        for first in messages.iter().skip(1).step_by(4).chain(messages.last()) {
            let first = Strike {
                kind: first.kind,
                nth: first.nth,
                effect: Effect::Errno(EPERM),
            };
            let workload = Workload::new(linux, 0);
            arm(&[first]);
            if let Ok(index) = workload.attach(linux) {
                // It was got over.
                disarm();
                assert_eq!(linux.unwire(&[workload.target(index)]), [Ok(())]);
                continue;
            }
            let undoing: Vec<_> = disarm()
                .into_iter()
                .skip_while(|call| (call.kind, call.nth) != (first.kind, first.nth))
                .skip(1)
                .collect();
            for second in undoing {
                let errno = if second.kind == Kind::Answer { 11 } else { EBUSY };
                let second = Strike {
                    kind: second.kind,
                    nth: second.nth,
                    effect: Effect::Errno(errno),
                };
                cases += 1;
                let workload = Workload::new(linux, 0);
                let inside = workload.inside();
                arm(&[first, second]);
                let outcome = workload.attach(linux);
                disarm();
                let error = match outcome {
                    Err(error) => error,
                    Ok(index) => {
                        // Some look again until something is so, and what was to fail came later.
                        assert_eq!(linux.unwire(&[workload.target(index)]), [Ok(())]);
                        continue;
                    }
                };
                let case = format!("{first}, {second}: {error}");
                let is_left = matches!(&error, WireError::Refused { left, .. } if !left.is_empty());
                left_over += usize::from(is_left);
                if !is_left {
                    same(&world(), &empty, &case);
                    same(&workload.inside(), &inside, &case);
                }
                sweep(linux);
                // Who has a record is an attachment by now: the desk takes it in, and the same order finds it.
                let found = linux.find(&workload.plan.link.host).unwrap();
                if let Some(found) = found {
                    workload.is_whole(linux, &case);
                    assert_eq!(linux.unwire(&[workload.target(found.index)]), [Ok(())], "{case}");
                }
                same(&world(), &empty, &case);
                let index = workload
                    .attach(linux)
                    .unwrap_or_else(|error| panic!("{case}: again: {error}"));
                workload.is_whole(linux, &case);
                assert_eq!(linux.unwire(&[workload.target(index)]), [Ok(())]);
                same(&world(), &empty, &case);
            }
        }
        assert!(left_over > 0);
        println!("{cases} mishaps while undoing, {left_over} of which left something");
    });
}
