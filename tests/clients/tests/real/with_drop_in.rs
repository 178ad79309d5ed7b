//! containerd 2 and its ctr, built with go/cni in the place of go-cni: no CNI plugin is there, and none is missed.

use crate::containerd;
use crate::host::Host;
use crate::with_cri::{come_and_go, outlive_the_daemon, replace};

/// Plays on a host that has no plugin of any kind, and no network's configuration, before and after.
fn play(release: &str, scene: fn(&Host)) {
    let host = Host::with_release(release);
    let _containerd = containerd::start_without_plugin(&host);
    let plugins = || ["/opt/cni", "/etc/cni"].map(|folder| host.room.reach(folder).exists());
    assert_eq!(plugins(), [false, false]);
    scene(&host);
    assert_eq!(plugins(), [false, false]);
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
