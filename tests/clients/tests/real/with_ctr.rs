//! `ctr run --cni`.

use crate::containerd::{self, ctr_run};
use crate::host::Host;
use crate::member::expect_traffic;

#[test]
fn containers_of_ctr_come_and_go() {
    let host = Host::new();
    let _containerd = containerd::start(&host);
    let (first, second) = (ctr_run(&host, "c1", &[]), ctr_run(&host, "c2", &[]));
    for run in [&first, &second] {
        host.expect_listed(&run.workload(), &run.container);
    }
    expect_traffic(&host, &[&first.container, &second.container]);
    first.end();
    second.end();
    host.expect_nothing_left();
}

#[test]
fn containers_of_ctr_outlive_the_daemon_and_go_while_it_is_down() {
    let host = Host::new();
    let _containerd = containerd::start(&host);
    let (first, second) = (ctr_run(&host, "c1", &[]), ctr_run(&host, "c2", &[]));
    host.kill_daemon();
    expect_traffic(&host, &[&first.container, &second.container]);
    host.start_daemon();
    for run in [&first, &second] {
        host.expect_listed(&run.workload(), &run.container);
    }
    first.end();
    host.kill_daemon();
    second.end();
    host.expect_waiting(1);
    host.start_daemon();
    host.expect_nothing_left();
}
