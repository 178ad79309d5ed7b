//! Who is next: one order per key at a time, in the order of arrival, and the threads that carry orders out.

use super::deletions::{Deleting, Deletions, Lot};
use super::idle::{Bell, Idle, wait_until};
use super::order::{AdoptOrder, Adopted, AttachOrder, Attachment, DetachOrder, Detached, Refusal, Step};
use super::{Desk, Done, Phase, State, vital};
use crate::fault::is_exhaustion;
use crate::sync::{Condvar, Mutex, MutexGuard, few, instant, locked};
use model::datapath::{Datapath, OpenError};
use model::key::Key;
use model::record::NamespaceId;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Threads that open namespaces. One whose path hangs is replaced by another.
const OPENERS: usize = few(2, 4);
/// Threads that may hang before none is replaced any more.
const STUCK: usize = 64;
/// Threads that wait for deletions. Each waits for two grace periods at most, in which a caller that detaches without a
/// pause sends about as many.
const DELETERS: usize = few(2, 24);

/// What waits for its key's turn, and since when.
pub(super) enum Job {
    Attach(AttachOrder, Instant, Done<Attachment>),
    Detach(DetachOrder, Instant, Done<Detached>),
    Adopt(AdoptOrder, Done<Adopted>),
}

impl Job {
    fn key(&self) -> &Key {
        match self {
            Self::Attach(order, ..) => &order.key,
            Self::Detach(order, ..) => &order.key,
            Self::Adopt(order, _) => &order.key,
        }
    }

    /// Of the namespace; empty where a detach names none.
    fn path(&self) -> &str {
        match self {
            Self::Attach(order, ..) => &order.path,
            Self::Detach(order, ..) => order.path.as_deref().unwrap_or_default(),
            Self::Adopt(order, _) => match &order.step {
                Step::Check { path, .. } | Step::Take { path, .. } => path,
                Step::Undo | Step::Commit => "",
            },
        }
    }

    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Attach(.., done) => done(Err(refusal)),
            Self::Detach(.., done) => done(Err(refusal)),
            Self::Adopt(_, done) => done(Err(refusal)),
        }
    }
}

type Opened<D> = Result<(<D as Datapath>::Namespace, NamespaceId), OpenError>;

/// An attach whose namespace was looked at.
pub(super) struct Writing<D: Datapath> {
    pub(super) order: AttachOrder,
    pub(super) opened: Opened<D>,
    /// Since then it waits to be written.
    pub(super) since: Instant,
    pub(super) done: Done<Attachment>,
}

/// Orders of keys, running or waiting. A key that is here has its turn.
pub(super) struct Turns<D> {
    waiting: HashMap<Key, VecDeque<Job>>,
    queued: usize,
    of: std::marker::PhantomData<fn() -> D>,
}

impl<D> Default for Turns<D> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            queued: 0,
            of: std::marker::PhantomData,
        }
    }
}

impl<D> Turns<D> {
    /// Orders that wait for others of the same key.
    pub(super) fn behind(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Orders that run or wait.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Keys whose orders run.
    pub(super) fn running(&self) -> impl Iterator<Item = &Key> {
        self.waiting.keys()
    }
}

/// The ways to the threads.
pub(super) struct Lanes<D: Datapath> {
    openers: Openers,
    writes: Mutex<Writes<D>>,
    pub(super) deletions: Deletions,
}

/// What waits to be written. Whoever brings something and finds nobody writing writes until nothing is left: so one thread
/// at a time writes, and an order that comes alone is not handed to another thread first.
struct Writes<D: Datapath> {
    queue: VecDeque<Writing<D>>,
    somebody_writes: bool,
}

#[derive(Default)]
struct Openers {
    state: Mutex<Opening>,
    /// Something is being opened, and nobody watches the time.
    watch: Condvar,
}

#[derive(Default)]
struct Opening {
    queue: VecDeque<Job>,
    idle: Idle,
    /// Orders whose paths are being opened, by ticket, which are in the order of time.
    running: BTreeMap<u64, (Instant, Job)>,
    tickets: u64,
    /// Threads that open.
    threads: usize,
    /// Those among them whose path hangs.
    stuck: usize,
    is_watched: bool,
}

impl<D: Datapath> Default for Lanes<D> {
    fn default() -> Self {
        Self {
            openers: Openers::default(),
            writes: Mutex::new(Writes {
                queue: VecDeque::new(),
                somebody_writes: false,
            }),
            deletions: Deletions::default(),
        }
    }
}

impl<D: Datapath> Lanes<D> {
    /// Whether so many paths hang that nothing can be opened any more.
    pub(super) fn hanging(&self) -> bool {
        let state = self.openers.state();
        state.stuck > 0 && state.stuck >= state.threads
    }

    /// Orders that wait for a thread: that opens, that writes, that deletes.
    pub(super) fn waiting(&self) -> [usize; 3] {
        let opening = self.openers.state().queue.len();
        let writing = self.writes().queue.len();
        [opening, writing, self.deletions.waiting()]
    }

    fn writes(&self) -> MutexGuard<'_, Writes<D>> {
        locked(&self.writes)
    }
}

impl Openers {
    fn state(&self) -> MutexGuard<'_, Opening> {
        locked(&self.state)
    }

    fn submit(&self, job: Job) {
        let mut state = self.state();
        state.queue.push_back(job);
        state.idle.call();
    }

    /// The next path to open, with the ticket for its order.
    fn next(&self, bell: &Bell, limit: Duration) -> (u64, String) {
        let is_there = |state: &Opening| !state.queue.is_empty();
        let mut state = wait_until(self.state(), bell, |state| &mut state.idle, is_there);
        let job = state.queue.pop_front().expect("waited for");
        let path = job.path().to_owned();
        let ticket = state.tickets;
        state.tickets += 1;
        state.running.insert(ticket, (instant() + limit, job));
        if !state.is_watched {
            self.watch.notify_one();
        }
        (ticket, path)
    }

    /// The order of a ticket, unless it was given up; whether the thread goes on.
    fn opened(&self, ticket: u64) -> (Option<Job>, bool) {
        let mut state = self.state();
        if let Some((_, job)) = state.running.remove(&ticket) {
            return (Some(job), true);
        }
        state.stuck -= 1;
        let goes_on = state.threads - state.stuck <= OPENERS;
        state.threads -= usize::from(!goes_on);
        (None, goes_on)
    }

    /// Waits until an order has waited for too long, and takes it. Its thread is lost for as long as the path hangs.
    fn overdue(&self) -> Job {
        let mut state = self.state();
        loop {
            state.is_watched = !state.running.is_empty();
            let Some(first) = state.running.first_entry() else {
                state = self.watch.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = first.get().0.saturating_duration_since(instant());
            if left.is_zero() {
                let (_, job) = first.remove();
                state.stuck += 1;
                return job;
            }
            (state, _) = self
                .watch
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts the threads. They live as long as the process.
pub(super) fn start<D: Datapath>(desk: &Arc<Desk<D>>) -> io::Result<()> {
    for _ in 0..OPENERS {
        start_opener(desk)?;
    }
    let watcher = Arc::clone(desk);
    vital::spawn("patience".to_owned(), move || {
        loop {
            let job = watcher.lanes.openers.overdue();
            watcher.give_up_opening(job);
        }
    })?;
    for n in 0..DELETERS {
        let desk = Arc::clone(desk);
        vital::spawn(format!("deleter-{n}"), move || {
            let bell = Bell::default();
            loop {
                let Lot { number, jobs } = desk.lanes.deletions.next(&bell);
                desk.take_off(jobs);
                // Long since, but for what nobody announced.
                desk.lanes.deletions.is_over(number);
            }
        })?;
    }
    Ok(())
}

/// A thread that opens one path after the other, until one of them has hung and another thread took its place.
fn start_opener<D: Datapath>(desk: &Arc<Desk<D>>) -> io::Result<()> {
    let desk = Arc::clone(desk);
    desk.lanes.openers.state().threads += 1;
    vital::spawn("opener".to_owned(), move || {
        let bell = Bell::default();
        loop {
            let (ticket, path) = desk.lanes.openers.next(&bell, desk.settings.open_limit);
            let opened = desk.datapath.open(&path);
            let (job, goes_on) = desk.lanes.openers.opened(ticket);
            if let Some(job) = job {
                desk.go_on(job, opened);
            }
            if !goes_on {
                return;
            }
        }
    })
}

impl<D: Datapath> Desk<D> {
    /// Takes an order in, or refuses it at once.
    pub(super) fn submit(self: &Arc<Self>, job: Job) {
        let state = self.state();
        let refusal = match state.phase {
            Phase::Closing if matches!(job, Job::Detach(..)) => None,
            Phase::Recovering | Phase::Replaying | Phase::Closing => {
                Some(Refusal::NotReady(self.unmet(&state)))
            }
            Phase::Stopping => Some(Refusal::Stopping),
            Phase::Serving if state.turns.queued >= self.settings.max_queued => Some(Refusal::Overloaded {
                waiting: state.turns.queued,
            }),
            Phase::Serving => None,
        };
        if let Some(refusal) = refusal {
            drop(state);
            return job.refuse(refusal);
        }
        self.admit(state, job);
    }

    /// Gives an order its turn, however many wait.
    pub(super) fn admit(self: &Arc<Self>, mut state: MutexGuard<'_, State<D>>, job: Job) {
        state.turns.queued += 1;
        if let Some(behind) = state.turns.waiting.get_mut(job.key()) {
            let key = job.key().clone();
            behind.push_back(job);
            drop(state);
            self.lanes.deletions.hurry(&key);
            return;
        }
        state.turns.waiting.insert(job.key().clone(), VecDeque::new());
        drop(state);
        self.begin(job);
    }

    /// A key's order has ended: the next one has its turn.
    pub(super) fn turn_ends(self: &Arc<Self>, key: &Key) {
        let mut state = self.state();
        state.turns.queued -= 1;
        let next = state.turns.waiting.get_mut(key).and_then(VecDeque::pop_front);
        if next.is_none() {
            state.turns.waiting.remove(key);
        }
        drop(state);
        self.changed.notify_all();
        if let Some(job) = next {
            self.begin(job);
        }
    }

    fn begin(self: &Arc<Self>, job: Job) {
        match job {
            Job::Detach(order, came, done) if order.path.is_none() => {
                self.delete(Deleting {
                    order,
                    namespace: None,
                    came,
                    done,
                });
            }
            job => self.lanes.openers.submit(job),
        }
    }

    fn delete(&self, job: Deleting) {
        let state = self.state();
        let behind = state.turns.waiting.get(&job.order.key);
        let is_urgent = behind.is_some_and(|jobs| !jobs.is_empty());
        drop(state);
        self.lanes.deletions.submit(job, is_urgent);
    }

    /// What comes after a look at the namespace.
    fn go_on(self: &Arc<Self>, job: Job, opened: Opened<D>) {
        match job {
            Job::Attach(order, came, done) => {
                self.counters.attach_opens.took(came.elapsed());
                let since = Instant::now();
                self.write(Writing {
                    order,
                    opened,
                    since,
                    done,
                });
            }
            Job::Detach(order, came, done) => match opened {
                // Which namespace is meant is not known, and may be the one that is attached.
                Err(OpenError::Fault(fault)) if is_exhaustion(&fault) => {
                    self.counters.fault(fault.errno);
                    done(Err(OpenError::Fault(fault).into()));
                    self.turn_ends(&order.key);
                }
                opened => self.delete(Deleting {
                    order,
                    namespace: opened.ok().map(|(_, id)| id),
                    came,
                    done,
                }),
            },
            Job::Adopt(order, done) => {
                let outcome = self.adopt_now(&order, opened);
                done(outcome);
                self.turn_ends(&order.key);
            }
        }
    }

    /// A path hangs: an attach to it is refused, and a detach does without, as where the namespace is gone.
    fn give_up_opening(self: &Arc<Self>, job: Job) {
        let stuck = self.lanes.openers.state().stuck;
        tracing::warn!(path = job.path(), stuck, "a path hangs while it is opened");
        if stuck <= STUCK
            && let Err(error) = start_opener(self)
        {
            self.lanes.openers.state().threads -= 1;
            tracing::error!(%error, "one thread less opens namespaces");
        }
        let key = job.key().clone();
        match job {
            Job::Attach(order, _, done) => {
                done(Err(Refusal::NamespaceHangs {
                    path: order.path,
                    limit: self.settings.open_limit,
                }));
                self.turn_ends(&key);
            }
            Job::Detach(order, came, done) => self.delete(Deleting {
                order,
                namespace: None,
                came,
                done,
            }),
            Job::Adopt(_, done) => {
                done(Ok(Adopted::Refused(vec![format!(
                    "its namespace could not be opened within {:?}",
                    self.settings.open_limit
                )])));
                self.turn_ends(&key);
            }
        }
    }

    /// Writes, or leaves it to the thread that does.
    fn write(self: &Arc<Self>, writing: Writing<D>) {
        let mut writes = self.lanes.writes();
        writes.queue.push_back(writing);
        if writes.somebody_writes {
            return;
        }
        writes.somebody_writes = true;
        self.lanes.deletions.let_pass(true);
        while let Some(writing) = writes.queue.pop_front() {
            drop(writes);
            let key = writing.order.key.clone();
            let (outcome, done) = self.carry_out(writing);
            done(outcome);
            self.turn_ends(&key);
            writes = self.lanes.writes();
        }
        writes.somebody_writes = false;
        self.lanes.deletions.let_pass(false);
    }
}
