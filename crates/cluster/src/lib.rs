//! What Kubernetes says of the nodes, and what the daemon tells it of its own.
//!
//! ```text
//!  own Node -- watch --> own ----(Told::Prefixes, Trouble)--.
//!  all Nodes - watch --> peers --(Told::Peers, PeerTrouble)-+--> tell
//!  own Node <- patch --- condition <-- is_ready, own
//!  events  <- create --- events <----- Notices, from any thread
//! ```
//! All of it lives in one future, [`follow`], on whatever thread its caller gives it: the API may be away for hours, and
//! nobody waits for it. What is told is complete: a list that was cut anywhere is none.

mod access;
mod condition;
mod events;
mod node;
mod own;
mod pace;
mod peers;
#[doc(hidden)]
pub mod played;
mod watch;

pub use events::{Kind, Notice, Notices, Queue, notices};

use access::Access;
use model::peer::Peer;
use model::prefix::Prefix;
use std::path::PathBuf;

/// Which cluster, and which node of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of the own Node.
    pub node: String,
    /// How to reach the API server; `None`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Whether the other nodes are followed, too.
    pub peers: bool,
    /// Whether this node routes to them, and so says when that is done.
    pub routes: bool,
}

/// What Kubernetes said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The own Node's podCIDRs: at least one. Told again when the API is back, also where they are as they were.
    Prefixes(Vec<Prefix>),
    /// Why it says nothing good of the own Node, in words, and since when.
    Trouble(String),
    /// All nodes, the own one, too, in the order of their names: at least one.
    Peers(Vec<Peer>),
    /// Why it says nothing good of the others; `None`: it does again.
    PeerTrouble(Option<String>),
}

/// Follows the cluster for ever.
///
/// `tell` hears what changes, and may block for a moment. `is_ready` answers whether workloads get an address and reach those
/// of other nodes: then, and only then, the own Node's condition NetworkUnavailable becomes False, unless others route. What
/// [`Notices`] were given becomes events of the own Node.
pub async fn follow(settings: Settings, tell: impl Fn(Told), is_ready: impl Fn() -> bool, queue: Queue) {
    let access = Access::new(settings.kubeconfig);
    let own = own::Own::default();
    let tell = &tell;
    let follow_peers = async {
        if settings.peers {
            peers::follow(&access, &settings.node, tell).await;
        }
    };
    // Whoever makes routes says that they are there, and not one who only looks on.
    let keep_condition = async {
        if settings.routes {
            condition::keep(&access, &settings.node, &own, is_ready).await;
        }
    };
    tokio::join!(
        own::follow(&access, &settings.node, &own, tell),
        follow_peers,
        keep_condition,
        events::write(&access, &settings.node, &own, queue),
    );
}
