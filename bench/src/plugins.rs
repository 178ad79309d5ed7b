//! Programs that a runtime executes: our plugin beside Debian's, netavark, and a program that does nothing.

use crate::Size;
use crate::cni::{Cni, Families, Netavark, nothing};
use crate::figures::{Figures, rate};
use crate::product::Daemon;
use crate::samples::{Samples, Way};
use crate::stand::{Dad, Verb, id, namespaces_for_plugins, runtime};
use anyhow::{Context as _, Result};
use stage::Node;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Attaches and detaches of each way in a round.
const ROUND: usize = 8;
const CALLERS: usize = 8;

/// Our plugin, as it is shipped: `cargo xtask bench` builds it.
pub(crate) fn plugin() -> Result<PathBuf> {
    Ok(std::env::var_os("WORKLOADNET_CNI")
        .context("WORKLOADNET_CNI has to name the plugin")?
        .into())
}

/// What is executed.
enum Program {
    Cni(Cni),
    /// On a node of its own, for the sake of its firewall's rules.
    Netavark(Netavark, Node),
}

impl Program {
    fn add(&self, n: usize, id: &str, path: &str, samples: &mut Samples) -> Result<()> {
        match self {
            Self::Cni(cni) => samples.time(|| cni.add(id, path)),
            Self::Netavark(netavark, node) => {
                node.node.within(|| samples.time(|| netavark.setup(n, path)))?
            }
        }
    }

    fn del(&self, n: usize, id: &str, path: &str, samples: &mut Samples) -> Result<()> {
        match self {
            Self::Cni(cni) => samples.time(|| cni.del(id, path)),
            Self::Netavark(netavark, node) => {
                node.node.within(|| samples.time(|| netavark.teardown(n, path)))?
            }
        }
    }
}

/// In the thread's network namespace.
pub(crate) fn measure(size: &Size, figures: &mut Figures) -> Result<()> {
    let runtime = runtime()?;
    let plugin = plugin()?;
    let data = tempfile::tempdir_in("/dev/shm").context("make a folder in memory for host-local")?;
    let mut both = Daemon::new()?;
    let mut v4 = Daemon::of_ipv4()?;
    both.start(&runtime)?;
    v4.start(&runtime)?;
    let programs = programs(&plugin, [&v4, &both], data.path())?;
    let ours = Cni::ours(plugin.clone(), &both.socket());
    let ptp = Cni::usual("ptp", Families::Both, data.path(), 29);
    let mut alone: BTreeMap<&str, Samples> = BTreeMap::new();
    let mut ways: BTreeMap<&str, Way> = BTreeMap::new();
    round(&programs, &mut BTreeMap::new(), 2, Dad::Off)?;
    for _ in 0..size.rounds {
        for _ in 0..ROUND {
            alone.entry("nothing").or_default().time(nothing)?;
            alone.entry("version/ours").or_default().time(|| ours.version())?;
            alone.entry("version/ptp").or_default().time(|| ptp.version())?;
        }
        round(&programs, &mut ways, ROUND, Dad::Off)?;
        alone.values_mut().for_each(Samples::end_round);
        ways.values_mut().for_each(Way::end_round);
    }
    for (name, samples) in &alone {
        figures.times(format!("exec/{name}"), samples);
    }
    for (name, way) in &ways {
        figures.distribution(format!("add/{name}"), &way.attach);
        figures.distribution(format!("del/{name}"), &way.detach);
    }
    let slow: Vec<_> = programs
        .into_iter()
        .filter(|(name, _)| matches!(*name, "ptp46" | "bridge46"))
        .collect();
    let mut ways = BTreeMap::new();
    for _ in 0..size.slow_rounds {
        round(&slow, &mut ways, 2, Dad::AsUsual)?;
        ways.values_mut().for_each(Way::end_round);
    }
    for (name, way) in &ways {
        figures.times(format!("add/{name}-dad"), &way.attach);
        figures.times(format!("del/{name}-dad"), &way.detach);
    }
    let bytes = std::fs::metadata(&plugin).context("look at the plugin")?.len();
    figures.value("exec/size", "bytes", bytes as f64);
    at_once(size, &ours, &ptp, figures)
}

fn programs(plugin: &Path, daemons: [&Daemon; 2], data: &Path) -> Result<Vec<(&'static str, Program)>> {
    let [v4, both] = daemons.map(|daemon| Program::Cni(Cni::ours(plugin.to_owned(), &daemon.socket())));
    let usual = |kind, families, net| Program::Cni(Cni::usual(kind, families, data, net));
    let netavark = |families| anyhow::Ok(Program::Netavark(Netavark::new(families), Node::new()?));
    Ok(vec![
        ("ours4", v4),
        ("ours46", both),
        ("ptp4", usual("ptp", Families::V4, 21)),
        ("ptp46", usual("ptp", Families::Both, 22)),
        ("bridge4", usual("bridge", Families::V4, 23)),
        ("bridge46", usual("bridge", Families::Both, 24)),
        ("netavark4", netavark(Families::V4)?),
        ("netavark46", netavark(Families::Both)?),
    ])
}

/// All programs in turn, first the attaches, then the detaches. The first workload of each stays until the others have gone,
/// so that no bridge is made and deleted within what is measured.
fn round(
    programs: &[(&'static str, Program)],
    ways: &mut BTreeMap<&'static str, Way>,
    count: usize,
    dad: Dad,
) -> Result<()> {
    let mut standing = Vec::new();
    for n in 0..=count {
        let namespaces = namespaces_for_plugins(programs.len(), dad)?;
        for ((name, program), namespace) in programs.iter().zip(namespaces) {
            let (id, mut unmeasured) = (id(), Samples::default());
            let way = ways.entry(name).or_default();
            let samples = if n == 0 { &mut unmeasured } else { &mut way.attach };
            program.add(n, &id, &namespace.path(), samples)?;
            standing.push((n, *name, program, id, namespace));
        }
    }
    standing.sort_by_key(|(n, ..)| *n == 0);
    for (n, name, program, id, namespace) in &standing {
        let mut unmeasured = Samples::default();
        let way = ways.entry(name).or_default();
        let samples = if *n == 0 { &mut unmeasured } else { &mut way.detach };
        program.del(*n, id, &namespace.path(), samples)?;
    }
    Ok(())
}

/// Eight callers at once, each of which executes the plugin.
fn at_once(size: &Size, ours: &Cni, ptp: &Cni, figures: &mut Figures) -> Result<()> {
    for (name, cni) in [("ours46", ours), ("ptp46", ptp)] {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..size.slow_rounds {
            let namespaces = namespaces_for_plugins(CALLERS * 4, Dad::Off)?;
            let work: Vec<_> = namespaces
                .iter()
                .map(|namespace| (id(), namespace.path()))
                .collect();
            for (verb, rates) in [Verb::Attach, Verb::Detach].into_iter().zip(&mut rates) {
                rates.push(rate(work.len(), threads(cni, &work, verb)?));
            }
        }
        figures.rounds(format!("rate/add/{name}/8"), "/s", &rates[0]);
        figures.rounds(format!("rate/del/{name}/8"), "/s", &rates[1]);
    }
    Ok(())
}

fn threads(cni: &Cni, work: &[(String, String)], verb: Verb) -> Result<Duration> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = work
            .chunks(work.len().div_ceil(CALLERS))
            .map(|part| {
                scope.spawn(move || {
                    part.iter().try_for_each(|(id, path)| match verb {
                        Verb::Attach => cni.add(id, path),
                        Verb::Detach => cni.del(id, path),
                    })
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(began.elapsed())
}
