//! What a run says: figures by their names, the machine they are of, and how two runs compare.
//!
//! A name is a path, `attach/floor`: what was done, and who did it. Only figures of one run and one machine are compared.

use crate::Told;
use crate::samples::{Samples, digits, millis, table};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Raised when a name's meaning changes.
const SCHEMA: u32 = 1;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// A median where there are several.
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// Of how many.
    pub(crate) n: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    /// The least and the greatest of the rounds' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99_spread: Option<[f64; 2]>,
    /// The least and the greatest of the rounds' medians.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spread: Option<[f64; 2]>,
    /// Of each percent from 0 to 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) distribution: Vec<f64>,
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The beginning of a hash of `/etc/machine-id`, which is nobody else's to know (machine-id(5)), and of the machine's UUID
    /// where it has one. Another guest of the same kind has the same kernel and processors, and other neighbours; one that
    /// came from the same image and has no UUID cannot be told from this one.
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
}

impl Machine {
    pub(crate) fn this() -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("read {path}"));
        let cpus = read("/proc/cpuinfo")?;
        let cpu = cpus.lines().find(|line| line.starts_with("model name"));
        let cpu = cpu
            .and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        let id = read("/etc/machine-id").or_else(|_| read("/proc/sys/kernel/random/boot_id"))?;
        let uuid = read("/sys/class/dmi/id/product_uuid").unwrap_or_default();
        let digest = Sha256::digest(format!("workloadnet bench {}{}", id.trim(), uuid.trim()));
        Ok(Self {
            id: digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: cpu.to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
        })
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) machine: Machine,
    /// The parts that were measured, and how much.
    pub(crate) parts: BTreeMap<String, String>,
    /// What a part could not measure here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) notes: BTreeMap<String, String>,
    /// Which part a figure is of.
    pub(crate) part_of: BTreeMap<String, String>,
    pub(crate) figures: Figures,
}

impl Report {
    pub(crate) fn of(machine: Machine) -> Self {
        Self {
            schema: SCHEMA,
            machine,
            parts: BTreeMap::new(),
            notes: BTreeMap::new(),
            part_of: BTreeMap::new(),
            figures: Figures::default(),
        }
    }

    /// What a part has measured, instead of all that it had.
    pub(crate) fn take(&mut self, part: &str, size: &str, told: Told) {
        let Told { figures, note, .. } = told;
        let Self {
            part_of,
            figures: all,
            notes,
            ..
        } = self;
        notes.remove(part);
        if !note.is_empty() {
            notes.insert(part.to_owned(), note);
        }
        all.0
            .retain(|name, _| part_of.get(name).is_none_or(|of| of != part));
        part_of.retain(|_, of| of != part);
        part_of.extend(figures.0.keys().map(|name| (name.clone(), part.to_owned())));
        all.0.extend(figures.0);
        self.parts.insert(part.to_owned(), size.to_owned());
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let report: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
        ensure!(
            report.schema == SCHEMA,
            "{} has schema {}, and this reads {SCHEMA}",
            path.display(),
            report.schema
        );
        Ok(report)
    }

    /// Its figures and those of a later run, as Markdown; an error where the machines differ.
    pub(crate) fn compare(&self, later: &Self) -> Result<String> {
        ensure!(
            self.machine == later.machine,
            "these are of different machines, and say nothing of each other: {:?} and {:?}",
            self.machine,
            later.machine
        );
        let mut rows = Vec::new();
        for (name, old) in &self.figures.0 {
            let Some(new) = later.figures.0.get(name).filter(|new| new.unit == old.unit) else {
                continue;
            };
            let ratio = match (old.value, new.value) {
                (0.0, 0.0) => "1.00".to_owned(),
                (0.0, _) => "-".to_owned(),
                (old, new) => format!("{:.2}", new / old),
            };
            rows.push(vec![
                name.clone(),
                old.unit.clone(),
                digits(old.value),
                digits(new.value),
                ratio,
                if old.is_apart_from(new) { "apart" } else { "" }.to_owned(),
            ]);
        }
        ensure!(!rows.is_empty(), "they have no figure in common");
        Ok(table(
            &["figure", "unit", "old", "new", "new / old", "spreads"],
            &rows,
        ))
    }
}

impl Figure {
    /// Whether the rounds' medians of two figures do not overlap.
    fn is_apart_from(&self, other: &Self) -> bool {
        match (self.spread, other.spread) {
            (Some([low, high]), Some([other_low, other_high])) => high < other_low || other_high < low,
            _ => false,
        }
    }
}

/// Figures by their names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Figures(pub(crate) BTreeMap<String, Figure>);

impl Figures {
    /// Of durations.
    pub(crate) fn times(&mut self, name: impl Into<String>, samples: &Samples) {
        let figure = Figure {
            value: millis(samples.p50()),
            unit: "ms".to_owned(),
            n: samples.len(),
            p99: Some(millis(samples.percentile(99))),
            p99_spread: Some(samples.spread(99).map(millis)),
            spread: Some(samples.spread(50).map(millis)),
            distribution: Vec::new(),
        };
        self.0.insert(name.into(), figure);
    }

    /// Of durations whose distribution is drawn.
    pub(crate) fn distribution(&mut self, name: impl Into<String>, samples: &Samples) {
        let name = name.into();
        self.times(name.clone(), samples);
        if let Some(figure) = self.0.get_mut(&name) {
            figure.distribution = samples.distribution();
        }
    }

    /// Of one value a round.
    pub(crate) fn rounds(&mut self, name: impl Into<String>, unit: &str, values: &[f64]) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(low), Some(high)) = (sorted.first(), sorted.last()) else {
            return;
        };
        let figure = Figure {
            value: sorted[(sorted.len() - 1) / 2],
            unit: unit.to_owned(),
            n: sorted.len(),
            p99: None,
            p99_spread: None,
            spread: Some([*low, *high]),
            distribution: Vec::new(),
        };
        self.0.insert(name.into(), figure);
    }

    /// Of one value.
    pub(crate) fn value(&mut self, name: impl Into<String>, unit: &str, value: f64) {
        let figure = Figure {
            value,
            unit: unit.to_owned(),
            n: 1,
            p99: None,
            p99_spread: None,
            spread: None,
            distribution: Vec::new(),
        };
        self.0.insert(name.into(), figure);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Figure> {
        self.0.get(name)
    }

    /// The figure's value.
    pub(crate) fn of(&self, name: &str) -> Option<f64> {
        self.get(name).map(|figure| figure.value)
    }

    pub(crate) fn p99(&self, name: &str) -> Option<f64> {
        self.get(name)?.p99
    }

    /// What is behind a beginning of names, and what it is.
    pub(crate) fn below<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = (&'a str, &'a Figure)> {
        self.0
            .iter()
            .filter_map(move |(name, figure)| Some((name.strip_prefix(begin)?, figure)))
    }
}

/// So many in so much time.
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(values: &[(&str, f64)]) -> Report {
        let machine = Machine {
            id: "1".to_owned(),
            kernel: "6.18".to_owned(),
            cpu: "some".to_owned(),
            cpus: 2,
        };
        let mut report = Report::of(machine);
        for (name, value) in values {
            report.figures.rounds(*name, "ms", &[*value]);
        }
        report
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let mut report = report(&[("attach/floor", 0.5)]);
        let mut samples = Samples::default();
        samples.push(Duration::from_millis(3));
        report.figures.distribution("detach/floor", &samples);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        std::fs::write(&path, serde_json::to_string_pretty(&report).unwrap()).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        assert_eq!(report.figures.p99("detach/floor"), Some(3.0));
    }

    #[test]
    fn runs_of_different_machines_are_not_compared() {
        let (old, mut new) = (report(&[("attach/floor", 0.5)]), report(&[("attach/floor", 0.5)]));
        new.machine.kernel = "6.19".to_owned();
        let refused = old.compare(&new).unwrap_err().to_string();
        assert!(
            refused.starts_with("these are of different machines"),
            "{refused}"
        );
        new.machine.kernel = "6.18".to_owned();
        assert!(old.compare(&new).is_ok());
        new.machine.id = "2".to_owned();
        assert!(old.compare(&new).is_err());
    }

    #[test]
    fn a_comparison_has_the_ratio_of_each_figure_that_both_have() {
        let old = report(&[("attach/floor", 0.5), ("gone", 1.0), ("lost", 0.0)]);
        let new = report(&[("attach/floor", 0.25), ("come", 1.0), ("lost", 0.0)]);
        assert_eq!(
            old.compare(&new).unwrap().lines().skip(2).collect::<Vec<_>>(),
            [
                "| attach/floor | ms | 0.500 | 0.250 | 0.50 | apart |",
                "| lost | ms | 0 | 0 | 1.00 |  |"
            ]
        );
        assert_eq!(
            report(&[("a", 1.0)])
                .compare(&report(&[("b", 1.0)]))
                .unwrap_err()
                .to_string(),
            "they have no figure in common"
        );
    }

    #[test]
    fn a_part_replaces_what_it_measured_before_and_nothing_else() {
        let figures = |names: &[&str]| {
            let mut told = Told::default();
            names.iter().for_each(|name| told.figures.value(*name, "ms", 1.0));
            told
        };
        let mut all = report(&[]);
        all.take("latency", "full", figures(&["a", "b"]));
        all.take("growth", "full", figures(&["c"]));
        all.take("latency", "quick", figures(&["b", "d"]));
        assert_eq!(all.figures.0.keys().collect::<Vec<_>>(), ["b", "c", "d"]);
        assert_eq!(all.parts["latency"], "quick");
    }

    #[test]
    fn the_middle_of_the_rounds_is_the_figure() {
        let mut figures = Figures::default();
        figures.rounds("rate", "/s", &[30.0, 10.0, 20.0]);
        let figure = figures.get("rate").unwrap();
        assert_eq!(
            (figure.value, figure.spread, figure.n),
            (20.0, Some([10.0, 30.0]), 3)
        );
        figures.rounds("none", "/s", &[]);
        assert_eq!(figures.get("none"), None);
    }
}
