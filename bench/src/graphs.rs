//! Where the time goes: what the daemon's threads work at in an attach and a detach, and what they wait for.

use crate::figures::Figures;
use crate::flame::{Folded, draw};
use crate::perf;
use crate::product::Daemon;
use crate::stacks::{Wait, by_place, on_cpu, waits};
use crate::stand::{Caller, Verb, all_as_new, at_once, id, namespaces, pause, runtime};
use crate::{Size, Told};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use tokio::runtime::Runtime;

/// Samples a second: as many as perf is allowed.
const PACE: &str = "9999";
/// Up to here of each thread's stack is kept, to find out who called.
const STACK: &str = "dwarf,16384";
/// In these a thread waits for work, or for another thread that works on an order.
const IDLE: &[&str] = &["futex", "epoll_wait", "epoll_pwait", "ppoll", "poll"];
/// Calls while waits are recorded.
const WAITS: usize = 200;

/// Pictures by their names, and how they are drawn in the report.
pub(crate) const PICTURES: [(&str, &str); 4] = [
    ("flame-attach", "Attach: where the daemon works"),
    ("off-cpu-attach", "Attach: what the daemon waits for"),
    ("flame-detach", "Detach: where the daemon works"),
    ("off-cpu-detach", "Detach: what the daemon waits for"),
];

/// In the thread's network namespace, the daemon in another one.
pub(crate) fn measure(size: &Size, told: &mut Told) -> Result<()> {
    let runtime = runtime()?;
    let mut daemon = Daemon::new()?;
    daemon.start(&runtime)?;
    let caller = Caller::new(daemon.client(&runtime)?);
    let mut graphs = Graphs {
        runtime,
        pid: daemon.pid()?,
        caller,
        missing: String::new(),
    };
    graphs.work(size.samples, told)?;
    graphs.waits(told)?;
    told.note = graphs.missing;
    Ok(())
}

struct Graphs {
    runtime: Runtime,
    pid: u32,
    caller: Caller,
    /// What perf could not do.
    missing: String,
}

impl Graphs {
    fn work(&mut self, count: usize, told: &mut Told) -> Result<()> {
        let namespaces = namespaces(count)?;
        all_as_new(&namespaces)?;
        let work: Vec<_> = namespaces
            .iter()
            .map(|namespace| (id(), namespace.path()))
            .collect();
        let pid = self.pid.to_string();
        let options = [
            "-e",
            "cpu-clock",
            "-F",
            PACE,
            "--call-graph",
            STACK,
            "--pid",
            &pid,
        ];
        for ((name, title), verb) in [PICTURES[0], PICTURES[2]]
            .into_iter()
            .zip([Verb::Attach, Verb::Detach])
        {
            let callers = [self.caller.clone()];
            match perf::record(&options, || {
                at_once(&self.runtime, &callers, &work, verb).map(drop)
            }) {
                Ok(text) => told.draw(name, title, "samples", &on_cpu(&text)),
                Err(error) => self.misses(title, &error),
            }
        }
        Ok(())
    }

    /// With a pause before each detach, so that none waits for the one before it.
    fn waits(&mut self, told: &mut Told) -> Result<()> {
        let threads = threads(self.pid)?;
        let filter = filter(&threads);
        let options = [
            "-e",
            "sched:sched_switch",
            "--filter",
            &filter,
            "--all-cpus",
            "--mmap-pages=16M",
            "--call-graph",
            STACK,
        ];
        let namespaces = namespaces(WAITS)?;
        all_as_new(&namespaces)?;
        let work: Vec<_> = namespaces
            .iter()
            .map(|namespace| (id(), namespace.path()))
            .collect();
        for ((name, title), verb) in [PICTURES[1], PICTURES[3]]
            .into_iter()
            .zip([Verb::Attach, Verb::Detach])
        {
            let carry_out = || {
                for (id, path) in &work {
                    pause(&self.runtime);
                    self.runtime.block_on(async {
                        match verb {
                            Verb::Attach => self.caller.attach(id, path).await,
                            Verb::Detach => self.caller.detach(id).await,
                        }
                    })?;
                }
                Ok(())
            };
            match perf::record(&options, carry_out) {
                Ok(text) => {
                    let all = waits(&text, &threads);
                    told.draw(name, title, "µs", &blocked(&all));
                    tell(verb, &all, &mut told.figures);
                }
                Err(error) => self.misses(title, &error),
            }
        }
        Ok(())
    }

    fn misses(&mut self, title: &str, error: &anyhow::Error) {
        // Writing into a String does not fail.
        let _ = writeln!(self.missing, "{title}: perf could not record it here: {error:#}");
    }
}

fn threads(pid: u32) -> Result<Vec<u32>> {
    let folder = format!("/proc/{pid}/task");
    let tasks = std::fs::read_dir(&folder).with_context(|| format!("read {folder}"))?;
    let numbers = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    Ok(numbers.collect())
}

fn filter(threads: &[u32]) -> String {
    let each = threads
        .iter()
        .map(|thread| format!("prev_pid == {thread} || next_pid == {thread}"));
    each.collect::<Vec<_>>().join(" || ")
}

/// Waits within an order.
fn blocked(waits: &[Wait]) -> Folded {
    let mut folded = Folded::default();
    for wait in waits
        .iter()
        .filter(|wait| !IDLE.contains(&wait.place().1.as_str()))
    {
        folded.add(wait.functions.iter().cloned(), wait.microseconds);
    }
    folded
}

/// How often and how long each call waited, by place: the kernel's function and the system call.
fn tell(verb: Verb, waits: &[Wait], figures: &mut Figures) {
    let verb = match verb {
        Verb::Attach => "attach",
        Verb::Detach => "detach",
    };
    for ((function, call), (count, microseconds)) in by_place(waits) {
        let each = |value: f64| value / WAITS as f64;
        let name = format!("{verb}/{call}/{function}");
        figures.value(format!("waits/{name}"), "waits", each(count as f64));
        if !IDLE.contains(&call.as_str()) {
            figures.value(format!("wait/{name}"), "µs", each(microseconds as f64));
        }
    }
}

impl Told {
    fn draw(&mut self, name: &'static str, title: &str, unit: &str, folded: &Folded) {
        self.pictures.push((name, draw(title, unit, folded)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flame::KERNEL;

    fn wait(functions: &[&str], microseconds: u64) -> Wait {
        Wait {
            functions: functions.iter().map(|name| format!("{name}{KERNEL}")).collect(),
            microseconds,
        }
    }

    #[test]
    fn waiting_for_work_is_counted_and_not_drawn() {
        let all = [
            wait(&["__x64_sys_futex", "futex_wait", "schedule"], 50_000),
            wait(&["__x64_sys_sendto", "synchronize_net", "schedule"], 400),
            wait(&["__x64_sys_sendto", "synchronize_net", "schedule"], 600),
        ];
        assert_eq!(blocked(&all).total(), 1000);
        let mut figures = Figures::default();
        tell(Verb::Detach, &all, &mut figures);
        let names: Vec<_> = figures.0.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "wait/detach/sendto/synchronize_net",
                "waits/detach/futex/futex_wait",
                "waits/detach/sendto/synchronize_net"
            ]
        );
        assert_eq!(
            figures.of("wait/detach/sendto/synchronize_net"),
            Some(1000.0 / WAITS as f64)
        );
    }

    #[test]
    fn threads_are_recorded_when_they_go_and_when_they_come() {
        assert_eq!(
            filter(&[7, 9]),
            "prev_pid == 7 || next_pid == 7 || prev_pid == 9 || next_pid == 9"
        );
        assert!(threads(std::process::id()).unwrap().contains(&std::process::id()));
    }
}
