//! The one clock that goes on over a restart of the daemon, and stands in one line with what the state file says.

use model::ipam::Moment;
use std::time::Duration;

/// Time since boot (`CLOCK_BOOTTIME`).
pub(crate) fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is positive");
    Moment(Duration::new(
        seconds,
        u32::try_from(time.tv_nsec).expect("below a second"),
    ))
}
