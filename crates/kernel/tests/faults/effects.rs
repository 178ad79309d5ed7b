//! How each call may fail, and from where that is known; and the run through all of it.

use mishap::{Call, Effect, Kind, Strike, arm, disarm};
use std::io;

/// errno-base.h, errno.h.
pub(crate) const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const ELOOP: i32 = 40;
pub(crate) const ENOBUFS: i32 = 105;

/// One call that fails in one way.
#[derive(Debug)]
pub(crate) struct Mishap {
    pub(crate) call: Call,
    pub(crate) effect: Effect,
}

impl Mishap {
    pub(crate) fn strike(&self) -> Strike {
        Strike {
            kind: self.call.kind,
            nth: self.call.nth,
            effect: self.effect,
        }
    }

    pub(crate) fn errno(&self) -> Option<i32> {
        match self.effect {
            Effect::Errno(errno) | Effect::GivenUp(errno) => Some(errno),
            Effect::Cut | Effect::Interrupted => None,
        }
    }

    /// Whether a text says which step failed, and why.
    #[track_caller]
    pub(crate) fn is_named_in(&self, text: &str) {
        if let Some(errno) = self.errno() {
            let reason = io::Error::from_raw_os_error(errno).to_string();
            let reason = reason.split(" (os error").next().unwrap().to_owned();
            assert!(text.contains(&reason), "{self:?}: {text}");
        }
        if self.call.kind == Kind::Message {
            assert!(text.contains(&self.call.what), "{self:?}: {text}");
        }
    }
}

/// The errors of a call. Such as would mean that there is nothing to do are not among those of a deletion, nor of a look.
pub(crate) fn effects(call: &Call) -> Vec<Effect> {
    let errors: &[i32] = match call.kind {
        // socket(2), and bind and setsockopt behind it.
        Kind::Socket => &[EPERM, ENFILE, EMFILE, ENOBUFS],
        // netlink_sendmsg (net/netlink/af_netlink.c); a security module refuses with EPERM.
        Kind::Send => &[EPERM, ENOMEM, ENOBUFS],
        // recv(2); EAGAIN is the patience run out, ENOBUFS an overrun, EINTR a signal.
        Kind::Receive => &[EINTR, EAGAIN, ENOMEM, ENOBUFS],
        // The answer itself was lost: what was asked for may be done.
        Kind::Answer | Kind::Notice => &[EAGAIN, ENOBUFS],
        // net/core/rtnetlink.c and what is behind it, net/netfilter/nf_tables_api.c. EOPNOTSUPP and ENOENT of a table would mean
        // that the kernel has none for ARP, and the others are put in place.
        Kind::Message if is_undoing(&call.what) => &[EPERM, ENOMEM, EBUSY],
        // With EEXIST a workload goes without its second name.
        Kind::Message if call.what.contains(" altname wk-") => &[EPERM, ENOMEM, ENODEV, EINVAL],
        // There already is as good as made.
        Kind::Message if call.what.contains("proto 77") => &[EPERM, ENOMEM, ENODEV, EINVAL],
        Kind::Message if is_look(&call.what) => &[EPERM, ENOMEM, ENOBUFS],
        Kind::Message => &[EPERM, ENOMEM, EACCES, EBUSY, EEXIST, ENODEV, EINVAL, ENOSPC],
        // setns(2).
        Kind::Enter => &[EPERM, ENOMEM, EINVAL],
        // open(2), fstatfs(2), ioctl_nsfs(2).
        Kind::Path => &[EACCES, EMFILE, ENFILE, ENOMEM, EIO, ELOOP],
        // open(2), write(2) below /proc/sys.
        Kind::Setting => &[EPERM, ENOENT, EIO, ENOMEM, EACCES, EINVAL, EMFILE, EROFS],
        // open(2), write(2), rename(2), unlink(2), flock(2), bind(2). What is not there is no error of most of them.
        Kind::File => &[EACCES, EMFILE, ENOSPC, EIO, EROFS],
    };
    let errors = errors.iter().map(|errno| Effect::Errno(*errno));
    let spoilt: &[Effect] = match call.kind {
        Kind::Answer => &[Effect::Cut, Effect::Interrupted, Effect::GivenUp(ENOMEM)],
        _ => &[],
    };
    errors.chain(spoilt.iter().copied()).collect()
}

fn is_undoing(what: &str) -> bool {
    ["delete", "lo down", " group "]
        .iter()
        .any(|word| what.contains(word))
}

fn is_look(what: &str) -> bool {
    ["show", "get", "list", "conntrack -L", "conntrack -C"]
        .iter()
        .any(|word| what.contains(word))
}

/// Every call of an act, as it is without mishaps.
pub(crate) fn recorded(act: impl FnOnce()) -> Vec<Call> {
    arm(&[]);
    act();
    let calls = disarm();
    assert!(!calls.is_empty());
    calls
}

/// Which errors each call fails with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errors {
    /// All that it may give.
    All,
    /// Of a message two, the next one's two behind them: where what is made of an error is the same for all messages.
    InTurn,
}

/// The act once for each mishap of each call; how many there were.
pub(crate) fn each(calls: &[Call], errors: Errors, mut case: impl FnMut(Mishap)) -> usize {
    let mut cases = 0;
    for (n, call) in calls.iter().enumerate() {
        let mut effects = effects(call);
        if errors == Errors::InTurn && call.kind == Kind::Message {
            let first = 2 * n % effects.len();
            effects.rotate_left(first);
            effects.truncate(2);
        }
        for effect in effects {
            cases += 1;
            case(Mishap {
                call: call.clone(),
                effect,
            });
        }
    }
    cases
}

/// An act, of which one call fails: which one that is this time is noted, as some look again until something is so.
pub(crate) fn under<T>(mishap: &mut Mishap, act: impl FnOnce() -> T) -> T {
    arm(&[mishap.strike()]);
    let outcome = act();
    let is_struck = |call: &Call| (call.kind, call.nth) == (mishap.call.kind, mishap.call.nth);
    if let Some(call) = disarm().into_iter().find(is_struck) {
        mishap.call = call;
    }
    outcome
}
