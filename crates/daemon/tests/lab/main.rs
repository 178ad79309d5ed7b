//! The whole daemon, as a process on a node of each test's own: what a runtime sees of it, what the kernel holds, and what
//! is left after a crash.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adopt;
mod adopt_crash;
#[path = "../../../cluster/tests/api_server/mod.rs"]
#[expect(
    dead_code,
    reason = "it fails in more ways than the daemon is tried with here"
)]
mod api_server;
mod bad_input;
mod confined;
mod container;
mod counted;
mod crash;
mod crash_of_routes;
mod crossing;
mod daemon;
mod hostile;
mod kubernetes;
mod large_mtu;
mod metrics;
mod others;
mod packets;
mod ports;
#[path = "../../../kernel/tests/witness/mod.rs"]
#[expect(dead_code, reason = "indexes are of no interest here")]
mod programs;
mod routes;
mod sandbox;
mod scenario;
mod scenarios;
mod service;
mod sources;
#[path = "../../../../bench/src/strace.rs"]
#[expect(
    dead_code,
    reason = "the bench counts what it does itself, too, and what programs do"
)]
mod strace;
mod unreachable;
mod upgrade;
mod witness;
