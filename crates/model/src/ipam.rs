//! Which address a workload gets.
//!
//! ```text
//!              lease                     free
//!   untouched -------> held by a key ----------> cooling ---(cool-down)---> rested
//!                          ^                        |                         |
//!                          +------ nothing else ----+------ oldest first -----+
//! ```
//! Next-fit: each prefix is a ring with a cursor that goes over the addresses that nobody has touched, from a random start;
//! freed ones wait in a queue, oldest first. Every address that the cursor skips is skipped once a lap, and every freed one
//! is taken from the queue's front, so an allocation costs the same at any fill of a /16 and of a /64.

use crate::address::{Addresses, Family};
use crate::key::Key;
use crate::prefix::Prefix;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Time since boot (`CLOCK_BOOTTIME`), so that it goes on over a restart of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

/// Freed addresses that a prefix remembers in order. A /16 fits; of a larger prefix the oldest are forgotten, and found again
/// by the next lap.
const REMEMBERED: usize = 1 << 17;

/// Addresses that were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Wanted {
    fn of(&self, family: Family) -> Option<IpAddr> {
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
    /// Those among them that had not cooled down, and since when they had been cooling.
    pub warm: Vec<IpAddr>,
    /// From when on each one would have cooled, had it not been given out.
    before: Vec<(IpAddr, Option<Moment>)>,
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Held(Key),
    /// Freed at a moment; only the queue's entry with the same stamp stands for it.
    Resting {
        since: Moment,
        stamp: u64,
    },
}

#[derive(Debug)]
struct Pool {
    prefix: Prefix,
    /// Offset that the cursor looks at next.
    cursor: u128,
    /// Offsets that the cursor has not yet looked at in this lap.
    left: u128,
    resting: VecDeque<(IpAddr, u64)>,
    held: u128,
}

/// All addresses of the node's prefixes.
#[derive(Debug)]
pub struct Ipam {
    cool_down: Duration,
    pools: Vec<Pool>,
    draining: Vec<Prefix>,
    slots: HashMap<IpAddr, Slot>,
    taken: HashSet<IpAddr>,
    stamps: u64,
    steps: u64,
}

impl Pool {
    fn new(prefix: Prefix, random: u128) -> Self {
        let (first, last) = prefix.usable();
        let capacity = (last - first).saturating_add(1);
        Self {
            prefix,
            cursor: first + random % capacity,
            left: capacity,
            resting: VecDeque::new(),
            held: 0,
        }
    }

    fn capacity(&self) -> u128 {
        let (first, last) = self.prefix.usable();
        (last - first).saturating_add(1)
    }

    fn serves(&self, address: IpAddr) -> bool {
        self.prefix.contains(address) && self.prefix.reserved(address).is_none()
    }
}

impl Ipam {
    /// Without prefixes.
    pub fn new(cool_down: Duration) -> Self {
        Self {
            cool_down,
            pools: Vec::new(),
            draining: Vec::new(),
            slots: HashMap::new(),
            taken: HashSet::new(),
            stamps: 0,
            steps: 0,
        }
    }

    /// These serve from now on, in this order, each from a random start; what served before and is not among them drains.
    pub fn set_prefixes(&mut self, prefixes: &[Prefix], random: &mut dyn FnMut() -> u128) {
        let mut old: Vec<Pool> = std::mem::take(&mut self.pools);
        for &prefix in prefixes {
            let known = old.iter().position(|pool| pool.prefix == prefix);
            let pool = known.map_or_else(|| Pool::new(prefix, random()), |n| old.swap_remove(n));
            self.pools.push(pool);
        }
        self.draining.extend(old.iter().map(|pool| pool.prefix));
        self.draining.retain(|prefix| !prefixes.contains(prefix));
        // What was freed is remembered only where it can be given out again.
        let Self { pools, slots, .. } = self;
        slots.retain(|address, slot| {
            matches!(slot, Slot::Held(_)) || pools.iter().any(|pool| pool.serves(*address))
        });
        for pool in pools.iter_mut() {
            pool.held = 0;
        }
        for (address, slot) in slots.iter() {
            if let (Slot::Held(_), Some(pool)) = (slot, pools.iter_mut().find(|pool| pool.serves(*address))) {
                pool.held += 1;
            }
        }
        let mut order: Vec<(u64, IpAddr)> = slots
            .iter()
            .filter_map(|(address, slot)| match slot {
                Slot::Resting { stamp, .. } => Some((*stamp, *address)),
                Slot::Held(_) => None,
            })
            .collect();
        order.sort_unstable();
        pools.iter_mut().for_each(|pool| pool.resting.clear());
        for (stamp, address) in order {
            if let Some(pool) = pools.iter_mut().find(|pool| pool.serves(address)) {
                pool.resting.push_back((address, stamp));
            }
        }
        self.forget_drained();
    }

    /// Addresses that other links of the node have, or that others route: never given out.
    pub fn set_taken(&mut self, taken: impl IntoIterator<Item = IpAddr>) {
        self.taken = taken.into_iter().collect();
    }

    /// One address per family that is served.
    pub fn lease(&mut self, key: &Key, wanted: Wanted, now: Moment) -> Result<Granted, LeaseError> {
        let mut chosen = Vec::new();
        for family in Family::ALL {
            let serves = self.pools.iter().any(|pool| pool.prefix.family() == family);
            let picked = match wanted.of(family) {
                Some(address) => Some(self.requested(address, now)),
                None if serves => Some(self.next(family, now)),
                None => None,
            };
            match picked {
                Some(Ok((address, warm))) => {
                    let before = self.occupy(address, key);
                    chosen.push((address, warm, before));
                }
                Some(Err(error)) => {
                    for (address, _, before) in chosen {
                        self.put_back(address, before);
                    }
                    return Err(error);
                }
                None => {}
            }
        }
        let addresses = Addresses::from_list(chosen.iter().map(|c| c.0)).ok_or(LeaseError::NoPrefix)?;
        Ok(Granted {
            addresses,
            warm: chosen.iter().filter(|c| c.1).map(|c| c.0).collect(),
            before: chosen.iter().map(|c| (c.0, c.2)).collect(),
        })
    }

    /// As if the lease had never been: what was cooling cools on from its old moment.
    pub fn undo(&mut self, granted: &Granted) {
        for &(address, before) in &granted.before {
            self.put_back(address, before);
        }
    }

    /// Gives addresses back; they cool down from now on.
    pub fn free(&mut self, addresses: Addresses, now: Moment) {
        for address in addresses.iter() {
            self.vacate(address);
            self.rest(address, now);
        }
        self.forget_drained();
    }

    /// A lease that was found to stand. It may lie outside of every prefix: then its prefix drains.
    pub fn hold(&mut self, key: &Key, addresses: Addresses) -> Result<(), Conflict> {
        for address in addresses.iter() {
            if let Some(Slot::Held(holder)) = self.slots.get(&address)
                && holder != key
            {
                return Err(Conflict {
                    address,
                    holder: holder.clone(),
                });
            }
        }
        for address in addresses.iter() {
            self.occupy(address, key);
        }
        Ok(())
    }

    /// An address that was freed before a restart. Ignored where it is held, or not ours.
    pub fn cool(&mut self, address: IpAddr, since: Moment) {
        if !self.slots.contains_key(&address) {
            self.rest(address, since);
        }
    }

    /// What still cools down, the longest first.
    pub fn cooling(&self, now: Moment) -> Vec<(IpAddr, Moment)> {
        let mut all: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(address, slot)| match slot {
                Slot::Resting { since, stamp } if !self.is_cool(*since, now) => {
                    Some((*stamp, *address, *since))
                }
                _ => None,
            })
            .collect();
        all.sort_unstable();
        all.into_iter()
            .map(|(_, address, since)| (address, since))
            .collect()
    }

    /// Who holds an address.
    pub fn holder(&self, address: IpAddr) -> Option<&Key> {
        match self.slots.get(&address) {
            Some(Slot::Held(key)) => Some(key),
            _ => None,
        }
    }

    /// How full every prefix is, those that drain last.
    pub fn usage(&self, now: Moment) -> Vec<Usage> {
        let serving = self.pools.iter().map(|pool| {
            let cooling = pool.resting.iter().filter(|(address, stamp)| {
                matches!(self.slots.get(address),
                    Some(Slot::Resting { since, stamp: s }) if s == stamp && !self.is_cool(*since, now))
            });
            let (capacity, cooling) = (pool.capacity(), cooling.count() as u128);
            let taken = self
                .taken
                .iter()
                .filter(|a| pool.serves(**a) && !self.slots.contains_key(a))
                .count() as u128;
            Usage {
                prefix: pool.prefix,
                capacity,
                used: pool.held,
                free: capacity - pool.held - cooling - taken,
                cooling,
                draining: false,
            }
        });
        let draining = self.draining.iter().map(|prefix| {
            let used = self.held_in(prefix);
            Usage {
                prefix: *prefix,
                capacity: Pool::new(*prefix, 0).capacity(),
                used,
                free: 0,
                cooling: 0,
                draining: true,
            }
        });
        serving.chain(draining).collect()
    }

    /// Addresses looked at so far, by which a test tells what an allocation costs.
    #[doc(hidden)]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn is_cool(&self, since: Moment, now: Moment) -> bool {
        // Zero stands for "never used".
        since.0.is_zero() || now.0.saturating_sub(since.0) >= self.cool_down
    }

    fn held_in(&self, prefix: &Prefix) -> u128 {
        let held =
            |(address, slot): &(&IpAddr, &Slot)| prefix.contains(**address) && matches!(slot, Slot::Held(_));
        self.slots.iter().filter(held).count() as u128
    }

    fn requested(&self, address: IpAddr, now: Moment) -> Result<(IpAddr, bool), LeaseError> {
        let not_ours = |why: &str| LeaseError::NotOurs {
            address,
            why: why.to_owned(),
        };
        let Some(pool) = self.pools.iter().find(|pool| pool.prefix.contains(address)) else {
            return Err(not_ours("it is in none of this node's prefixes"));
        };
        if let Some(what) = pool.prefix.reserved(address) {
            return Err(not_ours(&format!("it is {what} of {}", pool.prefix)));
        }
        if self.taken.contains(&address) {
            return Err(LeaseError::Taken { address });
        }
        match self.slots.get(&address) {
            Some(Slot::Held(holder)) => Err(LeaseError::Held {
                address,
                holder: holder.clone(),
            }),
            Some(Slot::Resting { since, .. }) => Ok((address, !self.is_cool(*since, now))),
            None => Ok((address, false)),
        }
    }

    /// The next address of a family, and whether it is still warm.
    fn next(&mut self, family: Family, now: Moment) -> Result<(IpAddr, bool), LeaseError> {
        let of_family: Vec<usize> = (0..self.pools.len())
            .filter(|&n| self.pools[n].prefix.family() == family)
            .collect();
        for &n in &of_family {
            if let Some(address) = self.untouched(n).or_else(|| self.rested(n, now)) {
                return Ok((address, false));
            }
        }
        let oldest = of_family
            .iter()
            .filter_map(|&n| self.oldest(n))
            .min_by_key(|(_, stamp)| *stamp);
        match oldest {
            Some((address, _)) => Ok((address, true)),
            None => Err(LeaseError::Exhausted(
                of_family.iter().map(|&n| self.pools[n].prefix).collect(),
            )),
        }
    }

    fn untouched(&mut self, n: usize) -> Option<IpAddr> {
        let Self {
            pools,
            slots,
            taken,
            steps,
            ..
        } = self;
        let pool = &mut pools[n];
        let (first, last) = pool.prefix.usable();
        // Forgotten ones are found by a lap of their own.
        let known = pool.held + pool.resting.len() as u128;
        if pool.left == 0 && pool.resting.is_empty() && known + (taken.len() as u128) < pool.capacity() {
            pool.left = pool.capacity();
        }
        while pool.left > 0 {
            *steps += 1;
            let address = pool.prefix.at(pool.cursor);
            pool.cursor = if pool.cursor == last {
                first
            } else {
                pool.cursor + 1
            };
            pool.left -= 1;
            if !slots.contains_key(&address) && !taken.contains(&address) {
                return Some(address);
            }
        }
        None
    }

    /// The oldest freed address of a pool, with its stamp.
    fn oldest(&mut self, n: usize) -> Option<(IpAddr, u64)> {
        let Self {
            pools,
            slots,
            taken,
            steps,
            ..
        } = self;
        let queue = &mut pools[n].resting;
        loop {
            *steps += 1;
            let &(address, stamp) = queue.front()?;
            match slots.get(&address) {
                Some(Slot::Resting { stamp: s, .. }) if *s == stamp && !taken.contains(&address) => {
                    return Some((address, stamp));
                }
                // Given out by request, or freed again later: another entry, or none, stands for it.
                Some(Slot::Resting { stamp: s, .. }) if *s == stamp => {
                    slots.remove(&address);
                    queue.pop_front();
                }
                _ => drop(queue.pop_front()),
            }
        }
    }

    fn rested(&mut self, n: usize, now: Moment) -> Option<IpAddr> {
        let (address, _) = self.oldest(n)?;
        match self.slots.get(&address) {
            Some(Slot::Resting { since, .. }) if self.is_cool(*since, now) => Some(address),
            _ => None,
        }
    }

    fn pool_of(&mut self, address: IpAddr) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.serves(address))
    }

    /// Returns since when it was cooling.
    fn occupy(&mut self, address: IpAddr, key: &Key) -> Option<Moment> {
        match self.slots.insert(address, Slot::Held(key.clone())) {
            Some(Slot::Held(_)) => None,
            before => {
                if let Some(pool) = self.pool_of(address) {
                    pool.held += 1;
                }
                match before {
                    Some(Slot::Resting { since, .. }) => Some(since),
                    _ => None,
                }
            }
        }
    }

    fn vacate(&mut self, address: IpAddr) {
        if let Some(Slot::Held(_)) = self.slots.remove(&address)
            && let Some(pool) = self.pool_of(address)
        {
            pool.held -= 1;
        }
    }

    fn put_back(&mut self, address: IpAddr, before: Option<Moment>) {
        self.vacate(address);
        let Some(since) = before else {
            // Untouched, as before; the cursor is past it, so it goes to the front of those that have rested.
            self.stamps += 1;
            let stamp = self.stamps;
            if let Some(pool) = self.pool_of(address) {
                pool.resting.push_front((address, stamp));
                self.slots.insert(
                    address,
                    Slot::Resting {
                        since: Moment(Duration::ZERO),
                        stamp,
                    },
                );
            }
            return;
        };
        self.stamps += 1;
        let stamp = self.stamps;
        self.slots.insert(address, Slot::Resting { since, stamp });
        let place = self.place_of(address, since);
        if let Some(pool) = self.pool_of(address) {
            pool.resting.insert(place, (address, stamp));
        }
    }

    /// Where in its pool's queue an address belongs that has been cooling since a moment.
    fn place_of(&self, address: IpAddr, since: Moment) -> usize {
        let Some(pool) = self.pools.iter().find(|pool| pool.serves(address)) else {
            return 0;
        };
        let later = |(a, s): &(IpAddr, u64)| matches!(self.slots.get(a), Some(Slot::Resting { since: other, stamp }) if stamp == s && *other > since);
        pool.resting.iter().position(later).unwrap_or(pool.resting.len())
    }

    fn rest(&mut self, address: IpAddr, since: Moment) {
        self.stamps += 1;
        let stamp = self.stamps;
        let Self { pools, slots, .. } = self;
        let Some(pool) = pools.iter_mut().find(|pool| pool.serves(address)) else {
            return;
        };
        slots.insert(address, Slot::Resting { since, stamp });
        pool.resting.push_back((address, stamp));
        if pool.resting.len() > REMEMBERED
            && let Some((oldest, stamp)) = pool.resting.pop_front()
            && matches!(slots.get(&oldest), Some(Slot::Resting { stamp: s, .. }) if *s == stamp)
        {
            slots.remove(&oldest);
        }
    }

    fn forget_drained(&mut self) {
        let ended: Vec<Prefix> = self
            .draining
            .iter()
            .copied()
            .filter(|prefix| self.held_in(prefix) == 0)
            .collect();
        self.draining.retain(|prefix| !ended.contains(prefix));
    }
}
