//! What the documents promise: every test that they name exists, and every file that they link to.

use crate::sources::Source;
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Documents that name the checks of what they say.
const DOCUMENTS: [&str; 3] = ["ARCHITECTURE.md", "docs/decisions", "docs/security.md"];

/// What names of checks stand behind.
const MARKS: [&str; 3] = ["## Invariants", "**Checked by**", "| held by |"];

/// Everything that the documents name and that is not there.
pub(crate) fn violations(root: &Path, sources: &[Source]) -> Result<Vec<String>> {
    let tests = tests(sources);
    let mut found = Vec::new();
    for (path, text) in documents(root)? {
        let missing = named_checks(&text)
            .into_iter()
            .filter(|name| !is_there(name, &tests));
        found.extend(missing.map(|name| format!("{path}: there is no test {name}")));
    }
    for path in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))?;
        let missing = links(&text).into_iter().filter(|link| !root.join(link).exists());
        found.extend(missing.map(|link| format!("{path}: there is no {link}")));
    }
    Ok(found)
}

fn documents(root: &Path) -> Result<Vec<(String, String)>> {
    let mut paths = Vec::new();
    for document in DOCUMENTS.map(|document| root.join(document)) {
        if !document.is_dir() {
            paths.push(document);
            continue;
        }
        for entry in fs::read_dir(&document).with_context(|| format!("read {}", document.display()))? {
            paths.push(entry?.path());
        }
    }
    paths.sort();
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    paths.iter().map(|path| Ok((shown(path), read(path)?))).collect()
}

/// Names of the functions that a test attribute stands before, also inside `proptest!`.
fn tests(sources: &[Source]) -> BTreeSet<String> {
    sources.iter().flat_map(|source| tests_of(&source.text)).collect()
}

fn tests_of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if ["#[test]", "#[tokio::test"]
            .iter()
            .any(|mark| line.starts_with(mark))
        {
            is_test = true;
        } else if line.is_empty() || line.starts_with("//") || line.starts_with('#') {
            // Comments and other attributes stand between a mark and its function.
        } else if let Some(name) = function(line) {
            found.extend(is_test.then(|| name.to_owned()));
            is_test = false;
        } else if line.ends_with(['{', '}', ';']) {
            is_test = false;
        }
    }
    found
}

/// The name in a line that begins a function.
fn function(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let are_words = before
        .chars()
        .all(|c| c.is_ascii_lowercase() || matches!(c, ' ' | '(' | ')'));
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    are_words.then(|| &rest[..end])
}

/// Whole, or with `...` for what was left out at an end.
fn is_there(name: &str, tests: &BTreeSet<String>) -> bool {
    let part = name.trim_matches('.');
    match part == name {
        true => tests.contains(name),
        false => tests.iter().any(|test| test.contains(part)),
    }
}

/// What looks like a test's name, behind the first mark.
fn named_checks(text: &str) -> Vec<String> {
    let start = MARKS.iter().find_map(|mark| text.find(mark));
    let quoted = start
        .map_or("", |start| &text[start..])
        .split('`')
        .skip(1)
        .step_by(2);
    let is_name = |name: &&str| {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.');
        name.matches('_').count() > 1 && name.chars().all(is_word) && !name.ends_with(".rs")
    };
    quoted.filter(is_name).map(str::to_owned).collect()
}

/// Targets of Markdown links to files.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checks_are_read_where_they_are_promised() {
        let text = "`not_this_one`\n## Invariants\n| x | `a_claim_that_holds`, `..._of_a_detach_...` in `crates/x/a_b_c.rs` |\n| `ip -j`";
        assert_eq!(named_checks(text), ["a_claim_that_holds", "..._of_a_detach_..."]);
        assert_eq!(
            named_checks("**Checked by** `the_longest_record`."),
            ["the_longest_record"]
        );
        assert_eq!(
            named_checks("`not_this_one`\n| claim | held by |\n| x | `a_socket_that_is` |"),
            ["a_socket_that_is"]
        );
    }

    #[test]
    fn a_check_that_is_not_there_is_found() {
        let source = |text: &str| Source {
            path: String::new(),
            text: text.to_owned(),
        };
        let tests = tests(&[source(
            "#[test]\nfn a_claim_that_holds() {}\n    #[test]\n    fn kill_9_of_a_detach_leaves() {}",
        )]);
        assert!(is_there("a_claim_that_holds", &tests));
        assert!(is_there("..._of_a_detach_...", &tests));
        assert!(!is_there("a_claim_that", &tests));
        assert!(!is_there("..._of_an_attach_...", &tests));
    }

    #[test]
    fn only_what_is_run_as_a_test_is_one() {
        let text = "\
            fn helper() {}\n\
            #[test]\n\
            #[expect(clippy::unwrap_used, reason = \"fn not_this()\")]\n\
            // fn nor_this()\n\
            fn one() {\n    fn inner() {}\n}\n\
            #[tokio::test]\n\
            async fn two() {}\n\
            proptest! {\n    #![proptest_config(config())]\n    #[test]\n    fn three(\n        x in any::<u8>(),\n    ) {}\n}\n\
            #[test]\n\
            const STRAY: u8 = 0;\n\
            fn not_one() {}\n\
            let text = \"fn quoted() {}\";\n";
        assert_eq!(tests_of(text), ["one", "two", "three"]);
    }

    #[test]
    fn links_to_files_are_read_and_others_are_not() {
        assert_eq!(
            links("[a](docs/a.md) [b](https://b.example) [c](#c)"),
            ["docs/a.md"]
        );
    }
}
