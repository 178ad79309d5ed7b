//! The real daemon, as a process of its own, of which one system call fails after the other: at its start, in an attach, a
//! detach, and while it puts back what others took away. Looked at from outside, by gRPC, `ip` and `nft`: either it says no and
//! names what failed, or it serves; what is left is swept, and the same again succeeds. Built only with the feature `faults`.
//!
//! `crates/kernel/tests/faults` tries all errors of all calls that the kernel room makes, on one thread. Here calls come from
//! all threads of the daemon, confined as it is, and some of the errors have to do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../lab/daemon.rs"]
#[expect(dead_code, reason = "the lab needs more of it")]
mod daemon;
#[path = "../../../kernel/tests/faults/effects.rs"]
#[expect(dead_code, reason = "who arms its own thread needs more of it")]
mod effects;
mod node;
mod orders;
#[path = "../../../kernel/tests/witness/mod.rs"]
#[expect(dead_code, reason = "indexes are of no interest here")]
mod programs;
#[path = "../lab/sandbox.rs"]
mod sandbox;
mod seam;
mod start;
mod sweep;
#[path = "../lab/witness.rs"]
#[expect(dead_code, reason = "the lab needs more of it")]
mod witness;
