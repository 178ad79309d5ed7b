//! The Linux datapath in network namespaces of each test's own, compared with what `ip` and `nft` say.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adopt;
mod ipv6;
mod node;
#[path = "../record/mod.rs"]
mod record;
mod refusals;
mod routes;
mod survey;
mod table;
mod unwire;
mod wire;
#[path = "../witness/mod.rs"]
mod witness;
