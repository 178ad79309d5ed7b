//! The report's pictures: which figures are drawn, and how.

use crate::callers::CALLERS;
use crate::figures::Figures;
use crate::goals::counts;
use crate::plot::{Axis, Line, Scale, bars, lines};

const MS: Axis = Axis {
    title: "ms",
    scale: Scale::Log,
};
const PERCENT: Axis = Axis {
    title: "% of calls that took no longer",
    scale: Scale::Linear,
};

/// Who is drawn as whom.
type Named = (&'static str, &'static str);

const THREE: [Named; 3] = [
    ("floor", "floor"),
    ("daemon", "daemon"),
    ("first", "first version"),
];
const PROGRAMS: [Named; 4] = [
    ("ours46", "workloadnet-cni"),
    ("ptp46", "ptp + host-local"),
    ("bridge46", "bridge + host-local"),
    ("netavark46", "netavark"),
];
const COUNTED: [Named; 7] = [
    ("floor", "floor"),
    ("daemon", "daemon"),
    ("first", "first"),
    ("plugin", "our plugin"),
    ("ptp46", "ptp"),
    ("bridge46", "bridge"),
    ("netavark46", "netavark"),
];

/// Each with its file's name.
pub(crate) fn all(figures: &Figures) -> Vec<(&'static str, String)> {
    let churn = |verb| {
        [
            (format!("churn/{verb}/daemon/16"), "daemon"),
            (format!("churn/{verb}/first/16"), "first version"),
        ]
    };
    let named = |begin: &str, who: &[Named]| -> Vec<(String, &'static str)> {
        who.iter()
            .map(|(name, title)| (format!("{begin}/{name}"), *title))
            .collect()
    };
    vec![
        (
            "attach.svg",
            distributions(figures, "Attach, one caller", &named("attach", &THREE)),
        ),
        (
            "detach.svg",
            distributions(figures, "Detach, one caller", &named("detach", &THREE)),
        ),
        (
            "add.svg",
            distributions(
                figures,
                "ADD by exec, dual stack, DAD off",
                &named("add", &PROGRAMS),
            ),
        ),
        (
            "del.svg",
            distributions(figures, "DEL by exec, dual stack", &named("del", &PROGRAMS)),
        ),
        (
            "churn.svg",
            distributions(figures, "Attach while 16 callers churn", &churn("attach")),
        ),
        ("throughput.svg", throughput(figures)),
        (
            "growth-attach.svg",
            growth(figures, "Attach as attachments grow", "attach"),
        ),
        (
            "growth-detach.svg",
            growth(figures, "Detach as attachments grow", "detach"),
        ),
        ("calls.svg", calls(figures)),
    ]
}

fn distributions(figures: &Figures, title: &str, of: &[(String, &'static str)]) -> String {
    let all: Vec<_> = of
        .iter()
        .filter_map(|(name, label)| {
            let values = &figures.get(name)?.distribution;
            let points = values
                .iter()
                .enumerate()
                .map(|(percent, ms)| (*ms, percent as f64));
            Some(Line {
                label: (*label).to_owned(),
                points: points.collect(),
                has_marks: false,
            })
        })
        .collect();
    lines(title, &MS, &PERCENT, &all)
}

fn throughput(figures: &Figures) -> String {
    let mut all = Vec::new();
    for (who, title) in &THREE[1..] {
        for what in ["attach", "detach", "cycle"] {
            let points = CALLERS.iter().filter_map(|callers| {
                Some((
                    *callers as f64,
                    figures.of(&format!("rate/{what}/{who}/{callers}"))?,
                ))
            });
            all.push(Line {
                label: format!("{title}: {what}"),
                points: points.collect(),
                has_marks: true,
            });
        }
    }
    let floor = |callers: &usize| figures.of(&format!("rate/attach/floor/{callers}"));
    let floors = CALLERS
        .iter()
        .filter_map(|callers| Some((*callers as f64, floor(callers)?)));
    all.push(Line {
        label: "floor, 1 thread: attach".to_owned(),
        points: floors.collect(),
        has_marks: false,
    });
    let (callers, rate) = (
        Axis {
            title: "callers",
            scale: Scale::Linear,
        },
        Axis {
            title: "per second",
            scale: Scale::Log,
        },
    );
    lines("Throughput by callers", &callers, &rate, &all)
}

fn growth(figures: &Figures, title: &str, verb: &str) -> String {
    let of = |begin: String, label: &str| Line {
        label: label.to_owned(),
        points: counts(figures)
            .iter()
            .filter_map(|count| Some((*count as f64, figures.of(&format!("{begin}/{count}"))?)))
            .collect(),
        has_marks: true,
    };
    let all = [
        of(format!("growth/{verb}/floor"), "floor"),
        of(format!("growth/{verb}/daemon"), "daemon"),
        of(format!("growth/{verb}/own"), "of it our own share"),
        of("growth/get".to_owned(), "get"),
    ];
    let standing = Axis {
        title: "standing attachments",
        scale: Scale::Log,
    };
    lines(title, &standing, &MS, &all)
}

fn calls(figures: &Figures) -> String {
    let kinds = [
        "calls/attach",
        "messages/attach",
        "calls/detach",
        "messages/detach",
    ];
    let groups: Vec<_> = COUNTED
        .iter()
        .map(|(who, title)| {
            let values = kinds.map(|kind| figures.of(&format!("{kind}/{who}")).unwrap_or_default());
            ((*title).to_owned(), values.to_vec())
        })
        .collect();
    bars(
        "System calls and netlink messages",
        "of one call",
        &[
            "attach: system calls",
            "attach: messages",
            "detach: system calls",
            "detach: messages",
        ],
        &groups,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::is_well_formed;
    use crate::samples::Samples;
    use std::time::Duration;

    #[test]
    fn every_picture_is_well_formed_with_and_without_figures() {
        let mut figures = Figures::default();
        for who in ["floor", "daemon", "first"] {
            let mut samples = Samples::default();
            samples.push(Duration::from_millis(2));
            figures.distribution(format!("attach/{who}"), &samples);
            figures.value(format!("rate/attach/{who}/8"), "/s", 100.0);
            figures.value(format!("calls/attach/{who}"), "calls", 60.0);
        }
        for figures in [&Figures::default(), &figures] {
            for (name, svg) in all(figures) {
                assert!(is_well_formed(&svg), "{name}: {svg}");
            }
        }
    }

    #[test]
    fn who_was_measured_is_drawn() {
        let mut figures = Figures::default();
        let mut samples = Samples::default();
        samples.push(Duration::from_millis(2));
        figures.distribution("attach/daemon", &samples);
        let drawn = all(&figures);
        let (_, attach) = drawn.iter().find(|(name, _)| *name == "attach.svg").unwrap();
        assert!(
            attach.contains(">daemon<") && !attach.contains(">floor<"),
            "{attach}"
        );
    }
}
