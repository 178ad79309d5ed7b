//! Connections: so many at once and not more, and a node without file descriptors is waited out and not spun on.

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
use tonic::transport::server::{Connected, UdsConnectInfo};

/// After an accept that failed: most often there is no file descriptor left, and one comes with time.
const PAUSE: Duration = Duration::from_millis(100);
/// The same trouble is told once in this time.
const SELDOM: Duration = Duration::from_secs(10);

/// Connections as they come. Who finds no seat waits in the listener's queue.
pub(super) struct Incoming {
    listener: UnixListener,
    most: usize,
    seats: Arc<Semaphore>,
    next: Next,
    told: Option<Instant>,
}

enum Next {
    Look,
    /// For the next connection.
    Seat(OwnedSemaphorePermit),
    Full(Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>),
    Pausing(Pin<Box<Sleep>>),
}

impl Incoming {
    pub(super) fn new(listener: UnixListener, most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            most,
            seats: Arc::new(Semaphore::new(most)),
            next: Next::Look,
            told: None,
        }
    }

    fn tell(&mut self, trouble: impl Display) {
        if self.told.is_none_or(|told| told.elapsed() >= SELDOM) {
            tracing::warn!("{trouble}");
            self.told = Some(Instant::now());
        }
    }

    fn look(&mut self) -> Next {
        let seats = Arc::clone(&self.seats);
        if let Ok(seat) = Arc::clone(&seats).try_acquire_owned() {
            return Next::Seat(seat);
        }
        let most = self.most;
        self.tell(format_args!(
            "{most} connections are open, which is the most ([limits] max_connections): any more wait for their ends"
        ));
        Next::Full(Box::pin(async move {
            seats.acquire_owned().await.expect("seats are never closed")
        }))
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.next = match std::mem::replace(&mut this.next, Next::Look) {
                Next::Look => this.look(),
                Next::Full(mut seat) => match seat.as_mut().poll(context) {
                    Poll::Ready(seat) => Next::Seat(seat),
                    Poll::Pending => {
                        this.next = Next::Full(seat);
                        return Poll::Pending;
                    }
                },
                Next::Pausing(mut pause) => match pause.as_mut().poll(context) {
                    Poll::Ready(()) => Next::Look,
                    Poll::Pending => {
                        this.next = Next::Pausing(pause);
                        return Poll::Pending;
                    }
                },
                Next::Seat(seat) => match this.listener.poll_accept(context) {
                    Poll::Ready(Ok((stream, _))) => {
                        return Poll::Ready(Some(Ok(Connection { stream, _seat: seat })));
                    }
                    Poll::Ready(Err(error)) => {
                        this.tell(format_args!("no connection can be taken: {error}"));
                        Next::Pausing(Box::pin(tokio::time::sleep(PAUSE)))
                    }
                    Poll::Pending => {
                        this.next = Next::Seat(seat);
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
    _seat: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
