//! The daemon as a container has it that is not privileged: `/proc/sys` can only be read.

use crate::daemon::{Build, Daemon, attach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use stage::wait::{PATIENCE, eventually};
use std::process::{Command, Stdio};

/// What a runtime does to a container, in mounts of the daemon's own; the node's settings are in a folder, too.
const CONTAINED: &str = r#"
set -e
mount --make-rprivate /
mount --bind /proc/sys/net "$0"
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec "$@"
"#;

/// Starts it and waits until it answers.
fn start_contained(daemon: &mut Daemon) {
    let folder = daemon.folder().join("net");
    std::fs::create_dir_all(&folder).unwrap();
    let usual = daemon.command(Build::Usual);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", CONTAINED])
        .arg(folder)
        .arg(usual.get_program())
        .args(usual.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(daemon.log_file());
    let child = daemon.spawn(command);
    daemon.adopt(child);
    eventually(
        PATIENCE,
        "the daemon has read the kernel",
        || match daemon.caller().status() {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        },
        |said| said.is_empty() || said.contains("ip_forward"),
    );
}

#[test]
fn a_daemon_with_a_read_only_proc_sys_attaches_with_its_settings_at_another_path() {
    let mut daemon = Daemon::new();
    run(&daemon.node.node, "sysctl -w net.ipv4.ip_forward=0");
    start_contained(&mut daemon);
    let said = daemon.caller().status().unwrap_err().to_string();
    assert!(
        said.contains("write 1 to /proc/sys/net/ipv4/ip_forward: Read-only file system"),
        "{said}"
    );
    daemon.stop();

    daemon.set_rest(format!("proc_sys_net = {:?}\n", daemon.folder().join("net")));
    // A new link lacks what is written.
    run(&daemon.node.node, "sysctl -qw net.ipv6.conf.default.accept_ra=2");
    start_contained(&mut daemon);
    let sandbox = Sandbox::new();
    let answer = daemon.caller().attach(attach("web", &sandbox)).unwrap();
    let setting = format!(
        "sysctl -n net.ipv6.conf.{}.accept_ra net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
        answer.host_link
    );
    assert_eq!(run(&daemon.node.node, &setting), "0\n1\n1\n");
    daemon.stop();

    daemon.set_rest(format!("proc_sys_net = {:?}\n", daemon.folder()));
    let mut refused = daemon.spawn(daemon.command(Build::Usual));
    assert!(!refused.wait().unwrap().success());
    let log = daemon.logged();
    assert!(log.contains("network.proc_sys_net: use "), "{log}");
    assert!(log.contains("it is no /proc/sys/net"), "{log}");
}
