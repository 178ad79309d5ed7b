//! Connections over a unix socket, whatever its path, and whether a call failed for the want of one.

use hyper_util::rt::TokioIo;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::UnixStream;
use tonic::codegen::http::Uri;
use tonic::codegen::{Context, Future, Pin, Poll, Service};
use tonic::transport::{Channel, Endpoint};

/// Nobody took the connection.
#[derive(Debug, thiserror::Error)]
#[error("connect")]
pub(crate) struct NotConnected(#[source] pub(crate) io::Error);

/// A channel that connects when it is needed. Has to be called inside a tokio runtime.
pub(crate) fn channel(socket: PathBuf) -> Channel {
    // The server's HTTP/2 library refuses a socket's path in `:authority`.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(Connector(Arc::new(socket)))
}

struct Connector(Arc<PathBuf>);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = Arc::clone(&self.0);
        Box::pin(async move {
            let stream = UnixStream::connect(&*socket).await.map_err(NotConnected)?;
            Ok(TokioIo::new(stream))
        })
    }
}
