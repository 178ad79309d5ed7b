//! A virtual machine in the place of a pod's container.

use crate::containerd::{self, ctr_run};
use crate::guest::Guest;
use crate::host::{Host, outside_addresses};
use crate::member::{Member as _, expect_traffic};
use crate::pods::{CONTAINERD, Pods};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

fn start(host: &Host, pods: &Pods<'_>, sandbox: &str) -> Guest {
    let pod = pods.member(sandbox);
    host.expect_listed(sandbox, &pod);
    let mac = host.attachment(sandbox).workload_mac;
    Guest::start(host, &pods.network_namespace(sandbox), &mac, pod.addresses())
}

#[test]
fn guests_come_and_go_beside_containers_of_runc() {
    let host = Host::new();
    let _containerd = containerd::start(&host);
    let pods = Pods::of(&host, CONTAINERD);
    let sandbox = pods.run("guest", "uid-guest", 0);
    let guest = start(&host, &pods, &sandbox);
    let other = ctr_run(&host, "c1", &[]);
    expect_traffic(&host, &[&guest, &other.container]);
    let peers = [other.container.addresses(), outside_addresses()].concat();
    for address in peers {
        let said = guest.run(&format!("ping -c 1 -W 5 {address}"));
        assert!(said.contains(" 1 packets received"), "{said}");
    }
    for address in guest.addresses() {
        stage::ping(&host.stage.node, address, LIMIT).unwrap();
        let said = other.container.run(&format!("ping -c 1 -W 5 {address}"));
        assert!(said.contains(" 1 packets received"), "{said}");
    }
    guest.end(&host);
    pods.stop(&sandbox);
    pods.remove(&sandbox);
    other.end();
    host.expect_nothing_left();
}

#[test]
fn guests_outlive_the_daemon_and_go_while_it_is_down() {
    let host = Host::new();
    let _containerd = containerd::start(&host);
    let pods = Pods::of(&host, CONTAINERD);
    let sandbox = pods.run("guest", "uid-guest", 0);
    let guest = start(&host, &pods, &sandbox);
    host.kill_daemon();
    expect_traffic(&host, &[&guest]);
    host.start_daemon();
    host.expect_listed(&sandbox, &guest);
    expect_traffic(&host, &[&guest]);
    host.kill_daemon();
    guest.end(&host);
    pods.stop(&sandbox);
    pods.remove(&sandbox);
    host.expect_waiting(1);
    host.start_daemon();
    host.expect_nothing_left();
}
