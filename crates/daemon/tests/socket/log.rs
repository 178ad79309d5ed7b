//! The log: plain text in a file, and a filter that cannot be used is told.

use crate::process::Place;
use stage::Namespace;

#[test]
fn a_log_in_a_file_has_no_colours_and_an_empty_filter_is_none() {
    let (network, place) = (Namespace::new().unwrap(), Place::new());
    let daemon = place.start_logging("daemon", &network, "");
    daemon.logs(" INFO listening socket=");
    assert!(!daemon.log().contains('\u{1b}'));
}

#[test]
fn a_filter_that_cannot_be_used_is_told() {
    let (network, place) = (Namespace::new().unwrap(), Place::new());
    let daemon = place.start_logging("daemon", &network, "daemon=loud");
    daemon.logs("the environment's RUST_LOG is not used");
    daemon.logs(" INFO listening socket=");
}
