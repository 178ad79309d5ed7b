//! Which address a workload gets.
//!
//! ```text
//!              lease                     free
//!   untouched -------> held by a key ----------> cooling ---(cool-down)---> rested
//!                          ^                        |                         |
//!                          +------ nothing else ----+------ oldest first -----+
//! ```
//! Next-fit: each prefix has a cursor that goes once over its ring of addresses, from a random start; what comes back
//! waits in a queue, oldest first. Each address is passed by the cursor once and leaves the queue once, so an allocation
//! costs the same at any fill of a /16 and of a /64.

use crate::address::{Addresses, Family};
use crate::key::Key;
use crate::prefix::Prefix;
use pool::{Ledger, Pool, Rest, Slot};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

pub use lease::{Conflict, Granted, LeaseError, Past, Usage, Wanted};

mod lease;
mod pool;

/// Time since boot (`CLOCK_BOOTTIME`), so that it goes on over a restart of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

/// All addresses of the node's prefixes.
#[derive(Debug)]
pub struct Ipam {
    cool_down: Duration,
    /// Those that serve, in their order; then those that drain.
    pools: Vec<Pool>,
    ledger: Ledger,
    stamps: u64,
    generation: u64,
    /// The list that was told last. After a restart it does not serve until it is told again.
    told: Vec<Prefix>,
}

/// Why an address cannot be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unheld {
    /// It is in no prefix.
    NotOurs,
    /// It is never given out.
    Reserved(&'static str),
    /// By another one.
    Held(Key),
}

impl Ipam {
    /// Without prefixes.
    pub fn new(cool_down: Duration) -> Self {
        Self {
            cool_down,
            pools: Vec::new(),
            ledger: Ledger::default(),
            stamps: 0,
            generation: 0,
            told: Vec::new(),
        }
    }

    /// After a restart: what served before drains until it is told again, and counting goes on. `random` is asked once for
    /// each prefix, where to begin in it.
    pub fn resumed(cool_down: Duration, past: &Past, random: &mut dyn FnMut() -> u128) -> Self {
        let mut ipam = Self::new(cool_down);
        ipam.generation = past.generation;
        ipam.told = past.serving.iter().map(|(prefix, _)| *prefix).collect();
        let mut known = HashSet::new();
        for &(prefix, since) in past.serving.iter().chain(&past.draining) {
            if known.insert(prefix) {
                let mut pool = Pool::new(prefix, random());
                (pool.draining, pool.generation) = (true, since.min(past.generation));
                ipam.pools.push(pool);
            }
        }
        ipam
    }

    /// What [`Self::resumed`] is to be told.
    pub fn past(&self) -> Past {
        let since: HashMap<Prefix, u64> = self.pools.iter().map(|p| (p.prefix, p.generation)).collect();
        let since = |prefix| (prefix, since.get(&prefix).copied().unwrap_or(self.generation));
        let told: HashSet<Prefix> = self.told.iter().copied().collect();
        Past {
            generation: self.generation,
            serving: self.told.iter().copied().map(since).collect(),
            draining: self.draining().filter(|p| !told.contains(p)).map(since).collect(),
        }
    }

    /// These, which are disjoint, serve from now on in this order; what served before and is not among them drains.
    /// `random` is asked once for each one that is not known yet, where to begin in it. Another list than the one before, also
    /// where that was told before a restart, is another generation.
    pub fn set_prefixes(&mut self, prefixes: &[Prefix], random: &mut dyn FnMut() -> u128) {
        let is_other = self.generation == 0 || self.told != prefixes;
        if !is_other && self.serving().eq(prefixes.iter().copied()) {
            return;
        }
        self.generation = self.generation.saturating_add(is_other.into());
        let generation = self.generation;
        let served: HashSet<Prefix> = std::mem::replace(&mut self.told, prefixes.to_vec())
            .into_iter()
            .collect();
        let mut known: Vec<Option<Pool>> = std::mem::take(&mut self.pools).into_iter().map(Some).collect();
        let places = known.iter().flatten().enumerate();
        let places: HashMap<Prefix, usize> = places.map(|(n, pool)| (pool.prefix, n)).collect();
        for &prefix in prefixes {
            let pool = places.get(&prefix).and_then(|n| known[*n].take());
            let is_known = pool.is_some();
            let mut pool = pool.unwrap_or_else(|| Pool::new(prefix, random()));
            if !is_known || !served.contains(&prefix) {
                pool.generation = generation;
            }
            pool.draining = false;
            self.pools.push(pool);
        }
        for mut pool in known.into_iter().flatten() {
            if served.contains(&pool.prefix) {
                pool.generation = generation;
            }
            pool.draining = true;
            self.pools.push(pool);
        }
        self.assign();
    }

    /// How often the prefixes have changed; 0: they were never set.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Prefixes that serve, in their order.
    pub fn serving(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.pools
            .iter()
            .filter(|pool| !pool.draining)
            .map(|pool| pool.prefix)
    }

    /// Prefixes that drain, those that are about to end among them.
    pub fn draining(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.pools
            .iter()
            .filter(|pool| pool.draining)
            .map(|pool| pool.prefix)
    }

    /// Prefixes that serve or drain.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.pools.iter().map(|pool| pool.prefix)
    }

    /// Prefixes that serve, and those that drain and have addresses in use.
    pub fn in_use(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.used().map(|pool| pool.prefix)
    }

    fn used(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(|pool| !pool.draining || pool.held > 0)
    }

    /// Addresses in use that are of no prefix.
    pub fn strays(&self) -> usize {
        let is_stray = |address: &IpAddr| !self.pools.iter().any(|pool| pool.has(*address));
        let slots = self.ledger.slots.iter();
        slots
            .filter(|(address, slot)| matches!(slot, Slot::Held(_)) && is_stray(address))
            .count()
    }

    /// Addresses that other links of the node have, or that others route: never given out.
    pub fn set_taken(&mut self, taken: impl IntoIterator<Item = IpAddr>) {
        let before = std::mem::replace(&mut self.ledger.taken, taken.into_iter().collect());
        self.count_taken();
        let mut given_up: Vec<IpAddr> = before.difference(&self.ledger.taken).copied().collect();
        given_up.sort_unstable();
        for address in given_up {
            match self.ledger.slots.get(&address) {
                // The queue dropped it, if it came to the front meanwhile.
                Some(&Slot::Resting(rest)) => self.rest(address, rest),
                Some(Slot::Held(_)) => {}
                None => self.put_back(address, None),
            }
        }
    }

    /// One address per family that is served, or none at all.
    pub fn lease(&mut self, key: &Key, wanted: Wanted, now: Moment) -> Result<Granted, LeaseError> {
        self.end_drained(now);
        if !self.pools.iter().any(|pool| !pool.draining) {
            return Err(LeaseError::NoPrefix);
        }
        let mut chosen = Vec::new();
        for family in Family::ALL {
            if let Some(address) = wanted.of(family) {
                chosen.push(self.requested(address)?);
            } else if self.pools.iter().any(|pool| pool.serves(family)) {
                chosen.push(self.next(family, now)?);
            }
        }
        let addresses = Addresses::from_list(chosen.iter().copied())
            .expect("some prefix serves, and each family was asked once");
        let before: Vec<_> = chosen
            .iter()
            .map(|&address| (address, self.occupy(address, key)))
            .collect();
        let is_warm = |rest: Option<Rest>| rest.is_some_and(|rest| !is_cool(self.cool_down, rest, now));
        Ok(Granted {
            addresses,
            warm: before.iter().filter(|b| is_warm(b.1)).map(|b| b.0).collect(),
            before,
        })
    }

    /// As if the lease had never been: what was cooling cools on from its old moment, in its old place.
    pub fn undo(&mut self, granted: &Granted) {
        for &(address, before) in &granted.before {
            self.vacate(address);
            self.put_back(address, before);
        }
    }

    /// Gives addresses back; they cool down from now on.
    pub fn free(&mut self, addresses: Addresses, now: Moment) {
        for address in addresses.iter() {
            self.vacate(address);
            self.cool(address, now);
        }
        self.end_drained(now);
    }

    /// A lease that was found to stand. It may lie outside of every prefix; then it is gone when it is freed.
    pub fn hold(&mut self, key: &Key, addresses: Addresses) -> Result<(), Conflict> {
        for address in addresses.iter() {
            if let Some(holder) = self.holder(address)
                && holder != key
            {
                let holder = holder.clone();
                return Err(Conflict { address, holder });
            }
        }
        for address in addresses.iter() {
            self.occupy(address, key);
        }
        Ok(())
    }

    /// An address that was freed at a moment, as remembered over a restart. Ignored where it is held, not ours, or known
    /// to have come back.
    pub fn cool(&mut self, address: IpAddr, since: Moment) {
        if !self.ledger.slots.contains_key(&address) {
            let rest = self.stamped(Some(since));
            self.rest(address, rest);
        }
    }

    /// What still cools down, the longest first.
    pub fn cooling(&self, now: Moment) -> Vec<(IpAddr, Moment)> {
        let mut all: Vec<_> = self
            .pools
            .iter()
            .flat_map(|pool| self.cooling_in(pool, now))
            .collect();
        all.sort_unstable();
        all.into_iter()
            .filter_map(|(rest, address)| Some((address, rest.since?)))
            .collect()
    }

    /// Why a workload that somebody else gave an address cannot hold it here; `None`: it can. That others have it is no
    /// reason: they have it for that workload.
    pub fn unheld(&self, address: IpAddr) -> Option<Unheld> {
        let Some(pool) = self.pools.iter().find(|pool| pool.prefix.contains(address)) else {
            return Some(Unheld::NotOurs);
        };
        let reserved = pool.prefix.reserved(address).map(Unheld::Reserved);
        reserved.or_else(|| Some(Unheld::Held(self.holder(address)?.clone())))
    }

    /// Who holds an address.
    pub fn holder(&self, address: IpAddr) -> Option<&Key> {
        match self.ledger.slots.get(&address) {
            Some(Slot::Held(key)) => Some(key),
            _ => None,
        }
    }

    /// How full every prefix is, those that drain last.
    pub fn usage(&self, now: Moment) -> Vec<Usage> {
        self.used().map(|pool| self.usage_of(pool, now)).collect()
    }

    /// Whether a prefix of the family gives out addresses.
    pub fn serves(&self, family: Family) -> bool {
        self.pools.iter().any(|pool| pool.serves(family))
    }

    /// Whether an address of the family could be given out, if need be one that still cools down. Costs the same at any
    /// fill.
    pub fn has_room(&self, family: Family) -> bool {
        let mut serving = self.pools.iter().filter(|pool| pool.serves(family));
        serving.any(|pool| pool.held + pool.taken < pool.capacity())
    }

    /// Addresses looked at so far, by which a test tells what an allocation costs.
    #[doc(hidden)]
    pub fn steps(&self) -> u64 {
        self.pools.iter().map(|pool| pool.steps).sum()
    }

    fn usage_of(&self, pool: &Pool, now: Moment) -> Usage {
        let cooling = self.cooling_in(pool, now).count() as u128;
        let is_idle = |address: IpAddr| match self.ledger.slots.get(&address) {
            Some(Slot::Held(_)) => false,
            Some(Slot::Resting(rest)) => is_cool(self.cool_down, *rest, now),
            None => true,
        };
        let taken = self
            .ledger
            .taken
            .iter()
            .filter(|a| pool.has(**a) && is_idle(**a))
            .count() as u128;
        Usage {
            prefix: pool.prefix,
            capacity: pool.capacity(),
            used: pool.held,
            free: match pool.draining {
                true => 0,
                false => pool.capacity() - pool.held - cooling - taken,
            },
            cooling,
            draining: pool.draining,
            generation: pool.generation,
        }
    }

    fn requested(&self, address: IpAddr) -> Result<IpAddr, LeaseError> {
        let not_ours = |why: String| Err(LeaseError::NotOurs { address, why });
        let Some(pool) = self.pools.iter().find(|pool| pool.prefix.contains(address)) else {
            return not_ours("it is in none of this node's prefixes".to_owned());
        };
        if pool.draining {
            return not_ours(format!("{} drains", pool.prefix));
        }
        if let Some(what) = pool.prefix.reserved(address) {
            return not_ours(format!("it is {what} of {}", pool.prefix));
        }
        if let Some(holder) = self.holder(address) {
            let holder = holder.clone();
            return Err(LeaseError::Held { address, holder });
        }
        if self.ledger.taken.contains(&address) {
            return Err(LeaseError::Taken { address });
        }
        Ok(address)
    }

    fn next(&mut self, family: Family, now: Moment) -> Result<IpAddr, LeaseError> {
        let Self {
            cool_down,
            pools,
            ledger,
            ..
        } = self;
        let mut serving: Vec<&mut Pool> = pools.iter_mut().filter(|pool| pool.serves(family)).collect();
        let is_cool = |rest| is_cool(*cool_down, rest, now);
        if let Some(address) = serving.iter_mut().find_map(|pool| pool.ready(ledger, is_cool)) {
            return Ok(address);
        }
        match serving.iter_mut().filter_map(|pool| pool.oldest(ledger)).min() {
            Some((_, address)) => Ok(address),
            None => Err(LeaseError::Exhausted(
                serving.iter().map(|pool| pool.prefix).collect(),
            )),
        }
    }

    /// Returns where it rested.
    fn occupy(&mut self, address: IpAddr, key: &Key) -> Option<Rest> {
        let held = Slot::Held(Box::new(key.clone()));
        let before = self.ledger.slots.insert(address, held);
        let mut pool = self.pools.iter_mut().find(|pool| pool.has(address));
        if let Some(pool) = &mut pool
            && !matches!(before, Some(Slot::Held(_)))
            && self.ledger.taken.contains(&address)
        {
            pool.taken -= 1;
        }
        match (before, pool) {
            (Some(Slot::Held(_)), _) => None,
            (Some(Slot::Resting(rest)), Some(pool)) => {
                pool.held += 1;
                pool.resting -= 1;
                pool.unqueue(rest);
                Some(rest)
            }
            (_, pool) => {
                pool.into_iter().for_each(|pool| pool.held += 1);
                None
            }
        }
    }

    fn vacate(&mut self, address: IpAddr) {
        if self.ledger.is_held(address) {
            self.ledger.slots.remove(&address);
            if let Some(pool) = self.pools.iter_mut().find(|pool| pool.has(address)) {
                pool.held -= 1;
                pool.taken += u128::from(self.ledger.taken.contains(&address));
            }
        }
    }

    fn put_back(&mut self, address: IpAddr, before: Option<Rest>) {
        let is_passed = |pool: &Pool| pool.has(address) && pool.is_passed(address);
        match before {
            Some(rest) => self.rest(address, rest),
            None if self.pools.iter().any(is_passed) => {
                let rest = self.stamped(None);
                self.rest(address, rest);
            }
            None => {}
        }
    }

    fn stamped(&mut self, since: Option<Moment>) -> Rest {
        self.stamps += 1;
        Rest {
            since,
            stamp: self.stamps,
        }
    }

    fn rest(&mut self, address: IpAddr, rest: Rest) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.has(address)) {
            if self.ledger.slots.insert(address, Slot::Resting(rest)).is_none() {
                pool.resting += 1;
            }
            pool.queue(&self.ledger, address, rest);
        }
    }

    /// Tells every pool what is its own, after pools have come or gone.
    fn assign(&mut self) {
        let Self { pools, ledger, .. } = self;
        pools.iter_mut().for_each(Pool::clear);
        let mut resting = Vec::new();
        ledger.slots.retain(|&address, slot| {
            let pool = pools.iter_mut().find(|pool| pool.has(address));
            match slot {
                Slot::Held(_) => pool.into_iter().for_each(|pool| pool.held += 1),
                Slot::Resting(rest) if pool.is_some() => resting.push((*rest, address)),
                // What came back is remembered only where it can be given out again.
                Slot::Resting(_) => return false,
            }
            true
        });
        resting.sort_unstable();
        for (rest, address) in resting {
            if let Some(pool) = pools.iter_mut().find(|pool| pool.has(address)) {
                pool.resting += 1;
                pool.queue(ledger, address, rest);
            }
        }
        self.count_taken();
    }

    /// Tells every pool how many of its addresses are others', after those or the pools have changed.
    fn count_taken(&mut self) {
        self.pools.iter_mut().for_each(|pool| pool.taken = 0);
        for address in &self.ledger.taken {
            if !self.ledger.is_held(*address)
                && let Some(pool) = self.pools.iter_mut().find(|pool| pool.has(*address))
            {
                pool.taken += 1;
            }
        }
    }

    /// Forgets prefixes that drained, when the last address has cooled down that could return with its prefix. What was told
    /// before a restart is waited for.
    pub fn end_drained(&mut self, now: Moment) {
        let is_over = |pool: &Pool| {
            pool.draining
                && pool.held == 0
                && !self.told.contains(&pool.prefix)
                && self.cooling_in(pool, now).next().is_none()
        };
        let over: Vec<bool> = self.pools.iter().map(is_over).collect();
        if over.contains(&true) {
            let mut over = over.into_iter();
            self.pools.retain(|_| over.next() == Some(false));
            self.assign();
        }
    }

    /// What cools down in a pool, whether it waits to be given out again or is taken.
    fn cooling_in<'a>(&'a self, pool: &'a Pool, now: Moment) -> impl Iterator<Item = (Rest, IpAddr)> + 'a {
        let Self {
            ledger, cool_down, ..
        } = self;
        let is_cool = move |rest| is_cool(*cool_down, rest, now);
        let taken = ledger
            .taken
            .iter()
            .filter(move |address| self.is_of(**address, pool));
        let taken = taken.filter_map(|address| Some((ledger.rest_of(*address)?, *address)));
        pool.cooling(ledger, is_cool)
            .chain(taken.filter(move |(rest, _)| !is_cool(*rest)))
    }

    /// Whether an address belongs to a pool; where one that drains overlaps one that serves, to the latter.
    fn is_of(&self, address: IpAddr, pool: &Pool) -> bool {
        if !pool.has(address) {
            return false;
        }
        let first = self.pools.iter().find(|pool| pool.has(address));
        first.is_some_and(|first| first.prefix == pool.prefix)
    }
}

fn is_cool(cool_down: Duration, rest: Rest, now: Moment) -> bool {
    rest.since
        .is_none_or(|since| now.0.saturating_sub(since.0) >= cool_down)
}
