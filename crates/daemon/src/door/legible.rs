//! What is no message of the contract: a string that is not UTF-8, a truncated field, a frame that is too long. The
//! generated code answers INTERNAL or OUT_OF_RANGE before anything of ours is asked; here that becomes INVALID_ARGUMENT
//! with the field and the bytes that came.

use super::{field, refusal};
use http_body_util::BodyExt as _;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// Compressed flag and length (gRPC over HTTP/2, "Length-Prefixed-Message").
const FRAME_HEADER: usize = 5;
/// Bytes of a request that are kept to be shown.
const KEPT: usize = FRAME_HEADER + 64;

/// A generated server whose undecodable requests are refused as every other bad input is.
#[derive(Debug, Clone)]
pub(super) struct Legible<S>(pub(super) S);

impl<S: NamedService> NamedService for Legible<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Legible<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let beginning = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&beginning);
        let answer = self.0.call(request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(data) = frame.data_ref() {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = KEPT.saturating_sub(kept.len()).min(data.len());
                    kept.extend_from_slice(&data[..room]);
                }
                frame
            }))
        }));
        Box::pin(async move {
            let response = answer.await?;
            let Some(status) = of_the_decoder(&response) else {
                return Ok(response);
            };
            let beginning = beginning.lock().unwrap_or_else(PoisonError::into_inner);
            let message = beginning.get(FRAME_HEADER..).unwrap_or_default();
            let error = field::undecodable(message, status.message());
            tracing::debug!(%error, "not a message of the contract");
            Ok(refusal::invalid(&error).into_http())
        })
    }
}

/// The status that an answer consists of, if the generated code made it: ours all have details.
fn of_the_decoder<B>(response: &http::Response<B>) -> Option<Status> {
    if !response.headers().contains_key("grpc-status") {
        return None;
    }
    Status::from_header_map(response.headers()).filter(|status| {
        status.details().is_empty() && matches!(status.code(), Code::Internal | Code::OutOfRange)
    })
}
