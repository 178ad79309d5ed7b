//! One test for each file below `scenarios/`.

use crate::scenario::play;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .join("scenarios")
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                play(&folder().join(concat!(stringify!($name), ".txt")));
            }
        )*
        const PLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

scenarios! {
    an_old_sandbox_is_detached_while_a_new_one_lives
    a_life_on_both_families
    a_life_on_ipv4_alone
    a_life_on_ipv6_alone
    a_full_prefix_gives_way_to_the_next_one
    addresses_run_out_and_come_back
    requested_addresses
    others_interfere
    the_namespace_vanishes
    the_state_file_is_spoiled
    the_same_key_in_another_way
}

#[test]
fn every_scenario_is_played() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(files, PLAYED.iter().map(|&name| name.to_owned()).collect());
}
