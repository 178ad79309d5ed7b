//! A process that is killed after any kernel step of an attach or a detach leaves what the next start can read: built
//! only with the feature `crash-points`.
//!
//! Each test starts itself again, in the same namespace, as the process that is killed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod record;

use kernel::linux::Linux;
use kernel::netns;
use model::address::Addresses;
use model::datapath::{Datapath as _, Target};
use model::plan::{Plan, PlanSettings};
use model::ports::{HostPort, Protocol};
use model::ruleset::Ruleset;
use model::survey::{FoundLink, Standing};
use record::record;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

const CRASH_AFTER: &str = "WORKLOADNET_CRASH_AFTER";
const NAMESPACES: &str = "WORKLOADNET_TEST_NAMESPACES";
const GROUP: u32 = 8;
const RULESET: Ruleset = Ruleset::new(GROUP, true);

/// In the process that is to be killed: the namespaces' paths.
fn victim() -> Option<Vec<String>> {
    let paths = std::env::var(NAMESPACES).ok()?;
    Some(paths.split(' ').map(str::to_owned).collect())
}

/// Runs `test` once more as the victim, which dies after `steps` kernel steps; whether it came to its end before.
fn survives(test: &str, steps: u32, paths: &[String]) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--quiet"])
        .env(CRASH_AFTER, steps.to_string())
        .env(NAMESPACES, paths.join(" "))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(
        status.success() || status.signal() == Some(9),
        "after {steps} steps: {status}"
    );
    status.success()
}

fn on_a_node(test: impl FnOnce() + Send) {
    let node = netns::create().unwrap();
    netns::within(node.as_fd(), test).unwrap();
}

fn path(namespace: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn plan(linux: &Linux, path: &str, n: u8) -> (OwnedFd, Plan) {
    let (namespace, identity) = linux.open(path).unwrap();
    let v4 = [10, 77, 0, 5 + n].into();
    let v6 = format!("fd77::{}", 5 + n).parse().unwrap();
    let port = HostPort {
        protocol: Protocol::Tcp,
        port: 8080 + u16::from(n),
        address: None,
        to: 80,
    };
    let addresses = Addresses::new(Some(v4), Some(v6)).unwrap();
    let record = record(&format!("w{n}"), addresses, identity, "x", &[port]);
    let settings = PlanSettings {
        group: GROUP,
        mtu: 1400,
    };
    (namespace, Plan::new(record, &settings, 100_000 + u32::from(n)))
}

fn attach(linux: &Linux, path: &str, n: u8) -> Target {
    let (namespace, plan) = plan(linux, path, n);
    Target {
        index: linux.wire(&namespace, &plan).unwrap(),
        link: plan.link.host,
        group: GROUP,
    }
}

fn target(found: &FoundLink) -> Target {
    Target {
        link: model::key::HostLink::parse(&found.name).unwrap(),
        index: found.index,
        group: found.group,
    }
}

/// What the table has of the node's ports.
fn ports() -> String {
    let list = ["list", "map", "inet", "workloadnet", "ports4"];
    let output = Command::new("nft").args(list).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn ping(namespace: &OwnedFd, address: &str) {
    let output = netns::within(namespace.as_fd(), || {
        Command::new("ping").args(["-c1", "-W1", address]).output()
    });
    let output = output.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn an_attach_that_was_cut_off_is_told_from_one_that_needs_only_its_host_side() {
    if let Some(paths) = victim() {
        let linux = Linux::open(GROUP).unwrap();
        linux.publish(&RULESET).unwrap();
        attach(&linux, &paths[0], 0);
        return;
    }
    on_a_node(|| {
        let linux = Linux::open(GROUP).unwrap();
        let (mut half_made, mut whole) = (0, 0);
        for steps in 1.. {
            let workload = netns::create().unwrap();
            let test = "an_attach_that_was_cut_off_is_told_from_one_that_needs_only_its_host_side";
            if survives(test, steps, &[path(&workload)]) {
                break;
            }
            let (_, plan) = plan(&linux, &path(&workload), 0);
            let found = linux.survey().unwrap().links.remove(0);
            match found.standing(GROUP) {
                Standing::HalfMade => {
                    half_made += 1;
                    assert_eq!(linux.unwire(&[target(&found)]), [Ok(())]);
                    attach(&linux, &path(&workload), 0);
                }
                Standing::Attached(record) => {
                    whole += 1;
                    assert_eq!(*record, plan.record);
                    let missing = found.missing(&record, &plan.link);
                    assert_eq!(linux.restore(&target(&found), &missing), Vec::new());
                    let forwards = record.asked.ports.forwards(record.addresses);
                    assert_eq!(linux.set_forwards(found.index, &forwards), Ok(()));
                }
                other => panic!("after {steps} steps: {other:?}"),
            }
            let found = linux.find(&plan.link.host).unwrap().unwrap();
            assert_eq!(
                found.missing(&plan.record, &plan.link),
                Vec::new(),
                "after {steps} steps"
            );
            ping(&workload, "169.254.77.1");
            ping(&workload, "fe80::1%eth0");
            linux.publish(&RULESET).unwrap();
            assert!(ports().contains("{ tcp . 8080 : 10.77.0.5 . 80 }"), "{}", ports());
            assert_eq!(linux.unwire(&[target(&found)]), [Ok(())]);
            assert!(!ports().contains("8080"), "{}", ports());
        }
        // Both ends, a look at loopback, ten ops inside and the name that tells of a port; from the record on ten ops of the host,
        // two questions for the ways to its addresses, the last look with one more question, and the port.
        assert_eq!((half_made, whole), (13, 15));
    });
}

#[test]
fn a_detach_that_was_cut_off_can_be_done_again() {
    if let Some(paths) = victim() {
        assert!(!paths.is_empty());
        let linux = Linux::open(GROUP).unwrap();
        let targets: Vec<Target> = linux.survey().unwrap().links.iter().map(target).collect();
        assert_eq!(linux.unwire(&targets), vec![Ok(()); 3]);
        return;
    }
    on_a_node(|| {
        let linux = Linux::open(GROUP).unwrap();
        let mut crashes = 0;
        for steps in 1.. {
            let workloads: Vec<OwnedFd> = (0..3).map(|_| netns::create().unwrap()).collect();
            let paths: Vec<String> = workloads.iter().map(path).collect();
            for (n, path) in (0..).zip(&paths) {
                attach(&linux, path, n);
            }
            if survives("a_detach_that_was_cut_off_can_be_done_again", steps, &paths) {
                break;
            }
            crashes += 1;
            let left = linux.survey().unwrap().links;
            let standings: Vec<Standing> = left.iter().map(|link| link.standing(GROUP)).collect();
            let half_made = standings.iter().filter(|s| **s == Standing::HalfMade).count();
            let attached = standings
                .iter()
                .filter(|s| matches!(s, Standing::Attached(_)))
                .count();
            // Three moves to another group, then their end.
            let expected = if steps <= 3 { 3 } else { 0 };
            assert_eq!(half_made + attached, expected, "{standings:?}");
            assert_eq!(half_made, if steps <= 3 { steps as usize } else { 0 });
            let targets: Vec<Target> = left.iter().map(target).collect();
            assert_eq!(linux.unwire(&targets), vec![Ok(()); left.len()]);
            assert_eq!(linux.survey().unwrap().links, Vec::new());
        }
        assert_eq!(crashes, 4);
        assert_eq!(linux.survey().unwrap().links, Vec::new());
    });
}
