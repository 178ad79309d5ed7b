//! What was measured, as JSON with every round's value, and as Markdown with medians, ratios and their spread.

use super::Series;
use super::load::{Cores, Kind, Protocol, Test, Unit};
use super::site::{LOOPBACK, OURS, ROUTED, Scope, Site};
use crate::samples::table;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Both scopes' last runs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<Run>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outside: Option<Run>,
}

/// One scope's run.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    machine: String,
    rounds: usize,
    ways: Vec<String>,
    /// What each way is a change of.
    beside: BTreeMap<String, String>,
    /// The fast path's packets: to a workload, to the uplink, to the stack, with a foreign source.
    fast_path_packets: [u64; 4],
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Figure {
    test: String,
    family: String,
    unit: String,
    less_is_better: bool,
    /// Of each way, round by round.
    values: BTreeMap<String, Vec<f64>>,
}

/// A middle and what lies around it: quartiles.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    low: f64,
    middle: f64,
    high: f64,
}

pub(crate) fn written(
    folder: &Path,
    scope: Scope,
    sites: &[Site],
    series: &Series,
    counts: [u64; 4],
) -> Result<()> {
    fs::create_dir_all(folder)?;
    let file = folder.join("report.json");
    let mut report: Report = match fs::read_to_string(&file) {
        Ok(text) => {
            serde_json::from_str(&text).with_context(|| format!("{} is no report", file.display()))?
        }
        Err(_) => Report::default(),
    };
    let run = Run::new(sites, series, counts)?;
    match scope {
        Scope::Workload => report.workload = Some(run),
        Scope::Outside => report.outside = Some(run),
    }
    fs::write(&file, serde_json::to_string(&report)? + "\n")?;
    fs::write(folder.join("README.md"), report.markdown())?;
    for (name, run) in [("workload", &report.workload), ("outside", &report.outside)] {
        if let Some(run) = run {
            fs::write(folder.join(format!("{name}.svg")), run.drawn())?;
        }
    }
    Ok(())
}

impl Run {
    fn new(sites: &[Site], series: &Series, counts: [u64; 4]) -> Result<Self> {
        let names = || sites.iter().map(|site| site.name.to_owned());
        let figures: Vec<Figure> = series
            .iter()
            .map(|((test, unit, family), values)| Figure {
                test: test.in_words(),
                family: ["IPv4", "IPv6"][*family].to_owned(),
                unit: unit.in_words().to_owned(),
                less_is_better: matches!(unit, Unit::Micros | Unit::LostPercent),
                values: names().zip(values.iter().cloned()).collect(),
            })
            .collect();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cpus = std::thread::available_parallelism()?;
        let about = fs::read_to_string("/proc/cpuinfo")?;
        let model = about.lines().find_map(|line| line.strip_prefix("model name\t: "));
        Ok(Self {
            machine: format!(
                "Linux {}, {cpus} CPUs, {}",
                kernel.trim(),
                model.unwrap_or("unknown")
            ),
            rounds: series
                .values()
                .next()
                .and_then(|all| all.first())
                .map_or(0, Vec::len),
            ways: names().collect(),
            beside: sites
                .iter()
                .filter_map(|site| Some((site.name.to_owned(), site.beside?.to_owned())))
                .collect(),
            fast_path_packets: counts,
            figures,
        })
    }
}

impl Test {
    fn in_words(self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let kind = match self.kind {
            Kind::RoundTrip => "round trip",
            Kind::Bulk => "bulk",
            Kind::Connect => "connect, request, answer",
        };
        match self.cores {
            Cores::One => format!("{protocol} {kind}, one core"),
            Cores::Two { flows: 1 } => format!("{protocol} {kind}, two cores, 1 flow"),
            Cores::Two { flows } => format!("{protocol} {kind}, two cores, {flows} flows"),
        }
    }
}

impl Unit {
    fn in_words(self) -> &'static str {
        match self {
            Self::Micros => "µs",
            Self::GbitPerSecond => "Gbit/s",
            Self::GbitPerCpuSecond => "Gbit per CPU second",
            Self::KiloPacketsPerSecond => "1000 packets/s",
            Self::KiloPacketsPerCpuSecond => "1000 packets per CPU second",
            Self::LostPercent => "% lost",
        }
    }
}

impl Figure {
    fn of(&self, way: &str) -> Option<Spread> {
        Spread::of(self.values.get(way)?.clone())
    }

    /// Beside another way, of the same rounds.
    fn ratio(&self, way: &str, to: &str) -> Option<Spread> {
        let pairs = self.values.get(way)?.iter().zip(self.values.get(to)?);
        Spread::of(
            pairs
                .filter(|(_, to)| **to > 0.0)
                .map(|(one, to)| one / to)
                .collect(),
        )
    }

    fn is_loss(&self) -> bool {
        self.unit == Unit::LostPercent.in_words()
    }

    fn label(&self) -> Vec<String> {
        vec![self.test.clone(), self.family.clone(), self.unit.clone()]
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |quarter: usize| values[(last * quarter + 2) / 4];
        Some(Self {
            low: at(1),
            middle: at(2),
            high: at(3),
        })
    }

    fn ratio_in_words(self) -> String {
        let Self { low, middle, high } = self;
        format!("{middle:.2} ({low:.2} to {high:.2})")
    }
}

fn number(value: f64) -> String {
    let digits = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

impl Report {
    fn markdown(&self) -> String {
        let mut text = ABOUT.to_owned();
        for (title, file, run) in [
            ("Workload to workload on one node", "workload", &self.workload),
            ("Workload to a host beyond the uplink", "outside", &self.outside),
        ] {
            if let Some(run) = run {
                text += &format!(
                    "\n## {title}\n\n{}, {} rounds.\n\n![{title}]({file}.svg)\n\n",
                    run.machine, run.rounds
                );
                text += &run.tables();
            }
        }
        text
    }
}

const ABOUT: &str = "\
# The data path

Written by `cargo xtask bench path`; every round's value is in [report.json](report.json). Medians over the rounds; in brackets the
quartiles of the ratios, which are of the same round. Compare ratios, not the figures themselves.

- **One core**: one thread, pinned to the second CPU, has both ends: what a byte or a packet costs, with no wake-up in it. **Two
  cores**: clients pinned to the first CPU, servers to the second.
- **TCP bulk**: writes of 64 KiB. **UDP bulk**: datagrams that fill 1500 bytes, no segmentation offload. **Round trip**: one byte
  each way. **Connect, request, answer**: a connection with one byte each way, and its end.
- **Per CPU second**: the threads' own CPU clocks and ksoftirqd's. This machine's kernel has no hardware counters to offer, so
  there are no instructions; a veth's packets are received in the sender's context, so its clock has them.
- All ways with packets of 1500 bytes, loopback with 65536. All to outside masquerade unless they say otherwise; loopback goes nowhere, and is
  there for the ratio. The daemon made the attachments and was then ended.
";

impl Run {
    fn tables(&self) -> String {
        let peers: Vec<&String> = self
            .ways
            .iter()
            .filter(|way| *way != LOOPBACK && !self.beside.contains_key(*way))
            .collect();
        let mut head = vec![
            "test".to_owned(),
            "family".to_owned(),
            "unit".to_owned(),
            LOOPBACK.to_owned(),
        ];
        head.extend(peers.iter().map(|way| format!("{way}; of loopback")));
        let rows: Vec<Vec<String>> = self
            .figures
            .iter()
            .map(|figure| {
                let mut row = figure.label();
                row.push(
                    figure
                        .of(LOOPBACK)
                        .map_or_else(String::new, |all| number(all.middle)),
                );
                row.extend(peers.iter().map(|way| {
                    let own = figure.of(way).map_or_else(String::new, |all| number(all.middle));
                    match figure.ratio(way, LOOPBACK) {
                        Some(ratio) if !figure.is_loss() => format!("{own}; {}", ratio.ratio_in_words()),
                        _ => own,
                    }
                }));
                row
            })
            .collect();
        let mut text = format!(
            "{}\n### Trials\n\nRatios to plain routing: above 1 is better, except for µs.\n\n",
            tabled(&head, &rows)
        );
        let mut head = vec!["test".to_owned(), "family".to_owned(), "unit".to_owned()];
        head.extend(
            self.beside
                .iter()
                .map(|(way, beside)| format!("{way}, of {beside}")),
        );
        let rows: Vec<Vec<String>> = self
            .figures
            .iter()
            .filter(|figure| !figure.is_loss())
            .map(|figure| {
                let mut row = figure.label();
                row.extend(self.beside.iter().map(|(way, beside)| {
                    figure
                        .ratio(way, beside)
                        .map_or_else(String::new, Spread::ratio_in_words)
                }));
                row
            })
            .collect();
        text += &tabled(&head, &rows);
        let [peer, neigh, stack, foreign] = self.fast_path_packets;
        text += &format!(
            "\nThe fast path took {peer} packets to a workload and {neigh} to the uplink, left {stack} to the stack, and {foreign} \
             more because their source was not the workload's own address, such as a link-local one.\n"
        );
        text
    }

    /// Bars: the ratios to loopback of TCP and UDP over IPv4 on one core.
    fn drawn(&self) -> String {
        const ROW: usize = 18;
        let chosen: Vec<&Figure> = self
            .figures
            .iter()
            .filter(|figure| figure.test.ends_with("one core"))
            .collect();
        let mut text = String::new();
        let mut y = 10;
        for figure in chosen {
            y += 20;
            let better = if figure.less_is_better {
                "less is better"
            } else {
                "more is better"
            };
            text += &format!(
                "<text x=\"8\" y=\"{y}\" font-weight=\"bold\">{}, {} ({}, beside loopback; {better})</text>\n",
                figure.test, figure.family, figure.unit
            );
            for way in &self.ways {
                let Some(ratio) = figure.ratio(way, LOOPBACK) else {
                    continue;
                };
                let at = |value: f64| 230.0 + 250.0 * value.min(2.0);
                let colour = match way.as_str() {
                    OURS | ROUTED => "#2b6cb0",
                    LOOPBACK => "#718096",
                    _ if self.beside.contains_key(way) => "#38a169",
                    _ => "#c05621",
                };
                y += ROW;
                text += &format!(
                    "<text x=\"220\" y=\"{y}\" text-anchor=\"end\">{way}</text>\
                     <rect x=\"230\" y=\"{}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>\
                     <path d=\"M{:.1} {}H{:.1}\" stroke=\"#000\"/>\
                     <text x=\"{:.1}\" y=\"{y}\">{:.2}</text>\n",
                    y - 10,
                    at(ratio.middle) - 230.0,
                    at(ratio.low),
                    y - 4,
                    at(ratio.high),
                    at(ratio.high.max(ratio.middle)) + 6.0,
                    ratio.middle
                );
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"{0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"800\" height=\"{0}\" fill=\"#fff\"/>\n{text}</svg>\n",
            y + 20
        )
    }
}

fn tabled(head: &[String], rows: &[Vec<String>]) -> String {
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(&head, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[(&str, &[f64])]) -> Figure {
        Figure {
            test: "TCP bulk, one core".to_owned(),
            family: "IPv4".to_owned(),
            unit: "Gbit/s".to_owned(),
            less_is_better: false,
            values: values
                .iter()
                .map(|(way, all)| ((*way).to_owned(), all.to_vec()))
                .collect(),
        }
    }

    #[test]
    fn a_ratio_is_of_the_same_round() {
        // The machine was twice as slow in the second round, for both.
        let figure = figure(&[(LOOPBACK, &[40.0, 20.0, 40.0]), (OURS, &[30.0, 15.0, 30.0])]);
        let ratio = figure.ratio(OURS, LOOPBACK).unwrap();
        assert_eq!((ratio.low, ratio.middle, ratio.high), (0.75, 0.75, 0.75));
        assert_eq!(figure.ratio("nobody", LOOPBACK), None);
    }

    #[test]
    fn the_spread_is_the_quartiles() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.low, spread.middle, spread.high), (2.0, 3.0, 4.0));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_report_reads_back_and_has_both_tables() {
        let run = Run {
            machine: "some".to_owned(),
            rounds: 1,
            ways: [LOOPBACK, OURS, "GRO"].map(str::to_owned).to_vec(),
            beside: [("GRO".to_owned(), OURS.to_owned())].into(),
            fast_path_packets: [1, 2, 3, 4],
            figures: vec![figure(&[(LOOPBACK, &[40.0]), (OURS, &[30.0]), ("GRO", &[15.0])])],
        };
        let report = Report {
            workload: Some(run),
            outside: None,
        };
        let text = serde_json::to_string(&report).unwrap();
        let text = serde_json::from_str::<Report>(&text).unwrap().markdown();
        assert!(
            text.contains("| TCP bulk, one core | IPv4 | Gbit/s | 40.0 | 30.0; 0.75 (0.75 to 0.75) |\n"),
            "{text}"
        );
        assert!(
            text.contains("| TCP bulk, one core | IPv4 | Gbit/s | 0.50 (0.50 to 0.50) |\n"),
            "{text}"
        );
    }
}
