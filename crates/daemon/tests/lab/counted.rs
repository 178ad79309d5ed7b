//! What an attach and a detach ask the kernel for, counted by strace: a count is the same on every machine, where a time is not.
//! Whoever makes it more changes it here, and says why.

use crate::daemon::{Daemon, attach, detach};
use crate::sandbox::Sandbox;
use crate::strace::{Counts, of_process};
use std::collections::BTreeMap;

/// Of these the least counts: the kernel's work queue may have been late, and is asked again.
const TRIES: usize = 12;
/// How often threads wait, are woken and look for what has come is the machine's affair.
const LEFT_OUT: [&str; 15] = [
    "accept4",
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "epoll_wait",
    "futex",
    "gettid",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "poll",
    "ppoll",
    "restart_syscall",
    "write",
];

/// Dual stack: the namespace by its path, which threads outside of the confinement look up; a socket inside; five batches of
/// messages; the answer.
const ATTACH: [(&str, usize); 14] = [
    ("bind", 1),
    ("close", 3),
    ("connect", 1),
    ("fcntl", 2),
    ("fstat", 1),
    ("fstatfs", 1),
    ("getsockname", 1),
    ("ioctl", 1),
    ("open", 3),
    ("sendto", 5),
    ("setns", 2),
    ("setsockopt", 4),
    ("socket", 1),
    ("writev", 1),
];
/// A socket, and two messages: is it still the link that is meant; delete it. The answer comes before the kernel's.
const DETACH: [(&str, usize); 7] = [
    ("bind", 1),
    ("connect", 1),
    ("getsockname", 1),
    ("sendto", 2),
    ("setsockopt", 4),
    ("socket", 1),
    ("writev", 1),
];

/// All calls, those that wait included: half as many again as were seen here are no longer the machine's affair.
const AT_MOST: [usize; 2] = [165, 115];

/// Of the try with the fewest.
fn total(all: &[Counts]) -> usize {
    let totals = all.iter().map(|counts| counts.calls.values().sum());
    totals.min().unwrap()
}

/// The least of each call, and of messages.
fn least(all: &[Counts]) -> (BTreeMap<&str, usize>, usize) {
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in all.iter().flat_map(|counts| &counts.calls) {
        let is_waiting = LEFT_OUT.contains(&name.as_str()) || name.starts_with("recv");
        if !is_waiting {
            let least = calls.entry(name).or_insert(*count);
            *least = (*least).min(*count);
        }
    }
    // Once is enough to be able to do without.
    calls.retain(|name, _| all.iter().all(|counts| counts.calls.contains_key(*name)));
    let messages = all.iter().map(|counts| counts.messages).min();
    (calls, messages.unwrap())
}

#[test]
fn an_attach_and_a_detach_ask_the_kernel_for_no_more_than_this() {
    let daemon = Daemon::started();
    let (caller, pid) = (daemon.caller(), daemon.pid());
    caller.status().unwrap();
    let (mut attaches, mut detaches) = (Vec::new(), Vec::new());
    for n in 0..TRIES {
        let sandbox = Sandbox::new();
        let id = format!("w{n}");
        let counts = of_process(pid, || Ok(caller.attach(attach(&id, &sandbox)).map(drop)?));
        attaches.push(counts.unwrap());
        let counts = of_process(pid, || Ok(caller.detach(detach(&id))?));
        detaches.push(counts.unwrap());
    }
    let totals = [total(&attaches), total(&detaches)];
    assert!(
        totals.iter().zip(AT_MOST).all(|(is, most)| *is <= most),
        "{totals:?}"
    );
    let (calls, messages) = least(&attaches);
    assert_eq!((messages, calls), (27, BTreeMap::from(ATTACH)));
    let (calls, messages) = least(&detaches);
    assert_eq!((messages, calls), (2, BTreeMap::from(DETACH)));
}
