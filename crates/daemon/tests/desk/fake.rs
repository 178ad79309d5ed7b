//! A datapath that holds its world as values, prints it as text, and fails at a step of one's choice.

use model::address::Family;
use model::datapath::{Datapath, Event, Fault, OpenError, Target, WireError};
use model::key::HostLink;
use model::plan::{Op, Plan};
use model::record::NamespaceId;
use model::ruleset::Ruleset;
use model::survey::{Forwarding, FoundLink, HostConf, Survey, Uplink};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

type Sink = Arc<Mutex<Box<dyn Fn(Event) + Send>>>;

/// What a kernel would hold; it outlives desks.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// By name: the link, and the inode of the namespace that its other end is in.
    links: BTreeMap<String, (FoundLink, u64)>,
    ruleset: Option<String>,
    fail_at: Option<u32>,
    refuse_deletions: bool,
    /// Shared, so that who tells an event need not hold the world meanwhile.
    sink: Option<Sink>,
}

/// The datapath of one desk.
pub(crate) struct Fake {
    world: World,
}

impl World {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }

    pub(crate) fn fail_at(&self, step: Option<u32>) {
        self.held().fail_at = step;
    }

    pub(crate) fn refuse_deletions(&self, refuse: bool) {
        self.held().refuse_deletions = refuse;
    }

    pub(crate) fn links(&self) -> usize {
        self.held().links.len()
    }

    /// What a crash leaves: the world, and nobody who listens.
    pub(crate) fn forget_the_daemon(&self) {
        self.held().sink = None;
    }

    /// A namespace ends, and takes its links along.
    pub(crate) fn vanish(&self, path: &str) {
        let Some(inode) = inode(path) else { return };
        let gone: Vec<String> = self
            .held()
            .links
            .iter()
            .filter(|(_, (_, n))| *n == inode)
            .map(|(name, _)| name.clone())
            .collect();
        gone.iter().for_each(|name| self.delete(name));
    }

    fn delete(&self, name: &str) {
        let mut held = self.held();
        let Some((link, _)) = held.links.remove(name) else {
            return;
        };
        let sink = held.sink.clone();
        drop(held);
        if let Some(sink) = sink {
            let gone = Event::LinkGone {
                link: HostLink::parse(name).unwrap(),
                index: link.index,
            };
            sink.lock().unwrap()(gone);
        }
    }

    pub(crate) fn text(&self) -> String {
        self.held()
            .links
            .values()
            .fold(String::new(), |mut text, (link, namespace)| {
                writeln!(text, "{link:?} into {namespace}").unwrap();
                text
            })
    }
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
    pub(crate) fn on(world: &World) -> Self {
        Self { world: world.clone() }
    }
}

fn apply(link: &mut FoundLink, op: &Op) {
    match op {
        Op::Describe { alias } => {
            link.alias.clone_from(alias);
            link.conf.v4.rp_filter = Some(1);
        }
        Op::NoMaster => link.master = None,
        Op::Mac(mac) => link.mac = Some(*mac),
        Op::Mtu(mtu) => link.mtu = u32::from(*mtu),
        Op::Set(_) => {}
        Op::Group(group) => link.group = *group,
        Op::AltName(name) => link.altnames.push(name.clone()),
        Op::Up => link.up = true,
        Op::LoopbackUp => {}
        Op::Address { address, .. } => link.addresses.push(*address),
        Op::Route { destination, .. } => link.routes.push(*destination),
        Op::Neighbour { address, mac } => link.neighbours.push((*address, *mac)),
    }
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
        Ok((inode, NamespaceId { device: 4, inode }))
    }

    fn wire(&self, namespace: &u64, plan: &Plan) -> Result<u32, WireError> {
        let mut held = self.world.held();
        let name = plan.link.host.as_str();
        if held.links.contains_key(name) {
            return Err(WireError::LinkTaken {
                link: plan.link.host.clone(),
            });
        }
        if held.links.values().any(|(_, other)| other == namespace) {
            return Err(WireError::InterfaceTaken {
                interface: plan.link.workload.clone(),
            });
        }
        let mut link = FoundLink {
            name: name.to_owned(),
            index: plan.link.host_index,
            group: plan.link.group,
            mac: Some(plan.link.host_mac),
            mtu: plan.link.mtu.into(),
            conf: HostConf::default(),
            ..FoundLink::default()
        };
        let steps = 1 + plan.sysctls.len() + plan.workload.len() + plan.host.len();
        if let Some(step) = held.fail_at
            && step as usize <= steps
        {
            return Err(WireError::Refused {
                fault: fault("a step"),
                left: Vec::new(),
            });
        }
        plan.host.iter().for_each(|op| apply(&mut link, op));
        held.links.insert(name.to_owned(), (link, *namespace));
        Ok(plan.link.host_index)
    }

    fn unwire(&self, links: &[Target]) -> Vec<Result<(), Fault>> {
        let refuse = self.world.held().refuse_deletions;
        links
            .iter()
            .map(|target| {
                if refuse {
                    return Err(fault("ip link delete"));
                }
                self.world.delete(target.link.as_str());
                Ok(())
            })
            .collect()
    }

    fn restore(&self, link: &Target, ops: &[Op]) -> Vec<Fault> {
        if let Some((found, _)) = self.world.held().links.get_mut(link.link.as_str()) {
            ops.iter().for_each(|op| apply(found, op));
        }
        Vec::new()
    }

    fn survey(&self) -> Result<Survey, Fault> {
        let links = self
            .world
            .held()
            .links
            .values()
            .map(|(link, _)| link.clone())
            .collect();
        let forwarding = Forwarding { v4: true, v6: true };
        Ok(Survey {
            links,
            uplink: self.uplink()?,
            forwarding,
            ..Survey::default()
        })
    }

    fn find(&self, link: &HostLink) -> Result<Option<FoundLink>, Fault> {
        Ok(self
            .world
            .held()
            .links
            .get(link.as_str())
            .map(|(link, _)| link.clone()))
    }

    fn uplink(&self) -> Result<Option<Uplink>, Fault> {
        Ok(Some(Uplink {
            name: "uplink".to_owned(),
            mtu: 1500,
        }))
    }

    fn publish(&self, ruleset: &Ruleset) -> Result<(), Fault> {
        self.world.held().ruleset = Some(ruleset.to_string());
        Ok(())
    }

    fn drift(&self, ruleset: &Ruleset) -> Result<Vec<String>, Fault> {
        let same = self.world.held().ruleset.as_ref() == Some(&ruleset.to_string());
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
