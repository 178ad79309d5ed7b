//! What monitoring sees of the daemon, over plain HTTP/1: numbers, and whether it lives and is ready. Nothing can be changed
//! here, and whoever asks takes little: a few connections, each for a few seconds and one answer.
//!
//! ```text
//!  listen -> accept (the oldest goes where there are too many) -> one request -> /healthz  the desk answers
//!                                                                                /readyz   as Status
//!                                                                                /metrics  text
//! ```

mod listen;
mod process;
mod text;

pub use listen::{Listen, Listener, listen};

use crate::desk::Desk;
use crate::tally::Answers;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::datapath::Datapath;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Connections that are open at once. With one more the oldest is closed: who sends its request at once has its answer by
/// then, and who does not cannot keep others out.
const CONNECTIONS: usize = 32;
/// From the first byte of a request to the last one of its headers.
const HEADERS: Duration = Duration::from_secs(5);
/// Of a whole connection.
const LIFE: Duration = Duration::from_secs(10);
/// How long the desk may take to answer. It takes microseconds; kubelet's probes wait for a second.
const DESK: Duration = Duration::from_secs(3);
/// Questions to the desk at once. Where it does not answer they are never over.
const QUESTIONS: usize = 4;
/// Bytes that are read of a request, and headers.
const REQUEST: usize = 8 * 1024;
const MOST_HEADERS: usize = 64;
/// After an accept that failed: most often there is no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// `OpenMetrics 1.0`, which the text is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Whom requests are about.
struct Site<D: Datapath> {
    desk: Arc<Desk<D>>,
    answers: Arc<Answers>,
    questions: Arc<Semaphore>,
}

/// Answers for ever.
pub async fn serve<D: Datapath>(listener: Listener, desk: Arc<Desk<D>>, answers: Arc<Answers>) {
    let site = Arc::new(Site {
        desk,
        answers,
        questions: Arc::new(Semaphore::new(QUESTIONS)),
    });
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "no connection to the metrics can be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        while open.len() >= CONNECTIONS {
            open.pop_front().iter().for_each(AbortHandle::abort);
        }
        let site = Arc::clone(&site);
        let answered = async move {
            let service = service_fn(move |request| answer(Arc::clone(&site), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .keep_alive(false)
                .max_buf_size(REQUEST)
                .max_headers(MOST_HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            // Who has gone, or was too slow, is told nothing.
            let _ = tokio::time::timeout(LIFE, connection).await;
        };
        open.push_back(tokio::spawn(answered).abort_handle());
    }
}

async fn answer<D: Datapath, B>(
    site: Arc<Site<D>>,
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if !["/metrics", "/healthz", "/readyz"].contains(&path) {
        let text = "there is /metrics, /healthz and /readyz\n";
        return Ok(response(StatusCode::NOT_FOUND, PLAIN, text));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET or HEAD\n");
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    let desk = Arc::clone(&site.desk);
    Ok(match path {
        "/metrics" => {
            let answers = Arc::clone(&site.answers);
            match site.ask(move || text::render(desk, answers)).await {
                Some(Ok(text)) => response(StatusCode::OK, OPEN_METRICS, text),
                Some(Err(error)) => response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
                None => silent(),
            }
        }
        "/healthz" => match site.ask(move || desk.unready()).await {
            Some(_) => response(StatusCode::OK, PLAIN, "ok\n"),
            None => silent(),
        },
        _ => match site.ask(move || desk.unready()).await {
            Some(unmet) if unmet.is_empty() => response(StatusCode::OK, PLAIN, "ok\n"),
            Some(unmet) => {
                let lines: String = unmet.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
                response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, lines)
            }
            None => silent(),
        },
    })
}

impl<D: Datapath> Site<D> {
    /// Asks the desk, which has a lock. `None`: it does not answer.
    async fn ask<T: Send + 'static>(&self, question: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let asked = async {
            let turn = Arc::clone(&self.questions).acquire_owned().await.ok()?;
            let answer = tokio::task::spawn_blocking(move || {
                let answer = question();
                drop(turn);
                answer
            });
            answer.await.ok()
        };
        tokio::time::timeout(DESK, asked).await.ok().flatten()
    }
}

fn silent() -> Response<Full<Bytes>> {
    let text = "the desk does not answer\n";
    response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, text)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
