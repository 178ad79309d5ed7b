//! What is asked of the allocator, and what it answers.

use super::pool::Rest;
use crate::address::{Addresses, Family};
use crate::key::Key;
use crate::prefix::Prefix;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Wanted {
    pub(super) fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

/// Addresses that were given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// One per family.
    pub addresses: Addresses,
    /// Those among them that had not cooled down.
    pub warm: Vec<IpAddr>,
    /// Where each one would rest, had it not been given out.
    pub(super) before: Vec<(IpAddr, Option<Rest>)>,
}

/// Why nothing was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseError {
    /// There is no prefix that serves.
    NoPrefix,
    /// These, all of one family, have no room.
    Exhausted(Vec<Prefix>),
    /// A requested address is held.
    Held {
        /// The address.
        address: IpAddr,
        /// By whom.
        holder: Key,
    },
    /// A requested address is on another link of the node, or routed elsewhere.
    Taken {
        /// The address.
        address: IpAddr,
    },
    /// A requested address is in no prefix that serves, or reserved.
    NotOurs {
        /// The address.
        address: IpAddr,
        /// In words.
        why: String,
    },
}

/// Two attachments claim one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// Who had it first.
    pub holder: Key,
}

/// How full a prefix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
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

/// Prefixes as they were before a restart, each with the generation in which it came to serve, or to drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// How often the list had changed.
    pub generation: u64,
    /// The list that was told last, in its order.
    pub serving: Vec<(Prefix, u64)>,
    /// In their order.
    pub draining: Vec<(Prefix, u64)>,
}
