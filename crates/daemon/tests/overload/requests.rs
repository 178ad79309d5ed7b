//! Two thousand requests at once, of all kinds and with deadlines from 1 ms to 30 s: each is answered in time, and the answers are
//! true.

use crate::daemon::{Daemon, addresses, detach};
use crate::siege::alone;
use client::inspection::{GetRequest, Key, ListRequest};
use client::workload::{AttachRequest, AttachResponse, DetachRequest, NetNsAttachment};
use h2::client::SendRequest;
use hyper::body::Bytes;
use prost::Message;
use stage::Namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Deadlines in milliseconds, in turn.
const DEADLINES: [u64; 10] = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000];
/// By how much an answer may be later than its deadline: for two thousand requests to be read, by a debug build on a busy machine.
const GRACE: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 20;
/// Attached before, half of which are detached.
const HELD: usize = 300;
const ATTACHES: usize = 600;
const DETACHES: usize = 300;
const GETS: usize = 500;
const LISTS: usize = 100;
const STATUSES: usize = 500;

const ATTACH: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Attach";
const DETACH: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Detach";
const STATUS: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Status";
const GET: &str = "/workloadnet.v1.Inspection/Get";
const LIST: &str = "/workloadnet.v1.Inspection/List";

/// Asks many things at once, and gives nothing but what the daemon has said: no timer of its own ends a call.
pub(crate) struct Asker {
    runtime: Runtime,
    socket: PathBuf,
}

/// An answer's message, or what it says instead.
pub(crate) type Answer = Result<Vec<u8>, Status>;

impl Asker {
    pub(crate) fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            socket: socket.to_owned(),
        }
    }

    /// The same so many times, each over a connection of its own.
    pub(crate) fn ask_at_once(
        &self,
        times: usize,
        method: &'static str,
        message: &[u8],
        deadline: Duration,
    ) -> Vec<Answer> {
        self.runtime.block_on(async {
            let mut calls = Vec::new();
            for _ in 0..times {
                let sender = connect(&self.socket).await;
                calls.push(tokio::spawn(ask(sender, method, message.to_vec(), deadline)));
            }
            let mut answers = Vec::new();
            for call in calls {
                answers.push(call.await.unwrap());
            }
            answers
        })
    }

    fn ask(&self, method: &'static str, message: Vec<u8>) -> Answer {
        self.runtime.block_on(async {
            ask(
                connect(&self.socket).await,
                method,
                message,
                Duration::from_secs(30),
            )
            .await
        })
    }
}

async fn connect(socket: &Path) -> SendRequest<Bytes> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(8 << 20)
        .initial_connection_window_size(64 << 20);
    let (sender, driver) = builder.handshake(stream).await.unwrap();
    tokio::spawn(driver);
    sender
}

/// One call (gRPC over HTTP/2).
async fn ask(
    sender: SendRequest<Bytes>,
    method: &'static str,
    message: Vec<u8>,
    deadline: Duration,
) -> Answer {
    let lost = |error: h2::Error| Status::unknown(format!("lost: {error}"));
    let request = Request::post(format!("http://localhost{method}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", format!("{}m", deadline.as_millis()))
        .body(())
        .unwrap();
    let mut sender = sender.ready().await.map_err(lost)?;
    let (response, mut body) = sender.send_request(request, false).map_err(lost)?;
    // Who is refused before all of the message has gone hears why all the same.
    let _ = body.send_data(crate::frames::message(&message).into(), true);
    let (head, mut body) = response.await.map_err(lost)?.into_parts();
    if let Some(status) = said(&head.headers) {
        return Err(status);
    }
    let mut received = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(lost)?;
        let _ = body.flow_control().release_capacity(part.len());
        received.extend(part);
    }
    let trailers = body.trailers().await.map_err(lost)?.unwrap_or_default();
    match said(&trailers) {
        Some(status) if status.code() == Code::Ok => Ok(received.split_off(5)),
        Some(status) => Err(status),
        None => Err(Status::unknown("no status at all")),
    }
}

fn said(headers: &HeaderMap) -> Option<Status> {
    headers
        .contains_key("grpc-status")
        .then(|| Status::from_header_map(headers).unwrap())
}

/// The reason that a refusal has for programs.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map_or_else(|| format!("none: {status}"), |info| info.reason.clone())
}

fn netns(namespace: Option<&Namespace>) -> Option<NetNsAttachment> {
    Some(NetNsAttachment {
        netns_path: namespace.map(Namespace::path).unwrap_or_default(),
        if_name: "eth0".to_owned(),
    })
}

fn attach(id: &str, namespace: &Namespace) -> Vec<u8> {
    let request = AttachRequest {
        workload_id: id.to_owned(),
        netns: netns(Some(namespace)),
        ..AttachRequest::default()
    };
    request.encode_to_vec()
}

fn get(id: &str) -> Vec<u8> {
    let key = Key {
        workload_id: id.to_owned(),
        if_name: "eth0".to_owned(),
        ..Key::default()
    };
    GetRequest { key: Some(key) }.encode_to_vec()
}

/// What is asked, and of which workload.
struct Question {
    method: &'static str,
    id: String,
    message: Vec<u8>,
}

fn questions(namespaces: &BTreeMap<String, Namespace>) -> Vec<Question> {
    let question = |method, id: String, message| Question { method, id, message };
    let mut all = Vec::new();
    for n in 0..ATTACHES {
        let id = format!("new-{n}");
        let message = attach(&id, &namespaces[&id]);
        all.push(question(ATTACH, id, message));
    }
    for n in 0..DETACHES {
        let id = format!("held-{n}");
        let request: DetachRequest = detach(&id);
        all.push(question(DETACH, id, request.encode_to_vec()));
    }
    for n in 0..GETS {
        let id = format!("new-{n}");
        let message = get(&id);
        all.push(question(GET, id, message));
    }
    let list = ListRequest::default().encode_to_vec();
    all.extend((0..LISTS).map(|_| question(LIST, String::new(), list.clone())));
    all.extend((0..STATUSES).map(|_| question(STATUS, String::new(), Vec::new())));
    assert_eq!(all.len(), 2_000);
    all
}

/// Where each workload is by what was answered last, and nowhere where it is not attached.
type Attached = BTreeMap<String, AttachResponse>;

/// Takes what an answer says. `true`: only the same again tells what has become of it.
fn believe(attached: &mut Attached, question: &Question, answer: &Answer) -> bool {
    let Question { method, id, .. } = question;
    match answer {
        Ok(answer) if *method == ATTACH => {
            let answer = AttachResponse::decode(&**answer).unwrap();
            attached.insert(id.clone(), answer);
        }
        Ok(_) if *method == DETACH => {
            attached.remove(id).unwrap();
        }
        Ok(_) => {}
        Err(refused) => {
            let why = reason(refused);
            let may_be: &[(&str, Code)] = match *method {
                ATTACH | DETACH => &[
                    ("NOT_BEGUN", Code::DeadlineExceeded),
                    ("ORDER_GOES_ON", Code::DeadlineExceeded),
                    ("OVERLOADED", Code::Unavailable),
                ],
                GET => &[
                    ("NOT_BEGUN", Code::DeadlineExceeded),
                    ("OVERLOADED", Code::Unavailable),
                    ("NOT_ATTACHED", Code::NotFound),
                ],
                _ => &[
                    ("NOT_BEGUN", Code::DeadlineExceeded),
                    ("OVERLOADED", Code::Unavailable),
                ],
            };
            assert!(
                may_be.contains(&(&*why, refused.code())),
                "{method} {id}: {why}: {refused}"
            );
            return why == "ORDER_GOES_ON";
        }
    }
    false
}

/// What the kernel holds is what was answered, and nothing else.
fn is_true(daemon: &Daemon, attached: &Attached) {
    let links: BTreeSet<String> = crate::witness::links(&daemon.node.node).into_iter().collect();
    let told: BTreeSet<String> = attached.values().map(|answer| answer.host_link.clone()).collect();
    assert_eq!(links, told);
    let world: BTreeSet<String> = daemon.world().into_iter().collect();
    for (id, answer) in attached {
        for address in addresses(&answer.ip) {
            // `ip` names the kind of no route that is a usual one.
            let route = format!("route  {address} dev {}", answer.host_link);
            assert!(world.contains(&route), "{id}: no {route}");
        }
    }
    daemon.expect_used(attached.len() as u64);
    assert_eq!(daemon.caller().list().len(), attached.len());
}

#[test]
fn two_thousand_requests_at_once_are_each_answered_in_time_and_their_answers_are_true() {
    let _alone = alone();
    let mut daemon = Daemon::new();
    daemon.set_prefixes(&["10.77.0.0/20", "fd77::/64"]);
    daemon.start();
    let empty = daemon.world();
    let ids = (0..HELD).map(|n| format!("held-{n}"));
    let ids = ids.chain((0..ATTACHES).map(|n| format!("new-{n}")));
    let namespaces: BTreeMap<String, Namespace> = ids.map(|id| (id, Namespace::new().unwrap())).collect();
    let asker = Asker::new(&daemon.socket());
    let mut attached = Attached::new();
    for n in 0..HELD {
        let id = format!("held-{n}");
        let answer = asker.ask(ATTACH, attach(&id, &namespaces[&id])).unwrap();
        attached.insert(id, AttachResponse::decode(&*answer).unwrap());
    }

    let questions = questions(&namespaces);
    let answers = asker.runtime.block_on(async {
        let mut senders = Vec::new();
        for _ in 0..CONNECTIONS {
            senders.push(connect(&asker.socket).await);
        }
        let calls = questions.iter().enumerate().map(|(n, question)| {
            let sender = senders[n % CONNECTIONS].clone();
            // Kinds of questions follow each other by hundreds: each has all deadlines.
            let deadline = Duration::from_millis(DEADLINES[n / CONNECTIONS % DEADLINES.len()]);
            let (method, message) = (question.method, question.message.clone());
            tokio::spawn(async move {
                let began = Instant::now();
                let answer = ask(sender, method, message, deadline).await;
                (deadline, began.elapsed(), answer)
            })
        });
        let calls: Vec<_> = calls.collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        answers
    });

    let mut unknown = Vec::new();
    let mut said = BTreeMap::new();
    for (question, (deadline, took, answer)) in questions.iter().zip(&answers) {
        let what = match answer {
            Ok(_) => "answered".to_owned(),
            Err(refused) => reason(refused),
        };
        assert!(
            *took < *deadline + GRACE,
            "{} {}, for which there was {deadline:?}: {what} after {took:?}",
            question.method,
            question.id
        );
        let (count, latest) = said.entry(what).or_insert((0, Duration::ZERO));
        *count += 1;
        *latest = took.saturating_sub(*deadline).max(*latest);
        if believe(&mut attached, question, answer) {
            unknown.push(question);
        }
    }
    eprintln!("how many, and the most by which they were late: {said:?}");
    for question in unknown {
        let answer = asker.ask(question.method, question.message.clone());
        assert!(answer.is_ok(), "{}: {answer:?}", question.id);
        believe(&mut attached, question, &answer);
    }
    is_true(&daemon, &attached);

    for id in attached.into_keys() {
        asker.ask(DETACH, detach(&id).encode_to_vec()).unwrap();
    }
    assert_eq!(daemon.world(), empty);
    daemon.expect_used(0);
}
