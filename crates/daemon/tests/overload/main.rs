//! The whole daemon, as a process on a node of its own, under more than it can take: what is asked of it is answered or
//! refused in words, what it holds is bounded, and whoever behaves is served meanwhile.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod connections;
#[path = "../lab/daemon.rs"]
#[expect(dead_code, reason = "more is done with a daemon than is done to it here")]
mod daemon;
mod frames;
mod headers;
mod messages;
#[path = "../../../kernel/tests/witness/mod.rs"]
#[expect(dead_code, reason = "indexes are of no interest here")]
mod programs;
mod questions;
mod requests;
#[path = "../lab/sandbox.rs"]
mod sandbox;
mod siege;
mod unread;
#[path = "../lab/witness.rs"]
mod witness;
