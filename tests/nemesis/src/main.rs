//! `nemesis`: the random test, by a seed or by the clock.

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nemesis::plan::{Kind, Scope};
use nemesis::room;
use nemesis::run::{Length, Outcome, run};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tries to break the daemon for as long as one likes.
#[derive(Debug, Parser)]
struct Args {
    /// What everything is drawn from; without it, a fresh one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How long, in minutes.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// How many operations, instead of how long.
    #[arg(long)]
    operations: Option<usize>,
    /// Only these nemeses, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Strikes of these nemeses do not come.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Kind>,
    /// Threads that call.
    #[arg(long)]
    callers: Option<usize>,
    /// Operations of a round.
    #[arg(long)]
    per_round: Option<usize>,
    /// Strikes of a round.
    #[arg(long)]
    strikes: Option<usize>,
    /// The first round.
    #[arg(long, default_value_t = 0)]
    round: u64,
    /// Where everything that is known of a failure is written.
    #[arg(long, default_value = "target/nemesis")]
    report: PathBuf,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(code) = room::enter()? {
        return Ok(code);
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => fresh()?,
    };
    let mut scope = Scope::usual(seed);
    if !args.only.is_empty() {
        scope.kinds = args.only.iter().copied().collect();
    }
    scope.callers = args.callers.unwrap_or(scope.callers);
    scope.operations = args.per_round.unwrap_or(scope.operations);
    scope.strikes = args.strikes.unwrap_or(scope.strikes);
    scope.without = args.without.iter().copied().collect();
    ensure!(scope.callers > 0 && scope.operations > 0, "somebody has to call");
    let length = match args.operations {
        Some(operations) => Length::Operations(operations),
        None => Length::Time(Duration::try_from_secs_f64(args.minutes * 60.0)?),
    };
    println!("seed {seed}");
    let began = Instant::now();
    let outcome = run(&scope, args.round, length, &args.report)?;
    Ok(tell(&outcome, seed, began.elapsed()))
}

fn fresh() -> Result<u64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock")?;
    Ok(now.as_micros().try_into().unwrap_or(u64::MAX) % 1_000_000_007)
}

fn tell(outcome: &Outcome, seed: u64, took: Duration) -> ExitCode {
    let [yes, no, unknown] = outcome.answers;
    let strikes: Vec<String> = outcome
        .strikes
        .iter()
        .map(|(kind, n)| format!("{kind} {n}"))
        .collect();
    println!(
        "seed {seed}: {} operations ({yes} yes, {no} no, {unknown} unknown) in {} rounds and {:.0} s; strikes: {}",
        outcome.operations,
        outcome.rounds,
        took.as_secs_f64(),
        strikes.join(", ")
    );
    for complaint in &outcome.complaints {
        println!("{complaint}");
    }
    match &outcome.folder {
        None => ExitCode::SUCCESS,
        Some(folder) => {
            println!("seed {seed} fails: {}", folder.display());
            ExitCode::FAILURE
        }
    }
}
