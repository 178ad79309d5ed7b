//! Test totals, read from the test programs' own lines. Rust's come at the end of each program, Go's at the end of each
//! test, where those of tests within a test are indented and do not count:
//! ```text
//! test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
//! --- PASS: TestSomething (0.01s)
//! ```

use std::fmt;
use std::ops::AddAssign;

/// How many tests did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Ignored, or filtered out.
    pub(crate) skipped: u64,
}

impl Totals {
    /// What a line says; `None` for one that says nothing of tests.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        Self::of_one(line).or_else(|| Self::of_program(line))
    }

    fn of_one(line: &str) -> Option<Self> {
        let (verdict, _) = line.strip_prefix("--- ")?.split_once(": Test")?;
        let mut totals = Self::default();
        match verdict {
            "PASS" => totals.passed = 1,
            "FAIL" => totals.failed = 1,
            "SKIP" => totals.skipped = 1,
            _ => return None,
        }
        Some(totals)
    }

    fn of_program(line: &str) -> Option<Self> {
        let counts = line.trim().strip_prefix("test result: ")?;
        let (_, counts) = counts.split_once(". ")?;
        let mut totals = Self::default();
        for count in counts.split("; ") {
            let (number, what) = count.split_once(' ')?;
            let field = match what {
                "passed" => &mut totals.passed,
                "failed" => &mut totals.failed,
                "ignored" | "filtered out" => &mut totals.skipped,
                _ => continue,
            };
            *field += number.parse::<u64>().ok()?;
        }
        Some(totals)
    }

    /// Why this is no success, in words.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.failed > 0 {
            complaints.push(format!("{} test(s) failed", self.failed));
        }
        if self.skipped > 0 {
            complaints.push(format!(
                "{} test(s) were skipped, and every test has to run",
                self.skipped
            ));
        }
        if self.passed + self.failed == 0 {
            complaints.push("no test ran".to_owned());
        }
        complaints
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_and_others_are_not() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s";
        let totals = Totals {
            passed: 12,
            failed: 3,
            skipped: 3,
        };
        assert_eq!(Totals::parse(line), Some(totals));
        for other in [
            "test a ... ok",
            "running 3 tests",
            "test result: ok",
            "",
            "--- RUN: TestA",
            "    --- PASS: TestA/part (0.00s)",
            "=== RUN   TestA",
            "ok  \tgithub.com/x/y\t1.2s",
        ] {
            assert_eq!(Totals::parse(other), None, "{other}");
        }
    }

    #[test]
    fn tests_of_go_are_counted_one_by_one() {
        let counts = |line| Totals::parse(line).map(|t| (t.passed, t.failed, t.skipped));
        assert_eq!(counts("--- PASS: TestA (0.00s)\n"), Some((1, 0, 0)));
        assert_eq!(counts("--- FAIL: TestA (1.50s)"), Some((0, 1, 0)));
        assert_eq!(counts("--- SKIP: TestA (0.00s)"), Some((0, 0, 1)));
    }

    #[test]
    fn a_skipped_test_is_a_complaint_and_so_is_none_at_all() {
        let totals = |passed, failed, skipped| Totals {
            passed,
            failed,
            skipped,
        };
        assert_eq!(totals(3, 0, 0).complaints(), Vec::<String>::new());
        assert_eq!(
            totals(3, 0, 1).complaints(),
            ["1 test(s) were skipped, and every test has to run"]
        );
        assert_eq!(totals(0, 0, 0).complaints(), ["no test ran"]);
        assert_eq!(totals(3, 2, 0).complaints(), ["2 test(s) failed"]);
    }

    #[test]
    fn totals_print_as_ci_reads_them() {
        assert_eq!(
            Totals {
                passed: 5,
                failed: 0,
                skipped: 0
            }
            .to_string(),
            "5 passed, 0 failed"
        );
    }
}
