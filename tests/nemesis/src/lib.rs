//! A random test of the real daemon: callers call it in every way, right and wrong, while a nemesis kills it, freezes it and
//! takes things away; then it is quiet, and the kernel, seen by other eyes than the daemon's, is to hold what was answered.
//!
//! ```text
//!  seed --> plan (rounds of operations and strikes)
//!             |  callers, 16 threads: gRPC and the plugin --.
//!             |  nemesis, one thread: blows ----------------+--> history --> check (pure) --> complaints
//!             '  quiet: the witness reads ip, nft, /proc ---'
//! ```
//! `docs/reliability.md` says how to run it and what it has found.

pub mod caller;
pub mod check;
pub mod daemon;
pub mod history;
pub mod nemesis;
pub mod plan;
pub mod quiet;
pub mod random;
pub mod room;
pub mod run;
pub mod shrink;
pub mod soak;
pub mod steady;
pub mod witness;
