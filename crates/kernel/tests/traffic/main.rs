//! Packets through what the Linux datapath wires, on a node of each test's own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod advertised;
mod first_packet;
mod neighbours;
mod reach;
#[path = "../record/mod.rs"]
mod record;
mod sources;
mod world;
