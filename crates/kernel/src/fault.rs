//! The kernel's refusals in words.

use model::datapath::Fault;
use rustix::io::Errno;
use std::io;

/// From an errno and, where the kernel gave one, its own message (extended ACK).
pub(crate) fn fault(tried: impl Into<String>, errno: i32, message: Option<&str>) -> Fault {
    let mut reason = io::Error::from_raw_os_error(errno).to_string();
    if let Some(end) = reason.find(" (os error") {
        reason.truncate(end);
    }
    if let Some(message) = message {
        reason = format!("{reason}: {message}");
    }
    Fault {
        tried: tried.into(),
        reason,
        errno,
    }
}

/// What we refuse ourselves.
pub(crate) fn ours(tried: impl Into<String>, reason: String) -> Fault {
    Fault {
        tried: tried.into(),
        reason,
        errno: 0,
    }
}

/// From a system call's error.
pub(crate) fn sys(tried: impl Into<String>, errno: Errno) -> Fault {
    fault(tried, errno.raw_os_error(), None)
}

/// From an error of the standard library.
pub(crate) fn io(tried: impl Into<String>, error: &io::Error) -> Fault {
    match error.raw_os_error() {
        Some(errno) => fault(tried, errno, None),
        None => Fault {
            tried: tried.into(),
            reason: error.to_string(),
            errno: 0,
        },
    }
}
