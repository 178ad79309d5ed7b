//! Durations, and what is said of them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Durations of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Does something and keeps how long it took.
    pub(crate) fn time<T>(&mut self, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let began = Instant::now();
        let result = act()?;
        self.0.push(began.elapsed());
        Ok(result)
    }

    /// One more.
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// Those of another.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of 100 do not exceed; zero where there is none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// The median.
    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }
}

/// How many times `b` goes into `a`.
pub(crate) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(f64::EPSILON)
}

/// Milliseconds, with as many digits as mean something.
pub(crate) fn ms(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    let digits = match ms {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{ms:.digits$}")
}

/// A Markdown table.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        // Writing into a String does not fail.
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        for ms in [4, 1, 3, 2] {
            samples.push(Duration::from_millis(ms));
        }
        assert_eq!(samples.p50(), Duration::from_millis(2));
        assert_eq!(samples.percentile(99), Duration::from_millis(4));
        assert_eq!(samples.percentile(0), Duration::from_millis(1));
        assert_eq!(Samples::default().p50(), Duration::ZERO);
    }

    #[test]
    fn figures_have_three_digits() {
        let text = |us| ms(Duration::from_micros(us));
        assert_eq!(
            [text(523), text(1_834), text(20_600), text(1_687_000)],
            ["0.523", "1.83", "20.6", "1687"]
        );
        assert_eq!(ratio(Duration::from_millis(3), Duration::from_millis(2)), 1.5);
    }

    #[test]
    fn a_table_is_markdown() {
        let rows = [vec!["x".to_owned(), "1".to_owned()]];
        assert_eq!(
            table(&["what", "ms"], &rows),
            "| what | ms |\n|---|---|\n| x | 1 |\n"
        );
    }
}
