//! The network of a runtime, against a played daemon that answers as it is told and remembers what it was asked.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use client::inspection::inspection_server::{Inspection, InspectionServer};
use client::inspection::{self, GetNodeResponse, Key};
use client::network::{Bandwidth, Dns, HostPort, Mac, Network, Options, Protocol, Removed};
use client::workload::workload_networking_server::{WorkloadNetworking, WorkloadNetworkingServer};
use client::workload::{self, AttachRequest, AttachResponse, DetachRequest, DetachResponse};
use client::{Code, Error};
use queue::{Deletion, Queue};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What is refused, in the order of the calls; then everything succeeds.
#[derive(Default)]
struct Script {
    refusals: VecDeque<Status>,
    features: Vec<String>,
    is_reference: bool,
    attached: Vec<AttachRequest>,
    detached: Vec<DetachRequest>,
    collected: Vec<inspection::CollectGarbageRequest>,
    calls: Vec<&'static str>,
}

#[derive(Clone, Default)]
struct Played(Arc<Mutex<Script>>);

impl Played {
    fn turn(&self, call: &'static str) -> Result<std::sync::MutexGuard<'_, Script>, Status> {
        let mut script = self.0.lock().unwrap();
        script.calls.push(call);
        match script.refusals.pop_front() {
            Some(refusal) => Err(refusal),
            None => Ok(script),
        }
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }
}

fn answer() -> AttachResponse {
    AttachResponse {
        ip: vec![vec![10, 77, 0, 5]],
        host_link: "wk0123456789abc".to_owned(),
        host_mac: vec![2; 6],
        workload_mac: vec![4; 6],
        mtu: 1400,
        gateway: vec![vec![169, 254, 77, 1]],
        route: Vec::new(),
        namespace: None,
    }
}

#[tonic::async_trait]
impl WorkloadNetworking for Played {
    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        let mut script = self.turn("attach")?;
        script.attached.push(request.into_inner());
        Ok(Response::new(match script.is_reference {
            true => AttachResponse {
                ip: answer().ip,
                ..AttachResponse::default()
            },
            false => answer(),
        }))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        self.turn("detach")?.detached.push(request.into_inner());
        Ok(Response::new(DetachResponse {}))
    }

    async fn status(
        &self,
        _: Request<workload::StatusRequest>,
    ) -> Result<Response<workload::StatusResponse>, Status> {
        drop(self.turn("status")?);
        Ok(Response::new(workload::StatusResponse {}))
    }
}

#[tonic::async_trait]
impl Inspection for Played {
    async fn list(
        &self,
        _: Request<inspection::ListRequest>,
    ) -> Result<Response<inspection::ListResponse>, Status> {
        Err(Status::internal("not asked for"))
    }

    async fn get(
        &self,
        _: Request<inspection::GetRequest>,
    ) -> Result<Response<inspection::GetResponse>, Status> {
        Err(Status::internal("not asked for"))
    }

    async fn check(
        &self,
        request: Request<inspection::CheckRequest>,
    ) -> Result<Response<inspection::CheckResponse>, Status> {
        drop(self.turn("check")?);
        let finding = inspection::Finding {
            key: request.into_inner().key,
            text: "link wk0123456789abc is missing".to_owned(),
        };
        Ok(Response::new(inspection::CheckResponse {
            finding: vec![finding],
        }))
    }

    async fn collect_garbage(
        &self,
        request: Request<inspection::CollectGarbageRequest>,
    ) -> Result<Response<inspection::CollectGarbageResponse>, Status> {
        self.turn("gc")?.collected.push(request.into_inner());
        Ok(Response::new(inspection::CollectGarbageResponse::default()))
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
    ) -> Result<Response<GetNodeResponse>, Status> {
        let script = self.turn("node")?;
        Ok(Response::new(GetNodeResponse {
            version: "0.1.0".to_owned(),
            feature: script.features.clone(),
            ..GetNodeResponse::default()
        }))
    }
}

/// A folder with a socket in it, served or not.
struct Stand {
    folder: TempDir,
    played: Played,
}

impl Stand {
    fn down() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            played: Played::default(),
        }
    }

    fn up() -> Self {
        let stand = Self::down();
        stand.serve();
        stand
    }

    fn serve(&self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let server = Server::builder()
            .add_service(WorkloadNetworkingServer::new(self.played.clone()))
            .add_service(InspectionServer::new(self.played.clone()));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn queue(&self) -> Queue {
        Queue::beside(&self.socket())
    }

    fn network(&self) -> Network {
        Network::new(self.socket(), "tests").unwrap()
    }

    fn refuse(&self, refusals: impl IntoIterator<Item = Status>) {
        self.played.0.lock().unwrap().refusals.extend(refusals);
    }

    fn waiting(&self) -> Vec<Deletion> {
        let found = self.queue().look().unwrap();
        found
            .waiting
            .into_iter()
            .map(|waiting| waiting.deletion)
            .collect()
    }
}

fn not_ready(again: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info("NOT_READY", "workloadnet.v1", HashMap::new());
    details.set_retry_info(again);
    Status::with_error_details(Code::Unavailable, "not ready: recovering", details)
}

fn soon() -> Status {
    not_ready(Some(Duration::from_millis(1)))
}

async fn setup(network: &Network, options: &Options) -> Result<client::network::Attached, Error> {
    network.setup("web-1", "eth0", "/run/netns/web-1", options).await
}

#[tokio::test]
async fn a_setup_asks_for_what_the_options_say_and_answers_with_values() {
    let stand = Stand::up();
    stand.played.0.lock().unwrap().features = ["requested-mac", "port-mapping", "bandwidth", "alias"]
        .map(str::to_owned)
        .to_vec();
    let dns = Dns {
        nameservers: vec!["10.96.0.10".to_owned()],
        ..Dns::default()
    };
    let options = Options::default()
        .mtu(1400)
        .label("app", "web")
        .address([10, 77, 0, 5].into())
        .mac(Mac([2; 6]))
        .host_port(HostPort {
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Udp,
            host_ip: Some([192, 0, 2, 1].into()),
        })
        .bandwidth(Bandwidth {
            ingress_rate: 1_000_000,
            ..Bandwidth::default()
        })
        .alias("db")
        .dns(dns.clone());
    let attached = setup(&stand.network(), &options).await.unwrap();
    assert_eq!(
        attached.addresses,
        [([10, 77, 0, 5].into(), [169, 254, 77, 1].into())]
    );
    assert_eq!((&*attached.host_link, attached.mtu), ("wk0123456789abc", 1400));
    assert_eq!(attached.dns, dns);
    let script = stand.played.0.lock().unwrap();
    let asked = &script.attached[0];
    assert_eq!((&*asked.owner, &*asked.workload_id), ("tests", "web-1"));
    let netns = asked.netns.as_ref().unwrap();
    assert_eq!(
        (&*netns.netns_path, &*netns.if_name),
        ("/run/netns/web-1", "eth0")
    );
    assert_eq!((asked.mtu, &*asked.labels["app"]), (1400, "web"));
    assert_eq!(asked.requested_ip, [vec![10, 77, 0, 5]]);
    assert_eq!(asked.requested_mac, [2; 6]);
    let port = &asked.port_mapping[0];
    assert_eq!((port.host_port, port.container_port), (8080, 80));
    assert_eq!(port.protocol(), workload::port_mapping::Protocol::Udp);
    assert_eq!(port.host_ip, [192, 0, 2, 1]);
    assert_eq!(asked.bandwidth.unwrap().ingress_rate, 1_000_000);
    assert_eq!(asked.alias, ["db"]);
}

#[tokio::test]
async fn a_daemon_that_lacks_a_feature_is_named_and_not_asked() {
    let stand = Stand::up();
    let network = stand.network();
    let options = Options::default().alias("db");
    let error = setup(&network, &options).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"workloadnetd (version 0.1.0) cannot do "alias": db"#
    );
    assert_eq!(stand.played.calls(), ["node"]);
    // What every one of ours can do needs no question.
    setup(&network, &Options::default().label("a", "b"))
        .await
        .unwrap();
    assert_eq!(stand.played.calls(), ["attach"]);
    // A daemon that has not even the question.
    stand.refuse([Status::unimplemented("")]);
    let error = setup(&network, &options).await.unwrap_err();
    assert!(matches!(error, Error::Lacks { .. }), "{error:?}");
    stand.refuse([Status::unimplemented("")]);
    let error = network.collect_garbage([], Instant::now()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Lacks { feature, .. } if feature == "gc"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_daemon_that_knows_no_owner_shows_it_by_its_answer() {
    let stand = Stand::up();
    stand.played.0.lock().unwrap().is_reference = true;
    let error = setup(&stand.network(), &Options::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Lacks { feature, .. } if feature == "result"),
        "{error:?}"
    );
    assert_eq!(stand.played.calls(), ["attach", "detach"]);
}

#[tokio::test]
async fn a_setup_waits_for_a_daemon_that_starts_and_no_longer_than_told() {
    let stand = Stand::down();
    let network = stand.network();
    let call = tokio::spawn(async move { setup(&network, &Options::default()).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    stand.refuse([soon(), soon()]);
    stand.serve();
    call.await.unwrap().unwrap();
    assert_eq!(stand.played.calls(), ["attach"; 3]);

    let hasty = stand.network().with_patience(Duration::from_millis(50));
    stand.refuse([not_ready(Some(Duration::from_secs(60)))]);
    let error = setup(&hasty, &Options::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused(refused) if refused.reason == "NOT_READY"),
        "{error:?}"
    );
    let nobody = Stand::down().network().with_patience(Duration::from_millis(50));
    let error = setup(&nobody, &Options::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_removal_while_the_daemon_is_down_waits_in_the_queue() {
    let stand = Stand::down();
    let network = stand.network();
    for _ in 0..2 {
        let removed = network.remove("web-1", "eth0", "/run/netns/web-1").await.unwrap();
        assert_eq!(removed, Removed::Queued);
    }
    assert_eq!(
        stand.waiting(),
        [Deletion::new("tests", "web-1", "eth0", "/run/netns/web-1")]
    );
}

#[tokio::test]
async fn a_daemon_that_comes_while_a_removal_is_queued_carries_it_out() {
    let stand = Stand::up();
    stand.refuse([not_ready(None)]);
    let network = stand.network().with_patience(Duration::ZERO);
    assert_eq!(network.remove("web-1", "eth0", "").await.unwrap(), Removed::Done);
    assert_eq!(stand.played.calls(), ["detach", "detach"]);
    assert_eq!(stand.waiting(), []);
}

/// It was told to be queued, and asks for more than what comes after it.
#[tokio::test]
async fn a_removal_does_not_take_another_ones_deletion_for_its_own() {
    let stand = Stand::up();
    let any = Deletion::new("tests", "web-1", "eth0", "");
    stand.queue().put(&any).unwrap();
    stand.refuse([not_ready(None)]);
    let network = stand.network().with_patience(Duration::ZERO);
    let removed = network.remove("web-1", "eth0", "/run/netns/old").await.unwrap();
    assert_eq!(removed, Removed::Done);
    let detached = stand.played.0.lock().unwrap().detached.remove(0);
    assert_eq!(detached.netns.unwrap().netns_path, "");
    assert_eq!(stand.waiting(), []);
}

#[tokio::test]
async fn a_removal_waits_for_a_daemon_that_recovers() {
    let stand = Stand::up();
    stand.refuse([soon(), soon()]);
    assert_eq!(
        stand.network().remove("web-1", "eth0", "").await.unwrap(),
        Removed::Done
    );
    assert_eq!(stand.played.calls(), ["detach"; 3]);
    assert!(!stand.queue().folder().exists());
}

#[tokio::test]
async fn a_removal_that_is_refused_is_told_and_not_queued() {
    let stand = Stand::up();
    stand.refuse([Status::internal("ip link del: no")]);
    let error = stand.network().remove("web-1", "eth0", "").await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(stand.waiting(), []);
}

#[tokio::test]
async fn a_removal_that_cannot_be_queued_says_both_reasons() {
    let stand = Stand::down();
    std::fs::write(stand.queue().folder(), "in the way").unwrap();
    let error = stand.network().remove("web-1", "eth0", "").await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("cannot be reached") && text.contains("could not be left in"),
        "{text}"
    );
}

#[tokio::test]
async fn a_setup_settles_what_waits_for_its_key() {
    let stand = Stand::up();
    let old = Deletion::new("tests", "web-1", "eth0", "/run/netns/old");
    let other = Deletion::new("tests", "web-2", "eth0", "");
    for deletion in [&old, &other] {
        stand.queue().put(deletion).unwrap();
    }
    setup(&stand.network(), &Options::default()).await.unwrap();
    assert_eq!(stand.played.calls(), ["detach", "attach"]);
    let detached = stand.played.0.lock().unwrap().detached.remove(0);
    assert_eq!(detached.netns.unwrap().netns_path, "/run/netns/old");
    assert_eq!(stand.waiting(), [other]);
}

/// A deletion that waits in it would come over what is attached now.
#[tokio::test]
async fn a_setup_whose_queue_cannot_be_read_attaches_nothing() {
    let stand = Stand::up();
    // ELOOP
    std::os::unix::fs::symlink("queue", stand.queue().folder()).unwrap();
    let error = setup(&stand.network(), &Options::default()).await.unwrap_err();
    assert!(matches!(error, client::Error::Queue { .. }), "{error}");
    assert_eq!(stand.played.calls(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_setup_settles_each_namespace_that_waits_for_its_key() {
    let stand = Stand::up();
    let paths = ["/run/netns/old", "/run/netns/older"];
    for path in paths {
        let old = Deletion::new("tests", "web-1", "eth0", path);
        stand.queue().put(&old).unwrap();
    }
    setup(&stand.network(), &Options::default()).await.unwrap();
    assert_eq!(stand.played.calls(), ["detach", "detach", "attach"]);
    let detached = std::mem::take(&mut stand.played.0.lock().unwrap().detached);
    let detached = detached
        .into_iter()
        .map(|request| request.netns.unwrap().netns_path);
    assert_eq!(detached.collect::<Vec<_>>(), paths);
    assert_eq!(stand.waiting(), []);
}

#[tokio::test]
async fn garbage_is_named_by_what_lives() {
    let stand = Stand::up();
    let began = Instant::now();
    let valid = [("web-1", "eth0")];
    stand.network().collect_garbage(valid, began).await.unwrap();
    let asked = stand.played.0.lock().unwrap().collected.remove(0);
    assert_eq!(asked.owner, "tests");
    let key = Key {
        owner: "tests".to_owned(),
        workload_id: "web-1".to_owned(),
        if_name: "eth0".to_owned(),
    };
    assert_eq!(asked.valid, [key]);
    // It may be on its way for long: the daemon is told when it was sent.
    let sent = UNIX_EPOCH + Duration::from_millis(asked.sent_unix_ms);
    assert!(sent.elapsed().unwrap() < Duration::from_secs(20), "{asked:?}");
    assert!(asked.since_ms > 0 && u128::from(asked.since_ms) <= began.elapsed().as_millis() + 1);
}

#[tokio::test]
async fn a_check_tells_what_is_wrong_and_a_status_whether_anything_is() {
    let stand = Stand::up();
    let findings = stand.network().check("web-1", "eth0").await.unwrap();
    assert_eq!(findings[0].key.as_ref().unwrap().owner, "tests");
    stand.network().status().await.unwrap();
    stand.refuse([not_ready(None)]);
    assert!(stand.network().status().await.is_err());
    assert!(Network::new(Path::new("relative"), "tests").is_err());
}
