//! Figures of attach and detach, beside the bare kernel and beside what else makes such networks, in one run on one machine:
//! what counts is the ratios. Writes a report. Everything happens in network namespaces of its own.
//!
//! ```text
//!  cargo xtask bench [PART..] [--quick] [--into FOLDER]   measures parts, all where none is named, and writes the report anew;
//!                                                          what is not measured stays, where it is of this machine
//!  cargo xtask bench compare OLD.json NEW.json             two reports of one machine
//!  cargo xtask bench path [..]                             what packets cost
//!  cargo xtask bench peers [--quick]                       5000 other nodes (docs/figures.md)
//! ```

mod bare;
mod callers;
mod charts;
mod cni;
mod figures;
mod first;
mod flame;
mod goals;
mod graphs;
mod growth;
mod inside;
mod latency;
mod named;
mod path;
mod peers;
mod perf;
mod plot;
mod plugins;
mod product;
mod report;
mod samples;
mod stacks;
mod stand;
mod strace;
mod waits;

use anyhow::{Context as _, Result, bail};
use figures::{Figures, Machine, Report};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How much is measured.
struct Size {
    name: &'static str,
    rounds: usize,
    /// Of what takes seconds.
    slow_rounds: usize,
    /// Of blocks by several callers.
    block_rounds: usize,
    /// How long callers attach and detach in a round.
    churn: Duration,
    packets: usize,
    /// Attachments at which costs are measured.
    counts: &'static [usize],
    growth_rounds: usize,
    growth_block: usize,
    starts: usize,
    /// Of these counts the one at which nothing is done for a while.
    idle_at: usize,
    /// Attaches and detaches for the flame graphs.
    samples: usize,
    peers: peers::Size,
}

/// What a part says.
#[derive(Debug, Default)]
struct Told {
    figures: Figures,
    /// By their names, as SVG.
    pictures: Vec<(&'static str, String)>,
    /// What could not be measured here.
    note: String,
}

const FULL: Size = Size {
    name: "full",
    rounds: 10,
    slow_rounds: 3,
    block_rounds: 3,
    churn: Duration::from_secs(2),
    packets: 1000,
    counts: &[10, 100, 1000, 5000],
    growth_rounds: 3,
    growth_block: 20,
    starts: 5,
    idle_at: 1000,
    samples: 1000,
    peers: peers::FULL,
};
/// To see that it runs, and for a first look; its figures mean little.
const QUICK: Size = Size {
    name: "quick",
    rounds: 2,
    slow_rounds: 1,
    block_rounds: 1,
    churn: Duration::from_millis(500),
    packets: 50,
    counts: &[10, 100, 1000],
    growth_rounds: 2,
    growth_block: 5,
    starts: 2,
    idle_at: 1000,
    samples: 100,
    peers: peers::QUICK,
};

/// A part measures something, on the thread of a node of its own.
type Part = fn(&Size, &mut Told) -> Result<()>;

const PARTS: &[(&str, Part)] = &[
    ("latency", |size, told| latency::measure(size, &mut told.figures)),
    ("plugins", |size, told| plugins::measure(size, &mut told.figures)),
    ("callers", |size, told| callers::measure(size, &mut told.figures)),
    ("inside", |size, told| inside::measure(size, &mut told.figures)),
    ("graphs", graphs::measure),
    ("growth", |size, told| growth::measure(size, &mut told.figures)),
];

const USAGE: &str = "cargo xtask bench [PART..] [--quick] [--into FOLDER] | compare OLD.json NEW.json | path [..] | peers [--quick]";

fn main() -> Result<ExitCode> {
    if let Some(code) = named::enter()? {
        return Ok(code);
    }
    asked()?;
    Ok(ExitCode::SUCCESS)
}

fn asked() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["compare", old, new] => {
            let (old, new) = (Report::read(Path::new(old))?, Report::read(Path::new(new))?);
            print!("{}", old.compare(&new)?);
            Ok(())
        }
        ["path", words @ ..] => path::main(words),
        ["peers"] => peers::run(&FULL.peers),
        ["peers", "--quick"] => peers::run(&QUICK.peers),
        words => {
            let Asked { size, folder, parts } = Asked::of(words)?;
            measure(size, &folder, &parts)
        }
    }
}

struct Asked {
    size: &'static Size,
    folder: PathBuf,
    parts: Vec<&'static (&'static str, Part)>,
}

impl Asked {
    fn of(words: &[&str]) -> Result<Self> {
        let mut asked = Self {
            size: &FULL,
            // Below the repository's root, where cargo xtask runs it.
            folder: "bench/report".into(),
            parts: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--quick" => asked.size = &QUICK,
                "--into" => asked.folder = words.next().context(USAGE)?.into(),
                name => match PARTS.iter().find(|(part, _)| *part == name) {
                    Some(part) => asked.parts.push(part),
                    None => {
                        let parts: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
                        bail!("{name:?} is no part, but {}: {USAGE}", parts.join(", "))
                    }
                },
            }
        }
        if asked.parts.is_empty() {
            asked.parts = PARTS.iter().collect();
        }
        Ok(asked)
    }
}

fn measure(size: &Size, folder: &Path, parts: &[&(&str, Part)]) -> Result<()> {
    let machine = Machine::this()?;
    let mut report = match Report::read(&folder.join("report.json")) {
        Ok(report) if report.machine == machine => report,
        _ => Report::of(machine),
    };
    for (name, part) in parts {
        let began = Instant::now();
        let mut told = Told::default();
        let node = stage::Node::new()?;
        node.node
            .within(|| part(size, &mut told))?
            .with_context(|| format!("measure {name}"))?;
        eprintln!("{name}: {:.0} s", began.elapsed().as_secs_f64());
        for (name, picture) in &told.pictures {
            report::put(folder, &format!("{name}.svg"), picture)?;
        }
        report.take(name, size.name, told);
    }
    report::write(folder, &report)?;
    println!("{}", goals::report(&report.figures));
    println!("{}", folder.join("README.md").display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_measured_where_none_is_named_and_no_other_than_there_are() {
        let parts = |words: &[&str]| Asked::of(words).map(|asked| asked.parts.len());
        assert_eq!(parts(&["--quick"]).unwrap(), PARTS.len());
        assert_eq!(parts(&["latency", "--into", "there", "growth"]).unwrap(), 2);
        let refused = parts(&["latencies"]).unwrap_err().to_string();
        assert!(
            refused.starts_with("\"latencies\" is no part, but latency, "),
            "{refused}"
        );
        assert!(parts(&["--into"]).is_err());
    }
}
