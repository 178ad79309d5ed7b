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
//!
//! Where it is lost what had been freed, untouched addresses are not known to be so: for one cool-down they count as freed at
//! that moment, all at once, which costs nothing.

use crate::address::{Addresses, Family};
use crate::key::Key;
use crate::prefix::Prefix;
use pool::{Ledger, Pool, Rest, Slot, UNTOUCHED};
use std::net::IpAddr;
use std::time::Duration;

pub use lease::{Conflict, Granted, LeaseError, Past, Usage, Wanted};

mod lease;
mod pool;
mod told;

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
    /// Nobody knows what was freed before.
    unknown: Option<Moment>,
    /// After a restart not all is held yet that is in use.
    is_incomplete: bool,
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
            unknown: None,
            is_incomplete: false,
        }
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
        let cool = self.cool_at(now);
        let is_warm = |rest: Option<Rest>| !cool.has(rest.unwrap_or(UNTOUCHED));
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

    /// Nobody knows what was freed before a moment, and nothing is told of it: what was not given out since counts as freed at
    /// it.
    pub fn nothing_is_known_before(&mut self, moment: Moment) {
        self.unknown = Some(moment);
    }

    /// The moment before which nobody knows what was freed, as long as that matters.
    pub fn unknown_before(&self, now: Moment) -> Option<Moment> {
        self.unknown.filter(|_| !self.cool_at(now).has(UNTOUCHED))
    }

    /// What still cools down and was freed since, the longest first.
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
        let cool = self.cool_at(now);
        let is_idle = |address: IpAddr| match self.ledger.slots.get(&address) {
            Some(Slot::Held(_)) => false,
            Some(Slot::Resting(rest)) => cool.has(*rest),
            None => cool.has(UNTOUCHED),
        };
        let taken = self
            .ledger
            .taken
            .iter()
            .filter(|a| pool.has(**a) && is_idle(**a))
            .count() as u128;
        // What drains is not given out: of it, only what was freed is of interest.
        let counts = |(rest, _): &(Rest, IpAddr)| !pool.draining || rest.since.is_some();
        let mut cooling = self.cooling_in(pool, now).filter(counts).count() as u128;
        if !cool.has(UNTOUCHED) && !pool.draining {
            cooling += pool.capacity() - pool.held - pool.resting as u128;
        }
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
        let cool = self.cool_at(now);
        let Self { pools, ledger, .. } = self;
        let mut serving: Vec<&mut Pool> = pools.iter_mut().filter(|pool| pool.serves(family)).collect();
        let ready = |pool: &mut &mut Pool| pool.ready(ledger, |rest| cool.has(rest));
        if let Some(address) = serving.iter_mut().find_map(ready) {
            return Ok(address);
        }
        let oldest = serving.iter_mut().filter_map(|pool| {
            let waits = pool.oldest(ledger);
            let untouched = pool.untouched(ledger).map(|address| (UNTOUCHED, address));
            waits.into_iter().chain(untouched).min_by_key(|(rest, _)| *rest)
        });
        match oldest.min_by_key(|(rest, _)| *rest) {
            Some((_, address)) => Ok(address),
            None => Err(LeaseError::Exhausted(
                serving.iter().map(|pool| pool.prefix).collect(),
            )),
        }
    }

    /// Returns where it rested.
    fn occupy(&mut self, address: IpAddr, key: &Key) -> Option<Rest> {
        let held = Slot::Held(key.clone());
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

    /// What cools down in a pool, whether it waits to be given out again or is taken, but for what nobody has touched.
    fn cooling_in<'a>(&'a self, pool: &'a Pool, now: Moment) -> impl Iterator<Item = (Rest, IpAddr)> + 'a {
        let (ledger, cool) = (&self.ledger, self.cool_at(now));
        let taken = ledger
            .taken
            .iter()
            .filter(move |address| self.is_of(**address, pool));
        let taken = taken.filter_map(|address| Some((ledger.rest_of(*address)?, *address)));
        pool.cooling(ledger, move |rest| cool.has(rest))
            .chain(taken.filter(move |(rest, _)| !cool.has(*rest)))
    }

    fn cool_at(&self, now: Moment) -> Cool {
        Cool {
            now,
            cool_down: self.cool_down,
            unknown: self.unknown,
        }
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

/// When what rests has cooled down.
#[derive(Clone, Copy)]
struct Cool {
    now: Moment,
    cool_down: Duration,
    unknown: Option<Moment>,
}

impl Cool {
    fn has(self, rest: Rest) -> bool {
        let since = rest.since.or(self.unknown);
        since.is_none_or(|since| self.now.0.saturating_sub(since.0) >= self.cool_down)
    }
}
