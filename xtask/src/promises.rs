//! What the documents promise: every test that they name as a check exists, and every decision stands under its number in the
//! list of decisions.

use crate::documents::Document;
use crate::sources::Source;
use std::collections::BTreeSet;

/// Documents that name the checks of what they say; a folder, with a `/` behind it, means all in it.
const DOCUMENTS: [&str; 4] = [
    "ARCHITECTURE.md",
    "docs/decisions/",
    "docs/reliability.md",
    "docs/security.md",
];

/// What names of checks stand behind.
const MARKS: [&str; 4] = ["## Invariants", "**Checked by**", "| held by |", "| mended by |"];

/// Where decisions are, and the list of them.
const DECISIONS: &str = "docs/decisions/";
const LIST: &str = "docs/decisions/README.md";

/// Everything that the documents promise and that is not so.
pub(crate) fn violations(documents: &[Document], sources: &[Source]) -> Vec<String> {
    let tests = tests(sources);
    let mut found = Vec::new();
    let names_checks = |document: &&Document| {
        DOCUMENTS
            .iter()
            .any(|named| document.path == *named || named.ends_with('/') && document.path.starts_with(named))
    };
    for Document { path, text } in documents.iter().filter(names_checks) {
        let missing = named_checks(text)
            .into_iter()
            .filter(|name| !is_there(name, &tests));
        found.extend(missing.map(|name| format!("{path}: there is no test {name}")));
    }
    found.extend(decisions(documents));
    found
}

/// Decisions whose title has not the file's number, or that are not in the list.
fn decisions(documents: &[Document]) -> Vec<String> {
    let list = documents.iter().find(|document| document.path == LIST);
    let listed: BTreeSet<String> = list.map(Document::links).into_iter().flatten().collect();
    let mut found = Vec::new();
    for Document { path, text } in documents.iter().filter(|document| document.path != LIST) {
        let Some(name) = path.strip_prefix(DECISIONS) else {
            continue;
        };
        let digits = name.split('-').next().unwrap_or_default();
        let begins = |number: u32| text.starts_with(&format!("# {number}. "));
        if !digits.parse::<u32>().is_ok_and(begins) {
            found.push(format!(
                "{path}: its title is not \"# NUMBER. TITLE\" with the number of its name"
            ));
        }
        if !listed.contains(name) {
            found.push(format!("{path}: {LIST} does not list it"));
        }
    }
    found
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
    let start = MARKS.iter().filter_map(|mark| text.find(mark)).min();
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
    fn a_check_is_missed_in_every_document_that_promises_it() {
        let text = "| what | mended by |\n| x | `a_test_that_is_gone` |".to_owned();
        let of = |path: &str| Document {
            path: path.to_owned(),
            text: text.clone(),
        };
        let documents = ["docs/figures.md", "docs/reliability.md", "docs/security.md"].map(of);
        assert_eq!(
            violations(&documents, &[]),
            [
                "docs/reliability.md: there is no test a_test_that_is_gone",
                "docs/security.md: there is no test a_test_that_is_gone",
            ]
        );
    }

    #[test]
    fn a_decision_has_its_number_and_stands_in_the_list() {
        let document = |path: &str, text: &str| Document {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let documents = [
            document("docs/decisions/0001-a.md", "# 1. A\n"),
            document("docs/decisions/0002-b.md", "# 0002: B\n"),
            document("docs/decisions/0003-c.md", "# 3. C\n"),
            document(LIST, "# Decisions\n- [1. A](0001-a.md)\n- [2. B](0002-b.md)\n"),
        ];
        assert_eq!(
            decisions(&documents),
            [
                "docs/decisions/0002-b.md: its title is not \"# NUMBER. TITLE\" with the number of its name",
                "docs/decisions/0003-c.md: docs/decisions/README.md does not list it",
            ]
        );
    }
}
