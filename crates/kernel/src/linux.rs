//! The datapath on Linux.

mod unwire;
mod wire;

use crate::encode;
use crate::netns::Home;
use crate::nft::Nft;
use crate::socket::{ROUTE, Socket};
use crate::{survey, sysctl, watch};
use model::datapath::{Datapath, Event, Fault, OpenError, Target, WireError};
use model::key::HostLink;
use model::plan::{Op, Plan};
use model::record::NamespaceId;
use model::ruleset::Ruleset;
use model::survey::{FoundLink, Survey, Uplink};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `EEXIST`, errno-base.h.
const EEXIST: i32 = 17;

/// The network namespace in which it was opened, and the links of one group there.
#[derive(Debug)]
pub struct Linux {
    group: u32,
    home: Home,
    ipv6: bool,
    /// Used by the one thread that wires.
    writer: Mutex<Socket>,
    /// Used for everything that answers at once.
    reader: Mutex<Socket>,
    nft: Nft,
    next_dying_group: AtomicU32,
}

impl Linux {
    /// In the calling thread's network namespace, which every thread that uses it has to be in. `group` marks our links.
    pub fn open(group: u32) -> Result<Self, Fault> {
        Ok(Self {
            group,
            home: Home::here()?,
            ipv6: sysctl::has_ipv6(),
            writer: Mutex::new(Socket::open(ROUTE)?),
            reader: Mutex::new(Socket::open(ROUTE)?),
            nft: Nft::open()?,
            next_dying_group: AtomicU32::new(0),
        })
    }

    fn reader(&self) -> MutexGuard<'_, Socket> {
        locked(&self.reader)
    }

    /// Whether the index is still the link that is meant.
    fn is(socket: &mut Socket, target: &Target) -> Result<bool, Fault> {
        let found = survey::find_link(socket, target.link.as_str())?;
        Ok(found.is_some_and(|link| link.index == target.index && link.group == target.group))
    }
}

/// A socket that was left in the middle of an answer skips what is left of it, so a poisoned one can be used.
fn locked(socket: &Mutex<Socket>) -> MutexGuard<'_, Socket> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Datapath for Linux {
    type Namespace = OwnedFd;

    fn open(&self, path: &str) -> Result<(OwnedFd, NamespaceId), OpenError> {
        self.home.open(path)
    }

    fn wire(&self, namespace: &OwnedFd, plan: &Plan) -> Result<u32, WireError> {
        wire::wire(&self.home, &mut locked(&self.writer), self.ipv6, namespace, plan)
    }

    fn unwire(&self, links: &[Target]) -> Vec<Result<(), Fault>> {
        unwire::unwire(&self.next_dying_group, links)
    }

    fn restore(&self, link: &Target, ops: &[Op]) -> Vec<Fault> {
        let mut socket = self.reader();
        match Self::is(&mut socket, link) {
            Ok(true) => {}
            // Gone already; the notification is on its way.
            Ok(false) => return Vec::new(),
            Err(fault) => return vec![fault],
        }
        let batch: Vec<_> = ops
            .iter()
            .map(|op| encode::op(op, link.index, link.link.as_str(), 0, self.ipv6))
            .collect();
        match socket.batch(&batch) {
            Err(fault) => vec![fault],
            Ok(answer) => answer
                .refused
                .into_iter()
                .filter(|refused| {
                    refused.fault.errno != EEXIST || matches!(ops[refused.position], Op::Route { .. })
                })
                .map(|refused| refused.fault)
                .collect(),
        }
    }

    fn survey(&self) -> Result<Survey, Fault> {
        survey::survey(&mut self.reader(), self.group)
    }

    fn find(&self, link: &HostLink) -> Result<Option<FoundLink>, Fault> {
        survey::find(&mut self.reader(), link)
    }

    fn uplink(&self) -> Result<Option<Uplink>, Fault> {
        survey::uplink(&mut self.reader())
    }

    fn publish(&self, ruleset: &Ruleset) -> Result<(), Fault> {
        self.nft.publish(ruleset)?;
        sysctl::ensure_forwarding()
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

    fn watch(&self, sink: Box<dyn Fn(Event) + Send>) -> Result<(), Fault> {
        watch::watch(self.nft.port()?, sink)
    }
}
