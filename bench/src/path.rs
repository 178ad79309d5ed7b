//! The data path: what packets cost over the daemon's attachments, beside loopback, Debian's plugins, and what the daemon could
//! do instead. Each test goes over all ways before the next one begins, in another order each round, so that what else
//! happens on the machine hits all of them alike; ratios are of one round.

mod load;
mod peers;
mod report;
mod site;
mod trial;

use anyhow::{Context as _, Result, bail};
use load::{Test, Times, Unit};
use site::{Scope, Site};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How much is measured.
struct Size {
    rounds: usize,
    times: Times,
}

const FULL: Size = Size {
    rounds: 7,
    times: Times {
        round_trips: Duration::from_millis(60),
        bulk: Duration::from_millis(90),
        connections: 500,
    },
};
/// To see that it runs; its figures mean little.
const QUICK: Size = Size {
    rounds: 1,
    times: Times {
        round_trips: Duration::from_millis(20),
        bulk: Duration::from_millis(20),
        connections: 50,
    },
};

/// What one test told of every way, round by round.
type Series = BTreeMap<(Test, Unit, usize), Vec<Vec<f64>>>;

/// `path [workload | outside] [--quick]`: both scopes, or one of them, and the report keeps the other's last run.
pub(crate) fn main(words: &[&str]) -> Result<()> {
    let (mut size, mut scopes) = (&FULL, vec![Scope::Workload, Scope::Outside]);
    for word in words {
        match *word {
            "--quick" => size = &QUICK,
            "workload" => scopes = vec![Scope::Workload],
            "outside" => scopes = vec![Scope::Outside],
            other => {
                bail!("{other:?}: the data path is measured to a workload or outside; the option is --quick")
            }
        }
    }
    run(size, &scopes)
}

fn run(size: &Size, scopes: &[Scope]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let sites = site::all(&runtime)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("report/path");
    for scope in scopes.iter().copied() {
        let before = counted(&sites)?;
        let series = measured(&sites, scope, size)?;
        let after = counted(&sites)?;
        let counts = std::array::from_fn(|n| after[n] - before[n]);
        report::written(&folder, scope, &sites, &series, counts)
            .with_context(|| format!("write {}", folder.display()))?;
    }
    println!("written: {}", folder.join("README.md").display());
    Ok(())
}

/// Packets that the fast path has counted.
fn counted(sites: &[Site]) -> Result<[u64; 4]> {
    let trial = sites.iter().find_map(|site| site.trial.as_ref());
    trial.context("no site has counters")?.counted()
}

fn measured(sites: &[Site], scope: Scope, size: &Size) -> Result<Series> {
    let mut series = Series::new();
    for round in 0..size.rounds {
        for test in Test::all() {
            for family in [0, 1] {
                for n in 0..sites.len() {
                    let at = (n + round) % sites.len();
                    let site = &sites[at];
                    let told = test
                        .run(&site.way(scope, family), &size.times)
                        .with_context(|| format!("measure {}", site.name))?;
                    for (unit, value) in told {
                        let all = series.entry((test, unit, family)).or_default();
                        all.resize(sites.len(), Vec::new());
                        all[at].push(value);
                    }
                }
            }
        }
    }
    Ok(series)
}
