//! The door alone, over a real socket, in front of a desk that is only played: what reaches the desk, and what callers hear.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adopt;
mod bad_input;
mod connections;
mod contract;
mod deadline;
mod garbage;
mod orders;
mod peer;
mod played;
mod raw;
mod served;
