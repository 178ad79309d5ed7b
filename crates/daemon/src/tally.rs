//! What happened so far, counted: plain atomics that cost an attach nanoseconds, added to wherever it happens and read by
//! `metrics`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How often something happened since the daemon's start.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// It happened once more.
    pub fn up(&self) {
        self.up_by(1);
    }

    /// It happened so many times more.
    pub fn up_by(&self, times: usize) {
        self.0.fetch_add(times as u64, Ordering::Relaxed);
    }

    /// How often until now.
    pub fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of a histogram's buckets, in microseconds: an attach takes less than one millisecond, a detach up to two grace
/// periods, and who waits for a namespace that hangs some seconds. What is longer is in a bucket of its own.
pub const BOUNDS: [u64; 16] = [
    100, 250, 500, 750, 1_000, 1_500, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// How long something took, each time: a histogram, and the sum in nanoseconds.
#[derive(Debug, Default)]
pub struct Times {
    buckets: [Count; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Times {
    /// It happened once more and took this long.
    pub fn took(&self, time: Duration) {
        let place = BOUNDS.partition_point(|bound| Duration::from_micros(*bound) < time);
        self.buckets[place].up();
        // It is full after 584 years.
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many are in each bucket alone.
    pub fn buckets(&self) -> [u64; BOUNDS.len() + 1] {
        std::array::from_fn(|place| self.buckets[place].so_far())
    }

    /// All of them together, in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// gRPC's codes, by their numbers.
pub const CODES: usize = 17;

/// Calls of one kind.
#[derive(Debug, Default)]
pub struct Calls {
    /// By the code that they were answered with.
    pub codes: [Count; CODES],
    /// From the call to its success.
    pub times: Times,
}

impl Calls {
    /// One that succeeded.
    pub fn done(&self, took: Duration) {
        self.codes[0].up();
        self.times.took(took);
    }

    /// One that was refused with a code.
    pub fn refused(&self, code: usize) {
        self.codes[code.min(CODES - 1)].up();
    }
}

/// What the door answers.
#[derive(Debug, Default)]
pub struct Answers {
    /// Attaches.
    pub attaches: Calls,
    /// Detaches.
    pub detaches: Calls,
}

/// What was put back, for others had taken it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBack {
    /// A record, a name, a mark.
    Record,
    /// A link's state, MTU, MAC, group.
    Link,
    /// A setting below /proc/sys.
    Setting,
    /// An address of a host end.
    Address,
    /// A route to a workload.
    Route,
    /// A workload's neighbour.
    Neighbour,
    /// Something of the nftables tables, or forwarding.
    Table,
    /// Something of the routes to other nodes.
    Peers,
}

impl PutBack {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Record,
        Self::Link,
        Self::Setting,
        Self::Address,
        Self::Route,
        Self::Neighbour,
        Self::Table,
        Self::Peers,
    ];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Link => "link",
            Self::Setting => "setting",
            Self::Address => "address",
            Self::Route => "route",
            Self::Neighbour => "neighbour",
            Self::Table => "table",
            Self::Peers => "peers",
        }
    }
}

/// Something that is done again and again.
#[derive(Debug, Default)]
pub struct Rounds {
    /// How often all went well.
    pub good: Count,
    /// How often something was left over.
    pub faulty: Count,
}

impl Rounds {
    /// One more.
    pub fn ended(&self, is_good: bool) {
        match is_good {
            true => self.good.up(),
            false => self.faulty.up(),
        }
    }
}

/// Asks whoever writes events to Kubernetes how many were not written.
struct EventsDropped(Box<dyn Fn() -> u64 + Send + Sync>);

impl fmt::Debug for EventsDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventsDropped")
    }
}

/// What the process has given up that not every kernel lets it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confined {
    /// System calls that are not needed.
    pub calls: bool,
    /// Files that are not needed, all of what was asked for.
    pub files: bool,
}

/// What the desk does.
#[derive(Debug, Default)]
pub struct Counters {
    /// Of an attach: its turn, and its namespace is opened.
    pub attach_opens: Times,
    /// It waits for those that are written before it.
    pub attach_waits: Times,
    /// The kernel makes it, or refuses.
    pub attach_wires: Times,
    /// Of a detach: its turn, its namespace is looked at, and it waits for a thread.
    pub detach_waits: Times,
    /// Until the kernel announces the link's end.
    pub detach_unwires: Times,
    /// Looks at everything.
    pub sweeps: Rounds,
    put_back: [Count; PutBack::ALL.len()],
    /// Half-made links that were taken away.
    pub pruned: Count,
    /// The kernel lost notifications for us.
    pub lost: Count,
    /// What the source said was of no use.
    pub source_failures: Count,
    /// Looks at routes to other nodes.
    pub routings: Rounds,
    /// How long those took.
    pub routing_times: Times,
    /// Single changes of routes to other nodes, of what belongs to them.
    pub routing_steps: Count,
    faults: Mutex<BTreeMap<i32, u64>>,
    events_dropped: OnceLock<EventsDropped>,
    confined: OnceLock<Confined>,
}

impl Counters {
    /// This is so from the start on. Only the first call counts.
    pub fn say_confined(&self, confined: Confined) {
        self.confined.get_or_init(|| confined);
    }

    /// What was given up.
    pub fn confined(&self) -> Confined {
        self.confined.get().copied().unwrap_or_default()
    }

    /// So many of a kind were put back.
    pub fn put_back(&self, what: PutBack, times: usize) {
        self.put_back[what as usize].up_by(times);
    }

    /// How often a kind was put back.
    pub fn put_back_so_far(&self, what: PutBack) -> u64 {
        self.put_back[what as usize].so_far()
    }

    /// The kernel refused something that it should not have.
    pub fn fault(&self, errno: i32) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults.entry(errno).or_default() += 1;
    }

    /// From now on, this says how many events were not written to Kubernetes. Only the first call counts.
    pub fn count_events_dropped(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.events_dropped.get_or_init(|| EventsDropped(Box::new(count)));
    }

    /// How many so far.
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped
            .get()
            .map_or(0, |EventsDropped(count)| count())
    }

    /// How often, by errno; 0: not the kernel.
    pub fn faults(&self) -> BTreeMap<i32, u64> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let times = Times::default();
        for micros in [0, 100, 101, 30_000_000, 30_000_001, u64::MAX / 1000] {
            times.took(Duration::from_micros(micros));
        }
        let buckets = times.buckets();
        assert_eq!(buckets[..2], [2, 1]);
        assert_eq!(buckets[BOUNDS.len() - 1..], [1, 2]);
        assert!(times.seconds() > 60.0);
    }

    #[test]
    fn events_that_were_not_written_are_asked_of_the_first_that_counts_them() {
        let counters = Counters::default();
        assert_eq!(counters.events_dropped(), 0);
        counters.count_events_dropped(|| 7);
        counters.count_events_dropped(|| 8);
        assert_eq!(counters.events_dropped(), 7);
    }

    #[test]
    fn every_kind_has_its_place_and_name() {
        let counters = Counters::default();
        for (n, kind) in PutBack::ALL.into_iter().enumerate() {
            counters.put_back(kind, n + 1);
            assert_eq!(kind as usize, n);
        }
        let counts = PutBack::ALL.map(|kind| counters.put_back_so_far(kind));
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
