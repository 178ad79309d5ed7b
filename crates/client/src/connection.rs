//! One HTTP/2 connection over a unix socket, whatever its path, made when it is needed and again when it is lost.
//!
//! It is hyper's and nothing around it: tonic's channel, with its buffer, balance and reconnecting, makes a program that
//! lives for a millisecond a fifth larger and slower, and a socket on the same node needs none of it.

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::codegen::{Context, Future, Pin, Poll, Service};

/// How a request did not come to its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// Nobody took the connection.
    #[error("connect")]
    NotConnected(#[source] io::Error),
    #[error("the connection was lost")]
    Lost(#[from] hyper::Error),
}

/// Clones share the connection. Has to be used inside a tokio runtime, whose task drives it.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    open: Mutex<Option<SendRequest<Body>>>,
}

impl Connection {
    pub(crate) fn to(socket: PathBuf) -> Self {
        Self(Arc::new(Shared {
            socket,
            open: Mutex::new(None),
        }))
    }

    /// What stands for the socket in requests: the server's HTTP/2 library refuses a socket's path in `:authority`.
    pub(crate) fn origin() -> Uri {
        Uri::from_static("http://localhost")
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Option<SendRequest<Body>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Callers that come at once may connect each for itself; the last connection is kept.
    async fn sender(&self) -> Result<SendRequest<Body>, Broken> {
        if let Some(sender) = self.open().as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(Broken::NotConnected)?;
        let (sender, driver) = Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told what the driver ended with.
            let _ = driver.await;
        });
        *self.open() = Some(sender.clone());
        Ok(sender)
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let outcome = shared.sender().await?.send_request(request).await;
            if outcome.is_err() {
                // Its driver may not have noticed yet.
                *shared.open() = None;
            }
            Ok(outcome?)
        })
    }
}
