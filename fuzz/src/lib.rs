//! What comes from outside, as bytes: each reader of the product tried with whatever there can be.
//!
//! A target is a plain function of bytes that panics where a claim does not hold. libFuzzer looks for such bytes
//! (`cargo xtask fuzz`); what it kept (`corpus/TARGET`) and what once failed (`found/TARGET`) is tried by every run of the
//! tests.
//!
//! ```text
//!  corpus, found --> tests/replay.rs --.
//!                                      +--> TARGETS --> the product's readers, what they say checked
//!  libFuzzer ------> main.rs ----------'
//! ```

mod cluster;
mod cni;
mod config;
mod door;
mod files;
mod kernel;
mod migrate;
mod record;

use std::sync::OnceLock;

/// Panics where what is claimed of a reader does not hold for these bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 11] = [
    ("answers", kernel::answers),
    ("cluster", cluster::cluster),
    ("cni", cni::cni),
    ("config", config::config),
    ("door", door::door),
    ("state_file", files::state_file),
    ("migrate", migrate::migrate),
    ("notifications", kernel::notifications),
    ("queue", files::queue),
    ("record", record::record),
    ("sources", files::sources),
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    let named = TARGETS.iter().find(|(known, _)| *known == name);
    named.map(|(_, target)| *target)
}

/// Names the target that libFuzzer is to run.
pub const VARIABLE: &str = "WORKLOADNET_FUZZ";

/// The target that the environment names.
pub fn chosen() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("{VARIABLE} names no target: {name:?}"))
    })
}

/// The pieces of an input between separators, and what is behind the last of them.
fn pieces(bytes: &[u8], separator: u8) -> Vec<&[u8]> {
    bytes.split(|byte| *byte == separator).collect()
}

/// As text, if it is one.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// What is said of something is no longer than what it is said of allows.
#[track_caller]
fn is_bounded(said: &str, of: &[u8]) {
    // Escaped, a byte has six; and what is said around it is a few sentences.
    let most = 6 * of.len() + 4096;
    assert!(
        said.len() <= most,
        "{} bytes are said of {}",
        said.len(),
        of.len()
    );
}
