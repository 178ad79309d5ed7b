//! What `metrics` tells of the desk: numbers, read under one short lock.

use super::order::{PrefixUse, Routes};
use super::{Desk, now};
use crate::tally::Counters;
use model::address::Family;
use model::datapath::Datapath;
use model::routes::How;
use std::sync::Arc;
use std::time::SystemTime;

/// The desk in numbers.
#[derive(Debug)]
pub struct Figures {
    /// An Attach could succeed.
    pub is_ready: bool,
    /// How many stand.
    pub attachments: usize,
    /// Every prefix that serves or drains.
    pub prefixes: Vec<PrefixUse>,
    /// How often the source has changed the prefixes.
    pub generation: u64,
    /// It has told nothing good lately.
    pub is_stale: bool,
    /// When it last told something good; `None`: not since the daemon began.
    pub told: Option<SystemTime>,
    /// What a link gets where the request names none.
    pub mtu: u16,
    /// Orders that run or wait.
    pub orders: usize,
    /// So many may.
    pub max_queued: usize,
    /// Those that wait: for an earlier one of their key, to have their namespaces opened, to be written, to be deleted.
    pub waiting: [usize; 4],
    /// The other nodes, or 0 where nobody has said which they are.
    pub peers: usize,
    /// Kubernetes cannot be asked for them.
    pub peers_stale: bool,
    /// Netlink messages sent so far.
    pub messages: u64,
    routes: Arc<Routes>,
}

/// How a peer's prefixes of a family are reached, by name.
pub const WAYS: [&str; 3] = ["direct", "vxlan", "none"];

impl Figures {
    /// Peers by their way, as [`WAYS`] are, of a family.
    pub fn ways(&self, family: Family) -> [usize; 3] {
        let mut counts = [0; 3];
        for way in self.routes.ways.iter().filter(|way| way.family == family) {
            counts[match &way.how {
                Ok(How::Direct { .. }) => 0,
                Ok(How::Vxlan { .. }) => 1,
                Err(_) => 2,
            }] += 1;
        }
        counts
    }
}

impl<D: Datapath> Desk<D> {
    /// As they are.
    pub fn figures(&self) -> Figures {
        let [opening, writing, deleting] = self.lanes.waiting();
        let state = self.state();
        Figures {
            is_ready: self.unmet(&state).is_empty(),
            attachments: state.attachments.len(),
            prefixes: state.ipam.usage(now()).into_iter().map(PrefixUse::from).collect(),
            generation: state.ipam.generation(),
            is_stale: state.trouble.is_some() || state.told.is_none(),
            told: state.told,
            mtu: self.mtu(&state, None).0,
            orders: state.turns.queued(),
            max_queued: self.settings.max_queued,
            waiting: [state.turns.behind(), opening, writing, deleting],
            peers: state.peers.as_ref().map_or(0, |peers| peers.len()),
            peers_stale: state.peer_trouble.is_some(),
            messages: self.datapath.messages(),
            routes: Arc::clone(&state.routes),
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
