//! A datapath that holds its world as values, prints it as text, fails at a step of one's choice, and waits where it is
//! told to.

use ipnet::IpNet;
use model::address::{Addresses, Family};
use model::datapath::{Datapath, Event, Fault, FoundRoutes, OpenError, Target, WireError};
use model::flows::{Flow, Forgotten, Past, Verdict};
use model::key::HostLink;
use model::plan::{Op, Plan};
use model::ports::Door;
use model::record::NamespaceId;
use model::routes::{Held as Roads, Reach, Step as Road};
use model::ruleset::Ruleset;
use model::survey::{Forwarding, FoundLink, Survey, Uplink};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
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
struct Held {
    links: BTreeMap<String, Link>,
    /// Namespaces whose loopback is up.
    loopbacks: BTreeSet<u64>,
    /// Interface indexes of links that are nobody's business.
    foreign: BTreeSet<u32>,
    ruleset: Option<String>,
    /// Ports of the node that lead to the link of an index.
    doors: BTreeMap<u32, Vec<Door>>,
    /// Connections that are tracked. Every destination is the node's.
    flows: Vec<Flow>,
    /// How often a ruleset was put in place.
    published: usize,
    /// Where packets are not masqueraded.
    spared: BTreeSet<IpNet>,
    /// Routes to other nodes.
    roads: Roads,
    uplink_mtu: Option<u32>,
    failure: Option<Failure>,
    refuse_deletions: bool,
    panics: Option<Place>,
    /// Addresses of the plan that came last.
    planned: Option<Addresses>,
    closed: BTreeSet<Place>,
    waiting: BTreeMap<Place, usize>,
    /// Shared, so that who tells an event need not hold the world meanwhile.
    sink: Option<Sink>,
    /// Daemons that have ended. Their threads live on, unlike those of a process.
    lives: usize,
}

struct Link {
    found: FoundLink,
    /// Inode of the namespace that its other end is in.
    namespace: u64,
    /// Settings of the host end, and what is inside, as lines.
    rest: Vec<String>,
}

/// How a wire is to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    /// The first one that is refused, from 1 on.
    pub(crate) step: u32,
    /// What was done cannot be undone either.
    pub(crate) leaves: bool,
}

/// Where a thread can be made to wait, or to panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Before the namespace of this inode is opened.
    Open(u64),
    /// Before a plan is made true.
    Wire,
    /// Before links are deleted.
    Unwire,
    /// After links were deleted, and before that is acknowledged.
    Unwired,
    /// When everything was looked at, and before it is told.
    Surveyed,
    /// Before it changes what is spared.
    Spare,
}

/// The datapath of one desk.
pub(crate) struct Fake {
    world: World,
    /// Of which daemon.
    life: usize,
    /// What the table is to hold, by those of this desk.
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    was_published: bool,
    doors: BTreeMap<u32, Vec<Door>>,
}

/// One thing that a wire does.
enum Step<'a> {
    Create,
    Line(String),
    Loopback,
    Host(&'a Op),
    Doors(&'a [Door]),
}

impl World {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let outcome = change(&mut self.held());
        self.0.changed.notify_all();
        outcome
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

    fn pass(&self, place: Place) {
        let mut held = self.held();
        if held.panics == Some(place) {
            drop(held);
            panic!("told to panic at {place:?}");
        }
        if held.closed.contains(&place) {
            *held.waiting.entry(place).or_default() += 1;
            self.0.changed.notify_all();
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
        held.doors.clear();
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
    pub(crate) fn doors(&self) -> Vec<String> {
        let held = self.held();
        let each = held.doors.values().flatten();
        each.map(
            |Door {
                 place,
                 to: (address, port),
             }| {
                let at = place.address.map(|a| format!("{a} ")).unwrap_or_default();
                format!("{at}{}/{} to {address} {port}", place.port, place.protocol)
            },
        )
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

    fn delete(&self, name: &str) {
        let Some(link) = self.change(|held| held.links.remove(name)) else {
            return;
        };
        self.tell(Event::LinkGone {
            link: HostLink::parse(name).unwrap(),
            index: link.found.index,
        });
    }

    pub(crate) fn text(&self) -> String {
        self.held().text()
    }
}

impl Held {
    fn text(&self) -> String {
        let mut text = format!("ruleset {:?}\nloopbacks {:?}\n", self.ruleset, self.loopbacks);
        if !self.doors.is_empty() {
            writeln!(text, "doors {:?}", self.doors).unwrap();
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

    fn apply(&mut self, step: &Step<'_>, namespace: u64, plan: &Plan) {
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
            Step::Doors(doors) => drop(self.doors.insert(link.found.index, doors.to_vec())),
        }
    }
}

fn spared(ruleset: &Ruleset) -> BTreeSet<IpNet> {
    let all = Family::ALL.iter().flat_map(|family| ruleset.spared.of(*family));
    all.copied().collect()
}

fn inode(path: &str) -> Option<u64> {
    path.strip_prefix("/n/")?.parse().ok()
}

fn fault(tried: &str) -> Fault {
    Fault {
        tried: tried.to_owned(),
        reason: "it is to fail".to_owned(),
        errno: 1,
    }
}

impl Fake {
    /// Changes the world, unless the daemon has ended.
    fn change(&self, change: impl FnOnce(&mut Held)) {
        self.world.change(|held| {
            if held.lives == self.life {
                change(held);
            }
        });
    }

    pub(crate) fn on(world: &World) -> Self {
        Self {
            world: world.clone(),
            life: world.held().lives,
            noted: Mutex::default(),
        }
    }
}

fn apply(link: &mut FoundLink, op: &Op) {
    match op {
        Op::Describe { alias } => {
            link.alias.clone_from(alias);
            link.conf.v4.rp_filter = Some(1);
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

fn steps(plan: &Plan) -> Vec<Step<'_>> {
    let sysctls = plan.sysctls.iter();
    let inside = plan.workload.iter().map(|op| match op {
        Op::LoopbackUp => Step::Loopback,
        op => Step::Line(op.on(plan.link.workload.as_str()).to_string()),
    });
    [Step::Create]
        .into_iter()
        .chain(sysctls.map(|setting| Step::Line(format!("{}={}", setting.name, setting.value))))
        .chain(inside)
        .chain(plan.host.iter().map(Step::Host))
        .chain((!plan.doors.is_empty()).then_some(Step::Doors(&plan.doors)))
        .collect()
}

impl Datapath for Fake {
    type Namespace = u64;

    fn supports(&self, _: Family) -> bool {
        true
    }

    fn open(&self, path: &str) -> Result<(u64, NamespaceId), OpenError> {
        let inode = inode(path).ok_or_else(|| OpenError::NotFound {
            path: path.to_owned(),
        })?;
        self.world.pass(Place::Open(inode));
        Ok((inode, NamespaceId { device: 4, inode }))
    }

    fn wire(&self, namespace: &u64, plan: &Plan) -> Result<u32, WireError> {
        self.world.pass(Place::Wire);
        let mut held = self.world.held();
        held.planned = Some(plan.record.addresses);
        let name = plan.link.host.as_str();
        if held.links.contains_key(name) {
            return Err(WireError::LinkTaken {
                link: plan.link.host.clone(),
            });
        }
        if held.links.values().any(|link| link.namespace == *namespace) {
            return Err(WireError::InterfaceTaken {
                interface: plan.link.workload.clone(),
            });
        }
        let loopback_was_down = !held.loopbacks.contains(namespace);
        let failure = held.failure;
        for (n, step) in steps(plan).iter().enumerate() {
            match failure {
                Some(Failure { step, leaves }) if step as usize == n + 1 => {
                    let mut left = Vec::new();
                    if leaves && n > 0 {
                        left.push(fault("ip link delete"));
                    } else if loopback_was_down {
                        held.loopbacks.remove(namespace);
                    }
                    let index = held.links.get(name).map(|link| link.found.index);
                    index.and_then(|index| held.doors.remove(&index));
                    drop(held);
                    if left.is_empty() {
                        self.world.delete(name);
                    }
                    let fault = fault(&format!("step {step}"));
                    return Err(WireError::Refused { fault, left });
                }
                _ => held.apply(step, *namespace, plan),
            }
        }
        let index = held.links[name].found.index;
        drop(held);
        if !plan.doors.is_empty() {
            self.noted.lock().unwrap().doors.insert(index, plan.doors.clone());
        }
        self.world.0.changed.notify_all();
        Ok(index)
    }

    fn unwire(&self, links: &[Target]) -> Vec<Result<(), Fault>> {
        self.world.pass(Place::Unwire);
        for target in links {
            self.set_doors(target.index, &[]).unwrap();
        }
        let refuse = self.world.held().refuse_deletions;
        let outcomes = links
            .iter()
            .map(|target| {
                if refuse {
                    return Err(fault("ip link delete"));
                }
                let name = target.link.as_str();
                let is_meant =
                    |link: &Link| link.found.index == target.index && link.found.group == target.group;
                if self.world.held().links.get(name).is_some_and(is_meant) {
                    self.world.delete(name);
                }
                Ok(())
            })
            .collect();
        self.world.pass(Place::Unwired);
        outcomes
    }

    fn restore(&self, link: &Target, ops: &[Op]) -> Vec<Fault> {
        self.world.change(|held| {
            if let Some(link) = held.links.get_mut(link.link.as_str()) {
                ops.iter().for_each(|op| apply(&mut link.found, op));
            }
        });
        Vec::new()
    }

    fn set_doors(&self, link: u32, doors: &[Door]) -> Result<(), Fault> {
        let mut noted = self.noted.lock().unwrap();
        let set = |all: &mut BTreeMap<u32, Vec<Door>>| match doors {
            [] => drop(all.remove(&link)),
            doors => drop(all.insert(link, doors.to_vec())),
        };
        set(&mut noted.doors);
        if noted.was_published {
            self.change(|held| set(&mut held.doors));
        }
        Ok(())
    }

    fn survey(&self) -> Result<Survey, Fault> {
        let links = self
            .world
            .held()
            .links
            .values()
            .map(|link| link.found.clone())
            .collect();
        let survey = Survey {
            links,
            uplink: self.uplink()?,
            forwarding: Forwarding { v4: true, v6: true },
            ..Survey::default()
        };
        self.world.pass(Place::Surveyed);
        Ok(survey)
    }

    fn find(&self, link: &HostLink) -> Result<Option<FoundLink>, Fault> {
        let held = self.world.held();
        Ok(held.links.get(link.as_str()).map(|link| link.found.clone()))
    }

    fn uplink(&self) -> Result<Option<Uplink>, Fault> {
        Ok(Some(Uplink {
            name: "uplink".to_owned(),
            mtu: self.world.held().uplink_mtu.unwrap_or(1500),
        }))
    }

    fn publish(&self, ruleset: &Ruleset) -> Result<(), Fault> {
        let mut noted = self.noted.lock().unwrap();
        noted.was_published = true;
        self.change(|held| {
            held.doors.clone_from(&noted.doors);
            held.ruleset = Some(ruleset.to_string());
            held.published += 1;
            held.spared = spared(ruleset);
        });
        Ok(())
    }

    fn spare(&self, gone: &[IpNet], came: &[IpNet]) -> Result<(), Fault> {
        self.world.pass(Place::Spare);
        self.change(|held| {
            let kept = held.spared.iter().filter(|net| !gone.contains(net));
            held.spared = kept.chain(came).copied().collect();
        });
        Ok(())
    }

    fn spared(&self) -> Result<Vec<IpNet>, Fault> {
        Ok(self.world.spared())
    }

    fn forget(&self, past: &Past) -> Result<Forgotten, Fault> {
        let mut forgotten = Forgotten::default();
        self.change(|held| {
            let before = held.flows.len();
            held.flows.retain(|flow| past.verdict(flow) == Verdict::Lives);
            forgotten.flows = before - held.flows.len();
        });
        Ok(forgotten)
    }

    /// Everybody is on the uplink, but for those whose address is odd.
    fn reach(&self, addresses: &[IpAddr]) -> Result<Vec<Reach>, Fault> {
        let uplink = self.uplink()?.unwrap();
        let reach = |address: &IpAddr| {
            let octet = match address {
                IpAddr::V4(a) => a.octets()[3],
                IpAddr::V6(a) => a.octets()[15],
            };
            Reach::Over {
                index: 2,
                device: uplink.name.clone(),
                mtu: uplink.mtu,
                shared: octet.is_multiple_of(2),
                on_link: octet.is_multiple_of(2),
                source: Some(IpAddr::from([192, 0, 2, 1])),
            }
        };
        Ok(addresses.iter().map(reach).collect())
    }

    fn found_routes(&self) -> Result<FoundRoutes, Fault> {
        Ok(FoundRoutes {
            held: self.world.held().roads.clone(),
            ..FoundRoutes::default()
        })
    }

    fn change_routes(&self, steps: &[Road]) -> Result<Vec<Fault>, Fault> {
        self.change(|held| steps.iter().for_each(|step| held.roads.apply(step)));
        Ok(Vec::new())
    }

    fn drift(&self, ruleset: &Ruleset) -> Result<Vec<String>, Fault> {
        let mut noted = self.noted.lock().unwrap();
        let held = self.world.held();
        let same = held.ruleset.as_ref() == Some(&ruleset.to_string())
            && held.spared == spared(ruleset)
            && held.doors == noted.doors;
        noted.was_published |= same;
        drop(held);
        Ok(if same {
            Vec::new()
        } else {
            vec!["the table is missing".to_owned()]
        })
    }

    fn watch(&self, sink: Box<dyn Fn(Event) + Send>) -> Result<(), Fault> {
        self.world.held().sink = Some(Arc::new(Mutex::new(sink)));
        Ok(())
    }
}
