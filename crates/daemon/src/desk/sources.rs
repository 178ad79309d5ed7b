//! What sources say: which prefixes serve, and which other nodes there are.

use super::order::Unservable;
use super::{Desk, now, random};
use crate::source::Kind;
use model::datapath::Datapath;
use model::ipam::Ipam;
use model::peer::Peer;
use model::prefix::{MOST, Prefix};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

impl<D: Datapath> Desk<D> {
    /// The source says: these prefixes serve from now on; what served before and is not among them drains. Returns the
    /// generation, when the state file has it, or [`Self::unkept`] says that it has not. What cannot be served changes nothing. Blocks.
    pub fn set_prefixes(&self, prefixes: &[Prefix]) -> Result<u64, Unservable> {
        if prefixes.is_empty() {
            return Err(Unservable::Empty);
        }
        Prefix::servable(prefixes)?;
        let mut state = self.state();
        state.ipam.end_drained(now());
        bound_what_drains(&state.ipam, prefixes)?;
        let served = state.ipam.serving().eq(prefixes.iter().copied());
        state.ipam.set_prefixes(prefixes, &mut random);
        let trouble = state.trouble.take();
        state.told = Some(SystemTime::now());
        let generation = state.ipam.generation();
        self.tell_readiness(&mut state);
        let is_kept = state.kept >= Some(generation);
        drop(state);
        self.router.peers_changed();
        if !served {
            let all: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
            tracing::info!(source = %self.settings.source, generation, prefixes = ?all, "prefixes");
            // What others have of them is to be known.
            self.sweeper.all_touched();
        } else if trouble.is_some() {
            tracing::info!(source = %self.settings.source, generation, "the prefixes are as they were");
        }
        if !served || !is_kept {
            self.write_state_file();
        }
        Ok(generation)
    }

    /// The source says nothing, or nothing that can be served: the last good value stays.
    pub fn source_fails(&self, why: String) {
        self.counters.source_failures.up();
        let mut state = self.state();
        if state.trouble.as_ref() != Some(&why) {
            let generation = state.ipam.generation();
            tracing::warn!(source = %self.settings.source, why, generation, "the last good prefixes stay");
            state.trouble = Some(why);
        }
    }

    /// Where prefixes come from.
    pub fn source(&self) -> Kind {
        self.settings.source
    }

    /// These are the other nodes from now on; the node itself may be among them. Until it is called for the first time
    /// nothing is known of them, and what the kernel holds for them stays as it is.
    pub fn set_peers(&self, peers: Vec<Peer>) {
        tracing::info!(peers = peers.len(), "the other nodes are known");
        let before = self.state().peers.replace(peers.into());
        drop(before);
        self.router.peers_changed();
    }

    /// Nothing good is told of the other nodes; what was told stays. `None`: it is again.
    pub fn peers_fail(&self, why: Option<String>) {
        let mut state = self.state();
        if let Some(why) = why
            .as_ref()
            .filter(|why| state.peer_trouble.as_ref() != Some(why))
        {
            tracing::warn!(why, "the other nodes stay as they were told last");
        }
        state.peer_trouble = why;
    }

    /// The other nodes, as they were told last.
    pub fn peers(&self) -> Option<Arc<[Peer]>> {
        self.state().peers.clone()
    }
}

/// Each one that drains has an address that is in use or cools down, but a node's workloads may be many.
fn bound_what_drains(ipam: &Ipam, prefixes: &[Prefix]) -> Result<(), Unservable> {
    let serve: HashSet<&Prefix> = prefixes.iter().collect();
    let drain = ipam.prefixes().filter(|prefix| !serve.contains(prefix)).count();
    let already = ipam.past().draining.len();
    match drain > MOST.max(already) {
        true => Err(Unservable::Draining(drain)),
        false => Ok(()),
    }
}
