//! A node, a workload on it, and what both hold, as programs that are none of ours tell it.

use crate::record::record;
pub(crate) use crate::witness::{index_of, run};
use kernel::linux::Linux;
use kernel::netns;
use model::address::Addresses;
use model::datapath::{Datapath as _, Target, WireError};
use model::plan::{Plan, PlanSettings};
use model::ports::{HostPort, Protocol};
use model::ruleset::Ruleset;
use model::survey::Standing;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

pub(crate) const GROUP: u32 = 8;
pub(crate) const RULESET: Ruleset = Ruleset::new(GROUP, true);

/// Runs a test's body in a namespace of its own, with all that it calls on one thread.
pub(crate) fn on_a_node(test: impl FnOnce(&Linux) + Send) {
    let node = netns::create().unwrap();
    let body = || {
        let linux = Linux::open(GROUP).unwrap();
        linux.publish(&RULESET).unwrap();
        test(&linux);
    };
    netns::within(node.as_fd(), body).unwrap();
}

/// A namespace with what is to be attached to it: both families and a port.
pub(crate) struct Workload {
    pub(crate) namespace: OwnedFd,
    pub(crate) plan: Plan,
}

impl Workload {
    pub(crate) fn new(linux: &Linux, n: u8) -> Self {
        let made = netns::create().unwrap();
        let (namespace, identity) = linux.open(&path(&made)).unwrap();
        let port = HostPort {
            protocol: Protocol::Tcp,
            port: 8080 + u16::from(n),
            address: None,
            to: 80,
        };
        let v4 = [10, 77, 0, 5 + n].into();
        let v6 = format!("fd77::{}", 5 + n).parse().unwrap();
        let addresses = Addresses::new(Some(v4), Some(v6)).unwrap();
        let record = record(&format!("w{n}"), addresses, identity, "x", &[port]);
        let settings = PlanSettings {
            group: GROUP,
            mtu: 1400,
        };
        let plan = Plan::new(record, &settings, 100_000 + 100 * u32::from(n));
        Self { namespace, plan }
    }

    pub(crate) fn attach(&self, linux: &Linux) -> Result<u32, WireError> {
        linux.wire(&self.namespace, &self.plan)
    }

    pub(crate) fn target(&self, index: u32) -> Target {
        Target {
            link: self.plan.link.host,
            index,
            group: GROUP,
        }
    }

    /// It is all there, and packets flow.
    #[track_caller]
    pub(crate) fn is_whole(&self, linux: &Linux, why: &impl std::fmt::Debug) {
        let found = linux.find(&self.plan.link.host).unwrap();
        let found = found.unwrap_or_else(|| panic!("{why:?}: it is gone"));
        assert_eq!(found.missing(&self.plan.record, &self.plan.link), [], "{why:?}");
        assert_eq!(
            found.standing(GROUP),
            Standing::Attached(Box::new(self.plan.record.clone()))
        );
        assert_eq!(linux.drift(&RULESET).unwrap(), Vec::<String>::new(), "{why:?}");
    }

    /// What the workload's namespace holds.
    pub(crate) fn inside(&self) -> String {
        netns::within(self.namespace.as_fd(), links_and_routes).unwrap()
    }
}

fn path(namespace: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

/// What a sweep does: half-made links go, what is missing of others is put back, the table is made whole.
pub(crate) fn sweep(linux: &Linux) {
    let mut half_made = Vec::new();
    for found in linux.survey().unwrap().links {
        let target = |group| Target {
            link: found.host_link().unwrap(),
            index: found.index,
            group,
        };
        match found.standing(GROUP) {
            Standing::HalfMade => half_made.push(target(found.group)),
            Standing::Attached(record) | Standing::Regrouped(record) => {
                let settings = PlanSettings {
                    group: GROUP,
                    mtu: 1400,
                };
                let plan = Plan::new(*record, &settings, found.index);
                let missing = found.missing(&plan.record, &plan.link);
                assert_eq!(linux.restore(&target(GROUP), &missing), []);
                linux
                    .set_forwards(
                        found.index,
                        &plan.record.asked.ports.forwards(plan.record.addresses),
                    )
                    .unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(linux.unwire(&half_made), vec![Ok(()); half_made.len()]);
    if !linux.drift(&RULESET).unwrap().is_empty() {
        linux.publish(&RULESET).unwrap();
    }
}

/// What the namespace of the calling thread holds: links, addresses, routes, permanent neighbours, tables.
pub(crate) fn world() -> String {
    links_and_routes() + &output(&["nft", "-s", "list", "ruleset"], "")
}

fn links_and_routes() -> String {
    let looks = "link show\naddress show\nneighbour show nud permanent\nroute show table all\n";
    let all = output(&["ip", "-d", "-batch", "-"], looks)
        + &output(&["ip", "-6", "-batch", "-"], "route show table all\n");
    // What a link that was up once keeps, and nobody can tell from one that was not.
    let all = all.replace("qdisc noqueue", "qdisc noop");
    // The kernel tells of what was put back after what was not taken away.
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Only what differs is shown.
#[track_caller]
pub(crate) fn same(is: &str, was: &str, why: &impl std::fmt::Debug) {
    let beyond = |all: &str, other: &str| -> Vec<String> {
        let lines = all
            .lines()
            .filter(|line| !other.lines().any(|of_the_other| of_the_other == *line));
        lines.map(str::to_owned).collect()
    };
    let (came, went) = (beyond(is, was), beyond(was, is));
    assert!(is == was, "{why:?}: came {came:#?}, went {went:#?}");
}

fn output(words: &[&str], input: &str) -> String {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}
