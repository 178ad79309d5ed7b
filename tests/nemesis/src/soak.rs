//! A soak: attach and detach without a pause, and in each window of time how long they took and what the daemon has grown to.
//! Flat is what is asserted, not small: figures are the bench's affair.

mod report;
mod svg;

pub use report::write;

use crate::caller::Caller;
use crate::caller::Office;
use crate::history::Answer;
use crate::plan::{Act, Ask, FIRST_OF_PLUGIN, Operation};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Windows of a soak.
const WINDOWS: u32 = 60;
/// What may be added to each bound, because a page, a thread or a moment is not growth: KiB, pieces, microseconds.
const SLACK_KIB: f64 = 1024.0;
const SLACK_PIECES: f64 = 8.0;
const SLACK_MICROS: f64 = 5000.0;

/// What one window has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// Its end, in seconds since the soak began.
    pub end: f64,
    /// Attaches and detaches, in microseconds: the number, and percentiles.
    pub latencies: BTreeMap<&'static str, Latency>,
    /// Resident memory in KiB, and the part of it that is the daemon's alone or its share of what is shared.
    pub rss: u64,
    /// Proportional memory in KiB.
    pub pss: u64,
    /// Open files.
    pub files: u64,
    /// Threads.
    pub threads: u64,
}

/// Percentiles of one kind of call in a window, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latency {
    /// Calls.
    pub number: usize,
    /// The median.
    pub p50: u64,
    /// One in ten takes longer.
    pub p90: u64,
    /// One in a hundred takes longer.
    pub p99: u64,
    /// The longest.
    pub most: u64,
}

impl Latency {
    fn of(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        let at = |percent: usize| {
            all.get((all.len() * percent / 100).min(all.len().saturating_sub(1)))
                .copied()
        };
        Self {
            number: all.len(),
            p50: at(50).unwrap_or_default(),
            p90: at(90).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
            most: all.last().copied().unwrap_or_default(),
        }
    }
}

/// Soaks for a time, and tells of each window.
pub fn soak(office: &Office, callers: &[Caller], length: Duration) -> Result<Vec<Window>> {
    let began = Instant::now();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working: Vec<_> = callers
            .iter()
            .enumerate()
            .map(|(n, caller)| {
                scope.spawn({
                    let is_over = &is_over;
                    move || cycle(caller, n, callers.len(), is_over)
                })
            })
            .collect();
        let mut windows = Vec::new();
        let mut outcome = Ok(());
        for n in 1..=WINDOWS {
            let end = length * n / WINDOWS;
            stage::wait::within(end.saturating_sub(began.elapsed()), || {
                working.iter().any(|one| one.is_finished())
            });
            match window(office, began.elapsed()) {
                Ok(window) => windows.push(window),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for caller in working {
            caller
                .join()
                .map_err(|panic| std::panic::resume_unwind(panic))??;
        }
        outcome.map(|()| windows)
    })
}

/// Attaches and detaches keys of its own, until it is over.
fn cycle(caller: &Caller, first: usize, step: usize, is_over: &AtomicBool) -> Result<()> {
    let mut key = first;
    while !is_over.load(Ordering::Relaxed) {
        let attach = Act::Attach {
            key,
            slot: key,
            ask: Ask {
                port: u16::try_from(9000 + key).ok(),
                ..Ask::default()
            },
        };
        let answer = caller.call(0, &Operation::patient(attach));
        if !matches!(answer, Answer::Attached(_)) {
            bail!("attach {key}: {answer:?}");
        }
        let answer = caller.call(0, &Operation::patient(Act::Detach { key, slot: None }));
        if !matches!(answer, Answer::Done) {
            bail!("detach {key}: {answer:?}");
        }
        key += step;
        if key >= FIRST_OF_PLUGIN {
            key = first;
        }
    }
    Ok(())
}

fn window(office: &Office, end: Duration) -> Result<Window> {
    let mut taken: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    for call in office.take_calls() {
        let what = if matches!(call.act(), Act::Attach { .. }) {
            "attach"
        } else {
            "detach"
        };
        taken.entry(what).or_default().push(call.end - call.begin);
    }
    let pid = office
        .daemon
        .pid()
        .context("the daemon has ended")?
        .as_raw_nonzero();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Window {
        end: end.as_secs_f64(),
        latencies: taken
            .into_iter()
            .map(|(what, all)| (what, Latency::of(all)))
            .collect(),
        rss: field(&rollup, "Rss:")?,
        pss: field(&rollup, "Pss:")?,
        files: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        threads: field(&status, "Threads:")?,
    })
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("there is no {name}"))
}

/// A bound: what it is about, what it was in the second quarter and in the last one, and the most that it may be by then.
#[derive(Debug, Clone, Serialize)]
pub struct Bound {
    /// In words.
    pub what: String,
    /// The median of the second quarter's windows.
    pub before: f64,
    /// The median of the last quarter's windows.
    pub after: f64,
    /// The most that it may be.
    pub limit: f64,
}

impl Bound {
    /// Whether it is kept.
    pub fn is_kept(&self) -> bool {
        self.after <= self.limit
    }
}

/// How flat it was: the last quarter beside the second one, because the first one warms up.
pub fn bounds(windows: &[Window]) -> Vec<Bound> {
    let quarter = windows.len() / 4;
    let median = |windows: &[Window], of: &dyn Fn(&Window) -> f64| {
        let mut all: Vec<f64> = windows.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let bound = |what: &str, factor: f64, slack: f64, of: &dyn Fn(&Window) -> f64| {
        let before = median(&windows[quarter..2 * quarter], of);
        Bound {
            what: what.to_owned(),
            before,
            after: median(&windows[windows.len() - quarter..], of),
            limit: before * factor + slack,
        }
    };
    let latency = |window: &Window, what: &str| window.latencies.get(what).copied().unwrap_or_default();
    vec![
        bound("resident memory, KiB", 1.05, SLACK_KIB, &|window| {
            window.rss as f64
        }),
        bound("proportional memory, KiB", 1.05, SLACK_KIB, &|window| {
            window.pss as f64
        }),
        bound("open files", 1.0, SLACK_PIECES, &|window| window.files as f64),
        bound("threads", 1.0, SLACK_PIECES, &|window| window.threads as f64),
        bound("attach p50, µs", 1.5, SLACK_MICROS, &|window| {
            latency(window, "attach").p50 as f64
        }),
        bound("attach p99, µs", 2.0, SLACK_MICROS, &|window| {
            latency(window, "attach").p99 as f64
        }),
        bound("detach p50, µs", 1.5, SLACK_MICROS, &|window| {
            latency(window, "detach").p50 as f64
        }),
        bound("detach p99, µs", 2.0, SLACK_MICROS, &|window| {
            latency(window, "detach").p99 as f64
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(rss: impl Fn(u64) -> u64) -> Vec<Window> {
        let window = |n: u64| Window {
            end: n as f64,
            latencies: BTreeMap::new(),
            rss: rss(n),
            pss: 5000,
            files: 40,
            threads: 50,
        };
        (0..u64::from(WINDOWS)).map(window).collect()
    }

    fn broken(windows: &[Window]) -> Vec<String> {
        let broken = bounds(windows).into_iter().filter(|bound| !bound.is_kept());
        broken.map(|bound| bound.what).collect()
    }

    #[test]
    fn what_grows_is_found_and_what_has_warmed_up_is_not() {
        assert_eq!(broken(&windows(|n| 10_000 + 100 * n)), ["resident memory, KiB"]);
        assert_eq!(
            broken(&windows(|n| 10_000 + 1000 * n.min(10))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let latency = Latency::of((1..=1000).rev().collect());
        assert_eq!(
            (latency.p50, latency.p99, latency.most, latency.number),
            (501, 991, 1000, 1000)
        );
        assert_eq!(Latency::of(vec![]).p99, 0);
    }
}
