//! The client against a small server on a socket of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use client::inspection::inspection_server::{Inspection, InspectionServer};
use client::inspection::{self, Attachment, Key};
use client::workload::workload_networking_server::{WorkloadNetworking, WorkloadNetworkingServer};
use client::workload::{
    AttachRequest, AttachResponse, DetachRequest, DetachResponse, StatusRequest, StatusResponse,
};
use client::{Client, Code, Deadlines, Error};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// Answers Status and List, refuses Attach, and never answers Detach and GetNode. An Attach of "slow" is refused when it is
/// asked for the third time; until then it goes on.
struct Fake;

#[tonic::async_trait]
impl WorkloadNetworking for Fake {
    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let id = request.into_inner().workload_id;
        let reasons = ["ORDER_GOES_ON", "NOT_BEGUN"];
        if id == "endless" || id == "slow" && ASKED.fetch_add(1, Ordering::SeqCst) < 2 {
            let reason = reasons[ASKED.load(Ordering::SeqCst) % 2];
            let details = ErrorDetails::with_error_info(reason, "workloadnet.v1", HashMap::new());
            return Err(Status::with_error_details(
                Code::DeadlineExceeded,
                "no outcome",
                details,
            ));
        }
        let metadata = HashMap::from([
            ("field".to_owned(), "requested_ip".to_owned()),
            ("holder".to_owned(), "web-2".to_owned()),
        ]);
        let mut details = ErrorDetails::with_error_info("ADDRESS_HELD", "workloadnet.v1", metadata);
        details.set_retry_info(Some(Duration::from_millis(250)));
        let text = "10.77.0.5 is held by web-2";
        Err(Status::with_error_details(Code::ResourceExhausted, text, details))
    }

    async fn detach(&self, _: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        std::future::pending().await
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {}))
    }
}

#[tonic::async_trait]
impl Inspection for Fake {
    async fn list(
        &self,
        _: Request<inspection::ListRequest>,
    ) -> Result<Response<inspection::ListResponse>, Status> {
        let one = Attachment {
            labels: [("text".to_owned(), "x".repeat(5 << 20))].into(),
            ..Attachment::default()
        };
        Ok(Response::new(inspection::ListResponse {
            attachment: vec![one],
        }))
    }

    async fn get(
        &self,
        _: Request<inspection::GetRequest>,
    ) -> Result<Response<inspection::GetResponse>, Status> {
        Err(Status::not_found("no details"))
    }

    async fn check(
        &self,
        _: Request<inspection::CheckRequest>,
    ) -> Result<Response<inspection::CheckResponse>, Status> {
        Err(Status::cancelled("Timeout expired"))
    }

    async fn collect_garbage(
        &self,
        _: Request<inspection::CollectGarbageRequest>,
    ) -> Result<Response<inspection::CollectGarbageResponse>, Status> {
        std::future::pending().await
    }

    async fn adopt(
        &self,
        _: Request<inspection::AdoptRequest>,
    ) -> Result<Response<inspection::AdoptResponse>, Status> {
        Err(Status::unimplemented("nothing is taken over here"))
    }

    async fn set_prefixes(
        &self,
        _: Request<inspection::SetPrefixesRequest>,
    ) -> Result<Response<inspection::SetPrefixesResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn get_node(
        &self,
        _: Request<inspection::GetNodeRequest>,
    ) -> Result<Response<inspection::GetNodeResponse>, Status> {
        std::future::pending().await
    }
}

/// A server with threads of its own, which end with it, and its connections with them.
struct Serving(Option<Runtime>);

/// Serves on a path; the first `lost` connections are closed as soon as they are taken.
fn serve(socket: &Path, lost: usize) -> Serving {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = {
        let _inside = runtime.enter();
        UnixListener::bind(socket).unwrap()
    };
    runtime.spawn(async move {
        Server::builder()
            .add_service(WorkloadNetworkingServer::new(Fake))
            .add_service(InspectionServer::new(Fake))
            .serve_with_incoming(UnixListenerStream::new(listener).skip(lost))
            .await
            .unwrap();
    });
    Serving(Some(runtime))
}

impl Drop for Serving {
    /// As a crash has it: the socket's file stays.
    fn drop(&mut self) {
        let runtime = self.0.take();
        // A runtime may not be waited for inside another one.
        std::thread::spawn(move || drop(runtime)).join().unwrap();
    }
}

fn client(socket: &Path) -> Client {
    Client::connect(socket).with_deadlines(Deadlines {
        orders: LONG,
        questions: LONG,
    })
}

fn source(error: Error) -> io::Error {
    match error {
        Error::Unreachable { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_unreachable_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let began = Instant::now();
    let missing = source(client(&socket).status().await.unwrap_err());
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    drop(UnixListener::bind(&socket).unwrap());
    let refused = source(client(&socket).status().await.unwrap_err());
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(began.elapsed() < LONG / 4, "took {:?}", began.elapsed());
}

#[tokio::test]
async fn the_paths_of_sockets_may_have_any_characters() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a b%20?#[é");
    let _server = serve(&socket, 0);
    client(&socket).status().await.unwrap();
}

#[tokio::test]
async fn every_call_ends_with_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = serve(&socket, 0);
    let mute = folder.path().join("mute");
    let _listens_and_takes_nothing = UnixListener::bind(&mute).unwrap();
    let (order, question) = (Duration::from_millis(60), Duration::from_millis(30));
    let deadlines = Deadlines {
        orders: order,
        questions: question,
    };
    let client = Client::connect(&socket).with_deadlines(deadlines);
    let mute = Client::connect(&mute).with_deadlines(deadlines);
    let expect = async |limit: Duration, call: &mut dyn FnMut() -> Call| {
        let began = Instant::now();
        match call().await {
            Err(Error::Deadline(said)) => assert_eq!(said, limit),
            other => panic!("{other:?}"),
        }
        assert!(
            began.elapsed() >= limit && began.elapsed() < LONG,
            "{:?}",
            began.elapsed()
        );
    };
    type Call = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>>>>;
    for who in [&client, &mute] {
        expect(order, &mut || {
            let client = who.clone();
            Box::pin(async move { client.detach(DetachRequest::default()).await })
        })
        .await;
        expect(question, &mut || {
            let client = who.clone();
            Box::pin(async move { client.node().await.map(drop) })
        })
        .await;
    }
}

#[tokio::test]
async fn a_deadline_that_the_server_notices_is_one_too() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = serve(&socket, 0);
    let error = client(&socket).check(None).await.unwrap_err();
    assert!(matches!(error, Error::Deadline(LONG)), "{error:?}");
}

#[tokio::test]
async fn an_order_that_goes_on_is_asked_for_until_the_callers_own_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = serve(&socket, 0);
    let attach = |id: &str| AttachRequest {
        workload_id: id.to_owned(),
        ..AttachRequest::default()
    };
    let error = client(&socket).attach(attach("slow")).await.unwrap_err();
    assert_eq!(error.to_string(), "10.77.0.5 is held by web-2");
    let limit = Duration::from_millis(100);
    let hurried = client(&socket).with_deadlines(Deadlines {
        orders: limit,
        questions: LONG,
    });
    let error = hurried.attach(attach("endless")).await.unwrap_err();
    assert!(
        matches!(error, Error::Deadline(said) if said == limit),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_refusal_tells_all_that_the_daemon_said() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = serve(&socket, 0);
    let error = client(&socket)
        .attach(AttachRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "10.77.0.5 is held by web-2");
    let Error::Refused(refused) = error else {
        panic!("{error:?}");
    };
    assert_eq!(refused.code, Code::ResourceExhausted);
    assert_eq!(refused.reason, "ADDRESS_HELD");
    assert_eq!(refused.field.as_deref(), Some("requested_ip"));
    assert_eq!(refused.retry_after, Some(Duration::from_millis(250)));
    assert_eq!(refused.metadata["holder"], "web-2");
}

#[tokio::test]
async fn a_refusal_without_details_is_still_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = serve(&socket, 0);
    let Error::Refused(refused) = client(&socket).get(Key::default()).await.unwrap_err() else {
        panic!("not refused");
    };
    assert_eq!((refused.code, &*refused.reason), (Code::NotFound, ""));
    assert_eq!((refused.field, refused.retry_after), (None, None));
}

#[tokio::test]
async fn a_list_may_be_larger_than_4_mib() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _server = serve(&socket, 0);
    let all = client(&socket).list(None).await.unwrap();
    assert_eq!(all[0].labels["text"].len(), 5 << 20);
}

#[tokio::test]
async fn a_restart_of_the_server_is_not_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let client = client(&socket);
    for _ in 0..5 {
        let server = serve(&socket, 0);
        client.status().await.unwrap();
        drop(server);
        std::fs::remove_file(&socket).unwrap();
    }
    let gone = source(client.status().await.unwrap_err());
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_call_whose_connection_is_lost_is_sent_once_more_and_not_twice() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("once");
    let _once = serve(&socket, 1);
    client(&socket).status().await.unwrap();
    let socket = folder.path().join("twice");
    let _twice = serve(&socket, 2);
    let lost = source(client(&socket).status().await.unwrap_err());
    assert_eq!(lost.kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn patience_waits_for_a_daemon_that_starts() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let patient = client(&socket).with_patience(LONG);
    let call = tokio::spawn(async move { patient.status().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!call.is_finished());
    let _server = serve(&socket, 0);
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn patience_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let patient = client(&folder.path().join("socket")).with_patience(Duration::from_millis(50));
    let began = Instant::now();
    let missing = source(patient.status().await.unwrap_err());
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    // Pauses of 10 and 20 ms fit, a third one of 40 ms does not.
    assert!(began.elapsed() >= Duration::from_millis(30) && began.elapsed() < LONG);
}
