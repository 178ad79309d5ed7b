//! Ports of the node that lead to workloads: who reaches them by which address, and what else they open.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod flows;
mod ledger;
mod loopback;
mod protocols;
mod reach;
#[path = "../record/mod.rs"]
mod record;
mod world;
