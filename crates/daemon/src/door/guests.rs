//! Whoever is connected, and who of them gives way where there is no more room: the one that has asked for nothing for the
//! longest time and waits for no order.
//!
//! It loses its connection, and has another one as soon as it wants. A connection that was opened and never used, and one whose
//! answers nobody reads, would keep others out for as long as somebody holds them open.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tonic::transport::server::UdsConnectInfo;

/// Who has asked for nothing for a shorter time is left alone: a caller asks as soon as it has connected, and a busy node lets it
/// wait for its turn.
pub(super) const IDLE: Duration = Duration::from_millis(500);

/// All of them. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Guests(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    seated: BTreeMap<u64, Seated>,
}

#[derive(Debug)]
struct Seated {
    guest: Guest,
    leave: oneshot::Sender<()>,
}

/// One of them, as its requests know it.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) credentials: UdsConnectInfo,
    began: Instant,
    /// When it last asked for something: microseconds since it came.
    asked: Arc<AtomicU64>,
    /// Orders that it waits for.
    orders: Arc<AtomicUsize>,
    /// Calls of it that are in hand.
    calls: Arc<AtomicUsize>,
    /// Bytes of their messages.
    bytes: Arc<AtomicUsize>,
}

/// A seat, for as long as the connection lives.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) guest: Guest,
    number: u64,
    guests: Guests,
    _permit: OwnedSemaphorePermit,
    leave: Leave,
}

/// Whether the guest is asked to leave.
#[derive(Debug)]
enum Leave {
    MayCome(oneshot::Receiver<()>),
    HasCome,
    NeverComes,
}

/// One more of something that a guest has, for as long as this lives.
#[derive(Debug)]
pub(super) struct OneMore(Arc<AtomicUsize>);

/// What there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A seat, which each of them has.
    Seat,
    /// A call, or its bytes.
    Call,
}

impl Guests {
    pub(super) fn seat(&self, credentials: UdsConnectInfo, permit: OwnedSemaphorePermit) -> Seat {
        let guest = Guest {
            credentials,
            began: Instant::now(),
            asked: Arc::default(),
            orders: Arc::default(),
            calls: Arc::default(),
            bytes: Arc::default(),
        };
        let (leave, told) = oneshot::channel();
        let mut inside = self.inside();
        let number = inside.next;
        inside.next += 1;
        let seated = Seated {
            guest: guest.clone(),
            leave,
        };
        inside.seated.insert(number, seated);
        Seat {
            guest,
            number,
            guests: self.clone(),
            _permit: permit,
            leave: Leave::MayCome(told),
        }
    }

    /// Asks the one to leave who gives way, of those that have what is wanted. `false`: nobody does.
    pub(super) fn make_room(&self, wanted: Wanted) -> bool {
        let mut inside = self.inside();
        let idle = inside.seated.iter().filter_map(|(number, seated)| {
            let idle = seated.guest.idle()?;
            let has_it = wanted == Wanted::Seat || seated.guest.in_hand() > 0;
            (has_it && idle >= IDLE).then_some((idle, *number))
        });
        let Some((_, number)) = idle.max() else {
            return false;
        };
        let seated = inside.seated.remove(&number);
        seated.is_some_and(|seated| seated.leave.send(()).is_ok())
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// It asks for something.
    pub(super) fn asks(&self) {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.asked.store(now, Ordering::Relaxed);
    }

    /// It waits for one more order.
    pub(super) fn waits(&self) -> OneMore {
        OneMore::of(&self.orders)
    }

    /// One more call of it is in hand.
    pub(super) fn calls(&self) -> OneMore {
        OneMore::of(&self.calls)
    }

    /// How many of its calls are in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many bytes of messages it has in hand.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// It has so many bytes more.
    pub(super) fn takes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It has so many bytes less.
    pub(super) fn gives_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// For how long it has asked for nothing; `None`: it waits for an order.
    fn idle(&self) -> Option<Duration> {
        let asked = Duration::from_micros(self.asked.load(Ordering::Relaxed));
        let waits = self.orders.load(Ordering::Relaxed) > 0;
        (!waits).then(|| self.began.elapsed().saturating_sub(asked))
    }
}

impl OneMore {
    fn of(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    /// Whether the guest has to leave; wakes the caller when it has to.
    pub(super) fn has_to_leave(&mut self, context: &mut Context<'_>) -> bool {
        let Leave::MayCome(told) = &mut self.leave else {
            return matches!(self.leave, Leave::HasCome);
        };
        let Poll::Ready(told) = Pin::new(told).poll(context) else {
            return false;
        };
        self.leave = match told {
            Ok(()) => Leave::HasCome,
            // Nobody is left who could ask it to: the daemon stops, and what is in hand is finished.
            Err(_) => Leave::NeverComes,
        };
        matches!(self.leave, Leave::HasCome)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.inside().seated.remove(&self.number);
    }
}
