//! podman with CNI networks.

use crate::containerd::{self, ctr_run};
use crate::host::Host;
use crate::member::{Member as _, expect_closed, expect_reached_by, expect_traffic};
use crate::podman::{self, podman_run, podman_run_with};

#[test]
fn containers_of_podman_come_and_go_beside_containers_of_ctr() {
    let host = Host::new();
    podman::set_up(&host);
    let _containerd = containerd::start(&host);
    let any = podman_run_with(&host, "any", "workloadnet", &["--publish", "8080:80"]);
    expect_reached_by(&host, 8080, &any);
    let chosen = podman_run(&host, "chosen", "workloadnet:ip=10.77.0.77,ip=fd77:77:77::77");
    for container in [&any, &chosen] {
        host.expect_listed(&container.id, container);
    }
    let addresses = chosen.addresses();
    assert_eq!(format!("{addresses:?}"), "[10.77.0.77, fd77:77:77::77]");
    let other = ctr_run(&host, "c1", &[]);
    expect_traffic(&host, &[&any, &chosen, &other.container]);
    any.remove();
    expect_closed(&host, 8080);
    chosen.remove();
    other.end();
    host.expect_nothing_left();
}

#[test]
fn containers_of_podman_outlive_the_daemon_and_go_while_it_is_down() {
    let host = Host::new();
    podman::set_up(&host);
    let (first, second) = (
        podman_run(&host, "first", "workloadnet"),
        podman_run(&host, "second", "workloadnet"),
    );
    host.kill_daemon();
    expect_traffic(&host, &[&first, &second]);
    host.start_daemon();
    for container in [&first, &second] {
        host.expect_listed(&container.id, container);
    }
    first.remove();
    host.kill_daemon();
    second.remove();
    host.expect_waiting(1);
    host.start_daemon();
    host.expect_nothing_left();
}

#[test]
fn a_container_of_podman_has_the_mac_that_was_asked_for() {
    const MAC: &str = "02:00:00:00:00:77";
    let host = Host::new();
    podman::set_up(&host);
    let chosen = podman_run(&host, "chosen", &format!("workloadnet:ip=10.77.0.78,mac={MAC}"));
    assert_eq!(host.attachment(&chosen.id).workload_mac, MAC);
    assert_eq!(chosen.run("cat /sys/class/net/eth0/address").trim(), MAC);
    expect_traffic(&host, &[&chosen]);
    chosen.remove();
    host.expect_nothing_left();
}
