//! What programs that are none of ours say, of the namespace in which they are started.

use std::process::Command;

/// Runs a program, which has to succeed.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A link's index.
pub(crate) fn index_of(link: &str) -> u32 {
    let line = run(&format!("ip -o link show {link}"));
    line.split(':').next().unwrap().parse().unwrap()
}
