//! A node and its workloads, as far as a test of the datapath needs them.

use crate::record::record;
pub(crate) use crate::witness::{index_of, run};
use kernel::linux::Linux;
use kernel::netns;
use model::address::Addresses;
use model::datapath::{Datapath as _, Target, WireError};
use model::plan::{Plan, PlanSettings};
use model::ruleset::Ruleset;
use serde_json::Value;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

pub(crate) const RULESET: Ruleset = Ruleset::new(8, true);

/// Runs a test's body in a namespace of its own.
pub(crate) fn on_a_node(test: impl FnOnce() + Send) {
    let node = netns::create().unwrap();
    netns::within(node.as_fd(), test).unwrap();
}

pub(crate) fn inside(namespace: &OwnedFd, line: &str) -> String {
    netns::within(namespace.as_fd(), || run(line)).unwrap()
}

/// The addresses of a link, each as `ip` would have been told of it, without those that the kernel makes by itself.
pub(crate) fn addresses(link: &str) -> Vec<String> {
    let found: Value = serde_json::from_str(&run(&format!("ip -j address show dev {link}"))).unwrap();
    let of_the_link = found[0]["addr_info"].as_array().unwrap().iter();
    of_the_link
        .map(|a| {
            let text = |name: &str| a[name].as_str().unwrap();
            let mut line = format!("{}/{} scope {}", text("local"), a["prefixlen"], text("scope"));
            for flag in ["noprefixroute", "nodad"] {
                if a[flag] == true {
                    line.push(' ');
                    line.push_str(flag);
                }
            }
            line
        })
        .filter(|line| !line.contains("/64 scope link"))
        .collect()
}

/// What a listing of `ip` says, line by line.
pub(crate) fn lines(line: &str) -> Vec<String> {
    run(line).lines().map(|line| line.trim_end().to_owned()).collect()
}

pub(crate) fn path(namespace: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

pub(crate) struct Workload {
    pub(crate) namespace: OwnedFd,
    pub(crate) plan: Plan,
}

pub(crate) fn workload(linux: &Linux, id: &str, v4: Option<&str>, v6: Option<&str>, index: u32) -> Workload {
    workload_with_mtu(linux, id, v4, v6, index, 1400)
}

pub(crate) fn workload_with_mtu(
    linux: &Linux,
    id: &str,
    v4: Option<&str>,
    v6: Option<&str>,
    index: u32,
    mtu: u16,
) -> Workload {
    let namespace = netns::create().unwrap();
    let (_, identity) = linux.open(&path(&namespace)).unwrap();
    let addresses = Addresses::new(v4.map(|a| a.parse().unwrap()), v6.map(|a| a.parse().unwrap())).unwrap();
    let record = record(id, addresses, identity, "x", &[]);
    Workload {
        namespace,
        plan: Plan::new(record, &PlanSettings { group: 8, mtu }, index),
    }
}

pub(crate) fn target(workload: &Workload, index: u32) -> Target {
    Target {
        link: workload.plan.link.host,
        index,
        group: 8,
    }
}

pub(crate) fn wire(linux: &Linux, workload: &Workload) -> Result<u32, WireError> {
    let (namespace, _) = linux.open(&path(&workload.namespace)).unwrap();
    linux.wire(&namespace, &workload.plan)
}

/// All that a namespace holds, as text; neighbours that come and go by themselves, and counters, are left out.
pub(crate) fn world() -> String {
    [
        "ip -j link show",
        "ip -j address show",
        "ip -j route show table all",
        "ip -j -6 route show table all",
    ]
    .map(run)
    .join("\n")
    // What a link that was up once keeps, and nobody can tell from one that was not.
    .replace("\"qdisc\":\"noqueue\"", "\"qdisc\":\"noop\"")
}

/// Writes a setting of the namespace in which this is called.
pub(crate) fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

/// Reads a setting of the namespace in which this is called.
pub(crate) fn setting(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/{name}"))
        .unwrap()
        .trim()
        .to_owned()
}

/// Waits for something that the kernel does by itself.
pub(crate) fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(10), "not {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
