//! Tests of the whole daemon, as one program: each has a node of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod guard;
mod life;
mod wire;
