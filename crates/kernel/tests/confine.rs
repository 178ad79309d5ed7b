//! What cannot be done any more once the process is confined: each call is made, on a thread of its own that is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kernel::confine::{Confined, Files, Needs};
use kernel::linux::Linux;
use libc::c_long;
use model::datapath::Datapath as _;
use rustix::io::Errno;
use stage::Namespace;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const GROUP: u32 = 8;

/// Does something on a confined thread, in a namespace of its own, which may write below a folder of its own.
fn confined<T: Send>(connects: bool, act: impl FnOnce(&Linux, &Path) -> T + Send) -> T {
    let folder = tempfile::tempdir().unwrap();
    let needs = Needs {
        folders: vec![folder.path().to_owned()],
        connects,
    };
    let confine = || {
        let (linux, confined) = Linux::open(GROUP).unwrap().confined(&needs).unwrap();
        let wholly = Confined {
            calls: true,
            files: Files::Wholly,
        };
        assert_eq!(confined, wholly, "this kernel is too old for these tests");
        act(&linux, folder.path())
    };
    Namespace::new().unwrap().within(confine).unwrap()
}

/// A call and arguments with which it fails, or changes nothing, where it may be made.
type Call = (&'static str, c_long, [i64; 6]);

const fn call(name: &'static str, number: c_long, arguments: [i64; 3]) -> Call {
    let [a, b, c] = arguments;
    (name, number, [a, b, c, 0, 0, 0])
}

const SOCK_RAW: i64 = libc::SOCK_RAW as i64;
const SOCK_DGRAM: i64 = libc::SOCK_DGRAM as i64;
/// Together with one of a user namespace it is refused (clone(2)).
const CLONE_FS: i64 = libc::CLONE_FS as i64;

/// What is not there on every kernel, which then says what the filter says.
const OPTIONAL: &[Call] = &[
    call("init_module", libc::SYS_init_module, [0; 3]),
    call("finit_module", libc::SYS_finit_module, [-1, 0, 0]),
    call("delete_module", libc::SYS_delete_module, [0; 3]),
    call("bpf", libc::SYS_bpf, [-1, 0, 0]),
    call("kexec_load", libc::SYS_kexec_load, [0, 17, 0]),
    call("swapon", libc::SYS_swapon, [0; 3]),
    call("swapoff", libc::SYS_swapoff, [0; 3]),
    call("acct", libc::SYS_acct, [1, 0, 0]),
    call("quotactl", libc::SYS_quotactl, [-1, 0, 0]),
    call("add_key", libc::SYS_add_key, [0; 3]),
    call("request_key", libc::SYS_request_key, [0; 3]),
    call("keyctl", libc::SYS_keyctl, [-1, 0, 0]),
    call("perf_event_open", libc::SYS_perf_event_open, [0; 3]),
    call("process_vm_readv", libc::SYS_process_vm_readv, [-1, 0, 0]),
    call("process_vm_writev", libc::SYS_process_vm_writev, [-1, 0, 0]),
    call("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0]),
    call("io_uring_setup", libc::SYS_io_uring_setup, [0; 3]),
    call("fanotify_init", libc::SYS_fanotify_init, [-1, -1, 0]),
    call("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0]),
    call("memfd_create", libc::SYS_memfd_create, [0, -1, 0]),
    call("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, -1, 0]),
];

/// What is there on every kernel.
const CALLS: &[Call] = &[
    call("execve", libc::SYS_execve, [0; 3]),
    call("execveat", libc::SYS_execveat, [-1, 0, 0]),
    call("ptrace", libc::SYS_ptrace, [-1, 0, 0]),
    call("mount", libc::SYS_mount, [0; 3]),
    call("umount2", libc::SYS_umount2, [0, -1, 0]),
    call("move_mount", libc::SYS_move_mount, [-1, 0, -1]),
    call("open_tree", libc::SYS_open_tree, [-1, 0, -1]),
    call("fsopen", libc::SYS_fsopen, [0, -1, 0]),
    call("pivot_root", libc::SYS_pivot_root, [0; 3]),
    call("chroot", libc::SYS_chroot, [0; 3]),
    call("unshare", libc::SYS_unshare, [0; 3]),
    call("setns to any kind of namespace", libc::SYS_setns, [-1, 0, 0]),
    call(
        "setns to a user namespace",
        libc::SYS_setns,
        [-1, libc::CLONE_NEWUSER as i64, 0],
    ),
    call(
        "setns to mounts",
        libc::SYS_setns,
        [-1, libc::CLONE_NEWNS as i64, 0],
    ),
    call(
        "clone into a user namespace",
        libc::SYS_clone,
        [libc::CLONE_NEWUSER as i64 | CLONE_FS, 0, 0],
    ),
    call("clone3", libc::SYS_clone3, [0; 3]),
    call("reboot", libc::SYS_reboot, [0; 3]),
    call("sethostname", libc::SYS_sethostname, [0, -1, 0]),
    call("settimeofday", libc::SYS_settimeofday, [1, 0, 0]),
    call("clock_settime", libc::SYS_clock_settime, [-1, 0, 0]),
    call("syslog", libc::SYS_syslog, [-1, 0, 0]),
    call("personality", libc::SYS_personality, [0xffff_ffff, 0, 0]),
    call("setuid", libc::SYS_setuid, [-1, 0, 0]),
    call("setgid", libc::SYS_setgid, [-1, 0, 0]),
    call("setgroups", libc::SYS_setgroups, [-1, 0, 0]),
    call("capset", libc::SYS_capset, [0; 3]),
    call("mknodat", libc::SYS_mknodat, [-1, 0, 0]),
    call("symlinkat", libc::SYS_symlinkat, [0, -1, 0]),
    call("linkat", libc::SYS_linkat, [-1, 0, -1]),
    call("setxattr", libc::SYS_setxattr, [0; 3]),
    call("setting a limit", libc::SYS_prlimit64, [0, 0, 1]),
    call("kill of another process", libc::SYS_kill, [1, 0, 0]),
    call("tgkill of another process", libc::SYS_tgkill, [1, 1, 0]),
    call("ioctl TIOCSTI", libc::SYS_ioctl, [-1, libc::TIOCSTI as i64, 0]),
    call(
        "prctl PR_SET_MM",
        libc::SYS_prctl,
        [libc::PR_SET_MM as i64, -1, 0],
    ),
    call(
        "memory to write and execute",
        libc::SYS_mmap,
        [1, 0, (libc::PROT_WRITE | libc::PROT_EXEC) as i64],
    ),
    call(
        "memory made executable",
        libc::SYS_mprotect,
        [1, 0, libc::PROT_EXEC as i64],
    ),
    call(
        "a packet socket",
        libc::SYS_socket,
        [libc::AF_PACKET as i64, SOCK_RAW, -1],
    ),
    call(
        "a raw socket of IPv4",
        libc::SYS_socket,
        [libc::AF_INET as i64, SOCK_RAW, -1],
    ),
    call(
        "a raw socket of IPv6",
        libc::SYS_socket,
        [libc::AF_INET6 as i64, SOCK_RAW, -1],
    ),
    call(
        "a netlink socket of another kind",
        libc::SYS_socket,
        [libc::AF_NETLINK as i64, SOCK_RAW, 200],
    ),
    call(
        "a socket of another family",
        libc::SYS_socket,
        [libc::AF_VSOCK as i64, SOCK_DGRAM, -1],
    ),
];

/// What comes back, if it fails.
#[expect(
    unsafe_code,
    reason = "calls that no crate has a wrapper for, all with arguments that fail"
)]
fn make(&(_, number, [a, b, c, d, e, f]): &Call) -> Option<i32> {
    // SAFETY: no argument is an address that the kernel would write to: where one is taken, it is 0 or 1.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    (result == -1).then(|| std::io::Error::last_os_error().raw_os_error().unwrap())
}

fn made(calls: &[&[Call]]) -> Vec<(&'static str, Option<i32>)> {
    let all = calls.iter().copied().flatten();
    all.map(|call| (call.0, make(call))).collect()
}

#[test]
fn a_system_call_that_the_daemon_does_not_need_fails() {
    let got = confined(false, |_, _| made(&[CALLS, OPTIONAL]));
    let went: Vec<_> = got
        .iter()
        .filter(|(_, errno)| *errno != Some(libc::ENOSYS))
        .collect();
    assert!(went.is_empty(), "{went:?}");
}

/// The test above could fail.
#[test]
fn the_same_system_calls_reach_the_kernel_where_nothing_is_given_up() {
    // Apart from the others: one of them takes this thread's capabilities.
    let got = std::thread::spawn(|| made(&[CALLS])).join().unwrap();
    let unknown: Vec<_> = got
        .iter()
        .filter(|(_, errno)| *errno == Some(libc::ENOSYS))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn no_program_can_be_started() {
    confined(false, |_, _| {
        // Would end the test if it began.
        let became = Command::new("/bin/false").exec();
        assert_eq!(became.raw_os_error(), Some(libc::ENOSYS));
        assert!(Command::new("/bin/true").spawn().is_err());
    });
}

#[test]
fn threads_that_are_started_later_are_confined_too() {
    confined(false, |_, _| {
        let of_another = std::thread::spawn(|| (made(&[CALLS]), fs::write("/etc/workloadnet-trial", "")));
        let (calls, written) = of_another.join().unwrap();
        assert!(
            calls.iter().all(|(_, errno)| *errno == Some(libc::ENOSYS)),
            "{calls:?}"
        );
        assert_eq!(written.unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn capabilities_are_gone_but_for_those_that_are_needed_and_cannot_come_back() {
    let status = confined(false, |_, _| {
        fs::read_to_string("/proc/thread-self/status").unwrap()
    });
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
            .trim()
            .to_owned()
    };
    // DAC_READ_SEARCH 2, NET_ADMIN 12, SYS_PTRACE 19, SYS_ADMIN 21 (linux/capability.h).
    let needed = format!("{:016x}", 1_u64 << 2 | 1 << 12 | 1 << 19 | 1 << 21);
    assert_eq!(["CapEff:", "CapPrm:", "CapBnd:"].map(line), [&*needed; 3]);
    assert_eq!(["CapInh:", "CapAmb:"].map(line), ["0000000000000000"; 2]);
    assert_eq!(["NoNewPrivs:", "Seccomp:"].map(line), ["1", "2"]);
}

#[test]
fn files_are_written_where_they_are_needed_and_nowhere_else() {
    let elsewhere = tempfile::tempdir().unwrap();
    let there = elsewhere.path().join("file");
    fs::write(&there, "theirs").unwrap();
    confined(false, |_, folder| {
        let (beside, file) = (folder.join("beside"), folder.join("file"));
        fs::write(&beside, "ours").unwrap();
        fs::rename(&beside, &file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "ours");
        fs::remove_file(&file).unwrap();

        let denied = |what: &str, done: std::io::Result<()>| {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::PermissionDenied, "{what}");
        };
        denied("write", fs::write(&there, "ours"));
        denied("create", fs::write(elsewhere.path().join("new"), ""));
        denied("remove", fs::remove_file(&there));
        denied("truncate", fs::File::options().write(true).open(&there).map(drop));
        fs::write(&file, "ours").unwrap();
        denied("move away", fs::rename(&file, elsewhere.path().join("moved")));
        denied("make a folder", fs::create_dir(folder.join("new")));
        denied(
            "settings that are not networks'",
            fs::write("/proc/sys/kernel/hostname", "x"),
        );
        // Reading is free: sources of prefixes, and namespaces, may be anywhere.
        assert_eq!(fs::read_to_string(&there).unwrap(), "theirs");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    });
}

#[test]
fn no_port_is_opened_and_nothing_connected_to_unless_that_is_needed() {
    let here = (Ipv4Addr::LOCALHOST, 7777);
    let opens = |needed: bool| {
        confined(needed, |_, _| {
            [
                TcpListener::bind(here).unwrap_err().kind(),
                TcpStream::connect(here).unwrap_err().kind(),
                // Its namespace has loopback down.
                UdpSocket::bind(here)
                    .and_then(|socket| socket.send_to(b"x", here))
                    .unwrap_err()
                    .kind(),
            ]
        })
    };
    // There is no socket of IP at all.
    assert_eq!(opens(false), [ErrorKind::Unsupported; 3]);
    let unreachable = ErrorKind::NetworkUnreachable;
    assert_eq!(
        opens(true),
        [ErrorKind::PermissionDenied, unreachable, unreachable]
    );
}

/// A resolver makes calls that nobody else does.
#[test]
fn names_of_hosts_are_found() {
    confined(true, |_, _| {
        let all: Vec<SocketAddr> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert!(all.iter().any(|address| address.ip().is_loopback()), "{all:?}");
        // Asked of a name server that cannot be reached from here.
        assert!(("workloadnet.invalid", 80).to_socket_addrs().is_err());
    });
}

/// Landlock does not let anybody look at a process that is not confined, and the namespace of one is what is attached to.
#[test]
fn a_namespace_is_opened_by_the_path_of_a_process_that_may_not_be_looked_at() {
    let mut process = Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/ns/net", process.id());
    confined(false, |linux, _| {
        assert_eq!(
            fs::File::open(&path).unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
        let (namespace, id) = linux.open(&path).unwrap();
        assert_eq!(rustix::fs::fstat(&namespace).unwrap().st_ino, id.inode);
        let missing = linux.open("/proc/0/ns/net").unwrap_err();
        assert!(missing.to_string().contains("/proc/0/ns/net"), "{missing}");
    });
    process.kill().unwrap();
    process.wait().unwrap();
}

/// What was opened outside by name is opened again inside, where it can be read and not written.
#[test]
fn a_file_that_is_named_as_a_namespace_is_refused_as_what_it_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path: PathBuf = file.path().to_owned();
    confined(false, |linux, _| {
        let refused = linux.open(path.to_str().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("a regular file"), "{refused}");
        let name = rustix::fs::open(
            &path,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let name = name.unwrap();
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&name));
        let written = rustix::fs::open(again, rustix::fs::OFlags::WRONLY, rustix::fs::Mode::empty());
        assert_eq!(written.unwrap_err(), Errno::ACCESS);
    });
}
