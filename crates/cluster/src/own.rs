//! The own Node: its podCIDRs, and what the rest of this room has to know of it.

use crate::Told;
use crate::access::Access;
use crate::node::Node;
use crate::watch::{self, Change};
use jiff::Timestamp;
use model::prefix::Prefix;
use std::cell::{Cell, RefCell};

/// What is known of the own Node.
#[derive(Debug, Default)]
pub(crate) struct Own {
    seen: RefCell<Option<Seen>>,
    looks: Cell<u64>,
}

/// The own Node as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) uid: String,
    /// Its condition says that the network is there.
    pub(crate) has_network: bool,
}

impl Own {
    /// `None`: it is not there, or nobody has asked yet.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.seen.borrow().clone()
    }

    /// How often it was seen so far.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.get()
    }

    /// Its condition was written, when it had been seen so often. What was seen meanwhile may be what somebody made of it since.
    pub(crate) fn has_network(&self, looks: u64) {
        if let Some(seen) = &mut *self.seen.borrow_mut()
            && self.looks.get() == looks
        {
            seen.has_network = true;
        }
    }

    fn is_now(&self, node: Option<&Node>) {
        self.looks.update(|looks| looks + 1);
        self.seen.replace(node.map(|node| Seen {
            uid: node.metadata.uid.clone(),
            has_network: node.network_unavailable() == Some("False"),
        }));
    }
}

/// What the own Node gives, as it was read last.
pub(crate) struct Teller<'a, T> {
    name: &'a str,
    tell: &'a T,
    own: &'a Own,
    read: Option<Read>,
    /// Since when the API server does not answer.
    away: Option<Timestamp>,
}

/// What was read last, or why that is of no use, and since when.
type Read = Result<Vec<Prefix>, (String, Timestamp)>;

impl<'a, T: Fn(Told)> Teller<'a, T> {
    pub(crate) fn new(name: &'a str, tell: &'a T, own: &'a Own) -> Self {
        Self {
            name,
            tell,
            own,
            read: None,
            away: None,
        }
    }

    pub(crate) fn on(&mut self, change: Change<Node>) {
        match change {
            Change::All(nodes) => self.is_now(nodes.into_iter().next()),
            Change::Put(node) => self.is_now(Some(node)),
            Change::Gone(_) => self.is_now(None),
            // What was read is as good as it was.
            Change::Reached => self.is_back(),
            Change::Lost(fault) => {
                let since = *self.away.get_or_insert_with(Timestamp::now);
                let text = format!("the Kubernetes API is away since {since:.0}: {fault}");
                (self.tell)(Told::Trouble(text));
            }
        }
    }

    fn is_now(&mut self, node: Option<Node>) {
        self.own.is_now(node.as_ref());
        let name = self.name;
        let read = match node.map(|node| node.prefixes()) {
            None => Err(format!("there is no Node {name:?}")),
            Some(Ok(prefixes)) if prefixes.is_empty() => Err(format!("the Node {name:?} has no podCIDRs")),
            Some(Ok(prefixes)) => Ok(prefixes),
            Some(Err(why)) => Err(format!("the Node {name:?}: {why}")),
        };
        let is_as_before = match (&read, &self.read) {
            (Ok(now), Some(Ok(before))) => now == before,
            (Err(now), Some(Err((before, _)))) => now == before,
            _ => false,
        };
        if is_as_before {
            return self.is_back();
        }
        self.away = None;
        self.read = Some(read.map_err(|why| (why, Timestamp::now())));
        self.say();
    }

    fn is_back(&mut self) {
        if self.away.take().is_some() {
            self.say();
        }
    }

    fn say(&self) {
        match &self.read {
            None => {}
            Some(Ok(prefixes)) => (self.tell)(Told::Prefixes(prefixes.clone())),
            Some(Err((why, since))) => (self.tell)(Told::Trouble(format!("{why} since {since:.0}"))),
        }
    }
}

/// Follows the own Node for ever.
pub(crate) async fn follow(access: &Access, name: &str, own: &Own, tell: &impl Fn(Told)) {
    let mut teller = Teller::new(name, tell, own);
    let only = format!("metadata.name={name}");
    watch::follow(access, Some(&only), |node| node, |change| teller.on(change)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Fault;

    fn node(prefix: &str) -> Node {
        let text = format!(r#"{{"metadata":{{"name":"a","uid":"1"}},"spec":{{"podCIDR":"{prefix}"}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_seen_while_the_condition_is_written_is_not_overwritten() {
        let own = Own::default();
        let has_network = || own.seen().unwrap().has_network;
        own.is_now(Some(&node("10.1.0.0/24")));
        let looks = own.looks();
        // Somebody took it away between the API server's change and its answer.
        own.is_now(Some(&node("10.1.0.0/24")));
        own.has_network(looks);
        assert!(!has_network());
        own.has_network(own.looks());
        assert!(has_network());
    }

    #[test]
    fn each_state_is_told_once_and_a_good_one_again_when_the_api_is_back() {
        let told = RefCell::new(Vec::new());
        let (own, tell) = (Own::default(), |what| told.borrow_mut().push(what));
        let mut teller = Teller::new("a", &tell, &own);
        let good = Told::Prefixes(vec!["10.1.0.0/24".parse().unwrap()]);
        teller.on(Change::All(vec![node("10.1.0.0/24")]));
        teller.on(Change::Reached);
        teller.on(Change::Put(node("10.1.0.0/24")));
        assert_eq!(told.take(), std::slice::from_ref(&good));
        assert!(own.seen().is_some());
        teller.on(Change::Lost(Fault::Silent));
        teller.on(Change::Lost(Fault::Silent));
        let away = told.take();
        assert_eq!(away[0], away[1], "since when it is away does not change");
        teller.on(Change::Reached);
        assert_eq!(told.take(), std::slice::from_ref(&good));
        teller.on(Change::Lost(Fault::Silent));
        teller.on(Change::All(vec![node("10.1.0.0/24")]));
        teller.on(Change::Reached);
        assert_eq!(told.take()[1..], [good]);
        teller.on(Change::Gone(node("10.1.0.0/24")));
        assert_eq!(own.seen(), None);
        teller.on(Change::All(Vec::new()));
        teller.on(Change::Put(node("")));
        let told = told.take();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(matches!(&told[0], Told::Trouble(why) if why.starts_with("there is no Node \"a\" since 2")));
        assert!(matches!(&told[1], Told::Trouble(why) if why.contains("has no podCIDRs")));
    }
}
