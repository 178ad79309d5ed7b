//! What calls cost as attachments grow, at the same counts as the floor's; and what a start and memory then are.

use crate::Size;
use crate::bare::Bare;
use crate::figures::Figures;
use crate::named::Named;
use crate::product::Daemon;
use crate::samples::{Samples, Way};
use crate::stand::{Caller, Verb, all_as_new, at_once, id, namespaces, pause, rest, runtime};
use anyhow::{Context as _, Result, ensure};
use client::Client;
use client::inspection::Key;
use stage::Node;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const CALLERS: usize = 16;
/// Looks at everything, as a sweep does.
const CHECKS: usize = 5;
const GETS: usize = 100;
/// Over this time the daemon has nothing to do but its own rounds: two of the sweeper's, who comes once a minute.
pub(crate) const IDLE: Duration = Duration::from_secs(120);

struct Stand {
    runtime: Runtime,
    bare: Bare,
    daemon: Daemon,
    client: Client,
    standing: Vec<(Named, Named, u32, String)>,
}

/// What was measured at one count.
#[derive(Default)]
struct Costs {
    bare: Way,
    daemon: Way,
    /// Of the daemon's, what its phase `kernel` does not take: the mean of a round, in ms.
    own: [Vec<f64>; 2],
    get: Samples,
    check: Samples,
    /// The kernel tells of as many links of the floor's.
    list: Samples,
}

/// On a node of its own.
pub(crate) fn measure(size: &Size, figures: &mut Figures) -> Result<()> {
    let node = Node::new()?;
    node.node.within(|| Stand::new()?.measure(size, figures))?
}

impl Stand {
    fn new() -> Result<Self> {
        let runtime = runtime()?;
        let mut daemon = Daemon::new()?.with_counts();
        daemon.start(&runtime)?;
        Ok(Self {
            bare: Bare::here()?,
            client: daemon.client(&runtime)?,
            runtime,
            daemon,
            standing: Vec::new(),
        })
    }

    fn measure(mut self, size: &Size, figures: &mut Figures) -> Result<()> {
        self.memory(figures)?;
        self.starts(size, figures)?;
        for count in size.counts {
            self.grow_to(*count)?;
            let mut costs = Costs::default();
            for _ in 0..size.growth_rounds {
                self.round(size.growth_block, &mut costs)?;
            }
            costs.tell(*count, figures);
            if *count >= 1000 || Some(count) == size.counts.last() {
                self.starts(size, figures)?;
                self.memory(figures)?;
            }
            if *count == size.idle_at {
                self.idle(figures)?;
            }
        }
        self.clear()
    }

    /// As many attachments of each.
    fn grow_to(&mut self, count: usize) -> Result<()> {
        let callers = (0..CALLERS).map(|_| Ok(Caller::new(self.daemon.client(&self.runtime)?)));
        let callers = callers.collect::<Result<Vec<_>>>()?;
        let missing = count.saturating_sub(self.standing.len());
        let work: Vec<_> = (0..missing)
            .map(|_| Ok((id(), Named::new()?)))
            .collect::<Result<_>>()?;
        let orders: Vec<_> = work
            .iter()
            .map(|(id, namespace)| (id.clone(), namespace.path()))
            .collect();
        if !orders.is_empty() {
            at_once(&self.runtime, &callers, &orders, Verb::Attach)?;
        }
        for (id, namespace) in work {
            let beside = Named::new()?;
            let link = self.bare.attach(&beside.path())?;
            self.standing.push((beside, namespace, link, id));
        }
        Ok(())
    }

    /// A few more come and go, in turn.
    fn round(&mut self, block: usize, costs: &mut Costs) -> Result<()> {
        let namespaces = namespaces(2 * block)?;
        all_as_new(&namespaces)?;
        let mut made = Vec::new();
        let before = self.kernel_seconds("attach")?;
        let mut calls = Samples::default();
        for pair in namespaces.chunks(2) {
            let (id, paths) = (id(), [pair[0].path(), pair[1].path()]);
            let request = crate::product::attach(&id, &paths[1]);
            let link = costs.bare.attach.time(|| self.bare.attach(&paths[0]))?;
            calls.time(|| Ok(self.runtime.block_on(self.client.attach(request))?))?;
            made.push((link, id));
        }
        self.own(0, before, calls, costs)?;
        let key = Key {
            owner: "bench".to_owned(),
            workload_id: made[0].1.clone(),
            if_name: "eth0".to_owned(),
        };
        for _ in 0..GETS {
            let found = costs
                .get
                .time(|| Ok(self.runtime.block_on(self.client.get(key.clone()))?))?;
            ensure!(found.is_some(), "{key:?} is not attached");
        }
        for _ in 0..CHECKS {
            costs.list.time(|| self.bare.list())?;
            let findings = costs
                .check
                .time(|| Ok(self.runtime.block_on(self.client.check(None))?))?;
            ensure!(findings.is_empty(), "the check found {findings:?}");
        }
        let before = self.kernel_seconds("detach")?;
        let mut calls = Samples::default();
        for (link, id) in made {
            pause(&self.runtime);
            costs.bare.detach.push(self.bare.end(link)?);
            self.bare.settle()?;
            pause(&self.runtime);
            let request = crate::product::detach(&id);
            calls.time(|| Ok(self.runtime.block_on(self.client.detach(request))?))?;
        }
        self.own(1, before, calls, costs)?;
        for samples in [&mut costs.get, &mut costs.check, &mut costs.list] {
            samples.end_round();
        }
        costs.bare.end_round();
        costs.daemon.end_round();
        Ok(())
    }

    /// What of these calls the kernel did not take.
    fn own(&self, which: usize, before: f64, calls: Samples, costs: &mut Costs) -> Result<()> {
        let verb = ["attach", "detach"][which];
        let kernel = self.kernel_seconds(verb)? - before;
        costs.own[which].push((calls.sum().as_secs_f64() - kernel) * 1000.0 / calls.len() as f64);
        [&mut costs.daemon.attach, &mut costs.daemon.detach][which].extend(calls);
        Ok(())
    }

    fn kernel_seconds(&self, verb: &str) -> Result<f64> {
        let name = format!("workloadnet_{verb}_phase_duration_seconds_sum{{phase=\"kernel\"}}");
        Ok(self.daemon.counts()?.sum(&name))
    }

    fn memory(&self, figures: &mut Figures) -> Result<()> {
        let mib = self.daemon.resident()? as f64 / 1024.0;
        figures.value(format!("memory/{}", self.standing.len()), "MiB", mib);
        Ok(())
    }

    /// kill -9, and a start with all to recover.
    fn starts(&mut self, size: &Size, figures: &mut Figures) -> Result<()> {
        let (mut starts, mut lists) = (Samples::default(), Samples::default());
        for _ in 0..size.starts {
            lists.time(|| self.bare.list())?;
            self.daemon.kill()?;
            starts.push(self.daemon.start(&self.runtime)?);
            // The first call after it would pay for the lost connection.
            self.client = self.daemon.client(&self.runtime)?;
            let listed = self.runtime.block_on(self.client.list(None))?.len();
            let standing = self.standing.len();
            ensure!(listed == standing, "{listed} of {standing} were recovered");
        }
        figures.times(format!("start/{}", self.standing.len()), &starts);
        figures.times(format!("links/{}", self.standing.len()), &lists);
        Ok(())
    }

    /// How often a thread of the daemon wakes up while nothing is asked of it, and how long it works.
    fn idle(&self, figures: &mut Figures) -> Result<()> {
        // What came before is over, and threads that it needed have ended.
        rest(&self.runtime, Duration::from_secs(12));
        let pid = self.daemon.pid()?;
        let (before, began) = (Work::of(pid)?, Instant::now());
        rest(&self.runtime, IDLE);
        let (done, took) = (Work::of(pid)?.since(&before), began.elapsed().as_secs_f64());
        figures.value("idle/wake-ups", "/s", done.waits as f64 / took);
        let busy = done.nanoseconds as f64 / 1e9;
        figures.value("idle/cpu", "%", busy / took * 100.0);
        Ok(())
    }

    fn clear(mut self) -> Result<()> {
        let callers = (0..CALLERS).map(|_| Ok(Caller::new(self.daemon.client(&self.runtime)?)));
        let callers = callers.collect::<Result<Vec<_>>>()?;
        let work: Vec<_> = self
            .standing
            .iter()
            .map(|(.., id)| (id.clone(), String::new()))
            .collect();
        at_once(&self.runtime, &callers, &work, Verb::Detach)?;
        let links: Vec<u32> = self.standing.iter().map(|(_, _, link, _)| *link).collect();
        self.bare.clear(&links)
    }
}

impl Costs {
    fn tell(&self, count: usize, figures: &mut Figures) {
        for (who, way) in [("floor", &self.bare), ("daemon", &self.daemon)] {
            figures.times(format!("growth/attach/{who}/{count}"), &way.attach);
            figures.times(format!("growth/detach/{who}/{count}"), &way.detach);
        }
        figures.rounds(format!("growth/attach/own/{count}"), "ms", &self.own[0]);
        figures.rounds(format!("growth/detach/own/{count}"), "ms", &self.own[1]);
        figures.times(format!("growth/get/{count}"), &self.get);
        figures.times(format!("growth/check/{count}"), &self.check);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        let (all, kernel) = (self.check.p50(), self.list.p50());
        figures.value(format!("growth/check-each/{count}"), "µs", each(all));
        let own = all.saturating_sub(kernel);
        figures.value(format!("growth/check-own/{count}"), "µs", each(own));
    }
}

/// What each thread of a process has done so far.
#[derive(Debug, Default)]
struct Work(BTreeMap<String, Done>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Done {
    /// Times that it waited.
    waits: u64,
    nanoseconds: u64,
}

impl Work {
    fn of(pid: u32) -> Result<Self> {
        let mut work = Self::default();
        let folder = format!("/proc/{pid}/task");
        for task in std::fs::read_dir(&folder).with_context(|| format!("read {folder}"))? {
            let task = task?;
            let read = |name: &str| std::fs::read_to_string(task.path().join(name));
            // A thread may have ended meanwhile.
            let (Ok(status), Ok(times)) = (read("status"), read("schedstat")) else {
                continue;
            };
            let number = task.file_name().to_string_lossy().into_owned();
            work.0.insert(number, Done::of(&status, &times)?);
        }
        Ok(work)
    }

    /// Of those threads that are there now.
    fn since(&self, before: &Self) -> Done {
        let mut all = Done::default();
        for (number, now) in &self.0 {
            let then = before.0.get(number).copied().unwrap_or_default();
            all.waits += now.waits - then.waits;
            all.nanoseconds += now.nanoseconds - then.nanoseconds;
        }
        all
    }
}

impl Done {
    /// From a thread's `status` and its `schedstat` (proc(5)).
    fn of(status: &str, schedstat: &str) -> Result<Self> {
        let waits = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let running = schedstat.split_whitespace().next();
        Ok(Self {
            waits: waits.context("a thread's status has no waits")?.trim().parse()?,
            nanoseconds: running.context("a thread has no times")?.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_did_meanwhile_is_theirs_who_are_still_there() {
        let status =
            |waits| format!("Name:\tx\nvoluntary_ctxt_switches:\t{waits}\nnonvoluntary_ctxt_switches:\t90\n");
        let work = |threads: &[(&str, u64, &str)]| {
            let done = threads.iter().map(|(number, waits, times)| {
                ((*number).to_owned(), Done::of(&status(*waits), times).unwrap())
            });
            Work(done.collect())
        };
        let before = work(&[("7", 5, "1000 20 3\n"), ("8", 50, "9000 20 3\n")]);
        let after = work(&[("7", 7, "1500 20 3\n"), ("9", 1, "30 20 3\n")]);
        assert_eq!(
            after.since(&before),
            Done {
                waits: 3,
                nanoseconds: 530
            }
        );
        assert!(Done::of("Name:\tx\n", "1 2 3").is_err());
    }
}
