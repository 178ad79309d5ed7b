//! Detaches, alone and together.

use crate::effects::{EPERM, Errors, each, recorded, under};
use crate::world::{Workload, on_a_node, same, sweep, world};
use kernel::linux::Linux;
use mishap::{Effect, Kind, Strike, arm, disarm};
use model::datapath::{Datapath as _, Target};

fn detach_under_all(linux: &Linux, together: u8) -> usize {
    let empty = world();
    let attached = || {
        let workloads: Vec<Workload> = (0..together).map(|n| Workload::new(linux, n)).collect();
        let targets: Vec<Target> = workloads
            .iter()
            .map(|w| w.target(w.attach(linux).unwrap()))
            .collect();
        (workloads, targets)
    };
    let (_workloads, targets) = attached();
    let calls = recorded(|| drop(linux.unwire(&targets)));
    each(&calls, Errors::All, |mut mishap| {
        let (workloads, targets) = attached();
        let outcomes = under(&mut mishap, || linux.unwire(&targets));
        for ((outcome, target), workload) in outcomes.iter().zip(&targets).zip(&workloads) {
            let found = linux.find(&target.link).unwrap();
            match outcome {
                Ok(()) => assert_eq!(found, None, "{mishap:?}"),
                Err(fault) => {
                    mishap.is_named_in(&fault.to_string());
                    // Its record is there: it is taken off by the next one, or by a sweep.
                    if let Some(found) = found {
                        assert_eq!(found.alias, workload.plan.record.to_string(), "{mishap:?}");
                    }
                }
            }
        }
        let again = linux.unwire(&targets);
        assert_eq!(again, vec![Ok(()); targets.len()], "{mishap:?}");
        sweep(linux);
        same(&world(), &empty, &mishap);
    })
}

#[test]
fn a_detach_that_fails_at_any_call_is_finished_by_the_same_again() {
    on_a_node(|linux| {
        println!("{} mishaps of one", detach_under_all(linux, 1));
    });
}

#[test]
fn detaches_that_fail_together_at_any_call_are_finished_by_the_same_again() {
    on_a_node(|linux| {
        println!("{} mishaps of three", detach_under_all(linux, 3));
    });
}

/// Links whose deletion as a group failed half-way are in a group that they are deleted in: a sweep takes them away, too.
#[test]
fn what_was_to_be_deleted_together_is_swept() {
    on_a_node(|linux| {
        let empty = world();
        let workloads: Vec<Workload> = (0..2).map(|n| Workload::new(linux, n)).collect();
        let targets: Vec<Target> = workloads
            .iter()
            .map(|w| w.target(w.attach(linux).unwrap()))
            .collect();
        let calls = recorded(|| _ = linux.unwire(&targets));
        // Looks and moves go well, and no deletion does.
        let deletion = calls
            .iter()
            .find(|call| call.what.starts_with("ip link delete"))
            .unwrap();
        let strikes: Vec<Strike> = (deletion.nth..deletion.nth + 3)
            .map(|nth| Strike {
                kind: Kind::Message,
                nth,
                effect: Effect::Errno(EPERM),
            })
            .collect();
        let targets: Vec<Target> = workloads
            .iter()
            .map(|w| w.target(w.attach(linux).unwrap()))
            .collect();
        arm(&strikes);
        let outcomes = linux.unwire(&targets);
        disarm();
        assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
        assert_eq!(linux.survey().unwrap().links.len(), 2);
        sweep(linux);
        same(&world(), &empty, &());
    });
}
