//! Test totals, added up from what `cargo test` prints while it goes by.

use anyhow::{Context as _, bail};
use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// What all test programs said together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
    ended_well: bool,
}

/// Runs tests, shows what they print, and adds it up.
pub(crate) fn of(command: &mut Command) -> anyhow::Result<Totals> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let output = child.stdout.take().context("the output is piped")?;
    let mut totals = Totals::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        totals.add(&line);
    }
    totals.ended_well = child.wait()?.success();
    Ok(totals)
}

impl Totals {
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        let counts = counts.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// A test that was skipped is a failure, and so is a run without tests.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        match self {
            Self { ignored: 1.., .. } => bail!("{} tests were skipped", self.ignored),
            Self { passed: 0, .. } => bail!("no test ran"),
            Self {
                failed: 0,
                ended_well: true,
                ..
            } => Ok(()),
            _ => bail!("tests failed"),
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} skipped", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(lines: &[&str]) -> Totals {
        let mut totals = Totals {
            ended_well: true,
            ..Totals::default()
        };
        lines.iter().for_each(|line| totals.add(line));
        totals
    }

    #[test]
    fn results_are_added_up() {
        let all = totals(&[
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test x ... ok",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ]);
        assert_eq!(all.to_string(), "5 passed, 1 failed");
        assert!(all.verdict().is_err());
    }

    #[test]
    fn skipped_tests_and_none_at_all_are_failures() {
        let skipped = totals(&["test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured"]);
        assert_eq!(skipped.verdict().unwrap_err().to_string(), "1 tests were skipped");
        assert!(totals(&[]).verdict().is_err());
        assert!(
            totals(&["test result: ok. 3 passed; 0 failed; 0 ignored"])
                .verdict()
                .is_ok()
        );
    }
}
