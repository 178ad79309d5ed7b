//! A daemon that answers as it is told, and remembers what it was asked.

use client::inspection::inspection_server::{Inspection, InspectionServer};
use client::inspection::{self, GetNodeResponse};
use client::workload::workload_networking_server::{WorkloadNetworking, WorkloadNetworkingServer};
use client::workload::{self, AttachRequest, AttachResponse, DetachRequest, DetachResponse};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What it says and was asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// In the order of the calls; then everything succeeds.
    pub(crate) refusals: VecDeque<Status>,
    pub(crate) features: Vec<&'static str>,
    pub(crate) found: inspection::Attachment,
    pub(crate) findings: Vec<inspection::Finding>,
    pub(crate) garbage: inspection::CollectGarbageResponse,
    pub(crate) attached: Vec<AttachRequest>,
    pub(crate) detached: Vec<DetachRequest>,
    pub(crate) collected: Vec<inspection::CollectGarbageRequest>,
}

#[derive(Clone, Default)]
struct Actor(Arc<Mutex<Script>>);

impl Actor {
    fn turn(&self) -> Result<MutexGuard<'_, Script>, Status> {
        let mut script = self.0.lock().unwrap();
        match script.refusals.pop_front() {
            Some(refusal) => Err(refusal),
            None => Ok(script),
        }
    }
}

fn answer() -> AttachResponse {
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    let route = |destination: Vec<u8>, prefix_length, gateway: Vec<u8>| workload::Route {
        destination,
        prefix_length,
        gateway,
    };
    AttachResponse {
        ip: vec![vec![10, 77, 0, 5], v6("fd77::5")],
        host_link: "wk0123456789abc".to_owned(),
        host_mac: vec![2, 0x9c, 0x52, 0xfe, 0x6d, 0x0a],
        workload_mac: vec![2, 0, 0, 0, 0, 5],
        mtu: 1400,
        gateway: vec![vec![169, 254, 77, 1], v6("fe80::1")],
        route: vec![
            route(vec![169, 254, 77, 1], 32, Vec::new()),
            route(vec![0; 4], 0, vec![169, 254, 77, 1]),
            route(vec![0; 16], 0, v6("fe80::1")),
        ],
        namespace: None,
    }
}

#[tonic::async_trait]
impl WorkloadNetworking for Actor {
    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        self.turn()?.attached.push(request.into_inner());
        Ok(Response::new(answer()))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        self.turn()?.detached.push(request.into_inner());
        Ok(Response::new(DetachResponse {}))
    }

    async fn status(
        &self,
        _: Request<workload::StatusRequest>,
    ) -> Result<Response<workload::StatusResponse>, Status> {
        drop(self.turn()?);
        Ok(Response::new(workload::StatusResponse {}))
    }
}

#[tonic::async_trait]
impl Inspection for Actor {
    async fn list(
        &self,
        _: Request<inspection::ListRequest>,
    ) -> Result<Response<inspection::ListResponse>, Status> {
        Err(Status::internal("the plugin has no use for it"))
    }

    async fn get(
        &self,
        _: Request<inspection::GetRequest>,
    ) -> Result<Response<inspection::GetResponse>, Status> {
        let attachment = Some(self.turn()?.found.clone());
        Ok(Response::new(inspection::GetResponse { attachment }))
    }

    async fn check(
        &self,
        _: Request<inspection::CheckRequest>,
    ) -> Result<Response<inspection::CheckResponse>, Status> {
        let finding = self.turn()?.findings.clone();
        Ok(Response::new(inspection::CheckResponse { finding }))
    }

    async fn collect_garbage(
        &self,
        request: Request<inspection::CollectGarbageRequest>,
    ) -> Result<Response<inspection::CollectGarbageResponse>, Status> {
        let mut script = self.turn()?;
        script.collected.push(request.into_inner());
        Ok(Response::new(script.garbage.clone()))
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
        let script = self.turn()?;
        Ok(Response::new(GetNodeResponse {
            version: "0.1.0".to_owned(),
            feature: script
                .features
                .iter()
                .map(|&feature| feature.to_owned())
                .collect(),
            ..GetNodeResponse::default()
        }))
    }
}

/// A daemon on a socket of its own, or a folder where none is.
pub(crate) struct Played {
    folder: TempDir,
    actor: Actor,
    runtime: Option<Runtime>,
}

impl Played {
    pub(crate) fn down() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            actor: Actor::default(),
            runtime: None,
        }
    }

    pub(crate) fn up() -> Self {
        let mut played = Self::down();
        played.serve();
        played
    }

    pub(crate) fn serve(&mut self) {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(self.socket()).unwrap()
        };
        let server = Server::builder()
            .add_service(WorkloadNetworkingServer::new(self.actor.clone()))
            .add_service(InspectionServer::new(self.actor.clone()));
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        self.runtime = Some(runtime);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn queue(&self) -> queue::Queue {
        queue::Queue::beside(&self.socket())
    }

    pub(crate) fn waiting(&self) -> Vec<queue::Deletion> {
        let found = self.queue().look().unwrap();
        found
            .waiting
            .into_iter()
            .map(|waiting| waiting.deletion)
            .collect()
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.actor.0.lock().unwrap()
    }

    pub(crate) fn refuse(&self, code: Code, reason: &str, text: &str, metadata: &[(&str, &str)]) {
        self.script()
            .refusals
            .push_back(refusal(code, reason, text, metadata));
    }
}

/// As the daemon refuses.
pub(crate) fn refusal(code: Code, reason: &str, text: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let mut details = ErrorDetails::with_error_info(reason, "workloadnet.v1", metadata);
    if code == Code::Unavailable {
        details.set_retry_info(Some(Duration::from_millis(1)));
    }
    Status::with_error_details(code, text, details)
}
