//! What the demo and the tests play on: network namespaces with a life of their own, a node with a fake outside host, and
//! packets to prove that what was attached works.
//!
//! Nothing here starts `ip`, `nft` or `tc`, and nothing here touches the network that the caller is in.
//!
//! ```text
//!   workload (eth0)──wk…┐                                   outside host
//!   workload (eth0)──wk…┤ node ── uplink0 ═══════════ uplink0  203.0.113.1, 2001:db8:113::1
//!   workload (eth0)──wk…┘  203.0.113.2, 2001:db8:113::2       no route to any workload
//! ```

pub mod links;
pub mod namespace;
pub mod node;
pub mod packets;
pub mod ping;
pub mod tcp;

pub use links::Links;
pub use namespace::{Held, Mounted, Namespace};
pub use node::Node;
