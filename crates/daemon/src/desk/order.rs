//! What is asked of the desk, and what it answers: good values in, outcomes out.

use crate::source::Kind;
use model::address::{Addresses, Mac};
use model::datapath::{Fault, OpenError, WireError};
use model::ipam::{Moment, Usage};
use model::key::Key;
use model::plan::LinkPlan;
use model::ports::{HostPort, Ports};
use model::prefix::{MOST, Prefix, PrefixError};
use model::record::{NamespaceId, Record};
use model::routes::{Mode, Way};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Labels for people.
pub type Labels = BTreeMap<String, String>;

/// Attach this.
#[derive(Debug, Clone)]
pub struct AttachOrder {
    /// What it is to be known by.
    pub key: Key,
    /// Where the namespace is: absolute, no NUL.
    pub path: String,
    /// The MTU that was asked for, in bytes.
    pub mtu: Option<u16>,
    /// The IPv4 address that was asked for.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address that was asked for.
    pub v6: Option<Ipv6Addr>,
    /// The MAC of the workload's end that was asked for.
    pub mac: Option<Mac>,
    /// Ports of the node that are to lead to it.
    pub ports: Ports,
    /// For people.
    pub labels: Labels,
    /// The caller has gone by then: an order that has not begun is dropped.
    pub deadline: Option<Instant>,
}

impl AttachOrder {
    /// Whether the address was asked for.
    pub fn asks_for(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4 == Some(address),
            IpAddr::V6(address) => self.v6 == Some(address),
        }
    }
}

/// Take this off.
#[derive(Debug, Clone)]
pub struct DetachOrder {
    /// What it is known by.
    pub key: Key,
    /// The namespace that the caller means; `None` where it names none.
    pub path: Option<String>,
    /// Only what was attached before this moment.
    pub before: Option<Moment>,
}

/// An attachment as the desk knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What its link says.
    pub record: Record,
    /// Names, MACs, index, MTU, group.
    pub link: LinkPlan,
    /// For people.
    pub labels: Labels,
    /// A Detach is under way.
    pub detaching: bool,
    /// It was taken over from another plugin, and can be given back.
    pub undoable: bool,
    /// When it was attached, or found at the daemon's start.
    pub since: Moment,
}

impl Attachment {
    /// What it is known by.
    pub fn key(&self) -> &Key {
        &self.record.key
    }

    /// What the workload holds.
    pub fn addresses(&self) -> Addresses {
        self.record.addresses
    }

    /// The MTU that the workload has to go by, in bytes: its link's, or a smaller one of what leaves the node.
    pub fn mtu(&self) -> u16 {
        self.record.outward_mtu.unwrap_or(self.link.mtu)
    }

    /// Where the workload's end is.
    pub fn namespace(&self) -> NamespaceId {
        self.record.namespace
    }
}

/// Take over what another plugin attached, or give it back.
#[derive(Debug, Clone)]
pub struct AdoptOrder {
    /// What it is, or is to be, known by.
    pub key: Key,
    /// What to do.
    pub step: Step,
}

/// A step of an adoption.
#[derive(Debug, Clone)]
pub enum Step {
    /// Only say whether it could be taken over.
    Check {
        /// Where its namespace is.
        path: String,
        /// What it was given.
        addresses: Addresses,
    },
    /// Take it over.
    Take {
        /// Where its namespace is.
        path: String,
        /// What it was given.
        addresses: Addresses,
    },
    /// Make it as it was.
    Undo,
    /// Keep it for good.
    Commit,
}

/// What became of an [`AdoptOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It could be taken over.
    Possible,
    /// It is taken over, and can be given back.
    Taken,
    /// It is as it was.
    Undone,
    /// It is taken over for good.
    Committed,
    /// Nothing was changed, for these reasons.
    Refused(Vec<String>),
}

/// What nobody knows of any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Its keys.
    pub keys: Vec<Key>,
    /// All of it was attached before.
    pub before: Moment,
}

/// What became of a Detach that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// The link is gone, its addresses cool down.
    Done,
    /// Nothing was there.
    WasAbsent,
    /// What is attached is another sandbox's, and was left alone.
    IsNewer,
}

/// Why an order was not carried out. Nothing of it is left.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// Conditions in words.
    #[error("not ready: {}", .0.join("; "))]
    NotReady(Vec<String>),
    /// Too much is waiting.
    #[error("{waiting} orders are waiting, which is the most")]
    Overloaded {
        /// Orders that wait.
        waiting: usize,
    },
    /// Prefixes come from elsewhere.
    #[error(
        "prefixes come from the source {source_kind}, and can be set only where prefixes.source is \"api\""
    )]
    OtherSource {
        /// From where.
        source_kind: Kind,
    },
    /// These prefixes cannot be served.
    #[error("prefix: {0}")]
    Unservable(Unservable),
    /// The daemon is on its way out.
    #[error("the daemon is stopping")]
    Stopping,
    /// The caller's deadline passed before the order's turn came.
    #[error("the deadline passed before the work began")]
    TooLate,
    /// The namespace's path cannot be used.
    #[error(transparent)]
    Namespace(#[from] OpenError),
    /// Opening the path took too long: somebody's file system hangs.
    #[error("{path:?} could not be opened within {limit:?}")]
    NamespaceHangs {
        /// The path.
        path: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The key is attached in another way.
    #[error("{key} is attached already, with {}", .differences.join(", "))]
    Different {
        /// The key.
        key: Box<Key>,
        /// e.g. `MTU 1500 instead of 1400`.
        differences: Vec<String>,
    },
    /// The host end's name is on a link that is not ours, or whose record cannot be read.
    #[error("the link {link} is in the way: {why}")]
    InTheWay {
        /// Its name.
        link: String,
        /// Why it is not taken away.
        why: String,
    },
    /// No prefix of any family has room.
    #[error("no address is left in {}", list(.0))]
    Exhausted(Vec<Prefix>),
    /// A requested address is held.
    #[error("{address} is held by {holder}")]
    Held {
        /// The address.
        address: std::net::IpAddr,
        /// Key of the holder, or what else has it.
        holder: String,
    },
    /// A requested address is in no prefix, or reserved.
    #[error("{address} cannot be given out: {why}")]
    NotOurs {
        /// The address.
        address: std::net::IpAddr,
        /// Why not.
        why: String,
    },
    /// A port of the node leads elsewhere.
    #[error("{port}: this port of the node is held by {holder}")]
    PortHeld {
        /// Which.
        port: HostPort,
        /// Whose.
        holder: Box<Key>,
    },
    /// A port of the node would lead nowhere.
    #[error("{port} is for a family that the workload has no address of: it gets {addresses}")]
    PortAstray {
        /// Which.
        port: HostPort,
        /// What it would get.
        addresses: Addresses,
    },
    /// An MTU too small for IPv6 (RFC 8200, section 5), which the workload would get.
    #[error("an MTU of {mtu} is below 1280, which IPv6 needs")]
    MtuTooSmall {
        /// The MTU.
        mtu: u16,
    },
    /// The plan could not be made true.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The kernel refused something else.
    #[error(transparent)]
    Kernel(#[from] Fault),
}

fn list(prefixes: &[Prefix]) -> String {
    prefixes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// One difference between what the kernel is to hold and what it was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The attachment that it concerns; `None`: the node.
    pub key: Option<Key>,
    /// In words.
    pub text: String,
}

/// The node as the desk knows it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where prefixes come from.
    pub source: SourceState,
    /// Every prefix that serves or drains.
    pub prefixes: Vec<PrefixUse>,
    /// Unmet conditions; empty: an Attach could succeed.
    pub unready: Vec<String>,
    /// Conditions that hinder nothing today.
    pub warnings: Vec<String>,
    /// How many stand.
    pub attachments: usize,
    /// What a link gets where the request names none.
    pub mtu: u16,
    /// `settings`, `uplink eth0`, or `default`.
    pub mtu_source: String,
    /// Orders that may wait.
    pub max_queued: usize,
    /// How other nodes are routed to.
    pub routes: Arc<Routes>,
}

/// How other nodes are routed to, as it was made last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    /// As it is set.
    pub mode: Mode,
    /// One per peer and family that it has prefixes of.
    pub ways: Vec<Way>,
    /// What is wrong with the peers, in words.
    pub warnings: Vec<String>,
    /// What the kernel refused.
    pub faults: Vec<String>,
    /// The smallest MTU of a way in use, and which that is.
    pub mtu: Option<(u16, String)>,
    /// They were made since the daemon began.
    pub made: bool,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            mode: Mode::None,
            ways: Vec::new(),
            warnings: Vec::new(),
            faults: Vec::new(),
            mtu: None,
            made: false,
        }
    }
}

/// Conditions of one kind that are said one by one.
const SAID: usize = 10;

impl Routes {
    /// What hinders packets to other nodes, in words.
    pub(super) fn said(&self, peers_known: bool, trouble: Option<&str>) -> Vec<String> {
        let mut said = Vec::new();
        if !peers_known {
            let stays = match self.mode {
                Mode::None => "what is not masqueraded on its way to them stays so",
                _ => "routes to them are left as they stand",
            };
            said.push(format!("the other nodes are not known yet: {stays}"));
        }
        said.extend(trouble.map(|why| format!("the other nodes are those that were told last: {why}")));
        let lost = self.ways.iter().filter_map(|way| {
            let why = way.how.as_ref().err()?;
            Some(format!("no {} route to peer {}: {why}", way.family, way.peer))
        });
        let faults = self
            .faults
            .iter()
            .map(|fault| format!("a route is not in place: {fault}"));
        let mut all: Vec<String> = self.warnings.iter().cloned().chain(lost).chain(faults).collect();
        let more = all.len().saturating_sub(SAID);
        all.truncate(SAID);
        said.extend(all);
        if more > 0 {
            said.push(format!("{more} more of routes to other nodes"));
        }
        said
    }
}

/// How full a prefix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixUse {
    /// The prefix.
    pub prefix: Prefix,
    /// Addresses that can be given out.
    pub capacity: u128,
    /// Held.
    pub used: u128,
    /// Could be given out at once.
    pub free: u128,
    /// Freed a short while ago.
    pub cooling: u128,
    /// Gives out nothing more.
    pub draining: bool,
    /// The generation in which it came to serve, or to drain.
    pub generation: u64,
}

impl From<Usage> for PrefixUse {
    fn from(u: Usage) -> Self {
        Self {
            prefix: u.prefix,
            capacity: u.capacity,
            used: u.used,
            free: u.free,
            cooling: u.cooling,
            draining: u.draining,
            generation: u.generation,
        }
    }
}

/// Where prefixes come from, and how that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// Which.
    pub kind: Kind,
    /// Changes so far; 0: nothing good was told yet.
    pub generation: u64,
    /// Why nothing good was told lately.
    pub trouble: Option<String>,
}

/// What whoever looks after the node wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notable {
    /// An attach was refused, because none of these prefixes has an address left.
    Exhausted(Vec<Prefix>),
    /// Somebody had changed what is ours, and it was put back: what, in words.
    Drift(String),
}

/// Why prefixes cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unservable {
    /// Nothing would be left.
    #[error("it names no prefix")]
    Empty,
    /// Too much of what served before is in use.
    #[error("{0} prefixes would drain, of which addresses are in use or cool down: at most {MOST} may")]
    Draining(usize),
    /// They overlap, or are too many.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
}
