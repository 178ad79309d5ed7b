//! The figures that a document shows of the bench's report are those of the report that is committed.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/comparison.md";
const REPORT: &str = "bench/report/report.json";

/// Rows of the document's tables, by how they begin, and which figures of the report the times in them are, in their order.
const ROWS: [(&str, &[&str]); 2] = [
    (
        "| ADD, dual stack, p50",
        &[
            "add/ours46",
            "add/ptp46",
            "add/ptp46-dad",
            "add/bridge46",
            "add/bridge46-dad",
        ],
    ),
    (
        "| DEL, dual stack, p50",
        &["del/ours46", "del/ptp46", "del/bridge46"],
    ),
];

/// Every row that shows other figures than the report has.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"));
    let report: Value = serde_json::from_str(&read(REPORT)?).with_context(|| format!("read {REPORT}"))?;
    Ok(differences(&read(DOCUMENT)?, &report))
}

fn differences(text: &str, report: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (begin, names) in ROWS {
        let Some(row) = text.lines().find(|line| line.starts_with(begin)) else {
            found.push(format!("{DOCUMENT}: there is no row {begin:?}"));
            continue;
        };
        let figure = |name: &&str| report["figures"][name]["value"].as_f64();
        let measured: Vec<String> = names
            .iter()
            .map(|name| figure(name).map_or_else(|| format!("no {name}"), in_three_digits))
            .collect();
        let shown = milliseconds(row);
        if shown != measured {
            let (shown, measured) = (shown.join(", "), measured.join(", "));
            found.push(format!(
                "{DOCUMENT}: {begin:?} has {shown} ms, and the report {measured}"
            ));
        }
    }
    found
}

/// The numbers in front of " ms".
fn milliseconds(row: &str) -> Vec<String> {
    let mut parts: Vec<&str> = row.split(" ms").collect();
    parts.pop();
    let number = |part: &&str| {
        let digits = part.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        part[digits.len()..].to_owned()
    };
    parts.iter().map(number).collect()
}

/// As the report writes them (`bench/src/samples.rs`).
fn in_three_digits(value: f64) -> String {
    let places = match value {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_that_are_not_the_reports_are_found() {
        let figures = [
            ("add/ours46", 3.856),
            ("add/ptp46", 16.91),
            ("add/ptp46-dad", 1708.6),
            ("add/bridge46", 19.36),
            ("add/bridge46-dad", 19.47),
            ("del/ours46", 3.189),
            ("del/ptp46", 48.12),
        ];
        let figures: serde_json::Map<String, Value> = figures
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!({ "value": value })))
            .collect();
        let text = "| ADD, dual stack, p50, [same run](r.md) | 3.86 ms | 16.9 ms off, 1709 ms | 19.4 ms, 19.5 ms | no |\n\
                    | DEL, dual stack, p50 | 3.2 ms | 48.1 ms | 48.9 ms |\n";
        assert_eq!(
            differences(text, &json!({ "figures": figures })),
            [
                "docs/comparison.md: \"| DEL, dual stack, p50\" has 3.2, 48.1, 48.9 ms, and the report 3.19, 48.1, no del/bridge46"
            ]
        );
        assert_eq!(
            differences("", &Value::Null),
            [
                "docs/comparison.md: there is no row \"| ADD, dual stack, p50\"",
                "docs/comparison.md: there is no row \"| DEL, dual stack, p50\"",
            ]
        );
    }

    #[test]
    fn figures_are_written_as_the_report_writes_them() {
        let written = [0.1444, 3.856, 16.91, 1708.6].map(in_three_digits);
        assert_eq!(written, ["0.144", "3.86", "16.9", "1709"]);
    }
}
