//! Looks: what fails says so, and never that something is not there.

use crate::effects::{EPERM, Errors, each, recorded, under};
use crate::world::{GROUP, RULESET, Workload, on_a_node, run, same, world};
use kernel::linux::Linux;
use mishap::Effect;
use model::datapath::{Datapath as _, OpenError};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A look that fails says so, and one that is got over says what it says without.
fn looks_the_same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    look: impl Fn() -> Result<T, model::datapath::Fault>,
) -> usize {
    let truth = look().unwrap();
    let calls = recorded(|| drop(look().unwrap()));
    let failed = AtomicUsize::new(0);
    let cases = each(&calls, Errors::InTurn, |mut mishap| {
        match under(&mut mishap, &look) {
            Ok(seen) => assert_eq!(seen, truth, "{what}: {mishap:?}"),
            Err(fault) => {
                failed.fetch_add(1, Ordering::Relaxed);
                mishap.is_named_in(&fault.to_string());
            }
        }
    });
    assert_eq!(look().unwrap(), truth, "{what}");
    let failed = failed.into_inner();
    assert!(failed > 0, "{what}: nothing fails");
    println!("{what}: {cases} mishaps of {} calls, {failed} told", calls.len());
    cases
}

#[test]
fn a_look_that_fails_says_so_and_never_that_something_is_gone() {
    on_a_node(|linux| {
        let workloads: Vec<Workload> = (0..3).map(|n| Workload::new(linux, n)).collect();
        for workload in &workloads {
            workload.attach(linux).unwrap();
        }
        // So many that the kernel tells of them in several datagrams.
        for n in 0..40 {
            run(&format!("ip link add other{n} type bridge"));
        }
        let first = &workloads[0].plan.link;
        let before = world();
        let mut cases = looks_the_same("survey", || {
            let mut survey = linux.survey()?;
            // Only for a warning: nothing is read where that fails.
            survey.forward_drops.clear();
            survey.links.sort_by_key(|link| link.index);
            Ok(survey)
        });
        cases += looks_the_same("find", || linux.find(&first.host));
        cases += looks_the_same("find_at", || linux.find_at(&first.host, first.host_index));
        cases += looks_the_same("uplink", || linux.uplink());
        cases += looks_the_same("drift", || linux.drift(&RULESET));
        cases += looks_the_same("spared", || linux.spared());
        cases += looks_the_same("masquerade_rules", || linux.masquerade_rules());
        cases += looks_the_same("found_routes", || {
            let found = linux.found_routes()?;
            Ok((found.held, found.other_addresses))
        });
        let interface = first.workload.clone();
        cases += looks_the_same("look", || linux.look(&workloads[0].namespace, &interface));
        same(&world(), &before, &());
        println!("{cases} mishaps of looks");
    });
}

#[test]
fn a_namespace_whose_path_cannot_be_looked_at_is_refused_by_name() {
    on_a_node(|linux| {
        let namespace = kernel::netns::create().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&namespace));
        let calls = recorded(|| drop(linux.open(&path).unwrap()));
        assert_eq!(calls.len(), 5);
        each(&calls, Errors::InTurn, |mut mishap| {
            match under(&mut mishap, || linux.open(&path)) {
                Err(OpenError::Fault(fault)) => {
                    mishap.is_named_in(&fault.to_string());
                    assert!(fault.tried.contains(&path), "{fault}");
                }
                other => panic!("{mishap:?}: {other:?}"),
            }
            linux.open(&path).unwrap();
        });
    });
}

#[test]
fn a_datapath_that_cannot_be_opened_says_why_and_leaves_nothing() {
    on_a_node(|_| {
        let before = world();
        let start = || {
            let linux = Linux::open(GROUP)?;
            linux.watch(Box::new(drop)).map(drop)
        };
        let calls = recorded(|| start().unwrap());
        let cases = each(&calls, Errors::InTurn, |mut mishap| {
            if let Err(fault) = under(&mut mishap, start) {
                mishap.is_named_in(&fault.to_string());
            } else {
                let is_told = matches!(mishap.effect, Effect::Errno(errno) if errno >= EPERM && errno != 4);
                // Of that only a warning is made.
                let is_needed = mishap.call.what != "nft list chains";
                assert!(!is_told || !is_needed, "{mishap:?} was passed over");
            }
        });
        same(&world(), &before, &());
        println!("{cases} mishaps of a start");
    });
}
