//! The table: put in place, changed, and read, and connection tracking.

use crate::effects::{Errors, each, recorded, under};
use crate::world::{RULESET, Workload, on_a_node, same, world};
use kernel::linux::Linux;
use model::datapath::{Datapath as _, Fault};
use model::flows::Past;
use model::ports::PortForward;
use model::ruleset::Ruleset;
use model::spared::Spared;

/// A change of the table that fails leaves it as it was, or as it is to be where only the answer was lost; and the same again
/// succeeds.
fn changes_all_or_nothing(what: &str, before: impl Fn(), change: impl Fn() -> Result<(), Fault>) {
    before();
    let was = world();
    let calls = recorded(|| change().unwrap());
    let is = world();
    let cases = each(&calls, Errors::InTurn, |mut mishap| {
        before();
        same(&world(), &was, &(what, &mishap));
        match under(&mut mishap, &change) {
            Ok(()) => assert_eq!(world(), is, "{what}: {mishap:?}"),
            Err(fault) => {
                mishap.is_named_in(&fault.to_string());
                let after = world();
                assert!(after == was || after == is, "{what}: {mishap:?}: {after}");
                change().unwrap_or_else(|fault| panic!("{what}: {mishap:?}: again: {fault}"));
                same(&world(), &is, &(what, &mishap));
            }
        }
    });
    println!("{what}: {cases} mishaps of {} calls", calls.len());
}

fn nets() -> [ipnet::IpNet; 2] {
    ["10.78.0.0/24", "fd78::/64"].map(|net| net.parse().unwrap())
}

fn forwards(linux: &Linux) -> Vec<PortForward> {
    let record = Workload::new(linux, 0).plan.record;
    record.asked.ports.forwards(record.addresses)
}

#[test]
fn a_change_of_the_table_is_made_or_not_whatever_fails() {
    on_a_node(|linux| {
        let sparing = Ruleset {
            spared: Spared::new(nets()),
            ..RULESET
        };
        let as_it_was = || {
            linux.set_forwards(7, &[]).unwrap();
            linux.publish(&RULESET).unwrap();
        };
        changes_all_or_nothing("publish", as_it_was, || linux.publish(&sparing));
        changes_all_or_nothing("spare", as_it_was, || linux.spare(&[], &nets()));
        let forwards = forwards(linux);
        changes_all_or_nothing("open forwards", as_it_was, || linux.set_forwards(7, &forwards));
        let open = || {
            as_it_was();
            linux.set_forwards(7, &forwards).unwrap();
        };
        changes_all_or_nothing("close forwards", open, || linux.set_forwards(7, &[]));
    });
}

#[test]
fn what_cannot_be_forgotten_is_told_and_is_forgotten_the_next_time() {
    on_a_node(|linux| {
        let past = Past {
            addresses: [[10, 77, 0, 5].into(), "fd77::5".parse().unwrap()].into(),
            ..Past::default()
        };
        let forget = || linux.forget(&past);
        let calls = recorded(|| _ = forget().unwrap());
        let cases = each(&calls, Errors::InTurn, |mut mishap| {
            if let Err(fault) = under(&mut mishap, forget) {
                mishap.is_named_in(&fault.to_string());
            }
            forget().unwrap_or_else(|fault| panic!("{mishap:?}: again: {fault}"));
        });
        println!("{cases} mishaps of {} calls", calls.len());
    });
}
