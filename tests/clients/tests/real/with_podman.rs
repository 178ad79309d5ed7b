//! podman with CNI networks.

use crate::containerd::{self, ctr_run};
use crate::host::Host;
use crate::member::{Member as _, expect_traffic};
use crate::podman::{self, podman_run, try_podman_run};

#[test]
fn containers_of_podman_come_and_go_beside_containers_of_ctr() {
    let host = Host::new();
    podman::set_up(&host);
    let _containerd = containerd::start(&host);
    let any = podman_run(&host, "any", "workloadnet");
    let chosen = podman_run(&host, "chosen", "workloadnet:ip=10.77.0.77,ip=fd77:77:77::77");
    for container in [&any, &chosen] {
        host.expect_listed(&container.id, container);
    }
    let addresses = chosen.addresses();
    assert_eq!(format!("{addresses:?}"), "[10.77.0.77, fd77:77:77::77]");
    let other = ctr_run(&host, "c1", &[]);
    expect_traffic(&host, &[&any, &chosen, &other.container]);
    any.remove();
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
fn a_mac_that_podman_asks_for_is_refused_by_name_and_leaves_nothing() {
    let host = Host::new();
    podman::set_up(&host);
    let output = try_podman_run(&host, "chosen", "workloadnet:mac=02:00:00:00:00:77");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success(),
        "a daemon that gives a MAC has a better test to pass"
    );
    assert!(said.contains("requested-mac"), "{said}");
    host.room
        .run(&["podman", "rm", "--force", "--time", "0", "chosen"]);
    host.expect_nothing_left();
}
