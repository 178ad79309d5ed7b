//! The daemon: one order per key, leases, recovery, the gRPC door.

pub mod account;
mod clock;
pub mod config;
pub mod desk;
pub mod door;
mod fault;
pub mod lock;
pub mod log;
pub mod metrics;
pub mod queue;
pub mod service;
pub mod socket;
pub mod source;
pub mod state_file;
pub mod sync;
pub mod tally;
mod whole;
