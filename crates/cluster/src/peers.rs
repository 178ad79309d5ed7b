//! All Nodes, as peers: told as a whole, when a burst of changes is over, and only where they differ.
//!
//! A list is told when all of it is there, and no list that is empty: this node is one of them. So routes go with the Nodes
//! that they lead to, and not with the API server.

use crate::Told;
use crate::access::Access;
use crate::node::Node;
use crate::watch::{self, Change};
use jiff::Timestamp;
use model::peer::Peer;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Changes that come closer together are told together.
const SETTLE: Duration = Duration::from_millis(200);
/// Changes that go on are told all the same after this time.
const RESTLESS: Duration = Duration::from_secs(2);

/// What is kept of a Node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    name: String,
    /// `None`: it cannot be routed to.
    peer: Option<Peer>,
    left_out: Vec<String>,
}

pub(crate) fn keep(node: Node) -> Kept {
    let (peer, left_out) = node.peer();
    Kept {
        name: node.metadata.name,
        peer,
        left_out,
    }
}

/// What is known of all Nodes.
#[derive(Debug)]
pub(crate) struct Known {
    /// The own Node's name.
    own: String,
    nodes: BTreeMap<String, Kept>,
    /// Since when the API server does not answer, and why.
    away: Option<(Timestamp, String)>,
}

impl Known {
    pub(crate) fn of(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            nodes: BTreeMap::new(),
            away: None,
        }
    }

    /// Whether that may be worth telling.
    pub(crate) fn on(&mut self, change: Change<Kept>) -> bool {
        if !matches!(change, Change::Lost(_)) {
            self.away = None;
        }
        match change {
            Change::All(nodes) => {
                let named = nodes.into_iter().map(|node| (node.name.clone(), node));
                self.nodes = named.collect();
                self.nodes.values().for_each(warn);
            }
            // Nodes tell every few minutes that they live, which changes nothing here.
            Change::Put(node) if self.nodes.get(&node.name) == Some(&node) => return false,
            Change::Put(node) => {
                warn(&node);
                self.nodes.insert(node.name.clone(), node);
            }
            Change::Gone(node) => drop(self.nodes.remove(&node.name)),
            Change::Reached => {}
            Change::Lost(fault) => {
                let since = self
                    .away
                    .as_ref()
                    .map_or_else(Timestamp::now, |(since, _)| *since);
                self.away = Some((since, fault.to_string()));
            }
        }
        true
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        let peers = self.nodes.values().filter_map(|node| node.peer.clone());
        let marked = peers.map(|peer| Peer {
            is_self: peer.name == self.own,
            ..peer
        });
        marked.collect()
    }

    fn trouble(&self) -> Option<String> {
        let (since, why) = self.away.as_ref()?;
        Some(format!("the Kubernetes API is away since {since:.0}: {why}"))
    }
}

fn warn(node: &Kept) {
    for why in &node.left_out {
        tracing::warn!(node = node.name, why, "of a Node this is not used");
    }
}

/// Follows all Nodes for ever.
pub(crate) async fn follow(access: &Access, own: &str, tell: &impl Fn(Told)) {
    let known = RefCell::new(Known::of(own));
    let changed = Notify::new();
    let watching = watch::follow(access, None, keep, |change| {
        if known.borrow_mut().on(change) {
            changed.notify_one();
        }
    });
    let telling = async {
        let (mut told, mut trouble) = (Vec::new(), None);
        loop {
            changed.notified().await;
            let begin = Instant::now();
            while begin.elapsed() < RESTLESS && tokio::time::timeout(SETTLE, changed.notified()).await.is_ok()
            {
            }
            let (now, is_wrong) = (known.borrow().peers(), known.borrow().trouble());
            if is_wrong != trouble {
                tell(Told::PeerTrouble(is_wrong.clone()));
                trouble = is_wrong;
            }
            if !now.is_empty() && now != told {
                tell(Told::Peers(now.clone()));
                told = now;
            }
        }
    };
    tokio::join!(watching, telling);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Fault;

    fn kept(name: &str, prefix: &str) -> Kept {
        let address = [192, 0, 2, 1].into();
        Kept {
            name: name.to_owned(),
            peer: Peer::new(name, vec![address], vec![prefix.parse().unwrap()]).ok(),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn what_is_known_outlives_the_api_and_only_a_whole_list_replaces_it() {
        let mut known = Known::of("b");
        assert!(known.on(Change::All(vec![
            kept("a", "10.1.0.0/24"),
            kept("b", "10.2.0.0/24")
        ])));
        assert!(!known.on(Change::Put(kept("b", "10.2.0.0/24"))), "nothing is new");
        assert!(known.on(Change::Lost(Fault::Silent)));
        assert_eq!(known.peers().len(), 2);
        let first = known.trouble().unwrap();
        known.on(Change::Lost(Fault::Silent));
        assert_eq!(
            known.trouble(),
            Some(first),
            "since when it is away does not change"
        );
        known.on(Change::Reached);
        assert_eq!(known.trouble(), None);
        known.on(Change::Gone(kept("a", "10.1.0.0/24")));
        known.on(Change::Put(kept("c", "10.3.0.0/24")));
        let peers = known.peers().into_iter();
        let named: Vec<(String, bool)> = peers.map(|peer| (peer.name, peer.is_self)).collect();
        assert_eq!(named, [("b".to_owned(), true), ("c".to_owned(), false)]);
    }
}
