//! What the fuzzer kept, and what it once found: tried again, each file by the target of its folder.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[track_caller]
fn replay(name: &str) {
    let target = fuzz::target(name).unwrap();
    let corpus = files(&folder("corpus").join(name));
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let found = folder("found").join(name);
    let found = if found.is_dir() { files(&found) } else { Vec::new() };
    for file in corpus.iter().chain(&found) {
        let bytes = fs::read(file).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
        assert!(outcome.is_ok(), "{}", file.display());
    }
}

#[test]
fn whatever_the_kernel_answers_is_read_or_refused() {
    replay("answers");
}

#[test]
fn whatever_an_api_server_answers_is_read_or_refused() {
    replay("cluster");
}

#[test]
fn whatever_a_runtime_says_to_the_plugin_is_understood_or_refused_by_name() {
    replay("cni");
}

#[test]
fn whatever_the_settings_say_is_used_as_it_is_printed_or_refused() {
    replay("config");
}

#[test]
fn whatever_comes_in_at_the_door_fits_on_its_link_or_is_refused_by_field() {
    replay("door");
}

#[test]
fn whatever_the_state_file_says_addresses_are_given_out_from_it() {
    replay("state_file");
}

#[test]
fn whatever_old_plugins_left_is_taken_away_from_its_own_folder_alone() {
    replay("migrate");
}

#[test]
fn whatever_the_kernel_tells_is_heard_without_harm() {
    replay("notifications");
}

#[test]
fn whatever_waits_in_the_queue_is_what_the_door_would_take() {
    replay("queue");
}

#[test]
fn whatever_a_link_says_of_itself_is_written_as_it_was_read() {
    replay("record");
}

#[test]
fn whatever_a_file_of_prefixes_or_peers_lists_is_read_as_it_is_written() {
    replay("sources");
}

#[test]
fn every_target_has_a_corpus_and_what_was_found_is_of_one() {
    let targets: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let corpora: BTreeSet<String> = files(&folder("corpus")).into_iter().map(name).collect();
    assert_eq!(corpora, targets);
    // Nothing was found where there is none.
    let found = folder("found");
    let found = if found.is_dir() { files(&found) } else { Vec::new() };
    let found: BTreeSet<String> = found.into_iter().map(name).collect();
    assert!(found.is_subset(&targets), "{found:?}");
}
