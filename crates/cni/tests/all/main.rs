//! The plugin as runtimes call it: against a played daemon, and against the real one in namespaces.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(feature = "libcni")]
mod adopted;
mod input;
#[cfg(feature = "libcni")]
mod libcni;
#[cfg(feature = "libcni")]
mod migration;
mod node;
mod played;
mod plugin;
mod real;
mod recorded;
mod verbs;
