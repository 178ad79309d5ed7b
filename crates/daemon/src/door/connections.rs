//! Connections: so many at once and not more, and a node without file descriptors is waited out and not spun on.

use super::guests::{Guest, Guests, IDLE, Seat, Wanted};
use std::fmt::Display;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// After an accept that failed: most often there is no file descriptor left, and one comes with time.
const PAUSE: Duration = Duration::from_millis(100);
/// The same trouble is told once in this time.
const SELDOM: Duration = Duration::from_secs(10);

/// Between two looks for somebody who gives way.
const LOOK: Duration = IDLE.checked_div(10).expect("ten is not zero");

/// Bytes that are read of a connection before the others have their turn: two thousand of the shortest frames. There is one thread
/// for all of them, and one that always has something to say would have it for as long as tokio lets it, a hundred times this.
const TURN: usize = 16 << 10;

/// Connections as they come. Who finds no seat waits until somebody leaves or gives way, and more of them in the listener's queue.
pub(super) struct Incoming {
    listener: UnixListener,
    most: usize,
    seats: Arc<Semaphore>,
    guests: Guests,
    next: Next,
    told: Option<Instant>,
}

type FreeSeat = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>;

enum Next {
    Accept,
    Full(UnixStream, FreeSeat),
    Pausing(Pin<Box<Sleep>>),
}

impl Incoming {
    pub(super) fn new(listener: UnixListener, most: usize, guests: Guests) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            most,
            seats: Arc::new(Semaphore::new(most)),
            guests,
            next: Next::Accept,
            told: None,
        }
    }

    fn tell(&mut self, trouble: impl Display) {
        if self.told.is_none_or(|told| told.elapsed() >= SELDOM) {
            tracing::warn!("{trouble}");
            self.told = Some(Instant::now());
        }
    }

    /// Somebody waits, so whoever is idle gives way.
    fn full(&mut self) -> FreeSeat {
        let most = self.most;
        self.tell(format_args!(
            "{most} connections are open, which is the most ([limits] max_connections): more wait until one ends or is idle"
        ));
        let (seats, guests) = (Arc::clone(&self.seats), self.guests.clone());
        Box::pin(async move {
            let mut seat = std::pin::pin!(seats.acquire_owned());
            loop {
                // Who was asked has some time to go, before another one is.
                let pause = if guests.make_room(Wanted::Seat) {
                    IDLE
                } else {
                    LOOK
                };
                if let Ok(seat) = tokio::time::timeout(pause, &mut seat).await {
                    return seat.expect("seats are never closed");
                }
            }
        })
    }

    fn seated(&self, stream: UnixStream, seat: OwnedSemaphorePermit) -> Connection {
        let seat = self.guests.seat(stream.connect_info(), seat);
        Connection {
            stream,
            seat,
            read: 0,
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.next = match std::mem::replace(&mut this.next, Next::Accept) {
                Next::Accept => match this.listener.poll_accept(context) {
                    Poll::Ready(Ok((stream, _))) => match Arc::clone(&this.seats).try_acquire_owned() {
                        Ok(seat) => return Poll::Ready(Some(Ok(this.seated(stream, seat)))),
                        Err(_) => Next::Full(stream, this.full()),
                    },
                    Poll::Ready(Err(error)) => {
                        this.tell(format_args!("no connection can be taken: {error}"));
                        Next::Pausing(Box::pin(tokio::time::sleep(PAUSE)))
                    }
                    Poll::Pending => return Poll::Pending,
                },
                Next::Full(stream, mut free) => match free.as_mut().poll(context) {
                    Poll::Ready(seat) => return Poll::Ready(Some(Ok(this.seated(stream, seat)))),
                    Poll::Pending => {
                        this.next = Next::Full(stream, free);
                        return Poll::Pending;
                    }
                },
                Next::Pausing(mut pause) => match pause.as_mut().poll(context) {
                    Poll::Ready(()) => Next::Accept,
                    Poll::Pending => {
                        this.next = Next::Pausing(pause);
                        return Poll::Pending;
                    }
                },
            };
        }
    }
}

/// One that has a seat for as long as it lives.
pub(super) struct Connection {
    stream: UnixStream,
    seat: Seat,
    /// Bytes, in this turn.
    read: usize,
}

impl Connected for Connection {
    type ConnectInfo = Guest;

    fn connect_info(&self) -> Guest {
        self.seat.guest.clone()
    }
}

impl Connection {
    /// An error, as if the peer had hung up, where it has to leave. Asked whatever is done: while the peer reads nothing, nothing is
    /// read of it either.
    fn stays(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.seat.has_to_leave(context) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stays(context)?;
        if self.read >= TURN {
            self.read = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read = match outcome {
            Poll::Ready(_) => self.read + buffer.filled().len() - before,
            Poll::Pending => 0,
        };
        outcome
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stays(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stays(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stays(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
