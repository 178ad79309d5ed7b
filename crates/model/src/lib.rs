//! Pure decisions: what an attachment is, which addresses it gets, what the kernel is to hold.
//!
//! Nothing in here waits, reads a clock, touches a file or logs: values go in, values come out. The kernel is
//! told through one coarse seam, [`datapath::Datapath`], which `kernel` and the tests' fake implement.

pub mod address;
pub mod adopt;
pub mod datapath;
pub mod flows;
pub mod forwards;
pub mod host_end;
pub mod ipam;
pub mod key;
pub mod op;
pub mod peer;
pub mod plan;
pub mod ports;
pub mod prefix;
pub mod record;
pub mod routes;
pub mod ruleset;
pub mod spared;
pub mod survey;
pub mod undo;
