//! Nodes of an API server that lives, dies, lies and comes back, as they are told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../api_server/mod.rs"]
mod api_server;
mod follower;
mod nodes;
mod outage;
mod ways;
mod writes;
