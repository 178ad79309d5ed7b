//! An allocator that is too simple to be wrong: one map, and every rule looked up by walking all addresses.

use crate::COOL_DOWN;
use model::address::{Addresses, Family};
use model::ipam::{LeaseError, Wanted};
use model::key::Key;
use model::prefix::Prefix;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Is {
    Held(Key),
    /// At a second, as the nth.
    Freed(u64, u64),
}

/// What the reference lets the allocator do for one family.
#[derive(Debug)]
pub(crate) enum Choice {
    Any(BTreeSet<IpAddr>),
    Only(IpAddr),
    Refused(LeaseError),
}

/// An address that is not in `now` is untouched.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) serving: Vec<Prefix>,
    pub(crate) draining: Vec<Prefix>,
    pub(crate) taken: BTreeSet<IpAddr>,
    /// What is untouched may have been freed then.
    pub(crate) unknown: Option<u64>,
    is: BTreeMap<IpAddr, Is>,
    frees: u64,
}

fn usable(prefix: Prefix) -> impl Iterator<Item = IpAddr> {
    let (first, last) = prefix.usable();
    (first..=last).map(move |offset| prefix.at(offset))
}

pub(crate) fn has(prefix: Prefix, address: IpAddr) -> bool {
    prefix.contains(address) && prefix.reserved(address).is_none()
}

fn is_cool(since: u64, now: u64) -> bool {
    now - since >= COOL_DOWN.as_secs()
}

impl Reference {
    fn prefix_of(&self, address: IpAddr) -> Option<Prefix> {
        let mut all = self.serving.iter().chain(&self.draining);
        all.find(|p| has(**p, address)).copied()
    }

    fn own(&self, prefix: Prefix) -> impl Iterator<Item = IpAddr> + '_ {
        usable(prefix).filter(move |a| self.prefix_of(*a) == Some(prefix))
    }

    fn freed(&self, address: IpAddr) -> Option<(u64, u64)> {
        match self.is.get(&address) {
            Some(Is::Freed(since, nth)) => Some((*since, *nth)),
            _ => None,
        }
    }

    pub(crate) fn is_warm(&self, address: IpAddr, now: u64) -> bool {
        match self.is.get(&address) {
            Some(Is::Held(_)) => false,
            Some(Is::Freed(since, _)) => !is_cool(*since, now),
            None => self.untouched_is_warm(now),
        }
    }

    fn untouched_is_warm(&self, now: u64) -> bool {
        self.unknown.is_some_and(|since| !is_cool(since, now))
    }

    fn choice(&self, family: Family, now: u64) -> Choice {
        let prefixes: Vec<Prefix> = self
            .serving
            .iter()
            .copied()
            .filter(|p| p.family() == family)
            .collect();
        let oldest = |among: &[Prefix], only_cool: bool| {
            let all = among
                .iter()
                .flat_map(|p| usable(*p))
                .filter(|a| !self.taken.contains(a));
            all.filter_map(|a| Some((self.freed(a)?, a)))
                .filter(|((since, _), _)| !only_cool || is_cool(*since, now))
                .min()
        };
        let is_fresh = |a: &IpAddr| !self.is.contains_key(a) && !self.taken.contains(a);
        for &prefix in &prefixes {
            let fresh: BTreeSet<IpAddr> = usable(prefix).filter(is_fresh).collect();
            if !fresh.is_empty() && !self.untouched_is_warm(now) {
                return Choice::Any(fresh);
            }
            if let Some((_, address)) = oldest(&[prefix], true) {
                return Choice::Only(address);
            }
        }
        // Freed before anything else was, if at all.
        let fresh: BTreeSet<IpAddr> = prefixes
            .iter()
            .flat_map(|p| usable(*p))
            .filter(is_fresh)
            .collect();
        if !fresh.is_empty() {
            return Choice::Any(fresh);
        }
        match oldest(&prefixes, false) {
            Some((_, address)) => Choice::Only(address),
            None => Choice::Refused(LeaseError::Exhausted(prefixes)),
        }
    }

    fn requested(&self, address: IpAddr) -> Choice {
        let not_ours = |why: String| Choice::Refused(LeaseError::NotOurs { address, why });
        let Some(prefix) = self.serving.iter().find(|p| p.contains(address)) else {
            return match self.draining.iter().find(|p| p.contains(address)) {
                Some(prefix) => not_ours(format!("{prefix} drains")),
                None => not_ours("it is in none of this node's prefixes".to_owned()),
            };
        };
        match (prefix.reserved(address), self.is.get(&address)) {
            (Some(what), _) => not_ours(format!("it is {what} of {prefix}")),
            (None, Some(Is::Held(holder))) => {
                let holder = holder.clone();
                Choice::Refused(LeaseError::Held { address, holder })
            }
            _ if self.taken.contains(&address) => Choice::Refused(LeaseError::Taken { address }),
            _ => Choice::Only(address),
        }
    }

    pub(crate) fn choices(&self, wanted: Wanted, now: u64) -> Result<Vec<Choice>, LeaseError> {
        if self.serving.is_empty() {
            return Err(LeaseError::NoPrefix);
        }
        let mut choices = Vec::new();
        for family in Family::ALL {
            let address = match family {
                Family::V4 => wanted.v4.map(IpAddr::V4),
                Family::V6 => wanted.v6.map(IpAddr::V6),
            };
            let choice = match address {
                Some(address) => self.requested(address),
                None if self.serving.iter().any(|p| p.family() == family) => self.choice(family, now),
                None => continue,
            };
            match choice {
                Choice::Refused(error) => return Err(error),
                choice => choices.push(choice),
            }
        }
        Ok(choices)
    }

    /// Returns what was before.
    pub(crate) fn hold(&mut self, key: &Key, addresses: Addresses) -> Vec<(IpAddr, Option<Is>)> {
        let held = |a| (a, self.is.insert(a, Is::Held(key.clone())));
        addresses.iter().map(held).collect()
    }

    pub(crate) fn undo(&mut self, before: Vec<(IpAddr, Option<Is>)>) {
        for (address, before) in before {
            self.is.remove(&address);
            if let (Some(before), Some(_)) = (before, self.prefix_of(address)) {
                self.is.insert(address, before);
            }
        }
    }

    pub(crate) fn free(&mut self, addresses: Addresses, now: u64) {
        for address in addresses.iter() {
            self.is.remove(&address);
            self.frees += 1;
            if self.prefix_of(address).is_some() {
                self.is.insert(address, Is::Freed(now, self.frees));
            }
        }
    }

    pub(crate) fn set_prefixes(&mut self, prefixes: &[Prefix]) {
        let old = std::mem::replace(&mut self.serving, prefixes.to_vec());
        self.draining.splice(0..0, old);
        self.draining.retain(|p| !prefixes.contains(p));
        self.forget();
    }

    /// A prefix that nobody holds an address of ends when its last one has cooled down.
    pub(crate) fn end_drained(&mut self, now: u64) {
        let is_over = |p: &Prefix| {
            let is_at_rest = |a| match self.is.get(&a) {
                Some(Is::Held(_)) => false,
                Some(Is::Freed(since, _)) => is_cool(*since, now),
                None => true,
            };
            self.own(*p).all(is_at_rest)
        };
        let (_, left) = self.draining.iter().partition(|p| is_over(p));
        self.draining = left;
        self.forget();
    }

    fn forget(&mut self) {
        let mut is = std::mem::take(&mut self.is);
        is.retain(|a, is| matches!(is, Is::Held(_)) || self.prefix_of(*a).is_some());
        self.is = is;
    }

    pub(crate) fn cooling(&self, now: u64) -> Vec<IpAddr> {
        let warm = self.is.keys().filter(|a| self.is_warm(**a, now));
        let mut all: Vec<_> = warm.map(|a| (self.freed(*a), *a)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, a)| a).collect()
    }

    pub(crate) fn has_room(&self, family: Family) -> bool {
        let serving = self.serving.iter().filter(|p| p.family() == family);
        let is_held = |a: &IpAddr| matches!(self.is.get(a), Some(Is::Held(_)));
        serving
            .flat_map(|p| usable(*p))
            .any(|a| !is_held(&a) && !self.taken.contains(&a))
    }

    pub(crate) fn usage(&self, now: u64) -> BTreeSet<(Prefix, [u128; 4], bool)> {
        let of = |p: &Prefix, draining: bool| {
            let count = |f: &dyn Fn(IpAddr) -> bool| self.own(*p).filter(|a| f(*a)).count() as u128;
            let is_held = |a| matches!(self.is.get(&a), Some(Is::Held(_)));
            let used = count(&is_held);
            let is_told = |a| !draining || self.freed(a).is_some();
            let cooling = count(&|a| self.is_warm(a, now) && is_told(a));
            let free = count(&|a| !is_held(a) && !self.is_warm(a, now) && !self.taken.contains(&a));
            let free = if draining { 0 } else { free };
            (*p, [usable(*p).count() as u128, used, free, cooling], draining)
        };
        let serving = self.serving.iter().map(|p| of(p, false));
        let draining = self.draining.iter().map(|p| of(p, true)).filter(|u| u.1[1] > 0);
        serving.chain(draining).collect()
    }
}
