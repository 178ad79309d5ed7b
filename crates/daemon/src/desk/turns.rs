//! Who is next: one order per key at a time, in the order of arrival, and the threads that carry orders out.

use super::order::{AttachOrder, Attachment, DetachOrder, Detached, Refusal};
use super::{Desk, Done, Phase};
use model::datapath::{Datapath, OpenError};
use model::key::Key;
use model::record::NamespaceId;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Threads that open namespaces. A path on a file system that hangs holds one of them.
const OPENERS: usize = 8;
/// Threads that wait for deletions.
const DELETERS: usize = 4;
/// Deletions that are taken together: more would hold RTNL for too long.
const TOGETHER: usize = 16;

/// What waits for its key's turn.
pub(super) enum Job {
    Attach(AttachOrder, Done<Attachment>),
    Detach(DetachOrder, Done<Detached>),
}

impl Job {
    fn key(&self) -> &Key {
        match self {
            Self::Attach(order, _) => &order.key,
            Self::Detach(order, _) => &order.key,
        }
    }

    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Attach(_, done) => done(Err(refusal)),
            Self::Detach(_, done) => done(Err(refusal)),
        }
    }
}

type Opened<D> = Result<(<D as Datapath>::Namespace, NamespaceId), OpenError>;

/// An attach whose namespace was looked at.
pub(super) struct Writing<D: Datapath> {
    pub(super) order: AttachOrder,
    pub(super) opened: Opened<D>,
    pub(super) done: Done<Attachment>,
}

/// A detach whose namespace, where it names one, was looked at.
pub(super) struct Deleting {
    pub(super) order: DetachOrder,
    /// What the path is today; `None` where it is no namespace any more, or none was named.
    pub(super) namespace: Option<NamespaceId>,
    pub(super) done: Done<Detached>,
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
    openers: Sender<Job>,
    writer: Sender<Writing<D>>,
    deleters: Arc<(Mutex<VecDeque<Deleting>>, Condvar)>,
}

/// The threads' ends.
pub(super) struct Ends<D: Datapath> {
    openers: Receiver<Job>,
    writer: Receiver<Writing<D>>,
}

impl<D: Datapath> Lanes<D> {
    pub(super) fn new() -> (Self, Ends<D>) {
        let ((openers, opening), (writer, writing)) = (channel(), channel());
        (
            Self {
                openers,
                writer,
                deleters: Arc::default(),
            },
            Ends {
                openers: opening,
                writer: writing,
            },
        )
    }

    fn delete(&self, job: Deleting) {
        let (queue, wake) = &*self.deleters;
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(job);
        wake.notify_one();
    }
}

/// Starts the threads. They live as long as the process.
pub(super) fn start<D: Datapath>(desk: &Arc<Desk<D>>, ends: Ends<D>) -> io::Result<()> {
    let thread =
        |name: String, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name).spawn(run);
    let writer = Arc::clone(desk);
    thread(
        "writer".to_owned(),
        Box::new(move || {
            for writing in ends.writer {
                let key = writing.order.key.clone();
                let (outcome, done) = writer.carry_out(writing);
                done(outcome);
                writer.turn_ends(&key);
            }
        }),
    )?;
    let opening = Arc::new(Mutex::new(ends.openers));
    for n in 0..OPENERS {
        let (desk, jobs) = (Arc::clone(desk), Arc::clone(&opening));
        thread(
            format!("opener-{n}"),
            Box::new(move || {
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    desk.look_at_namespace(job);
                }
            }),
        )?;
    }
    for n in 0..DELETERS {
        let desk = Arc::clone(desk);
        thread(
            format!("deleter-{n}"),
            Box::new(move || {
                loop {
                    let (queue, wake) = &*desk.lanes.deleters;
                    let waiting = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut waiting = wake
                        .wait_while(waiting, |jobs| jobs.is_empty())
                        .unwrap_or_else(PoisonError::into_inner);
                    let together = waiting.len().min(TOGETHER);
                    let jobs: Vec<_> = waiting.drain(..together).collect();
                    drop(waiting);
                    desk.take_off(jobs);
                }
            }),
        )?;
    }
    Ok(())
}

impl<D: Datapath> Desk<D> {
    /// Takes an order in, or refuses it at once.
    pub(super) fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state();
        let refusal = match state.phase {
            Phase::Recovering => Some(Refusal::NotReady(self.unmet(&state))),
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
        state.turns.queued += 1;
        if let Some(behind) = state.turns.waiting.get_mut(job.key()) {
            behind.push_back(job);
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
            Job::Detach(order, done) if order.path.is_none() => {
                self.lanes.delete(Deleting {
                    order,
                    namespace: None,
                    done,
                });
            }
            job => self
                .lanes
                .openers
                .send(job)
                .expect("the openers live as long as the desk"),
        }
    }

    fn look_at_namespace(&self, job: Job) {
        match job {
            Job::Attach(order, done) => {
                let opened = self.datapath.open(&order.path);
                let writing = Writing { order, opened, done };
                self.lanes
                    .writer
                    .send(writing)
                    .expect("the writer lives as long as the desk");
            }
            Job::Detach(order, done) => {
                let path = order.path.as_deref().unwrap_or_default();
                let namespace = self.datapath.open(path).ok().map(|(_, id)| id);
                self.lanes.delete(Deleting {
                    order,
                    namespace,
                    done,
                });
            }
        }
    }
}
