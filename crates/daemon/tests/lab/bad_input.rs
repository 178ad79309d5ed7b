//! Requests that only the kernel or the desk can refuse. What the door refuses by itself is tested at the door.

use crate::daemon::{Daemon, attach, detach};
use crate::sandbox::Sandbox;
use client::Error;
use client::workload::AttachRequest;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::os::unix::fs::symlink;

fn with_path(path: &str, namespace: &Sandbox) -> AttachRequest {
    let mut request = attach("w", namespace);
    path.clone_into(&mut request.netns.as_mut().unwrap().netns_path);
    request
}

/// Code and text of a refusal.
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> (String, String) {
    match outcome.unwrap_err() {
        Error::Refused(refused) => {
            assert!(!refused.reason.is_empty(), "{refused:?}");
            (format!("{:?}", refused.code), refused.message)
        }
        other => panic!("not a refusal: {other}"),
    }
}

#[test]
fn bad_input_is_refused_by_name_and_changes_nothing() {
    let daemon = Daemon::started();
    let (held, namespace) = (Sandbox::new(), Sandbox::new());
    daemon.caller().attach(attach("held", &held)).unwrap();
    let before = daemon.world();

    let in_folder = |name: &str| daemon.folder().join(name).display().to_string();
    let (fifo, loose) = (in_folder("fifo"), in_folder("loose"));
    mknodat(CWD, &*fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    symlink("/nowhere", &loose).unwrap();
    let long = format!("/{}", "x".repeat(300));
    let gone = {
        let short = Sandbox::new();
        short.path()
    };
    let socket = daemon.socket().display().to_string();
    // Where init belongs to somebody else, nobody may look at its namespace, and that is what the refusal says.
    let init = match std::fs::metadata("/proc/1/ns/net") {
        Ok(_) => "is the network namespace of the node's init",
        Err(_) => "Permission denied",
    };
    let paths: &[(&str, &str, &str)] = &[
        ("/nowhere", "NotFound", "there is nothing at \"/nowhere\""),
        (
            "/nowhere/else",
            "NotFound",
            "there is nothing at \"/nowhere/else\"",
        ),
        (
            "/etc/passwd/x",
            "NotFound",
            "there is nothing at \"/etc/passwd/x\"",
        ),
        (&gone, "NotFound", "there is nothing at"),
        (&loose, "NotFound", "there is nothing at"),
        (&long, "FailedPrecondition", "name too long"),
        (
            "/",
            "FailedPrecondition",
            "is not a network namespace: a directory",
        ),
        (
            "/etc/passwd",
            "FailedPrecondition",
            "is not a network namespace: a regular file",
        ),
        (
            "/dev/null",
            "FailedPrecondition",
            "is not a network namespace: a character device",
        ),
        (
            "/dev/zero",
            "FailedPrecondition",
            "is not a network namespace: a character device",
        ),
        // Nobody writes into it: whoever opens it waits for ever.
        (&fifo, "FailedPrecondition", "is not a network namespace: a FIFO"),
        (
            &socket,
            "FailedPrecondition",
            "is not a network namespace: a socket",
        ),
        (
            "/proc/self/ns/mnt",
            "FailedPrecondition",
            "a namespace of another kind",
        ),
        (
            "/proc/self/ns/user",
            "FailedPrecondition",
            "a namespace of another kind",
        ),
        (
            "/proc/self/ns/pid",
            "FailedPrecondition",
            "a namespace of another kind",
        ),
        (
            "/proc/self/ns/net",
            "FailedPrecondition",
            "is the network namespace of the daemon itself",
        ),
        (
            "/proc/thread-self/ns/net",
            "FailedPrecondition",
            "is the network namespace of the daemon itself",
        ),
        ("/proc/1/ns/net", "FailedPrecondition", init),
    ];
    for (path, code, text) in paths {
        let (is, said) = refused(daemon.caller().attach(with_path(path, &namespace)));
        assert!(is == *code && said.contains(text), "{path}: {is} {said}");
        // A Detach that names what is no namespace is about another sandbox than the live one.
        let mut request = detach("held");
        (*path).clone_into(&mut request.netns.as_mut().unwrap().netns_path);
        daemon.caller().detach(request).unwrap();
    }

    let addresses: &[(&[u8], &str)] = &[
        (
            &[10, 77, 0, 0],
            "10.77.0.0 cannot be given out: it is the network address of 10.77.0.0/24",
        ),
        (
            &[10, 77, 0, 1],
            "10.77.0.1 cannot be given out: it is the node's own address of 10.77.0.0/24",
        ),
        (
            &[10, 77, 0, 255],
            "10.77.0.255 cannot be given out: it is the broadcast address of 10.77.0.0/24",
        ),
        (
            &[10, 77, 1, 7],
            "10.77.1.7 cannot be given out: it is in none of this node's prefixes",
        ),
        (
            &[127, 0, 0, 1],
            "127.0.0.1 cannot be given out: it is in none of this node's prefixes",
        ),
        // The node's own, on its uplink.
        (
            &[203, 0, 113, 2],
            "203.0.113.2 cannot be given out: it is in none of this node's prefixes",
        ),
        (
            &[0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            "fd77::1 cannot be given out: it is the node's own address of fd77::/64",
        ),
        (
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
            "2001:db8::7 cannot be given out: it is in none of this node's prefixes",
        ),
    ];
    for (ip, text) in addresses {
        let mut request = attach("w", &namespace);
        request.requested_ip = vec![ip.to_vec()];
        let expected = ("InvalidArgument".to_owned(), format!("requested_ip: {text}"));
        assert_eq!(refused(daemon.caller().attach(request)), expected);
    }

    assert_eq!(daemon.world(), before);
    daemon.expect_used(1);
    assert_eq!(daemon.caller().list().len(), 1);
    daemon.caller().attach(attach("w", &namespace)).unwrap();
}
