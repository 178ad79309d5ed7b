//! What a kernel would hold, as values and as text; and what a test does to it, waits for in it, and lets threads wait at.

use super::{Failure, Place, Step};
use daemon::sync::{Builder, Condvar, Mutex, MutexGuard};
use ipnet::IpNet;
use model::address::Addresses;
use model::datapath::Event;
use model::flows::Flow;
use model::forwards::PortForwards;
use model::key::HostLink;
use model::op::Op;
use model::plan::Plan;
use model::routes::Held as Roads;
use model::survey::FoundLink;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// A test that waits this long hangs.
const LIMIT: Duration = Duration::from_secs(10);

type Sink = Arc<Mutex<Box<dyn Fn(Event) + Send>>>;

/// What a kernel would hold; it outlives desks.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) links: BTreeMap<String, Link>,
    /// Namespaces whose loopback is up.
    pub(super) loopbacks: BTreeSet<u64>,
    /// Interface indexes of links that are nobody's business.
    foreign: BTreeSet<u32>,
    pub(super) ruleset: Option<String>,
    /// Ports of the node that lead to the link of an index.
    pub(super) forwards: PortForwards,
    /// Connections that are tracked. Every destination is the node's.
    pub(super) flows: Vec<Flow>,
    /// How often a ruleset was put in place.
    pub(super) published: usize,
    /// Where packets are not masqueraded.
    pub(super) spared: BTreeSet<IpNet>,
    /// Routes to other nodes.
    pub(super) roads: Roads,
    pub(super) uplink_mtu: Option<u32>,
    pub(super) failure: Option<Failure>,
    pub(super) refuse_deletions: bool,
    panics: Option<Place>,
    /// Addresses of the plan that came last.
    pub(super) planned: Option<Addresses>,
    closed: BTreeSet<Place>,
    waiting: BTreeMap<Place, usize>,
    /// Shared, so that who tells an event need not hold the world meanwhile.
    pub(super) sink: Option<Sink>,
    /// Links that somebody makes or deletes, and somebody who makes one.
    in_hand: BTreeSet<String>,
    somebody_writes: bool,
    /// Links that were deleted at once, at most.
    most_together: usize,
    /// Whoever tells of a link's end does so on a thread of its own.
    tells_later: bool,
    /// No namespace can be opened, for want of descriptors.
    pub(super) too_many_files: bool,
    forgets_fail: usize,
    /// Daemons that have ended. Their threads live on, unlike those of a process.
    pub(super) lives: usize,
}

pub(super) struct Link {
    pub(super) found: FoundLink,
    /// Inode of the namespace that its other end is in.
    pub(super) namespace: u64,
    /// Settings of the host end, and what is inside, as lines.
    rest: Vec<String>,
}

/// Links that are made or deleted by somebody until this is dropped.
pub(super) struct InHand {
    world: World,
    names: Vec<String>,
    writes: bool,
}

impl InHand {
    /// One of them is not any more.
    pub(super) fn let_go(&mut self, name: &str) {
        self.world.held().in_hand.remove(name);
        self.names.retain(|other| other != name);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        // Who panics need not leave it in order.
        if std::thread::panicking() {
            return;
        }
        let mut held = self.world.held();
        for name in &self.names {
            held.in_hand.remove(name);
        }
        held.somebody_writes &= !self.writes;
    }
}

impl World {
    /// Nobody else makes or deletes any of these meanwhile: one order of a key at a time.
    pub(super) fn take_in_hand(&self, names: &[&str]) -> InHand {
        let mut held = self.held();
        for name in names {
            let is_free = held.in_hand.insert((*name).to_owned());
            assert!(is_free, "two at once are about {name}");
        }
        held.most_together = held.most_together.max(names.len());
        InHand {
            world: self.clone(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            writes: false,
        }
    }

    /// Nobody else makes anything meanwhile.
    pub(super) fn only_one_writes(&self) -> InHand {
        let is_taken = std::mem::replace(&mut self.held().somebody_writes, true);
        assert!(!is_taken, "two write at once");
        InHand {
            world: self.clone(),
            names: Vec::new(),
            writes: true,
        }
    }

    /// Links that were deleted at once, at most.
    pub(crate) fn most_together(&self) -> usize {
        self.held().most_together
    }

    /// So often the kernel does not say what it tracks.
    pub(crate) fn refuse_to_forget(&self, times: usize) {
        self.held().forgets_fail = times;
    }

    pub(super) fn fails_to_forget(&self) -> bool {
        let mut held = self.held();
        let fails = held.forgets_fail > 0;
        held.forgets_fail = held.forgets_fail.saturating_sub(1);
        fails
    }

    /// Whether the daemon has too many open files to open a namespace.
    pub(crate) fn exhaust_files(&self, yes: bool) {
        self.held().too_many_files = yes;
    }

    /// As a kernel does, whose notifications are read by a thread that has nothing else to do.
    pub(crate) fn tell_later(&self) {
        self.held().tells_later = true;
    }

    /// Returns when a ruleset was put in place once more, and the table has this net and so many port forwards, one for each
    /// address.
    #[track_caller]
    pub(crate) fn wait_for_the_table(&self, published: usize, net: IpNet, forwards: usize) {
        self.wait("the table has all of it", |held| {
            held.published > published
                && held.spared.contains(&net)
                && held.forwards.elements().forwards.len() == forwards
        });
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap()
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let outcome = change(&mut self.held());
        self.wake();
        outcome
    }

    /// Whoever waits for something looks again.
    pub(super) fn wake(&self) {
        self.0.changed.notify_all();
    }

    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn(&Held) -> bool) {
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.held(), LIMIT, |held| !holds(held))
            .unwrap();
        assert!(!waited.1.timed_out(), "not within {LIMIT:?}: {what}");
    }

    pub(crate) fn fail(&self, failure: Option<Failure>) {
        self.held().failure = failure;
    }

    pub(crate) fn refuse_deletions(&self, refuse: bool) {
        self.held().refuse_deletions = refuse;
    }

    /// Whoever comes to this place panics.
    pub(crate) fn panic_at(&self, place: Place) {
        self.held().panics = Some(place);
    }

    /// Whoever comes to this place waits.
    pub(crate) fn close(&self, place: Place) {
        self.held().closed.insert(place);
    }

    /// Whoever waits at this place goes on.
    pub(crate) fn open(&self, place: Place) {
        self.change(|held| held.closed.remove(&place));
    }

    /// Returns when somebody waits at a place.
    #[track_caller]
    pub(crate) fn wait_at(&self, place: Place) {
        self.wait(&format!("somebody is at {place:?}"), |held| {
            held.waiting.get(&place).is_some_and(|n| *n > 0)
        });
    }

    pub(super) fn pass(&self, place: Place) {
        let mut held = self.held();
        if held.panics == Some(place) {
            drop(held);
            panic!("told to panic at {place:?}");
        }
        if held.closed.contains(&place) {
            *held.waiting.entry(place).or_default() += 1;
            self.wake();
            let is_closed = |held: &mut Held| held.closed.contains(&place);
            held = self.0.changed.wait_while(held, is_closed).unwrap();
            *held.waiting.entry(place).or_default() -= 1;
        }
    }

    pub(crate) fn links(&self) -> usize {
        self.held().links.len()
    }

    /// A link of somebody else's has this index.
    pub(crate) fn occupy(&self, index: u32) {
        self.held().foreign.insert(index);
    }

    /// Addresses of the plan that came last.
    pub(crate) fn planned(&self) -> Option<Addresses> {
        self.held().planned
    }

    /// Somebody changes a link, and nobody is told.
    pub(crate) fn damage(&self, link: &HostLink, damage: impl FnOnce(&mut FoundLink)) {
        let mut held = self.held();
        damage(&mut held.links.get_mut(link.as_str()).unwrap().found);
    }

    /// A link is gone, and nobody is told.
    pub(crate) fn lose(&self, link: &HostLink) {
        self.held().links.remove(link.as_str()).unwrap();
    }

    /// Where packets are not masqueraded.
    pub(crate) fn spared(&self) -> Vec<IpNet> {
        self.held().spared.iter().copied().collect()
    }

    /// How often a ruleset was put in place.
    pub(crate) fn published(&self) -> usize {
        self.held().published
    }

    /// Routes to other nodes.
    pub(crate) fn roads(&self) -> Roads {
        self.held().roads.clone()
    }

    /// Somebody flushes the table.
    pub(crate) fn lose_ruleset(&self) {
        let mut held = self.held();
        held.ruleset = None;
        held.forwards = PortForwards::default();
    }

    /// A connection is tracked.
    pub(crate) fn track(&self, flow: Flow) {
        self.held().flows.push(flow);
    }

    /// Returns when these are the connections that are tracked.
    #[track_caller]
    pub(crate) fn wait_until_only(&self, flows: &[Flow]) {
        self.wait(&format!("only {flows:?} is tracked"), |held| held.flows == flows);
    }

    /// Ports of the node and where they lead, as the table has them.
    pub(crate) fn forwards(&self) -> Vec<String> {
        let held = self.held();
        let each = held.forwards.elements().forwards;
        each.into_iter()
            .map(|(place, (address, port))| {
                let at = place.address.map(|a| format!("{a} ")).unwrap_or_default();
                format!("{at}{}/{} to {address} {port}", place.port, place.protocol)
            })
            .collect()
    }

    pub(crate) fn set_uplink_mtu(&self, mtu: u32) {
        self.held().uplink_mtu = Some(mtu);
    }

    /// Returns when the world is as it was.
    #[track_caller]
    pub(crate) fn wait_until_it_is(&self, text: &str) {
        self.wait(&format!("the world is {text}"), |held| held.text() == text);
    }

    /// The kernel tells.
    pub(crate) fn tell(&self, event: Event) {
        let sink = self.held().sink.clone();
        if let Some(sink) = sink {
            sink.lock().unwrap()(event);
        }
    }

    /// What a crash leaves: the world, and nobody who listens.
    pub(crate) fn forget_the_daemon(&self) {
        let mut held = self.held();
        (held.sink, held.lives) = (None, held.lives + 1);
    }

    /// A namespace ends, and takes its links along.
    pub(crate) fn vanish(&self, path: &str) {
        let Some(inode) = inode(path) else { return };
        self.change(|held| held.loopbacks.remove(&inode));
        let gone: Vec<String> = self
            .held()
            .links
            .iter()
            .filter(|(_, link)| link.namespace == inode)
            .map(|(name, _)| name.clone())
            .collect();
        gone.iter().for_each(|name| self.delete(name));
    }

    pub(super) fn delete(&self, name: &str) {
        if let Some(link) = self.change(|held| held.links.remove(name)) {
            self.tell_of_the_end(name, &link);
        }
    }

    pub(super) fn tell_of_the_end(&self, name: &str, link: &Link) {
        let event = Event::LinkGone {
            link: HostLink::parse(name).unwrap(),
            index: link.found.index,
        };
        if !self.held().tells_later {
            return self.tell(event);
        }
        let world = self.clone();
        let teller = Builder::new().spawn(move || world.tell(event));
        assert!(teller.is_ok(), "{teller:?}");
    }

    pub(crate) fn text(&self) -> String {
        self.held().text()
    }
}

impl Held {
    fn text(&self) -> String {
        let mut text = format!("ruleset {:?}\nloopbacks {:?}\n", self.ruleset, self.loopbacks);
        let forwards = self.forwards.elements().forwards;
        if !forwards.is_empty() {
            writeln!(text, "forwards {forwards:?}").unwrap();
        }
        for Link {
            found,
            namespace,
            rest,
        } in self.links.values()
        {
            writeln!(text, "{found:?} into {namespace}: {rest:?}").unwrap();
        }
        text
    }

    /// The index of the plan, or the first one behind it that nobody has.
    fn index(&self, planned: u32) -> u32 {
        let is_taken = |index: &u32| {
            self.foreign.contains(index) || self.links.values().any(|link| link.found.index == *index)
        };
        (planned..).find(|index| !is_taken(index)).unwrap()
    }

    pub(super) fn apply(&mut self, step: &Step<'_>, namespace: u64, plan: &Plan) {
        let name = plan.link.host.as_str();
        if let Step::Create = step {
            let found = FoundLink {
                name: name.to_owned(),
                index: self.index(plan.link.host_index),
                group: plan.link.group,
                mac: Some(plan.link.host_mac),
                mtu: plan.link.mtu.into(),
                ..FoundLink::default()
            };
            let link = Link {
                found,
                namespace,
                rest: Vec::new(),
            };
            self.links.insert(name.to_owned(), link);
            return;
        }
        let link = self.links.get_mut(name).unwrap();
        match step {
            Step::Create => {}
            Step::Line(line) => link.rest.push(line.clone()),
            Step::Loopback => drop(self.loopbacks.insert(namespace)),
            Step::Host(op) => apply(&mut link.found, op),
            Step::PortForwards(forwards) => drop(self.forwards.set(link.found.index, forwards)),
        }
    }
}

pub(super) fn inode(path: &str) -> Option<u64> {
    path.strip_prefix("/n/")?.parse().ok()
}

pub(super) fn apply(link: &mut FoundLink, op: &Op) {
    match op {
        Op::Describe { alias, v4 } => {
            link.alias.clone_from(alias);
            link.conf.v4.rp_filter = Some(v4.rp_filter);
        }
        Op::Mark(mark) => {
            link.alias.clone_from(&mark.alias);
            link.group = mark.group;
        }
        Op::Claim(name) => link.altnames.push(name.clone()),
        Op::DropName(name) => link.altnames.retain(|has| has != name),
        Op::NoMaster => link.master = None,
        Op::Mac(mac) => link.mac = Some(*mac),
        Op::Mtu(mtu) => link.mtu = u32::from(*mtu),
        Op::Set(_) => {}
        Op::Group(group) => link.group = *group,
        Op::AltName(name) | Op::PortName(name) => link.altnames.push(name.clone()),
        Op::RouteLocalnet => link.conf.v4.route_localnet = Some(1),
        Op::Up => link.up = true,
        Op::LoopbackUp => {}
        Op::Address { address, .. } => link.addresses.push(*address),
        Op::Route { destination, .. } => link.routes.push(*destination),
        Op::Neighbour { address, mac } => link.neighbours.push((*address, *mac)),
    }
}
