//! What perf says, as values: stacks of where a program works, and where it waits for how long.

use crate::flame::{Folded, KERNEL};
use std::collections::{BTreeMap, HashMap};

/// Fields of `perf script` that are read here.
pub(crate) const FIELDS: &str = "comm,tid,time,event,trace,ip,sym";

/// What the scheduler and its users' own parts are called: the first function beyond them is the one that waits.
const WAITING: &[&str] = &[
    "__schedule",
    "schedule",
    "schedule_timeout",
    "schedule_timeout_uninterruptible",
    "schedule_preempt_disabled",
    "schedule_hrtimeout_range",
    "schedule_hrtimeout_range_clock",
    "__wait_for_common",
    "wait_for_common",
    "wait_for_completion",
    "wait_for_completion_state",
    "wait_for_completion_timeout",
    "wait_for_completion_killable",
    "wait_for_completion_interruptible",
    "__mutex_lock",
    "__mutex_lock_common",
    "__mutex_lock_slowpath",
    "mutex_lock",
    "mutex_lock_nested",
    "rwsem_down_read_slowpath",
    "rwsem_down_write_slowpath",
    "do_nanosleep",
    "__cond_resched",
    "preempt_schedule_common",
    "__futex_wait",
    "futex_do_wait",
    "futex_wait_queue",
    "do_futex",
];

/// A line of an event and the functions under it, the innermost first.
#[derive(Debug)]
struct Event<'a> {
    line: &'a str,
    functions: Vec<String>,
}

/// Time that a thread did not run, of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    /// From the outermost function on.
    pub(crate) functions: Vec<String>,
    pub(crate) microseconds: u64,
}

impl Wait {
    /// The kernel's function that waits, and the system call that led there.
    pub(crate) fn place(&self) -> (String, String) {
        let kernel: Vec<&str> = self
            .functions
            .iter()
            .filter_map(|name| name.strip_suffix(KERNEL))
            // The compiler has cut it into parts.
            .map(|name| name.split('.').next().unwrap_or(name))
            .collect();
        let waits = kernel.iter().rev().find(|name| !WAITING.contains(*name));
        let call = kernel.iter().find_map(|name| {
            name.strip_prefix("__x64_sys_")
                .or(name.strip_prefix("__arm64_sys_"))
        });
        (
            waits.map_or("?", |name| *name).to_owned(),
            call.unwrap_or("?").to_owned(),
        )
    }
}

fn events(text: &str) -> Vec<Event<'_>> {
    let mut all: Vec<Event<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if !line.starts_with(char::is_whitespace) {
            let functions = Vec::new();
            all.push(Event { line, functions });
            continue;
        }
        let Some(event) = all.last_mut() else {
            continue;
        };
        // An address and a name, or an event's line whose thread's name is right-aligned.
        match line.trim().split_once(' ') {
            Some((address, name)) if u64::from_str_radix(address, 16).is_ok() && !name.contains(": ") => {
                event.functions.push(function(address, name));
            }
            _ => {
                let functions = Vec::new();
                all.push(Event { line, functions });
            }
        }
    }
    all
}

fn function(address: &str, name: &str) -> String {
    let name = name.trim();
    // The upper half of the addresses is the kernel's.
    let is_kernel = address.len() == 16 && address.starts_with('f');
    match name {
        "[unknown]" if is_kernel => format!("?{KERNEL}"),
        "[unknown]" => "?".to_owned(),
        name if is_kernel => format!("{name}{KERNEL}"),
        name => plain(name),
    }
}

/// Without the hash that the compiler puts behind a function's name.
fn plain(name: &str) -> String {
    let name = match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => name,
        _ => name,
    };
    name.replace("$LT$", "<")
        .replace("$GT$", ">")
        .replace("$u20$", " ")
        .replace("$u7b$", "{")
        .replace("$u7d$", "}")
        .replace("..", "::")
}

/// The thread's name and number before an event's time.
fn thread(line: &str) -> Option<(&str, u32)> {
    let mut words = line.split_whitespace();
    // A name may have spaces; the number is the last word before the time, which ends with a colon.
    let mut before: Vec<&str> = Vec::new();
    for word in words.by_ref() {
        if word.ends_with(':') && word.trim_end_matches(':').parse::<f64>().is_ok() {
            break;
        }
        before.push(word);
    }
    Some((before.first()?, before.last()?.parse().ok()?))
}

/// Threads that do the same have names that end with a number.
fn kind(name: &str) -> String {
    let alone = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let alone = alone.strip_suffix('-').unwrap_or(name);
    alone.to_owned()
}

fn seconds(line: &str) -> Option<f64> {
    line.split_whitespace()
        .find_map(|word| word.strip_suffix(':')?.parse().ok())
}

/// Where a program worked: a sample each.
pub(crate) fn on_cpu(text: &str) -> Folded {
    let mut folded = Folded::default();
    for event in events(text) {
        if let Some((name, _)) = thread(event.line) {
            let outermost_first = event.functions.into_iter().rev();
            folded.add([kind(name)].into_iter().chain(outermost_first), 1);
        }
    }
    folded
}

/// Where threads with these numbers waited, from `sched:sched_switch`. Those that could have gone on are left out.
pub(crate) fn waits(text: &str, threads: &[u32]) -> Vec<Wait> {
    let mut gone: HashMap<u32, (f64, Vec<String>)> = HashMap::new();
    let mut all = Vec::new();
    for event in events(text) {
        let field = |name: &str| {
            let (_, rest) = event.line.split_once(name)?;
            rest.split_whitespace().next()
        };
        let (Some(now), Some(previous), Some(next), Some(state)) = (
            seconds(event.line),
            field("prev_pid=").and_then(|pid| pid.parse::<u32>().ok()),
            field("next_pid=").and_then(|pid| pid.parse::<u32>().ok()),
            field("prev_state="),
        ) else {
            continue;
        };
        if let Some((since, functions)) = gone.remove(&next) {
            let microseconds = ((now - since) * 1e6).max(0.0).round() as u64;
            all.push(Wait {
                functions,
                microseconds,
            });
        }
        if threads.contains(&previous) && !state.starts_with('R') {
            let name = kind(field("prev_comm=").unwrap_or("?"));
            let outermost_first = event.functions.into_iter().rev();
            gone.insert(
                previous,
                (now, [name].into_iter().chain(outermost_first).collect()),
            );
        }
    }
    all
}

/// Waits by where they are: how many, and how long together.
pub(crate) fn by_place(waits: &[Wait]) -> BTreeMap<(String, String), (usize, u64)> {
    let mut places: BTreeMap<(String, String), (usize, u64)> = BTreeMap::new();
    for wait in waits {
        let (count, sum) = places.entry(wait.place()).or_default();
        *count += 1;
        *sum += wait.microseconds;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: &str = "\
writer 7 10.000100: cpu-clock: 
\tffffffff81000001 rtnl_newlink
\tffffffff81000002 do_syscall_64
\t          1234 kernel::linux::wire::wire::h0123456789abcdef
\t             0 [unknown]

   writer    7    10.000200:   cpu-clock: 
\tffffffff81000001 rtnl_newlink
\tffffffff81000002 do_syscall_64
\t          1234 kernel::linux::wire::wire::h0123456789abcdef
\t             0 [unknown]
";

    const SWITCH: &str = "\
writer 7 10.000000: sched:sched_switch: prev_comm=writer prev_pid=7 prev_prio=120 prev_state=D ==> next_comm=swapper/0 next_pid=0 next_prio=120
\tffffffff81000001 __schedule
\tffffffff81000001 schedule
\tffffffff81000001 wait_for_completion
\tffffffff81000001 rcu_barrier
\tffffffff81000001 netdev_run_todo
\tffffffff81000001 __x64_sys_sendto
\tffffffff81000002 do_syscall_64
\t          1234 wire

swapper 0 10.000400: sched:sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=other next_pid=9 next_prio=120

other 9 10.001000: sched:sched_switch: prev_comm=other prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=writer next_pid=7 next_prio=120

writer 7 10.002000: sched:sched_switch: prev_comm=writer prev_pid=7 prev_prio=120 prev_state=R+ ==> next_comm=other next_pid=9 next_prio=120
\tffffffff81000001 __schedule

other 9 10.003000: sched:sched_switch: prev_comm=other prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=writer next_pid=7 next_prio=120
";

    #[test]
    fn samples_of_one_stack_are_folded_from_the_outermost_function_on() {
        assert_eq!(
            on_cpu(CLOCK).0,
            BTreeMap::from([(
                "writer;?;kernel::linux::wire::wire;do_syscall_64_[k];rtnl_newlink_[k]".to_owned(),
                2
            )])
        );
    }

    #[test]
    fn threads_that_do_the_same_are_one() {
        let kinds = ["deleter-13", "opener", "tokio-rt-worker", "e2"].map(kind);
        assert_eq!(kinds, ["deleter", "opener", "tokio-rt-worker", "e2"]);
    }

    #[test]
    fn a_wait_lasts_until_the_thread_runs_again_and_preemption_is_none() {
        let waits = waits(SWITCH, &[7]);
        assert_eq!(waits.len(), 1);
        assert_eq!(waits[0].microseconds, 1000);
        assert_eq!(waits[0].functions[..2], ["writer", "wire"]);
        assert_eq!(waits[0].place(), ("rcu_barrier".to_owned(), "sendto".to_owned()));
        assert_eq!(
            by_place(&[waits[0].clone(), waits[0].clone()])
                .into_values()
                .collect::<Vec<_>>(),
            [(2, 2000)]
        );
    }
}
