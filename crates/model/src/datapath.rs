//! The seam between decision and kernel: one coarse trait, with two implementations, Linux (`kernel`) and the fake that
//! fails at step k (crates/daemon/tests/desk/fake.rs).
//!
//! Everything here may block for as long as the kernel takes; nothing here decides.

use crate::address::Family;
use crate::adopt::{MasqueradeRule, Seen};
use crate::flows::{Forgotten, Past};
use crate::key::{HostLink, InterfaceName};
use crate::op::Op;
use crate::plan::Plan;
use crate::ports::PortForward;
use crate::record::NamespaceId;
use crate::routes::{FoundRoutes, Reach, Step};
use crate::ruleset::Ruleset;
use crate::survey::{FoundLink, Survey, Uplink};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// What makes plans true.
pub trait Datapath: Send + Sync + 'static {
    /// An open network namespace.
    type Namespace: Send + 'static;

    /// Whether there is this family at all. Without IPv6 (`ipv6.disable=1`) an attach with an IPv6 address is refused.
    fn supports(&self, family: Family) -> bool;

    /// Messages that were sent to the kernel so far, for whatever end. Only told.
    fn messages(&self) -> u64 {
        0
    }

    /// Opens a path, checks that it is a network namespace that a workload may live in, and tells its identity.
    fn open(&self, path: &str) -> Result<(Self::Namespace, NamespaceId), OpenError>;

    /// Makes a plan true. When it returns `Ok`, packets flow. When it fails, everything that was done is undone, and
    /// what could not be is said.
    ///
    /// Returns the host end's index, which is the plan's unless that one was taken.
    fn wire(&self, namespace: &Self::Namespace, plan: &Plan) -> Result<u32, WireError>;

    /// Deletes links together, and returns when the kernel has acknowledged it. Their ends are announced through
    /// [`Event::LinkGone`] long before. A link that is gone already is a success, and one that has the target's index and
    /// another name is left alone, and counts as gone. The same link in another group is somebody else's to delete, which is
    /// a fault, unless it is a group that links are deleted in.
    fn unwire(&self, links: &[Target]) -> Vec<Result<(), Fault>>;

    /// Puts host ops on an existing link of ours, also on one that is in another group and carries its record. Goes on past errors and returns them; what is there already is no
    /// error, but a route that somebody else has is.
    fn restore(&self, link: &Target, ops: &[Op]) -> Vec<Fault>;

    /// These ports of the node lead to a link of this index, in place of those that did, and no others. Before the first
    /// [`Self::publish`], or [`Self::drift`] that finds nothing, that is only noted. It stays noted also where it fails: what is noted is a part of what `publish`
    /// puts in place and [`Self::drift`] compares with. [`Self::wire`] does the same with the forwards of its plan, and
    /// [`Self::unwire`] with none.
    fn set_forwards(&self, link: u32, forwards: &[PortForward]) -> Result<(), Fault>;

    /// Everything of ours, and what the node needs beside it. Interrupted dumps are repeated.
    fn survey(&self) -> Result<Survey, Fault>;

    /// One link with all that belongs to it; `None` where no link has the name.
    fn find(&self, link: &HostLink) -> Result<Option<FoundLink>, Fault>;

    /// One link with all that belongs to it; `None` where the link of the index is not known by the name.
    fn find_at(&self, link: &HostLink, index: u32) -> Result<Option<FoundLink>, Fault> {
        Ok(self.find(link)?.filter(|found| found.index == index))
    }

    /// What a link inside a namespace is, and its other end: for taking over what another plugin made. A datapath whose
    /// links no other plugin can have made refuses.
    fn look(&self, _: &Self::Namespace, interface: &InterfaceName) -> Result<Seen, Fault> {
        Err(no_adoption(format!("look at {interface}")))
    }

    /// The rules by which the CNI project's plugins masquerade in nftables.
    fn masquerade_rules(&self) -> Result<Vec<MasqueradeRule>, Fault> {
        Ok(Vec::new())
    }

    /// Does ops in order on a link that is there, whoever's it is, up to the first that fails. What is as it should be
    /// already is no failure, but a claim that another link has.
    fn change(&self, link: &FoundLink, _: &[Op]) -> Result<(), Fault> {
        Err(no_adoption(format!("change {}", link.name)))
    }

    /// Does ops as [`Self::change`] does, but past those that fail; the last one, which forgets how the link was, only where
    /// none did. Returns the first fault.
    fn give_back(&self, link: &FoundLink, _: &[Op]) -> Result<(), Fault> {
        Err(no_adoption(format!("give back {}", link.name)))
    }

    /// The device of the default route.
    fn uplink(&self) -> Result<Option<Uplink>, Fault>;

    /// Makes our nftables table what the ruleset says, in one transaction, and switches forwarding on for both
    /// families.
    fn publish(&self, ruleset: &Ruleset) -> Result<(), Fault>;

    /// Where packets keep their workload's address, changed in one transaction: what is no longer spared, and what is from
    /// now on. An error leaves all as it was.
    fn spare(&self, gone: &[IpNet], came: &[IpNet]) -> Result<(), Fault>;

    /// Where packets keep their workload's address as the kernel has it, be it from an earlier daemon; nothing where there is
    /// no table.
    fn spared(&self) -> Result<Vec<IpNet>, Fault>;

    /// Connection tracking forgets connections of the past, up to a number that keeps it short of holding anybody up: where
    /// there is more, it is said, and the same again goes on. May take as long as a walk over all connections.
    fn forget(&self, past: &Past) -> Result<Forgotten, Fault>;

    /// How packets to each of these addresses would leave the node.
    fn reach(&self, addresses: &[IpAddr]) -> Result<Vec<Reach>, Fault>;

    /// What there is of routes to other nodes.
    fn found_routes(&self) -> Result<FoundRoutes, Fault>;

    /// Carries steps out, in their order and past errors, which it returns. What is gone already is no error.
    fn change_routes(&self, steps: &[Step]) -> Result<Vec<Fault>, Fault>;

    /// What of the ruleset and of forwarding is not as published, in words; empty: nothing.
    fn drift(&self, ruleset: &Ruleset) -> Result<Vec<String>, Fault>;

    /// Tells from now on what happens to links, routes and the table, on a thread of its own. Returns the first survey: what
    /// happens after it, and perhaps some of what it has seen, is told. Called once.
    fn watch(&self, sink: Box<dyn Fn(Event) + Send>) -> Result<Survey, Fault>;
}

fn no_adoption(tried: String) -> Fault {
    Fault {
        tried,
        reason: "this datapath takes over no links of others".to_owned(),
        errno: 0,
    }
}

/// A link of ours to act on: found by index, and touched only if name and group are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub link: HostLink,
    /// Its interface index.
    pub index: u32,
    /// The group that it carries.
    pub group: u32,
}

impl Target {
    /// A link that was found, by the name that we know it by.
    pub fn of(link: HostLink, found: &FoundLink) -> Self {
        Self {
            link,
            index: found.index,
            group: found.group,
        }
    }
}

/// What happened in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link with a name like ours is gone from the daemon's namespace.
    LinkGone {
        /// Its name.
        link: HostLink,
        /// Its interface index.
        index: u32,
    },
    /// A link with a name like ours is down, or lost something of what it had.
    LinkTouched {
        /// Its name.
        link: HostLink,
        /// Its interface index.
        index: u32,
    },
    /// A single address's route over a link of ours was removed, or somebody else has one to the same address.
    RouteGone {
        /// Where to.
        destination: IpNet,
        /// The interface index of the link it went over.
        index: u32,
    },
    /// An address came to or went from a link that is not ours, or somebody else's route to a single address did.
    AddressTouched {
        /// The address.
        address: IpAddr,
    },
    /// Somebody other than us changed our table.
    RulesetTouched,
    /// A default route or its device changed.
    UplinkTouched,
    /// A link, an address or a route of others changed, by which other nodes may be reached, or one of our routes to them,
    /// or what belongs to it.
    RoutesTouched,
    /// Notifications were lost (ENOBUFS): only a survey can tell what is.
    Lost,
}

/// The kernel refused: what was tried, on what, and its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tried}: {reason} (errno {errno})")]
pub struct Fault {
    /// What was tried and on what, e.g. `ip route add 10.77.0.5/32 dev wk0123456789abc`.
    pub tried: String,
    /// The error's text, followed by the kernel's own message where it gave one (extended ACK).
    pub reason: String,
    /// The error's number; 0 where it is not the kernel that refused, or its answer could not be read.
    pub errno: i32,
}

/// Why a path cannot be attached to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("there is nothing at {path:?}")]
    NotFound {
        /// The path.
        path: String,
    },
    /// A file of another kind.
    #[error("{path:?} is not a network namespace: {what}")]
    NotANamespace {
        /// The path.
        path: String,
        /// What it is.
        what: String,
    },
    /// The node's own network: attaching to it would cut the node off.
    #[error("{path:?} is the network namespace of {whose}")]
    Forbidden {
        /// The path.
        path: String,
        /// `the daemon itself` or `the node's init`.
        whose: &'static str,
    },
    /// Anything else.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why a plan was not made true. Nothing of it is left, but what `Refused` says was left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A link has the host end's name.
    #[error("a link named {link} exists already")]
    LinkTaken {
        /// The name.
        link: HostLink,
    },
    /// A link has one of the host end's further names, as one of ours that somebody has renamed.
    #[error("a link has the name {name} already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A link has the workload end's name inside the namespace.
    #[error("the namespace has a link named {interface} already")]
    InterfaceTaken {
        /// The name.
        interface: InterfaceName,
    },
    /// The namespace is set up by somebody else, or by another attachment: at most one default route per family.
    #[error("the namespace has {what} already")]
    InsideTaken {
        /// e.g. `a route to 0.0.0.0/0`.
        what: String,
    },
    /// Somebody else routes the address.
    #[error("{destination} is routed by somebody else already")]
    Routed {
        /// The address.
        destination: IpNet,
    },
    /// The namespace, or the link with it, went away meanwhile.
    #[error("the namespace went away meanwhile: {0}")]
    Vanished(Fault),
    /// The kernel refused.
    #[error("{fault}{}", Left(left))]
    Refused {
        /// Which step, and why.
        fault: Fault,
        /// What could not be undone.
        left: Vec<Fault>,
    },
}

struct Left<'a>(&'a [Fault]);

impl fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in self.0 {
            write!(f, "; could not be undone: {fault}")?;
        }
        Ok(())
    }
}
