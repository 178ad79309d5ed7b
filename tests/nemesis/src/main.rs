//! `nemesis`: the random test, by a seed or by the clock.

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nemesis::plan::{Kind, Scope};
use nemesis::room;
use nemesis::run::{Length, Outcome, run};
use nemesis::shrink::shrink;
use nemesis::soak;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a scope is tried before it counts as one that does not fail.
const TRIES: u32 = 3;
/// Threads that call in a soak.
const SOAKERS: usize = 4;

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
    /// Looks for the least scope of one round that fails, where this one does; each is tried up to three times.
    #[arg(long)]
    shrink: bool,
    /// A soak instead, which leaves its report in this folder.
    #[arg(long)]
    soak: Option<PathBuf>,
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
    if let Some(folder) = &args.soak {
        return soak_for(Duration::try_from_secs_f64(args.minutes * 60.0)?, folder);
    }
    println!("seed {seed}");
    let began = Instant::now();
    if args.shrink {
        return shrunk(&scope, args.round, &args.report);
    }
    let outcome = run(&scope, args.round, length, &args.report)?;
    Ok(tell(&outcome, seed, began.elapsed()))
}

/// Prints how little is needed for a round to fail.
fn shrunk(scope: &Scope, round: u64, report: &Path) -> Result<ExitCode> {
    let trial = |scope: &Scope| -> Result<bool> {
        for _ in 0..TRIES {
            // As many calls as there are, and those are one round.
            let outcome = run(scope, round, Length::Operations(1), report)?;
            if !outcome.complaints.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if !trial(scope)? {
        println!("round {round} does not fail, {TRIES} times; --round chooses another one");
        return Ok(ExitCode::SUCCESS);
    }
    let least = shrink(scope, &mut |scope: &Scope| {
        let fails = trial(scope)?;
        let strikes: Vec<&str> = scope
            .kinds
            .difference(&scope.without)
            .map(|kind| kind.word())
            .collect();
        let verdict = if fails { "fails" } else { "does not fail" };
        let Scope {
            callers, operations, ..
        } = scope;
        println!("{callers} callers, {operations} operations, {strikes:?}: {verdict}");
        Ok(fails)
    })?;
    let path = report.join(format!("least-of-{}.json", scope.seed));
    let plan = nemesis::run::rounds(&least, round..round + 1);
    std::fs::write(&path, serde_json::to_string_pretty(&(least, plan))?)?;
    println!("the least that fails: {}", path.display());
    Ok(ExitCode::FAILURE)
}

/// Soaks, writes the report, and fails where something is not flat.
fn soak_for(length: Duration, folder: &Path) -> Result<ExitCode> {
    let (office, callers) = nemesis::run::calm(SOAKERS)?;
    let windows = soak::soak(&office, &callers, length)?;
    let bounds = soak::bounds(&windows);
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = std::thread::available_parallelism()?;
    let build = if cfg!(debug_assertions) {
        "a dev build"
    } else {
        "a release build"
    };
    let about = format!(
        "{:.0} minutes of {SOAKERS} callers, {build}, Linux {}, {processors} processors",
        length.as_secs_f64() / 60.0,
        version.trim()
    );
    soak::write(folder, &about, &windows, &bounds)?;
    for bound in &bounds {
        println!(
            "{}: {:.0}, then {:.0}; at most {:.0}",
            bound.what, bound.before, bound.after, bound.limit
        );
    }
    let is_flat = bounds.iter().all(soak::Bound::is_kept);
    println!("{about}: {}", if is_flat { "flat" } else { "not flat" });
    Ok(if is_flat {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
