//! A datapath that holds its world as values, prints it as text, fails at a step of one's choice, and waits where it is
//! told to.

mod world;

pub(crate) use world::World;

use daemon::sync::Mutex;
use ipnet::IpNet;
use model::address::Family;
use model::datapath::{Datapath, Event, Fault, OpenError, Target, WireError};
use model::flows::{Fate, Forgotten, Past};
use model::forwards::PortForwards;
use model::key::HostLink;
use model::op::Op;
use model::plan::Plan;
use model::ports::PortForward;
use model::record::NamespaceId;
use model::routes::{FoundRoutes, Reach, Step as Road};
use model::ruleset::Ruleset;
use model::survey::{Forwarding, FoundLink, Survey, Uplink};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use world::{Held, Link, apply, inode};

/// How a wire is to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    /// The first one that is refused, from 1 on.
    pub(crate) step: u32,
    /// What was done cannot be undone either.
    pub(crate) leaves: bool,
}

/// Connections that are forgotten at once.
const FORGOTTEN: usize = 3;

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
    /// Before routes to other nodes change.
    Reroute,
    /// Before port forwards come to lead to a link that is there.
    OpenForwards,
    /// Before connections are forgotten.
    Forget,
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
    forwards: PortForwards,
}

/// One thing that a wire does.
enum Step<'a> {
    Create,
    Line(String),
    Loopback,
    Host(&'a Op),
    PortForwards(&'a [PortForward]),
}

fn spared(ruleset: &Ruleset) -> BTreeSet<IpNet> {
    let all = Family::ALL.iter().flat_map(|family| ruleset.spared.of(*family));
    all.copied().collect()
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
        .chain((!plan.forwards.is_empty()).then_some(Step::PortForwards(&plan.forwards)))
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
        if self.world.held().too_many_files {
            return Err(OpenError::Fault(Fault {
                // EMFILE
                errno: 24,
                ..fault("open a namespace")
            }));
        }
        Ok((inode, NamespaceId { device: 4, inode }))
    }

    fn wire(&self, namespace: &u64, plan: &Plan) -> Result<u32, WireError> {
        let _alone = self.world.only_one_writes();
        let _hand = self.world.take_in_hand(&[plan.link.host.as_str()]);
        self.world.pass(Place::Wire);
        // What is noted and what the table has change together.
        let mut noted = self.noted.lock().unwrap();
        let mut held = self.world.held();
        held.planned = Some(plan.record.addresses);
        let name = plan.link.host.as_str();
        if held.links.contains_key(name) {
            return Err(WireError::LinkTaken { link: plan.link.host });
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
                    if let Some(index) = index {
                        held.forwards.set(index, &[]);
                    }
                    drop(held);
                    drop(noted);
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
        if !plan.forwards.is_empty() {
            noted.forwards.set(index, &plan.forwards);
        }
        drop(noted);
        self.world.wake();
        Ok(index)
    }

    fn unwire(&self, links: &[Target]) -> Vec<Result<(), Fault>> {
        let names: Vec<&str> = links.iter().map(|target| target.link.as_str()).collect();
        let mut hand = self.world.take_in_hand(&names);
        self.world.pass(Place::Unwire);
        for target in links {
            self.set_forwards(target.index, &[]).unwrap();
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
                // Looked at and taken away at once: the next daemon may have another one of this name.
                let gone = self.world.change(|held| {
                    let is_there = held.lives == self.life && held.links.get(name).is_some_and(is_meant);
                    is_there.then(|| held.links.remove(name)).flatten()
                });
                // Once its end is told of, the next order has its turn.
                hand.let_go(name);
                if let Some(link) = gone {
                    self.world.tell_of_the_end(name, &link);
                }
                Ok(())
            })
            .collect();
        self.world.pass(Place::Unwired);
        outcomes
    }

    fn restore(&self, target: &Target, ops: &[Op]) -> Vec<Fault> {
        self.change(|held| {
            let link = held.links.get_mut(target.link.as_str());
            if let Some(link) = link.filter(|link| link.found.index == target.index) {
                ops.iter().for_each(|op| apply(&mut link.found, op));
            }
        });
        Vec::new()
    }

    fn set_forwards(&self, link: u32, forwards: &[PortForward]) -> Result<(), Fault> {
        if !forwards.is_empty() {
            self.world.pass(Place::OpenForwards);
        }
        let mut noted = self.noted.lock().unwrap();
        noted.forwards.set(link, forwards);
        if noted.was_published {
            self.change(|held| held.forwards.clone_from(&noted.forwards));
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
            held.forwards.clone_from(&noted.forwards);
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
        self.world.pass(Place::Forget);
        if self.world.fails_to_forget() {
            return Err(fault("conntrack -D"));
        }
        let mut forgotten = Forgotten::default();
        self.change(|held| {
            held.flows.retain(|flow| {
                let lives = past.fate(flow) == Fate::Lives;
                forgotten.more |= !lives && forgotten.flows == FORGOTTEN;
                if lives || forgotten.flows == FORGOTTEN {
                    return true;
                }
                forgotten.flows += 1;
                false
            });
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
        self.world.pass(Place::Reroute);
        self.change(|held| steps.iter().for_each(|step| held.roads.apply(step)));
        Ok(Vec::new())
    }

    fn drift(&self, ruleset: &Ruleset) -> Result<Vec<String>, Fault> {
        let mut noted = self.noted.lock().unwrap();
        let held = self.world.held();
        let same = held.ruleset.as_ref() == Some(&ruleset.to_string())
            && held.spared == spared(ruleset)
            && held.forwards.elements() == noted.forwards.elements();
        noted.was_published |= same;
        drop(held);
        Ok(if same {
            Vec::new()
        } else {
            vec!["the table is missing".to_owned()]
        })
    }

    fn watch(&self, sink: Box<dyn Fn(Event) + Send>) -> Result<Survey, Fault> {
        self.world.held().sink = Some(Arc::new(Mutex::new(sink)));
        self.survey()
    }
}
