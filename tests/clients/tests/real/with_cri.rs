//! The interface of container runtimes, as a kubelet calls it.

use crate::containerd::{self, ctr_run};
use crate::host::Host;
use crate::member::{Member as _, expect_closed, expect_reached_by, expect_traffic};
use crate::pods::{CONTAINERD, Pods};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

/// The port of the node that pods get in turns.
const PORT: u16 = 8080;

#[test]
fn pods_come_and_go_beside_containers_of_ctr() {
    let mut host = Host::new();
    host.room.trace();
    let _containerd = containerd::start(&host);
    come_and_go(&host);
    let executed = host.room.executed();
    for plugin in ["loopback", "workloadnet-cni"] {
        assert!(
            executed.contains(plugin),
            "{plugin} was not executed: {executed:?}"
        );
    }
}

#[test]
fn an_old_sandbox_of_a_pod_goes_and_its_new_one_lives() {
    let host = Host::new();
    let _containerd = containerd::start(&host);
    replace(&host);
}

#[test]
fn pods_outlive_the_daemon_and_go_while_it_is_down() {
    let host = Host::new();
    let _containerd = containerd::start(&host);
    outlive_the_daemon(&host);
}

/// Pods beside containers of ctr, stopped twice and removed twice.
pub(crate) fn come_and_go(host: &Host) {
    let pods = Pods::of(host, CONTAINERD);
    let with_port = |name: &str| pods.run_with(name, &format!("uid-{name}"), 0, &[(PORT.into(), 80)]);
    let sandboxes = [with_port("a").unwrap(), pods.run("b", "uid-b", 0)];
    let [a, b] = [0, 1].map(|number| pods.member(&sandboxes[number]));
    expect_reached_by(host, PORT, &a);
    let refused = with_port("c").unwrap_err();
    assert!(refused.message().contains(&sandboxes[0]), "{refused}");
    host.expect_listed(&sandboxes[0], &a);
    host.expect_listed(&sandboxes[1], &b);
    assert_eq!(host.attachment(&sandboxes[0]).labels["K8S_POD_UID"], "uid-a");
    let names = a.run("cat /etc/resolv.conf");
    assert_eq!(
        names,
        "search tests.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    let other = ctr_run(host, "c1", &[]);
    expect_traffic(host, &[&a, &b, &other.container]);
    pods.stop(&sandboxes[0]);
    expect_closed(host, PORT);
    for sandbox in &sandboxes {
        pods.stop(sandbox);
        pods.stop(sandbox);
        pods.remove(sandbox);
        pods.remove(sandbox);
    }
    other.end();
    host.expect_nothing_left();
}

/// An old sandbox goes, stopped before or after its pod has a new one.
pub(crate) fn replace(host: &Host) {
    let pods = Pods::of(host, CONTAINERD);
    let peer = pods.run("peer", "uid-peer", 0);
    let (stopped, running) = (pods.run("a", "uid-a", 0), pods.run("a", "uid-a", 1));
    pods.stop(&stopped);
    let new = pods.run("a", "uid-a", 2);
    let alive = || {
        host.expect_listed(&new, &pods.member(&new));
        expect_traffic(host, &[&pods.member(&new), &pods.member(&peer)]);
    };
    pods.remove(&stopped);
    pods.stop(&running);
    alive();
    pods.stop(&running);
    alive();
    pods.remove(&running);
    alive();
    for sandbox in [&new, &peer] {
        pods.stop(sandbox);
        pods.remove(sandbox);
    }
    host.expect_nothing_left();
}

/// The daemon is killed between create and delete, and a delete comes while it is down. Somebody is in the pod's namespace
/// still, so the kernel does not take the link along: only the deletion that waits does.
pub(crate) fn outlive_the_daemon(host: &Host) {
    let pods = Pods::of(host, CONTAINERD);
    let with_port = pods.run_with("a", "uid-a", 0, &[(PORT.into(), 80)]).unwrap();
    let sandboxes = [with_port, pods.run("b", "uid-b", 0)];
    let [a, b] = [0, 1].map(|number| pods.member(&sandboxes[number]));
    host.kill_daemon();
    expect_traffic(host, &[&a, &b]);
    expect_reached_by(host, PORT, &a);
    host.room.run(&["nft", "flush", "ruleset"]);
    expect_closed(host, PORT);
    host.start_daemon();
    expect_reached_by(host, PORT, &a);
    host.expect_listed(&sandboxes[0], &a);
    host.expect_listed(&sandboxes[1], &b);
    pods.stop(&sandboxes[0]);
    pods.remove(&sandboxes[0]);
    expect_closed(host, PORT);
    let link = host.attachment(&sandboxes[1]).host_link;
    let namespace = format!("--net={}", pods.network_namespace(&sandboxes[1]));
    // Not one of those that are traced. It ends with its input.
    let mut inside = host
        .room
        .command(&["nsenter", &namespace, "sh", "-c", "ip link show eth0 && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(inside.stdout.take().unwrap());
    lines.read_line(&mut said).unwrap();
    assert!(said.contains("eth0"), "{said}");
    host.kill_daemon();
    for _ in 0..2 {
        pods.stop(&sandboxes[1]);
    }
    for _ in 0..2 {
        pods.remove(&sandboxes[1]);
    }
    host.expect_waiting(1);
    let links = host.room.run(&["ip", "-o", "link", "show"]);
    assert!(links.contains(&link), "{link} went with something else: {links}");
    host.start_daemon();
    host.expect_nothing_left();
    drop(inside.stdin.take());
    inside.wait().unwrap();
}
