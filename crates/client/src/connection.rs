//! One HTTP/2 connection over a unix socket, whatever its path: made when it is needed, and again when it is lost.

use crate::error::Failure;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::UnixStream;

/// Bytes that may be on their way to us. A list of a full node has a few MiB.
const WINDOW: u32 = 4 << 20;

/// Clones share the connection. Has to be used inside a tokio runtime, whose task drives it.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    open: Mutex<Option<SendRequest<Bytes>>>,
}

impl Connection {
    pub(crate) fn to(socket: PathBuf) -> Self {
        Self(Arc::new(Shared {
            socket,
            open: Mutex::new(None),
        }))
    }

    /// A way to send one request. Callers that come at once may connect each for itself; the last connection is kept.
    pub(crate) async fn ready(&self) -> Result<SendRequest<Bytes>, Failure> {
        let kept = self.open().clone();
        if let Some(kept) = kept
            && let Ok(ready) = kept.ready().await
        {
            return Ok(ready);
        }
        let stream = UnixStream::connect(&self.0.socket)
            .await
            .map_err(Failure::NotConnected)?;
        let mut builder = Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .enable_push(false);
        let (sender, driver) = builder.handshake(stream).await.map_err(Failure::lost)?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told what the driver ended with.
            let _ = driver.await;
        });
        let ready = sender.clone().ready().await.map_err(Failure::lost)?;
        *self.open() = Some(sender);
        Ok(ready)
    }

    /// It is lost, and its driver may not have noticed yet.
    pub(crate) fn forget(&self) {
        *self.open() = None;
    }

    fn open(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
