//! gVisor's runsc below containerd. Its own network stack takes the addresses and routes over from the link.

use crate::containerd::{self, CtrRun, ctr_run};
use crate::host::Host;
use crate::member::expect_traffic;

const RUNSC: &str = "/opt/runsc/runsc-for-containerd";

fn gvisor_run<'a>(host: &'a Host, id: &str) -> CtrRun<'a> {
    host.room.write(RUNSC, include_str!("runsc.sh"));
    host.room.run(&["chmod", "+x", RUNSC]);
    ctr_run(host, id, &["--runc-binary", RUNSC])
}

#[test]
fn sandboxes_of_gvisor_come_and_go_beside_containers_of_runc() {
    let host = Host::new();
    let _containerd = containerd::start(&host);
    let (sandbox, other) = (gvisor_run(&host, "g1"), ctr_run(&host, "c1", &[]));
    host.expect_listed(&sandbox.workload(), &sandbox.container);
    expect_traffic(&host, &[&sandbox.container, &other.container]);
    sandbox.end();
    other.end();
    host.expect_nothing_left();
}

#[test]
fn sandboxes_of_gvisor_outlive_the_daemon_and_go_while_it_is_down() {
    let host = Host::new();
    let _containerd = containerd::start(&host);
    let (first, second) = (gvisor_run(&host, "g1"), gvisor_run(&host, "g2"));
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
