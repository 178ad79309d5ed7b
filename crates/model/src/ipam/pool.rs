//! One prefix as a supply of addresses: a ring with a cursor, and a queue of what came back.
//!
//! Every usable address of a pool is one of: ahead of the cursor, held, taken, or in the queue. The cursor passes each
//! address once and never turns back, so what is behind it comes back through the queue alone, in exact order. Leaving
//! the queue from its middle leaves an entry behind that nobody's slot stands for; such entries are dropped when they
//! come to the front, and all together when they are the greater part.

use super::Moment;
use crate::address::Family;
use crate::key::Key;
use crate::prefix::Prefix;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

/// Addresses that came back and are still passed over for untouched ones: a /16 is touched as a whole before any is
/// given out again, and a /64 never remembers more than these and what cools down.
const REMEMBERED: usize = 1 << 16;

/// A place in the order in which addresses are given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rest {
    /// When it was freed; `None`: nobody used it, which comes first.
    pub(super) since: Option<Moment>,
    /// Tells apart what came back at one moment.
    pub(super) stamp: u64,
}

/// Where untouched addresses rest: none comes before them.
pub(super) const UNTOUCHED: Rest = Rest {
    since: None,
    stamp: 0,
};

/// What an address is that is neither untouched nor taken.
#[derive(Debug)]
pub(super) enum Slot {
    Held(Key),
    Resting(Rest),
}

/// What every pool has to know of all addresses.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) slots: HashMap<IpAddr, Slot>,
    pub(super) taken: HashSet<IpAddr>,
}

impl Ledger {
    pub(super) fn is_held(&self, address: IpAddr) -> bool {
        matches!(self.slots.get(&address), Some(Slot::Held(_)))
    }

    pub(super) fn rest_of(&self, address: IpAddr) -> Option<Rest> {
        match self.slots.get(&address) {
            Some(&Slot::Resting(rest)) => Some(rest),
            _ => None,
        }
    }

    /// Whether an entry of a queue stands for its address. A taken one's entry may be lost; it gets another when it is
    /// given up.
    fn waits(&self, address: IpAddr, rest: Rest) -> bool {
        self.rest_of(address) == Some(rest) && !self.taken.contains(&address)
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) prefix: Prefix,
    pub(super) draining: bool,
    /// In which it came to serve, or to drain.
    pub(super) generation: u64,
    pub(super) held: u128,
    /// Addresses that are others', and not held.
    pub(super) taken: u128,
    /// Addresses whose slot says that they rest.
    pub(super) resting: usize,
    /// Addresses looked at so far.
    pub(super) steps: u64,
    /// Offset that the cursor stands on.
    cursor: u128,
    /// Offsets that it has not passed, its own included.
    ahead: u128,
    /// Sorted.
    queue: VecDeque<(Rest, IpAddr)>,
}

impl Pool {
    pub(super) fn new(prefix: Prefix, random: u128) -> Self {
        let (first, last) = prefix.usable();
        let capacity = last - first + 1;
        Self {
            prefix,
            draining: false,
            generation: 0,
            held: 0,
            taken: 0,
            resting: 0,
            steps: 0,
            cursor: first + random % capacity,
            ahead: capacity,
            queue: VecDeque::new(),
        }
    }

    pub(super) fn capacity(&self) -> u128 {
        let (first, last) = self.prefix.usable();
        last - first + 1
    }

    pub(super) fn serves(&self, family: Family) -> bool {
        !self.draining && self.prefix.family() == family
    }

    /// Whether the address is one of those that it gives out.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.prefix.contains(address) && self.prefix.reserved(address).is_none()
    }

    /// Whether the cursor will not come by any more.
    pub(super) fn is_passed(&self, address: IpAddr) -> bool {
        let Some(offset) = self.prefix.offset_of(address) else {
            return true;
        };
        let distance = match offset.checked_sub(self.cursor) {
            Some(distance) => distance,
            None => self.capacity() - (self.cursor - offset),
        };
        distance >= self.ahead
    }

    /// An address that may be given out at once.
    pub(super) fn ready(&mut self, ledger: &Ledger, is_cool: impl Fn(Rest) -> bool) -> Option<IpAddr> {
        let rested = |pool: &mut Self| {
            let (rest, address) = pool.oldest(ledger)?;
            is_cool(rest).then_some(address)
        };
        if !is_cool(UNTOUCHED) {
            rested(self)
        } else if self.resting > REMEMBERED {
            rested(self).or_else(|| self.untouched(ledger))
        } else {
            self.untouched(ledger).or_else(|| rested(self))
        }
    }

    /// The first untouched address at or ahead of the cursor, which stays on it: given out and taken back at once, it
    /// is as if it had not been.
    pub(super) fn untouched(&mut self, ledger: &Ledger) -> Option<IpAddr> {
        let (first, last) = self.prefix.usable();
        while self.ahead > 0 {
            self.steps += 1;
            let address = self.prefix.at(self.cursor);
            if !ledger.slots.contains_key(&address) && !ledger.taken.contains(&address) {
                return Some(address);
            }
            self.ahead -= 1;
            self.cursor = if self.cursor == last {
                first
            } else {
                self.cursor + 1
            };
        }
        None
    }

    /// What came back first.
    pub(super) fn oldest(&mut self, ledger: &Ledger) -> Option<(Rest, IpAddr)> {
        while let Some(&(rest, address)) = self.queue.front() {
            self.steps += 1;
            if ledger.waits(address, rest) {
                return Some((rest, address));
            }
            self.queue.pop_front();
        }
        None
    }

    /// Puts a resting address in its place, where it is not yet.
    pub(super) fn queue(&mut self, ledger: &Ledger, address: IpAddr, rest: Rest) {
        if self.queue.len() > 2 * self.resting + 64 {
            self.queue.retain(|&(rest, address)| ledger.waits(address, rest));
        }
        // Freed is what was freed last, and undone what was given out from the front, but for orders that cross.
        if self.queue.back().is_none_or(|(last, _)| *last < rest) {
            self.queue.push_back((rest, address));
        } else if let Err(place) = self.queue.binary_search_by_key(&rest, |(rest, _)| *rest) {
            self.queue.insert(place, (rest, address));
        }
    }

    /// Takes the front off where it is this one; from anywhere else an entry leaves later.
    pub(super) fn unqueue(&mut self, rest: Rest) {
        if self.queue.front().is_some_and(|(front, _)| *front == rest) {
            self.queue.pop_front();
        }
    }

    /// What waits and has not cooled down, oldest first.
    pub(super) fn cooling(
        &self,
        ledger: &Ledger,
        is_cool: impl Fn(Rest) -> bool,
    ) -> impl Iterator<Item = (Rest, IpAddr)> {
        let first = self.queue.partition_point(|(rest, _)| is_cool(*rest));
        let warm = self.queue.range(first..).copied();
        warm.filter(|(rest, address)| ledger.waits(*address, *rest))
    }

    /// Before the slots are told to it anew.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.resting = 0;
        self.held = 0;
    }
}
