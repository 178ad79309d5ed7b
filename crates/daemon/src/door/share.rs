//! How much is in hand at once: calls from their headers to the end of their answer, and bytes of their messages. Beyond it a
//! call is refused at once, in words, and whoever is idle gives way.

use super::guests::{Guest, Guests, OneMore, Wanted};
use super::refusal;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};

/// When to try again.
const SOON: Duration = Duration::from_millis(250);

/// All that there is. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Load {
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    guests: Guests,
}

/// What one call takes of it. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Share(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    load: Load,
    of: Option<Guest>,
    _call: (OwnedSemaphorePermit, Option<OneMore>),
    bytes: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let bytes = self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some(of), Some(bytes)) = (&self.of, bytes) {
            of.gives_back(bytes.num_permits());
        }
    }
}

impl Load {
    pub(super) fn new(calls: usize, bytes: usize, guests: Guests) -> Self {
        let of = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            calls: of(calls),
            bytes: of(bytes),
            guests,
        }
    }

    /// For one more call of a guest, which has so many bytes in hand from its begin.
    pub(super) fn share(&self, of: Option<&Guest>, bytes: usize) -> Result<Share, Status> {
        // Who has many calls leaves room for those who have few: as many as he has himself.
        let has = of.map_or(0, Guest::in_hand);
        let free = self.calls.available_permits();
        let call = match has < free {
            true => Arc::clone(&self.calls).try_acquire_owned().ok(),
            false => None,
        };
        let Some(call) = call else {
            return Err(self.refuse("calls", free > 0));
        };
        let share = Share(Arc::new(Taken {
            load: self.clone(),
            of: of.cloned(),
            _call: (call, of.map(Guest::calls)),
            bytes: Mutex::new(None),
        }));
        if bytes > 0 {
            share.takes(bytes)?;
        }
        Ok(share)
    }

    /// Where there is room, only not for who asks, nobody has to leave.
    fn refuse(&self, what: &str, has_room: bool) -> Status {
        if !has_room {
            self.guests.make_room(Wanted::Call);
        }
        let text = format!("too many {what} are in hand at once; nothing was changed");
        refusal::status(Code::Unavailable, "OVERLOADED", text, &[("of", what)], Some(SOON))
    }
}

impl Share {
    /// For so many bytes more, until the call is over.
    pub(super) fn takes(&self, bytes: usize) -> Result<(), Status> {
        let Taken {
            load,
            of,
            bytes: taken,
            ..
        } = &*self.0;
        // As of calls: who has many leaves room for those who have few.
        let has = of.as_ref().map_or(0, Guest::bytes);
        let free = load.bytes.available_permits();
        let more = u32::try_from(bytes)
            .ok()
            .filter(|_| has < free)
            .and_then(|bytes| Arc::clone(&load.bytes).try_acquire_many_owned(bytes).ok());
        let Some(more) = more else {
            return Err(load.refuse("bytes of messages", bytes <= free));
        };
        if let Some(of) = of {
            of.takes(bytes);
        }
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// A request's body, whose bytes count.
    pub(super) fn of_request(&self, body: Body) -> Body {
        self.wrapped(body, true)
    }

    /// An answer's body, at whose end the call is over. What it says was counted where it was put together.
    pub(super) fn of_answer(self, body: Body) -> Body {
        self.wrapped(body, false)
    }

    fn wrapped(&self, body: Body, counts: bool) -> Body {
        Body::new(Shared {
            body,
            share: self.clone(),
            counts,
        })
    }
}

struct Shared {
    body: Body,
    share: Share,
    counts: bool,
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = match &frame {
            Some(Ok(frame)) if self.counts => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        Poll::Ready(match bytes {
            0 => frame,
            bytes => match self.share.takes(bytes) {
                Ok(()) => frame,
                Err(refused) => Some(Err(refused)),
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
