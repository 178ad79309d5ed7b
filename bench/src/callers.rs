//! Several callers at once: how many attaches, detaches and whole cycles a second, and how long each took.

use crate::Size;
use crate::bare::Bare;
use crate::figures::{Figures, rate};
use crate::first::First;
use crate::named::Named;
use crate::product::Daemon;
use crate::samples::{Samples, Way};
use crate::stand::{Caller, Verb, all_as_new, at_once, churn, id, namespaces, runtime};
use anyhow::Result;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How many callers there are at once.
pub(crate) const CALLERS: [usize; 3] = [1, 8, 16];
/// Attaches and then detaches of a block; fewer for one caller, of whom the latencies say as much.
const BLOCK: usize = 320;
const BLOCK_OF_ONE: usize = 40;
/// Namespaces of a caller that churns.
const OWN: usize = 10;
/// The first round that counts.
const WARM: usize = 1;

/// Who is measured.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Floor,
    /// The daemon, or the first version.
    Service(usize),
}

/// Rates of one service with so many callers, one value a round, and latencies.
#[derive(Default)]
struct Rates {
    attach: Vec<f64>,
    detach: Vec<f64>,
    cycle: Vec<f64>,
    block: Way,
    churn: Way,
}

/// In the thread's network namespace, the services in others.
pub(crate) fn measure(size: &Size, figures: &mut Figures) -> Result<()> {
    let runtime = runtime()?;
    let mut daemon = Daemon::new()?;
    daemon.start(&runtime)?;
    let first = First::start(&runtime)?;
    let connect = |count: usize| -> Result<[Vec<Caller>; 2]> {
        let daemon = (0..count).map(|_| Ok(Caller::new(daemon.client(&runtime)?)));
        let first = (0..count).map(|_| Ok(Caller::new(first.client(&runtime)?)));
        Ok([daemon.collect::<Result<_>>()?, first.collect::<Result<_>>()?])
    };
    let mut floor = Bare::here()?;
    for count in CALLERS {
        let services = connect(count)?;
        let (mut rates, mut floors) = (<[Rates; 2]>::default(), Vec::new());
        for round in 0..=size.block_rounds {
            if round == WARM {
                (rates, floors) = Default::default();
            }
            // Who begins changes, because what one leaves to the kernel's work queues is in the next one's way.
            let mut turns = [Turn::Floor, Turn::Service(0), Turn::Service(1)];
            let first = round % turns.len();
            turns.rotate_left(first);
            for turn in turns {
                match turn {
                    Turn::Floor => floors.push(bare(&mut floor)?),
                    Turn::Service(n) => {
                        rates[n].blocks(&runtime, &services[n])?;
                        rates[n].churn(&runtime, &services[n], size.churn)?;
                    }
                }
            }
        }
        figures.rounds(format!("rate/attach/floor/{count}"), "/s", &floors);
        for (who, rates) in ["daemon", "first"].into_iter().zip(&rates) {
            rates.tell(who, count, figures);
        }
    }
    Ok(())
}

/// Attaches a second of the bare loop: one thread, because the kernel takes one change at a time, and more are slower.
fn bare(bare: &mut Bare) -> Result<f64> {
    let namespaces = namespaces(BLOCK)?;
    let paths: Vec<_> = namespaces.iter().map(Named::path).collect();
    all_as_new(&namespaces)?;
    let began = Instant::now();
    let links = paths.iter().map(|path| bare.attach(path));
    let links = links.collect::<Result<Vec<_>>>()?;
    let took = began.elapsed();
    bare.clear(&links)?;
    Ok(rate(BLOCK, took))
}

impl Rates {
    fn blocks(&mut self, runtime: &Runtime, callers: &[Caller]) -> Result<()> {
        let namespaces = namespaces(if callers.len() == 1 { BLOCK_OF_ONE } else { BLOCK })?;
        all_as_new(&namespaces)?;
        let work: Vec<_> = namespaces
            .iter()
            .map(|namespace| (id(), namespace.path()))
            .collect();
        let attach = (Verb::Attach, &mut self.attach, &mut self.block.attach);
        let detach = (Verb::Detach, &mut self.detach, &mut self.block.detach);
        for (verb, rates, samples) in [attach, detach] {
            let (these, took): (Samples, Duration) = at_once(runtime, callers, &work, verb)?;
            rates.push(rate(these.len(), took));
            samples.extend(these);
            samples.end_round();
        }
        Ok(())
    }

    fn churn(&mut self, runtime: &Runtime, callers: &[Caller], time: Duration) -> Result<()> {
        let namespaces = namespaces(callers.len() * OWN)?;
        all_as_new(&namespaces)?;
        let (cycles, took) = churn(runtime, callers, &namespaces, time, &mut self.churn)?;
        self.cycle.push(rate(cycles, took));
        Ok(())
    }

    fn tell(&self, who: &str, callers: usize, figures: &mut Figures) {
        for (what, rates) in [
            ("attach", &self.attach),
            ("detach", &self.detach),
            ("cycle", &self.cycle),
        ] {
            figures.rounds(format!("rate/{what}/{who}/{callers}"), "/s", rates);
        }
        figures.times(format!("block/attach/{who}/{callers}"), &self.block.attach);
        figures.times(format!("block/detach/{who}/{callers}"), &self.block.detach);
        figures.distribution(format!("churn/attach/{who}/{callers}"), &self.churn.attach);
        figures.distribution(format!("churn/detach/{who}/{callers}"), &self.churn.detach);
    }
}
