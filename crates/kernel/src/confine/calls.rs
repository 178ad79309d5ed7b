//! System calls by seccomp(2): a list of those that may be made. Any other one fails with ENOSYS, as on a kernel that does not
//! have it: libraries that try a newer call first go on with the older one (glibc: clone3, whose flags no filter can see).
//!
//! What is not conditioned is decided by the kernel without running the filter (since Linux 5.11), so what is called often is not.

use libc::c_long;
use rustix::process::getpid;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter,
};
use std::collections::BTreeMap;
use std::error::Error;

/// Memory, threads, time and signals, whatever a thread is for.
const ANY_THREAD: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // A log line, for which there is to be room, or the words of a panic.
    libc::SYS_ppoll,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Files, sockets and events.
const DAEMON: &[c_long] = &[
    // Files: read
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statfs,
    libc::SYS_statx,
    // Files: labels and cooling addresses, settings, deletions that were carried out
    libc::SYS_fchmod,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_mkdirat,
    libc::SYS_pwrite64,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    // Events
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_pselect6,
    // Sockets
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Who and where
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getppid,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Giving up more
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
];

/// Older forms of calls above, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Calls that open a file by its path, and which argument says how.
#[cfg(target_arch = "x86_64")]
const OPENS: &[(c_long, u8)] = &[(libc::SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(not(target_arch = "x86_64"))]
const OPENS: &[(c_long, u8)] = &[(libc::SYS_openat, 2)];

/// All of them make a new namespace (sched(7)).
const CLONE_NEW: i32 = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// `PR_SET_VMA`, by which an allocator names memory.
const PR_SET_VMA: i32 = 0x5356_4d41;
/// `NS_GET_NSTYPE`, linux/nsfs.h.
const NS_GET_NSTYPE: u32 = 0xb703;
/// The kind of a socket without its flags (net.h).
const SOCK_TYPE_MASK: i32 = 0xf;

type Conditions = Vec<SeccompCondition>;
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Of a call's argument, as far as the mask reaches.
fn masked(argument: u8, mask: i32, value: i32) -> Outcome<SeccompCondition> {
    let [mask, value] = [mask, value].map(|number| u64::from(number.cast_unsigned()));
    Ok(SeccompCondition::new(
        argument,
        Dword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )?)
}

fn equals(argument: u8, value: i32) -> Outcome<SeccompCondition> {
    let value = u64::from(value.cast_unsigned());
    Ok(SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, value)?)
}

fn one_of(argument: u8, values: &[i32]) -> Outcome<Vec<Conditions>> {
    values
        .iter()
        .map(|value| Ok(vec![equals(argument, *value)?]))
        .collect()
}

/// Calls that may be made with some arguments only: each with the alternatives. Sockets of IP are made only by whoever connects.
fn conditioned(connects: bool) -> Outcome<Vec<(c_long, Vec<Conditions>)>> {
    let own = getpid().as_raw_nonzero().get();
    let mut sockets = vec![vec![equals(0, libc::AF_UNIX)?]];
    for protocol in [libc::NETLINK_ROUTE, libc::NETLINK_NETFILTER] {
        sockets.push(vec![equals(0, libc::AF_NETLINK)?, equals(2, protocol)?]);
    }
    let internet: &[i32] = if connects {
        &[libc::AF_INET, libc::AF_INET6]
    } else {
        &[]
    };
    for &family in internet {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            sockets.push(vec![equals(0, family)?, masked(1, SOCK_TYPE_MASK, kind)?]);
        }
    }
    Ok(vec![
        (libc::SYS_socket, sockets),
        (libc::SYS_socketpair, one_of(0, &[libc::AF_UNIX])?),
        (libc::SYS_setns, one_of(1, &[libc::CLONE_NEWNET])?),
        (libc::SYS_tgkill, one_of(0, &[own])?),
        (libc::SYS_kill, one_of(0, &[own])?),
        (
            libc::SYS_ioctl,
            one_of(
                1,
                &[
                    libc::FIONBIO as i32,
                    libc::FIOCLEX as i32,
                    libc::FIONREAD as i32,
                    libc::TCGETS as i32,
                    // A resolver's, for a link-local name server.
                    libc::SIOCGIFINDEX as i32,
                    libc::SIOCGIFNAME as i32,
                    NS_GET_NSTYPE.cast_signed(),
                ],
            )?,
        ),
        // The own limits may be read.
        (
            libc::SYS_prlimit64,
            vec![vec![SeccompCondition::new(2, Qword, SeccompCmpOp::Eq, 0)?]],
        ),
    ])
}

/// What every thread may do with some arguments only.
fn conditioned_for_any_thread() -> Outcome<Vec<(c_long, Vec<Conditions>)>> {
    Ok(vec![
        // A thread of this process, in its namespaces.
        (
            libc::SYS_clone,
            vec![vec![masked(
                0,
                libc::CLONE_THREAD | CLONE_NEW,
                libc::CLONE_THREAD,
            )?]],
        ),
        // No memory is written and executed.
        (
            libc::SYS_mmap,
            vec![
                vec![masked(2, libc::PROT_EXEC, 0)?],
                vec![masked(2, libc::PROT_WRITE, 0)?],
            ],
        ),
        (libc::SYS_mprotect, vec![vec![masked(2, libc::PROT_EXEC, 0)?]]),
        (
            libc::SYS_prctl,
            one_of(
                0,
                &[
                    libc::PR_GET_NAME,
                    libc::PR_SET_NAME,
                    libc::PR_SET_NO_NEW_PRIVS,
                    libc::PR_SET_SECCOMP,
                    PR_SET_VMA,
                ],
            )?,
        ),
    ])
}

fn program(free: &[&[c_long]], conditioned: Vec<(c_long, Vec<Conditions>)>) -> Outcome<BpfProgram> {
    let free = free.iter().copied().flatten().map(|call| (*call, Vec::new()));
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = free.collect();
    for (call, alternatives) in conditioned {
        let made: Result<_, _> = alternatives.into_iter().map(SeccompRule::new).collect();
        rules.insert(call, made?);
    }
    let otherwise = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, otherwise, SeccompAction::Allow, architecture)?.try_into()?)
}

fn for_the_daemon(connects: bool) -> Outcome<BpfProgram> {
    let mut conditions = conditioned(connects)?;
    conditions.extend(conditioned_for_any_thread()?);
    program(&[ANY_THREAD, DAEMON, OLDER], conditions)
}

fn for_names() -> Outcome<BpfProgram> {
    let mut conditions = conditioned_for_any_thread()?;
    for (call, flags) in OPENS {
        conditions.push((*call, vec![vec![masked(*flags, libc::O_PATH, libc::O_PATH)?]]));
    }
    // The end of the process.
    conditions.push((libc::SYS_tgkill, one_of(0, &[getpid().as_raw_nonzero().get()])?));
    program(&[ANY_THREAD], conditions)
}

fn confine_to(program: Outcome<BpfProgram>) -> bool {
    let applied = program.and_then(|program| Ok(apply_filter(&program)?));
    if let Err(error) = &applied {
        tracing::warn!(%error, "any system call may be made: seccomp cannot be used");
    }
    applied.is_ok()
}

/// Confines the calling thread, and all that it starts, to what the daemon needs. Whether that could be done.
pub(super) fn confine(connects: bool) -> bool {
    confine_to(for_the_daemon(connects))
}

/// Confines the calling thread, and all that it starts, to opening files by name.
pub(super) fn confine_to_names() -> bool {
    confine_to(for_names())
}
