//! What was to be reached, and whether it was: from figures of one run.

use crate::figures::Figures;
use crate::samples::{digits, table};

/// One goal: a figure, or a ratio of figures, and its limit.
struct Goal {
    /// As it was set.
    text: &'static str,
    limit: Limit,
    of: fn(&Figures) -> Option<f64>,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

/// Of what is to be flat, how much more it may be with more attachments than with fewer.
const FLAT: f64 = 1.25;

const GOALS: &[Goal] = &[
    Goal {
        text: "attach dual stack over gRPC, 1 caller / the complete attachment in a bare loop",
        limit: Limit::AtMost(1.25),
        of: |f| over(f, "attach/daemon", "attach/floor"),
    },
    Goal {
        text: "attaches per second with 8 callers / the floor's",
        limit: Limit::AtLeast(0.9),
        of: |f| over(f, "rate/attach/daemon/8", "rate/attach/floor/8"),
    },
    Goal {
        text: "detach over gRPC, 1 caller / time to the bare RTM_DELLINK event",
        limit: Limit::AtMost(1.3),
        of: |f| over(f, "detach/daemon", "detach/floor"),
    },
    Goal {
        text: "attach+detach cycles per second one by one / the first version's",
        limit: Limit::AtLeast(10.0),
        of: |f| over(f, "rate/cycle/daemon/1", "rate/cycle/first/1"),
    },
    Goal {
        text: "the same with 16 callers",
        limit: Limit::AtLeast(3.0),
        of: |f| over(f, "rate/cycle/daemon/16", "rate/cycle/first/16"),
    },
    Goal {
        text: "first packets lost after attaches (1 000 in a full run)",
        limit: Limit::AtMost(0.0),
        of: |f| f.of("first-packets/lost"),
    },
    Goal {
        text: "attach p99 while 16 callers churn / the first version's",
        limit: Limit::AtMost(0.2),
        of: |f| Some(f.p99("churn/attach/daemon/16")? / f.p99("churn/attach/first/16")?),
    },
    Goal {
        text: "never slower than the first version at anything: the worst of all medians and rates / the first version's",
        limit: Limit::AtMost(1.0),
        of: |f| slower(f).into_iter().map(|(_, ratio)| ratio).reduce(f64::max),
    },
    Goal {
        text: "the first version's attach / attach, 1 caller",
        limit: Limit::AtLeast(1.5),
        of: |f| over(f, "attach/first", "attach/daemon"),
    },
    Goal {
        text: "CNI ADD by exec, IPv4 only: the faster of ptp and bridge / ours",
        limit: Limit::AtLeast(4.0),
        of: |f| faster(f, &["add/ptp4", "add/bridge4"], "add/ours4"),
    },
    Goal {
        text: "CNI ADD by exec, dual stack as usual: ptp / ours",
        limit: Limit::AtLeast(300.0),
        of: |f| over(f, "add/ptp46-dad", "add/ours46"),
    },
    Goal {
        text: "the same: bridge, which Debian's release lets not wait for duplicate address detection / ours",
        limit: Limit::AtLeast(300.0),
        of: |f| over(f, "add/bridge46-dad", "add/ours46"),
    },
    Goal {
        text: "CNI DEL by exec: the faster of ptp and bridge / ours",
        limit: Limit::AtLeast(10.0),
        of: |f| {
            let v4 = faster(f, &["del/ptp4", "del/bridge4"], "del/ours4")?;
            let both = faster(f, &["del/ptp46", "del/bridge46"], "del/ours46")?;
            Some(v4.min(both))
        },
    },
    Goal {
        text: "netavark setup / CNI ADD by exec of ours, IPv4 only or dual stack, whichever is less",
        limit: Limit::AtLeast(15.0),
        of: |f| {
            let v4 = over(f, "add/netavark4", "add/ours4")?;
            Some(v4.min(over(f, "add/netavark46", "add/ours46")?))
        },
    },
    Goal {
        text: "attach / the floor's at the same count of attachments, the worst of all counts",
        limit: Limit::AtMost(1.25),
        of: |f| {
            let counts = counts(f);
            let ratios = counts.iter().filter_map(|count| {
                let [ours, floor] =
                    ["daemon", "floor"].map(|who| f.of(&format!("growth/attach/{who}/{count}")));
                Some(ours? / floor?)
            });
            ratios.reduce(f64::max)
        },
    },
    Goal {
        text: "our own share of an attach is flat: with more attachments / with fewer, the worst of all counts",
        limit: Limit::AtMost(FLAT),
        of: |f| growth(f, "growth/attach/own/"),
    },
    Goal {
        text: "our own share of a detach is flat",
        limit: Limit::AtMost(FLAT),
        of: |f| growth(f, "growth/detach/own/"),
    },
    Goal {
        text: "a get is flat",
        limit: Limit::AtMost(FLAT),
        of: |f| growth(f, "growth/get/"),
    },
    Goal {
        text: "our own share of a look at everything, as the sweep's, per attachment is flat",
        limit: Limit::AtMost(FLAT),
        of: |f| growth(f, "growth/check-own/"),
    },
    Goal {
        text: "start-up recovery of 5 000, in ms",
        limit: Limit::AtMost(250.0),
        of: |f| f.of("start/5000"),
    },
    Goal {
        text: "resident memory with 1 000, in MB",
        limit: Limit::AtMost(12.0),
        of: |f| Some(f.of("memory/1000")? * 1.048_576),
    },
    Goal {
        text: "wake-ups per second with 1 000 attachments and nothing to do",
        limit: Limit::AtMost(1.0),
        of: |f| f.of("idle/wake-ups"),
    },
    Goal {
        text: "CPU time of that, in % of one CPU",
        limit: Limit::AtMost(0.1),
        of: |f| f.of("idle/cpu"),
    },
];

fn over(figures: &Figures, a: &str, b: &str) -> Option<f64> {
    Some(figures.of(a)? / figures.of(b)?)
}

/// How many times ours goes into the least of these.
fn faster(figures: &Figures, them: &[&str], ours: &str) -> Option<f64> {
    let all: Option<Vec<f64>> = them.iter().map(|name| figures.of(name)).collect();
    Some(all?.into_iter().reduce(f64::min)? / figures.of(ours)?)
}

/// The counts of attachments at which was measured.
pub(crate) fn counts(figures: &Figures) -> Vec<usize> {
    let mut counts: Vec<usize> = figures
        .below("growth/get/")
        .filter_map(|(count, _)| count.parse().ok())
        .collect();
    counts.sort_unstable();
    counts
}

fn growth(figures: &Figures, begin: &str) -> Option<f64> {
    let counts = counts(figures);
    let all: Option<Vec<f64>> = counts
        .iter()
        .map(|count| figures.of(&format!("{begin}{count}")))
        .collect();
    let all = all?;
    let pairs = all
        .iter()
        .enumerate()
        .flat_map(|(n, less)| all[n + 1..].iter().map(move |more| more / less));
    pairs.reduce(f64::max)
}

/// How much slower the daemon is than the first version at each thing that both do; below 1 where it is faster.
pub(crate) fn slower(figures: &Figures) -> Vec<(String, f64)> {
    let is_one = |word: &&str| *word == "daemon";
    let mut found = Vec::new();
    for (name, ours) in &figures.0 {
        if !name.split('/').any(|word| is_one(&word)) {
            continue;
        }
        let other = name.replace("daemon", "first");
        let Some(theirs) = figures.of(&other).filter(|value| *value > 0.0) else {
            continue;
        };
        match ours.unit.as_str() {
            "ms" => found.push((name.clone(), ours.value / theirs)),
            "/s" => found.push((name.clone(), theirs / ours.value)),
            _ => {}
        }
    }
    found
}

/// Each goal with what became of it.
pub(crate) fn verdicts(figures: &Figures) -> Vec<(&'static str, String, Option<f64>, Verdict)> {
    let verdict = |goal: &Goal| {
        let is = (goal.of)(figures);
        let (limit, is_met) = match goal.limit {
            Limit::AtMost(limit) => (format!("at most {limit}"), is.map(|is| is <= limit)),
            Limit::AtLeast(limit) => (format!("at least {limit}"), is.map(|is| is >= limit)),
        };
        let verdict = match is_met {
            Some(true) => Verdict::Met,
            Some(false) => Verdict::Missed,
            None => Verdict::NotMeasured,
        };
        (goal.text, limit, is, verdict)
    };
    GOALS.iter().map(verdict).collect()
}

/// As a table.
pub(crate) fn report(figures: &Figures) -> String {
    let rows: Vec<_> = verdicts(figures)
        .into_iter()
        .map(|(text, limit, is, verdict)| {
            let verdict = match verdict {
                Verdict::Met => "met",
                Verdict::Missed => "**missed**",
                Verdict::NotMeasured => "not measured",
            };
            vec![
                text.to_owned(),
                limit,
                is.map_or_else(String::new, digits),
                verdict.to_owned(),
            ]
        })
        .collect();
    table(&["goal", "", "is", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &[(&str, &str, f64)]) -> Figures {
        let mut figures = Figures::default();
        for (name, unit, value) in values {
            figures.rounds(*name, unit, &[*value]);
        }
        figures
    }

    fn verdict_of(figures: &Figures, text: &str) -> (Option<f64>, Verdict) {
        let all = verdicts(figures);
        let (.., is, verdict) = all.into_iter().find(|(goal, ..)| goal.starts_with(text)).unwrap();
        (is, verdict)
    }

    #[test]
    fn a_goal_is_met_at_its_limit_missed_beyond_it_and_not_judged_without_a_figure() {
        let text = "attach dual stack over gRPC";
        let at = |daemon| figures(&[("attach/daemon", "ms", daemon), ("attach/floor", "ms", 1.0)]);
        assert_eq!(verdict_of(&at(1.25), text), (Some(1.25), Verdict::Met));
        assert_eq!(verdict_of(&at(1.26), text), (Some(1.26), Verdict::Missed));
        assert_eq!(
            verdict_of(&Figures::default(), text),
            (None, Verdict::NotMeasured)
        );
        let text = "attaches per second";
        let at = |daemon| {
            figures(&[
                ("rate/attach/daemon/8", "/s", daemon),
                ("rate/attach/floor/8", "/s", 1000.0),
            ])
        };
        assert_eq!(verdict_of(&at(900.0), text), (Some(0.9), Verdict::Met));
        assert_eq!(verdict_of(&at(899.0), text).1, Verdict::Missed);
    }

    #[test]
    fn plugins_are_compared_with_the_faster_one_and_the_worst_counts() {
        let figures = figures(&[
            ("add/ours4", "ms", 2.0),
            ("add/ptp4", "ms", 7.0),
            ("add/bridge4", "ms", 10.0),
            ("growth/get/10", "ms", 1.0),
            ("growth/get/5000", "ms", 2.0),
            ("growth/attach/daemon/10", "ms", 1.0),
            ("growth/attach/floor/10", "ms", 1.0),
            ("growth/attach/daemon/5000", "ms", 3.0),
            ("growth/attach/floor/5000", "ms", 2.0),
        ]);
        assert_eq!(
            verdict_of(&figures, "CNI ADD by exec, IPv4"),
            (Some(3.5), Verdict::Missed)
        );
        assert_eq!(verdict_of(&figures, "a get"), (Some(2.0), Verdict::Missed));
        assert_eq!(
            verdict_of(&figures, "attach / the floor's at the same count"),
            (Some(1.5), Verdict::Missed)
        );
    }

    #[test]
    fn being_slower_is_more_time_or_a_lower_rate_and_counts_are_neither() {
        let figures = figures(&[
            ("attach/daemon", "ms", 1.0),
            ("attach/first", "ms", 2.0),
            ("rate/attach/daemon/8", "/s", 100.0),
            ("rate/attach/first/8", "/s", 200.0),
            ("calls/attach/daemon", "calls", 100.0),
            ("calls/attach/first", "calls", 50.0),
        ]);
        assert_eq!(
            slower(&figures),
            [
                ("attach/daemon".to_owned(), 0.5),
                ("rate/attach/daemon/8".to_owned(), 2.0)
            ]
        );
    }
}
