//! Threads without which the desk is no desk: if one of them panics, the process ends, and whoever supervises it starts
//! another one, which reads everything back from the kernel. A desk that goes on with a thread less would take orders in
//! and never answer.

use crate::sync::Builder;
use std::io;
use std::thread;

/// Ends the process if dropped by a panic.
struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        // A checker ends what is left of a run by unwinding it, and tells of panics itself.
        if thread::panicking() && !cfg!(feature = "schedules") {
            let name = thread::current().name().unwrap_or_default().to_owned();
            tracing::error!(thread = name, "a thread panicked, the daemon ends");
            std::process::abort();
        }
    }
}

/// Does something that must not panic.
pub(super) fn guarded<T>(act: impl FnOnce() -> T) -> T {
    let _vital = Vital;
    act()
}

/// Starts a thread that lives as long as the process.
pub(crate) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name).spawn(move || guarded(run))?;
    Ok(())
}
