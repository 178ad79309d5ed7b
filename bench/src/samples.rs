//! Durations, and what is said of them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Durations of one kind, from one round or several.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    all: Vec<Duration>,
    /// How many there were at the end of each round.
    rounds: Vec<usize>,
}

impl Samples {
    /// Does something and keeps how long it took.
    pub(crate) fn time<T>(&mut self, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let began = Instant::now();
        let result = act()?;
        self.push(began.elapsed());
        Ok(result)
    }

    /// One more.
    pub(crate) fn push(&mut self, took: Duration) {
        self.all.push(took);
    }

    /// Those of another, into this round.
    pub(crate) fn extend(&mut self, other: Self) {
        self.all.extend(other.all);
    }

    /// What comes is of another round.
    pub(crate) fn end_round(&mut self) {
        if self.rounds.last().copied().unwrap_or_default() < self.all.len() {
            self.rounds.push(self.all.len());
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// All together.
    pub(crate) fn sum(&self) -> Duration {
        self.all.iter().sum()
    }

    /// The value that `percent` of 100 do not exceed; zero where there is none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.all, percent)
    }

    /// Of each percent from 0 to 100, in milliseconds; empty where there is none.
    pub(crate) fn distribution(&self) -> Vec<f64> {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        match sorted.len() {
            0 => Vec::new(),
            _ => (0..=100)
                .map(|percent| millis(ranked(&sorted, percent)))
                .collect(),
        }
    }

    /// The median.
    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    /// The least and the greatest of the rounds' own percentiles.
    pub(crate) fn spread(&self, percent: usize) -> [Duration; 2] {
        let mut ends = self.rounds.clone();
        if ends.last() != Some(&self.all.len()) {
            ends.push(self.all.len());
        }
        let mut begin = 0;
        let mut each = Vec::new();
        for end in ends {
            each.push(percentile(&self.all[begin..end], percent));
            begin = end;
        }
        [
            each.iter().min().copied().unwrap_or_default(),
            each.iter().max().copied().unwrap_or_default(),
        ]
    }
}

fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    ranked(&sorted, percent)
}

fn ranked(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Durations of one way to attach.
#[derive(Debug, Default)]
pub(crate) struct Way {
    pub(crate) attach: Samples,
    pub(crate) detach: Samples,
}

impl Way {
    pub(crate) fn end_round(&mut self) {
        self.attach.end_round();
        self.detach.end_round();
    }
}

/// How many times `b` goes into `a`.
pub(crate) fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(f64::EPSILON)
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Milliseconds, with as many digits as mean something.
pub(crate) fn ms(duration: Duration) -> String {
    digits(millis(duration))
}

/// Three digits, or what is before the point.
pub(crate) fn digits(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
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

    fn samples(rounds: &[&[u64]]) -> Samples {
        let mut samples = Samples::default();
        for round in rounds {
            for ms in *round {
                samples.push(Duration::from_millis(*ms));
            }
            samples.end_round();
        }
        samples
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let samples = samples(&[&[4, 1, 3, 2]]);
        assert_eq!(samples.p50(), Duration::from_millis(2));
        assert_eq!(samples.percentile(99), Duration::from_millis(4));
        assert_eq!(samples.percentile(0), Duration::from_millis(1));
        assert_eq!(Samples::default().p50(), Duration::ZERO);
    }

    #[test]
    fn a_distribution_rises_from_the_least_to_the_greatest() {
        let distribution = samples(&[&[4, 1], &[3, 2]]).distribution();
        assert_eq!(
            (
                distribution.len(),
                distribution[0],
                distribution[50],
                distribution[100]
            ),
            (101, 1.0, 2.0, 4.0)
        );
        assert!(distribution.is_sorted());
        assert_eq!(Samples::default().distribution(), Vec::<f64>::new());
    }

    #[test]
    fn the_spread_is_that_of_the_rounds_own_percentiles() {
        let spread = |rounds, percent| samples(rounds).spread(percent).map(|time| time.as_millis());
        let rounds: &[&[u64]] = &[&[9, 1, 2], &[5, 5, 50], &[3]];
        assert_eq!((spread(rounds, 50), spread(rounds, 99)), ([2, 5], [3, 50]));
        // What no round ended is one.
        let mut open = samples(&[&[4]]);
        open.push(Duration::from_millis(8));
        assert_eq!(open.spread(50).map(|time| time.as_millis()), [4, 8]);
        assert_eq!(Samples::default().spread(50), [Duration::ZERO; 2]);
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
