//! Which prefixes serve and which drain: what is told of them, and what a restart is told of that.
//!
//! ```text
//!              told                    told without it
//!   unknown ---------> serves ----------------------------> drains ---(last lease, last one cool)---> unknown
//!                        ^                                    |  |
//!                        +---------------- told --------------+  +--- after a restart, where it is waited for
//! ```

use super::pool::{Pool, Slot};
use super::{Ipam, Moment, Past};
use crate::prefix::Prefix;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

impl Ipam {
    /// After a restart: what served before drains until it is told again, and counting goes on. `random` is asked once for
    /// each prefix, where to begin in it. No prefix ends before [`Self::complete`]: nobody knows yet what of it is in use.
    pub fn resumed(cool_down: Duration, past: &Past, random: &mut dyn FnMut() -> u128) -> Self {
        let mut ipam = Self::new(cool_down);
        ipam.generation = past.generation;
        ipam.is_incomplete = true;
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

    /// Prefixes that serve, those that drain and have addresses in use, and those that served before a restart and may be told
    /// again.
    pub fn in_use(&self) -> impl Iterator<Item = Prefix> + '_ {
        let waits = |pool: &&Pool| self.told.contains(&pool.prefix);
        let all = self.pools.iter();
        all.filter(move |pool| !pool.draining || pool.held > 0 || waits(pool))
            .map(|pool| pool.prefix)
    }

    pub(super) fn used(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(|pool| !pool.draining || pool.held > 0)
    }

    /// After a restart: all that is in use is held now, and what was freed before and cools down is told.
    pub fn complete(&mut self) {
        self.is_incomplete = false;
    }

    /// Forgets prefixes that drained, when the last address has cooled down that could return with its prefix. What was told
    /// before a restart is waited for.
    pub fn end_drained(&mut self, now: Moment) {
        if self.is_incomplete {
            return;
        }
        let is_over = |pool: &Pool| {
            pool.draining
                && pool.held == 0
                && !self.told.contains(&pool.prefix)
                && self.cooling_in(pool, now).all(|(rest, _)| rest.since.is_none())
        };
        let over: Vec<bool> = self.pools.iter().map(is_over).collect();
        if over.contains(&true) {
            let mut over = over.into_iter();
            self.pools.retain(|_| over.next() == Some(false));
            self.assign();
        }
    }

    /// Tells every pool what is its own, after pools have come or gone.
    pub(super) fn assign(&mut self) {
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
}
