//! Every call that the kernel room makes fails in its turn, with each error that it may give: afterwards the world is as it
//! was before, or what is left is said and a sweep takes it away; and the same again succeeds. Built only with the feature
//! `faults`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attach;
mod detach;
mod effects;
mod looks;
#[path = "../record/mod.rs"]
mod record;
mod roads;
mod sweep;
mod table;
#[path = "../witness/mod.rs"]
mod witness;
mod world;
