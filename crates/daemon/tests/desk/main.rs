//! The desk on a fake datapath: failing at every step, waiting anywhere, told of anything, and against a small reference
//! model over any sequence of orders and accidents.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod events;
mod failures;
mod fake;
mod garbage;
mod hangs;
mod left;
mod orders;
mod ports;
mod routes;
mod sequence;
mod sources;
mod state_file;
mod turns;
