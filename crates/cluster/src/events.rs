//! Events of the own Node (events.k8s.io/v1): what `kubectl describe node` shows of it.
//!
//! What happens again is the same event, counted (its series), and written no more often than its pace. Whoever tells of something
//! never waits: what the queue or the API server does not take is dropped, and counted.

use crate::access::{Access, Fault, in_time};
use crate::own::Own;
use jiff::Timestamp;
use kube::core::Request;
use kube::core::params::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Notices that may wait.
const WAITING: usize = 64;
/// What has not happened for so long is another event the next time.
const OVER: Duration = Duration::from_secs(360);
/// Where events of what is in no namespace belong.
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
/// Bytes of an event's note (its validation in the API server).
const NOTE: usize = 1024;
/// Bytes of its reportingInstance.
const INSTANCE: usize = 128;

/// How an event is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To be known.
    Normal,
    /// To be looked at.
    Warning,
}

/// Something that whoever looks at the Node wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How it is to be taken.
    pub kind: Kind,
    /// Why, as one word, e.g. `AddressesExhausted`. Notices of one reason are one event that is counted.
    pub reason: &'static str,
    /// What was done or refused, as one word, e.g. `Attach`.
    pub action: &'static str,
    /// In words; the event shows those of the first of its kind.
    pub note: String,
}

/// Takes notices, from any thread. Clones are the same.
#[derive(Debug, Clone)]
pub struct Notices {
    queue: mpsc::Sender<Notice>,
    dropped: Arc<AtomicU64>,
}

/// Where [`Notices`] wait.
#[derive(Debug)]
pub struct Queue {
    notices: mpsc::Receiver<Notice>,
    dropped: Arc<AtomicU64>,
    pace: Duration,
}

/// Both ends. An event is not written again before `pace` is over.
pub fn notices(pace: Duration) -> (Notices, Queue) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let dropped = Arc::new(AtomicU64::new(0));
    let notices = Notices {
        queue: sender,
        dropped: Arc::clone(&dropped),
    };
    let queue = Queue {
        notices: receiver,
        dropped,
        pace,
    };
    (notices, queue)
}

impl Notices {
    /// Never blocks.
    pub fn tell(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were told in vain so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// An event that may go on.
struct Event {
    notice: Notice,
    /// What it is called where it was written.
    name: Option<String>,
    /// How often it has happened, and how much of that is written.
    count: u64,
    written: u64,
    last: Timestamp,
    last_at: Instant,
    /// When it may be written next.
    due: Instant,
}

/// Writes what comes, for ever.
pub(crate) async fn write(access: &Access, node: &str, own: &Own, mut queue: Queue) {
    let mut events: Vec<Event> = Vec::new();
    let mut said = 0;
    loop {
        let pending = events.iter().filter(|event| event.written < event.count);
        let due = pending.map(|event| event.due).min();
        let until = due.unwrap_or_else(|| Instant::now() + OVER);
        let notice = tokio::time::timeout_at(until.into(), queue.notices.recv()).await;
        match notice {
            Ok(Some(notice)) => take(&mut events, notice),
            // Nobody is left who could tell of anything.
            Ok(None) => return,
            Err(_) => {}
        }
        let now = Instant::now();
        for event in &mut events {
            if event.written < event.count && event.due <= now {
                event.due = now + queue.pace;
                let outcome = match own.seen() {
                    Some(seen) => event.write(access, node, &seen.uid).await,
                    None => Err(Fault::NoWay("the own Node is not known".to_owned())),
                };
                if let Err(fault) = &outcome {
                    tracing::debug!(%fault, "an event cannot be written");
                    access.forget();
                    queue
                        .dropped
                        .fetch_add(event.count - event.written, Ordering::Relaxed);
                    event.count = event.written;
                    continue;
                }
                event.written = event.count;
                let dropped = queue.dropped.load(Ordering::Relaxed);
                if dropped > said {
                    tracing::warn!(
                        events = dropped - said,
                        "some of the Node's events could not be written"
                    );
                    said = dropped;
                }
            }
        }
        events.retain(|event| event.written < event.count || now < event.last_at + OVER);
    }
}

fn take(events: &mut Vec<Event>, notice: Notice) {
    let (last, last_at) = (Timestamp::now(), Instant::now());
    match events
        .iter_mut()
        .find(|event| event.notice.reason == notice.reason)
    {
        Some(event) => {
            event.count += 1;
            (event.last, event.last_at) = (last, last_at);
        }
        None => events.push(Event {
            notice,
            name: None,
            count: 1,
            written: 0,
            last,
            last_at,
            due: last_at,
        }),
    }
}

impl Event {
    async fn write(&mut self, access: &Access, node: &str, uid: &str) -> Result<(), Fault> {
        let client = in_time(access.client()).await?;
        if let Some(name) = &self.name {
            let series = json!({"count": self.count, "lastObservedTime": micro(self.last)});
            let patch = Patch::Merge(json!({"series": series}));
            let request = Request::new(EVENTS).patch(name, &PatchParams::default(), &patch);
            let request = request.expect("a patch of JSON is well formed");
            match in_time(client.request::<Value>(request)).await {
                // They live for an hour.
                Err(fault) if fault.is(404) => {
                    self.name = None;
                    self.count -= self.written;
                    self.written = 0;
                }
                outcome => return outcome.map(drop),
            }
        }
        let name = format!("{}.{:x}", stem(node), self.last.as_nanosecond());
        let body = self.body(&name, node, uid).to_string().into_bytes();
        let request = Request::new(EVENTS).create(&PostParams::default(), body);
        let request = request.expect("a creation is well formed");
        in_time(client.request::<Value>(request)).await?;
        self.name = Some(name);
        Ok(())
    }

    fn body(&self, name: &str, node: &str, uid: &str) -> Value {
        let mut body = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": micro(self.last),
            "reportingController": "workloadnetd",
            "reportingInstance": cut(node, INSTANCE),
            "action": self.notice.action,
            "reason": self.notice.reason,
            "type": match self.notice.kind {
                Kind::Normal => "Normal",
                Kind::Warning => "Warning",
            },
            "note": cut(&self.notice.note, NOTE),
            "regarding": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid},
        });
        // A series begins with the second one.
        if self.count > 1 {
            body["series"] = json!({"count": self.count, "lastObservedTime": micro(self.last)});
        }
        body
    }
}

/// A MicroTime, which has six digits.
fn micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// What an event's name begins with: a part of the Node's that leaves room for the rest, and ends as a name may.
fn stem(node: &str) -> &str {
    cut(node, 200).trim_end_matches(['.', '-'])
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
