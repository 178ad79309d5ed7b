//! containerd 1.7 and 2 and their ctr, built with go/cni in the place of go-cni: no CNI plugin is there, and none is missed.

use crate::containerd;
use crate::host::Host;
use crate::with_cri::{come_and_go, outlive_the_daemon, replace};

/// What runs without a plugin: the runtime, the daemon, the shell that says which number each of them has, and what runc and
/// the shim are called when they start themselves once more.
const RUNTIME: [&str; 7] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "exe",
    "runc",
    "sh",
    "workloadnetd",
];
/// What members run, and is looked for in their own image.
const MEMBER: [&str; 2] = ["httpd", "who"];

/// Plays on a host that has no plugin of any kind, and no network's configuration, before and after; and nothing else than
/// the runtime, the daemon and the members is executed meanwhile.
fn play(release: &str, scene: fn(&Host)) {
    let host = Host::with_release(release);
    let _containerd = containerd::start_without_plugin(&host);
    let plugins = || ["/opt/cni", "/etc/cni"].map(|folder| host.room.reach(folder).exists());
    assert_eq!(plugins(), [false, false]);
    scene(&host);
    assert_eq!(plugins(), [false, false]);
    // That the trace sees plugins is known from one with them, in with_cri.
    let executed = host.room.executed();
    let others: Vec<_> = executed
        .iter()
        .filter(|name| !RUNTIME.contains(&name.as_str()) && !MEMBER.contains(&name.as_str()))
        .collect();
    assert_eq!(others, Vec::<&String>::new());
    for name in ["containerd", "containerd-shim-runc-v2", "runc", "workloadnetd"] {
        assert!(executed.contains(name), "{name} was not traced: {executed:?}");
    }
}

#[test]
fn pods_of_the_newest_containerd_come_and_go_without_a_plugin() {
    play("newest", come_and_go);
}

#[test]
fn an_old_sandbox_of_the_newest_containerd_goes_and_the_new_one_lives() {
    play("newest", replace);
}

#[test]
fn pods_of_the_newest_containerd_outlive_the_daemon_and_go_while_it_is_down() {
    play("newest", outlive_the_daemon);
}

#[test]
fn pods_of_an_older_containerd_come_and_go_without_a_plugin() {
    play("older", come_and_go);
}

#[test]
fn pods_of_the_oldest_containerd_come_and_go_without_a_plugin() {
    play("oldest", come_and_go);
}
