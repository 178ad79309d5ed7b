//! Threads that wait for work, and whom of them to call.

use crate::sync::{Condvar, MutexGuard};
use std::sync::{Arc, PoisonError};

/// By what one thread is called.
pub(super) type Bell = Arc<Condvar>;

/// Those that wait, behind the lock of what they wait for. The one that worked last is called first: what it needs is still in
/// the caches. A condition variable of all calls them in turn, which made a lone attach some 4 % slower.
#[derive(Default)]
pub(super) struct Idle(Vec<Bell>);

impl Idle {
    /// Calls one. Where nobody waits, whoever comes next looks for work before it does.
    pub(super) fn call(&mut self) {
        if let Some(bell) = self.0.pop() {
            bell.notify_one();
        }
    }
}

/// Waits until there is work, which somebody else may have taken before who was called came to it.
pub(super) fn wait_until<'a, T>(
    mut guard: MutexGuard<'a, T>,
    bell: &Bell,
    idle: impl Fn(&mut T) -> &mut Idle,
    is_there: impl Fn(&T) -> bool,
) -> MutexGuard<'a, T> {
    while !is_there(&guard) {
        idle(&mut guard).0.push(Arc::clone(bell));
        guard = bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
        // It may have been woken by nobody.
        idle(&mut guard).0.retain(|other| !Arc::ptr_eq(other, bell));
    }
    guard
}
