//! The only crate that speaks to the kernel: netlink, network namespaces, nftables. It acts and holds no opinions:
//! what is to be done arrives as a value of `model`.

pub mod confine;
pub mod frames;
pub mod heap;
pub mod linux;
pub mod netns;
#[doc(hidden)]
pub mod played;
pub mod socket;

mod conntrack;
mod crash;
mod encode;
mod fault;
mod message;
mod nft;
mod routes;
mod survey;
mod sysctl;
mod watch;

pub use message::{Attributes, Message};
