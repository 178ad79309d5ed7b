//! The datapath on Linux.

mod adopt;
mod batch;
mod carrier;
mod dying;
mod unwire;
mod wire;

use crate::confine::{Confined, Needs, confine};
use crate::encode::{self, link_by_index};
use crate::message::{Attributes, Message};
use crate::netns::Home;
use crate::nft::Nft;
use crate::socket::{Answer, NETFILTER, ROUTE, Refused, Socket};
use crate::sysctl::Writable;
use crate::{conntrack, crash, fault, routes, survey, sysctl, watch};
use dying::DyingGroups;
use ipnet::IpNet;
use libc::{EACCES, EEXIST, ENOENT, EOPNOTSUPP};
use model::address::{Family, IPV6_MTU};
use model::adopt::{MasqueradeRule, Seen};
use model::datapath::{Datapath, Event, Fault, OpenError, Target, WireError};
use model::flows::{Forgotten, Past};
use model::key::{HostLink, InterfaceName};
use model::op::Op;
use model::plan::Plan;
use model::ports::PortForward;
use model::record::NamespaceId;
use model::routes::{FoundRoutes, Reach, Step};
use model::ruleset::Ruleset;
use model::survey::{DYING_GROUPS, FoundLink, Standing, Survey, Uplink};
use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The network namespace in which it was opened, and the links of one group there.
#[derive(Debug)]
pub struct Linux {
    group: u32,
    home: Home,
    ipv6: bool,
    sysctls: Writable,
    /// Used by whoever attaches, one at a time, and for surveys.
    writer: Mutex<Socket>,
    /// Used for everything that answers at once.
    reader: Mutex<Socket>,
    /// Used for putting back, which may have to wait.
    mender: Mutex<Socket>,
    /// Used for routes to other nodes.
    router: Mutex<Socket>,
    /// Used for connection tracking.
    tracker: Mutex<Socket>,
    nft: Nft,
    dying: DyingGroups,
}

/// Between two looks at what a work queue of the kernel does. As a sleep, because a thread that is parked looks like one that
/// waits for another in a report of the kernel's waits.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when the kernel's work queue is done"
)]
fn rest(time: Duration) {
    std::thread::sleep(time);
}

impl Linux {
    /// In the calling thread's network namespace, which every thread that uses it has to be in. `group` marks our links.
    pub fn open(group: u32) -> Result<Self, Fault> {
        Ok(Self {
            group,
            home: Home::here()?,
            ipv6: sysctl::has_ipv6(),
            sysctls: Writable::default(),
            writer: Mutex::new(Socket::open(ROUTE)?),
            reader: Mutex::new(Socket::open(ROUTE)?),
            mender: Mutex::new(Socket::open(ROUTE)?),
            router: Mutex::new(Socket::open_for_long_batches(ROUTE)?),
            tracker: Mutex::new(Socket::open(NETFILTER)?),
            nft: Nft::open()?,
            dying: DyingGroups::new(DYING_GROUPS),
        })
    }

    /// Writes settings not to `/proc/sys/net`, but to the same by another path: a container has `/proc/sys` read-only.
    pub fn with_settings_at(self, folder: &Path) -> Result<Self, Fault> {
        Ok(Self {
            sysctls: Writable::at(folder)?,
            ..self
        })
    }

    /// Confines the calling thread, and all that it starts, to what this datapath and the process's other parts need, for good.
    /// Threads that are there already stay as they are.
    pub fn confined(mut self, needs: &Needs) -> Result<(Self, Confined), Fault> {
        let (confined, outside) = confine(needs, self.sysctls.pinned()?)?;
        let home = self.home.looked_up(outside);
        Ok((Self { home, ..self }, confined))
    }

    fn reader(&self) -> MutexGuard<'_, Socket> {
        locked(&self.reader)
    }

    /// What a look finds, once packets flow if it is up: who asks may be about to say that they do, and a crash may have come
    /// before that was so.
    fn settled(
        &self,
        look: impl FnOnce(&mut Socket) -> Result<Option<FoundLink>, Fault>,
    ) -> Result<Option<FoundLink>, Fault> {
        let found = look(&mut self.reader())?;
        if let Some(link) = found.as_ref().filter(|link| link.up) {
            // Between two questions others have the socket.
            settle(|question| self.reader().batch(slice::from_ref(question)), link)?;
        }
        Ok(found)
    }

    /// A survey, with what only a warning is made of.
    fn surveyed(
        &self,
        take: impl FnOnce() -> Result<(Survey, HashSet<u32>), Fault>,
    ) -> Result<Survey, Fault> {
        let mut survey = self.dying.surveyed(take)?;
        survey.forward_drops = self.nft.forward_drops().unwrap_or_default();
        Ok(survey)
    }

    /// The link that is meant, if it is still there and not about to go.
    fn standing(socket: &mut Socket, target: &Target) -> Result<Option<FoundLink>, Fault> {
        // By its index, because of a link that was taken over others may have removed the name that we know it by.
        let found = survey::link_at(socket, target.index, target.link.as_str())?;
        let Some(found) = found.filter(|link| link.host_link().as_ref() == Some(&target.link)) else {
            return Ok(None);
        };
        match found.standing(target.group) {
            Standing::Foreign => Err(regrouped("put back what is missing of", target, found.group)),
            Standing::HalfMade if found.is_dying() => Ok(None),
            _ => Ok(Some(found)),
        }
    }

    /// Puts ops on a link of ours that is there.
    fn put_one(&self, socket: &mut Socket, link: &FoundLink, op: &Op) -> Result<(), Fault> {
        let faults = self.put(socket, link, slice::from_ref(op))?;
        match faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => {
                crash::step();
                Ok(())
            }
        }
    }

    fn put(&self, socket: &mut Socket, link: &FoundLink, ops: &[Op]) -> Result<Vec<Fault>, Fault> {
        let wanted = ops.iter().find_map(|op| match op {
            Op::Mtu(mtu) => Some(u32::from(*mtu)),
            _ => None,
        });
        let ipv6 = self.ipv6 && wanted.unwrap_or(link.mtu) >= IPV6_MTU.into();
        let mut faults: Vec<Fault> = Vec::new();
        let mut refused = vec![false; ops.len()];
        let mut messages = Vec::new();
        let mut positions = Vec::new();
        for (n, op) in ops.iter().enumerate() {
            if let Some(message) = encode::op(op, link.index, &link.name, ipv6) {
                messages.push(message);
                positions.push(n);
            }
            let last = n + 1 == ops.len();
            if last || matches!(op, Op::Set(_)) {
                // What comes before a setting is made before it.
                for Refused { position, fault } in socket.batch(&messages)?.refused {
                    let n = positions[position];
                    if Self::is_there(socket, link, &ops[n], &fault)? {
                        continue;
                    }
                    refused[n] = true;
                    // Without its address nothing of IPv6 can be there, which one fault says.
                    let follows = |earlier: &Fault| earlier.errno == EACCES && fault.errno == EACCES;
                    if !faults.iter().any(follows) {
                        faults.push(fault);
                    }
                }
                messages.clear();
                positions.clear();
            }
            if let Op::Set(setting) = op {
                faults.extend(self.sysctls.write(&link.name, setting).err());
            }
        }
        for (op, refused) in ops.iter().zip(refused) {
            // What was refused would be waited for in vain.
            if !refused
                && let Op::Address { address, .. } = op
                && let IpAddr::V6(address) = address.addr()
                && let Err(WireError::Refused { fault, .. } | WireError::Vanished(fault)) =
                    wire::answers(socket, address, link.index, &link.name)
            {
                faults.push(fault);
            }
        }
        if ops.contains(&Op::Up) {
            settle(|question| socket.batch(slice::from_ref(question)), link)?;
        }
        Ok(faults)
    }

    /// Whether an op was refused because what it makes is there.
    fn is_there(socket: &mut Socket, link: &FoundLink, op: &Op, fault: &Fault) -> Result<bool, Fault> {
        match (fault.errno, op) {
            (errno, Op::AltName(_)) => Ok(no_second_name(errno)),
            (EEXIST, Op::Claim(name)) => {
                let now = survey::link_at(socket, link.index, &link.name)?;
                Ok(now.is_some_and(|now| now.altnames.contains(name)))
            }
            (ENOENT, Op::DropName(_)) => Ok(true),
            // Somebody else's, or this link's own by now.
            (EEXIST, Op::Route { destination, .. }) => survey::has_route(socket, link.index, *destination),
            (errno, _) => Ok(errno == EEXIST),
        }
    }
}

/// Another link has the name for people, and keeps it; or the kernel knows of no second names (before Linux 5.5).
fn no_second_name(errno: i32) -> bool {
    matches!(errno, EEXIST | EOPNOTSUPP)
}

/// Somebody else has changed the link's group, and what does not carry ours is left alone.
fn regrouped(tried: &str, target: &Target, group: u32) -> Fault {
    fault::ours(
        format!("{tried} {}", target.link),
        format!("it is in link group {group} and not in {}", target.group),
    )
}

/// Waits until both ends of a link send. The other end was without a carrier for as long as this one was down.
fn settle(mut ask: impl FnMut(&Message) -> Result<Answer, Fault>, link: &FoundLink) -> Result<(), Fault> {
    let question = link_by_index(link.index, &link.name);
    let replies = carrier::noted(|| ask(&question))?.replies;
    let Some(reply) = replies.first() else {
        return Ok(());
    };
    let attributes = Attributes::after(&reply.payload, 16);
    if let (Some(peer), Some(namespace)) = (
        attributes.u32(encode::link::LINK),
        attributes.u32(encode::link::LINK_NETNSID),
    ) {
        // An end that is gone has nothing to wait for.
        let question = encode::link_elsewhere(namespace, peer);
        carrier::noted(|| ask(&question))?;
    }
    Ok(())
}

/// A socket that was left in the middle of an answer skips what is left of it, so a poisoned one can be used.
fn locked(socket: &Mutex<Socket>) -> MutexGuard<'_, Socket> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Datapath for Linux {
    type Namespace = OwnedFd;

    fn supports(&self, family: Family) -> bool {
        match family {
            Family::V4 => true,
            Family::V6 => self.ipv6,
        }
    }

    fn messages(&self) -> u64 {
        crate::socket::sent()
    }

    fn open(&self, path: &str) -> Result<(OwnedFd, NamespaceId), OpenError> {
        self.home.open(path)
    }

    fn wire(&self, namespace: &OwnedFd, plan: &Plan) -> Result<u32, WireError> {
        wire::wire(self, &mut locked(&self.writer), namespace, plan)
    }

    fn unwire(&self, links: &[Target]) -> Vec<Result<(), Fault>> {
        // What comes for a workload that is about to go would be sent to whoever gets its address.
        for target in links {
            if let Err(fault) = self.nft.set_forwards(target.index, &[]) {
                tracing::warn!(link = %target.link, %fault, "its ports of the node stay for now");
            }
        }
        unwire::unwire(&self.dying, links)
    }

    fn set_forwards(&self, link: u32, forwards: &[PortForward]) -> Result<(), Fault> {
        self.nft.set_forwards(link, forwards)
    }

    fn restore(&self, link: &Target, ops: &[Op]) -> Vec<Fault> {
        let mut socket = locked(&self.mender);
        match Self::standing(&mut socket, link) {
            Ok(Some(found)) => self
                .put(&mut socket, &found, ops)
                .unwrap_or_else(|fault| vec![fault]),
            // Gone already; the notification is on its way.
            Ok(None) => Vec::new(),
            Err(fault) => vec![fault],
        }
    }

    fn survey(&self) -> Result<Survey, Fault> {
        // With the writer's socket in hand nothing of ours is made meanwhile, which would interrupt every dump.
        self.surveyed(|| survey::survey(&mut locked(&self.writer), self.group))
    }

    fn find(&self, link: &HostLink) -> Result<Option<FoundLink>, Fault> {
        self.settled(|socket| survey::find(socket, link))
    }

    fn find_at(&self, link: &HostLink, index: u32) -> Result<Option<FoundLink>, Fault> {
        self.settled(|socket| survey::find_at(socket, link, index))
    }

    fn look(&self, namespace: &OwnedFd, interface: &InterfaceName) -> Result<Seen, Fault> {
        adopt::look(&self.home, &mut self.reader(), namespace, interface)
    }

    fn masquerade_rules(&self) -> Result<Vec<MasqueradeRule>, Fault> {
        self.nft.masquerade_rules()
    }

    fn change(&self, link: &FoundLink, ops: &[Op]) -> Result<(), Fault> {
        let mut socket = locked(&self.mender);
        ops.iter().try_for_each(|op| self.put_one(&mut socket, link, op))
    }

    fn give_back(&self, link: &FoundLink, ops: &[Op]) -> Result<(), Fault> {
        let mut socket = locked(&self.mender);
        let Some((last, ops)) = ops.split_last() else {
            return Ok(());
        };
        let mut done = Ok(());
        for op in ops {
            done = done.and(self.put_one(&mut socket, link, op));
        }
        done.and_then(|()| self.put_one(&mut socket, link, last))
    }

    fn uplink(&self) -> Result<Option<Uplink>, Fault> {
        survey::uplink(&mut self.reader())
    }

    fn publish(&self, ruleset: &Ruleset) -> Result<(), Fault> {
        self.nft.publish(ruleset)?;
        self.sysctls
            .ensure_forwarding(|| survey::advertised(&mut self.reader()))
    }

    fn spare(&self, gone: &[IpNet], came: &[IpNet]) -> Result<(), Fault> {
        self.nft.spare(gone, came)
    }

    fn spared(&self) -> Result<Vec<IpNet>, Fault> {
        self.nft.spared()
    }

    fn forget(&self, past: &Past) -> Result<Forgotten, Fault> {
        // The reader is not kept from others while connections are looked through.
        conntrack::forget(&mut locked(&self.tracker), past, |address| {
            conntrack::is_local(&mut self.reader(), address)
        })
    }

    fn reach(&self, addresses: &[IpAddr]) -> Result<Vec<Reach>, Fault> {
        routes::reach(&mut locked(&self.router), addresses)
    }

    fn found_routes(&self) -> Result<FoundRoutes, Fault> {
        routes::found(&mut locked(&self.router))
    }

    fn change_routes(&self, steps: &[Step]) -> Result<Vec<Fault>, Fault> {
        routes::change(&mut locked(&self.router), &self.sysctls, steps)
    }

    fn drift(&self, ruleset: &Ruleset) -> Result<Vec<String>, Fault> {
        let mut drift = self.nft.drift(ruleset)?;
        let stands = sysctl::forwarding();
        if !stands.v4 {
            drift.push("net.ipv4.ip_forward is off".to_owned());
        }
        if !stands.v6 && self.ipv6 {
            drift.push("net.ipv6.conf.all.forwarding is off".to_owned());
        }
        Ok(drift)
    }

    fn watch(&self, sink: Box<dyn Fn(Event) + Send>) -> Result<Survey, Fault> {
        let (nft, router) = (self.nft.port()?, locked(&self.router).port()?);
        self.surveyed(|| Ok(survey::made_of(watch::watch(nft, router, sink)?, self.group)))
    }
}
