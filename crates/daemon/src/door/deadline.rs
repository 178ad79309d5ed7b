//! Every call is answered: by its caller's deadline, or by ours. tonic's own timer would answer CANCELLED without details
//! while the order goes on; this one is a little earlier, and says which of both it is.

use super::guests::{Guest, OneMore};
use super::refusal;
use super::share::{Load, Share};
use crate::tally::{Answers, Calls};
use api::workload::workload_networking_server::SERVICE_NAME;
use prost::Message;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Code, Response, Status};

/// The answer's way to a caller takes less, also on a busy node; who waits for a shorter time gives a tenth of it.
const EARLIER: Duration = Duration::from_millis(100);

/// What a header takes beside its name and its value, in a map that doubles when it is full.
const EACH_HEADER: usize = 256;
/// Bytes of headers that count as a part of their call.
const USUAL_HEADERS: usize = 4096;

/// What is known of a call; among its request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// When the caller has gone.
    pub(super) deadline: Option<Instant>,
    is_order: Arc<AtomicBool>,
    guest: Option<Guest>,
    waiting: Arc<OnceLock<OneMore>>,
    share: Option<Share>,
}

impl Call {
    fn new(deadline: Option<Instant>) -> Self {
        Self {
            deadline,
            is_order: Arc::default(),
            guest: None,
            waiting: Arc::default(),
            share: None,
        }
    }

    /// Of a request that came through [`Timely`].
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Self {
        request
            .extensions()
            .get()
            .cloned()
            .unwrap_or_else(|| Self::new(None))
    }

    /// From here on the order is carried out, whether the caller stays or not.
    pub(super) fn is_handed_over(&self) {
        self.is_order.store(true, Ordering::Relaxed);
        if let Some(guest) = &self.guest {
            self.waiting.get_or_init(|| guest.waits());
        }
    }

    /// An answer of so many bytes, which are in hand until it was taken.
    pub(super) fn answers<T: Message>(&self, answer: T) -> Result<Response<T>, Status> {
        if let Some(share) = &self.share {
            share.takes(answer.encoded_len())?;
        }
        Ok(Response::new(answer))
    }
}

/// What holds for the calls of every service.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// They have so long, at most.
    pub(super) limit: Duration,
    pub(super) load: Load,
    /// What becomes of an order is counted where it is carried out; here, what never became one.
    pub(super) answers: Arc<Answers>,
}

impl Terms {
    /// For a server each of whose calls has so many bytes in hand, beside its messages.
    pub(super) fn of<S>(&self, bytes: usize, server: S) -> Timely<S> {
        Timely {
            terms: self.clone(),
            bytes,
            server,
        }
    }
}

/// A server whose calls are under such terms.
#[derive(Debug, Clone)]
pub(super) struct Timely<S> {
    terms: Terms,
    bytes: usize,
    server: S,
}

/// Where calls of this path are counted, of those that are.
fn counted(path: &str) -> Option<fn(&Answers) -> &Calls> {
    match path.strip_prefix('/')?.strip_prefix(SERVICE_NAME)? {
        "/Attach" => Some(|answers| &answers.attaches),
        "/Detach" => Some(|answers| &answers.detaches),
        _ => None,
    }
}

/// An answer that says no before anything else has its status among the headers (gRPC over HTTP/2, "Trailers-Only").
fn refused_with(answer: &http::Response<Body>) -> Option<usize> {
    let code: usize = answer.headers().get("grpc-status")?.to_str().ok()?.parse().ok()?;
    (code != 0).then_some(code)
}

impl<S: NamedService> NamedService for Timely<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Timely<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.server.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let header = request.headers().get("grpc-timeout");
        let timeout = header.and_then(|text| timeout(text.to_str().ok()?));
        let limit = timeout.map_or(self.terms.limit, |timeout| {
            answered_within(timeout).min(self.terms.limit)
        });
        let guest: Option<Guest> = request.extensions().get().cloned();
        let counted = counted(request.uri().path());
        let bytes = self.bytes + unusual(request.headers());
        let share = match self.terms.load.share(guest.as_ref(), bytes) {
            Ok(share) => share,
            Err(refused) => {
                if let Some(counted) = counted {
                    counted(&self.terms.answers).refused(refused.code() as usize);
                }
                return Box::pin(async { Ok(refused.into_http()) });
            }
        };
        let mut call = Call::new(timeout.and_then(|timeout| Instant::now().checked_add(timeout)));
        call.guest = guest;
        call.share = Some(share.clone());
        request.extensions_mut().insert(call.clone());
        let answer = self.server.call(request.map(|body| share.of_request(body)));
        let answers = Arc::clone(&self.terms.answers);
        Box::pin(async move {
            let answer = match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer?,
                Err(_) => too_late(limit, &call).into_http(),
            };
            if !call.is_order.load(Ordering::Relaxed)
                && let Some(counted) = counted
                && let Some(code) = refused_with(&answer)
            {
                counted(&answers).refused(code);
            }
            Ok(answer.map(|body| share.of_answer(body)))
        })
    }
}

/// Bytes that headers take beyond what each call may have: they are kept until its message has come.
fn unusual(headers: &http::HeaderMap) -> usize {
    let all = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + EACH_HEADER);
    all.sum::<usize>().saturating_sub(USUAL_HEADERS)
}

fn too_late(limit: Duration, call: &Call) -> Status {
    let (reason, text) = match call.is_order.load(Ordering::Relaxed) {
        true => (
            "ORDER_GOES_ON",
            format!(
                "no outcome within {limit:?}; the order goes on, and the same call again tells what became of it"
            ),
        ),
        false => (
            "NOT_BEGUN",
            format!("no answer within {limit:?}; nothing was changed"),
        ),
    };
    refusal::status(Code::DeadlineExceeded, reason, text, &[], None)
}

fn answered_within(timeout: Duration) -> Duration {
    timeout - EARLIER.min(timeout / 10)
}

/// The header `grpc-timeout`: digits and a unit (gRPC over HTTP/2, "Requests").
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.checked_mul(3600)?)),
        "M" => Some(Duration::from_secs(amount.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_and_garbage_is_not() {
        assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3600)));
        for text in [
            "",
            "S",
            "2",
            "-1S",
            "2x",
            "99999999999999999999S",
            "18446744073709551615H",
        ] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[test]
    fn an_answer_is_a_little_earlier_than_the_deadline() {
        let millis = Duration::from_millis;
        for (timeout, expected) in [(0, 0), (10, 9), (50, 45), (1000, 900), (30_000, 29_900)] {
            assert_eq!(answered_within(millis(timeout)), millis(expected));
        }
    }
}
