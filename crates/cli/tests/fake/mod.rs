//! A daemon that attaches nothing: it remembers what it was asked, and answers as the real one does.

use client::inspection::adopt_request::Step;
use client::inspection::adoption::State;
use client::inspection::attachment::Origin;
use client::inspection::inspection_server::{Inspection, InspectionServer};
use client::inspection::{self, Attachment, Finding, GetNodeResponse, Key};
use client::workload::workload_networking_server::{WorkloadNetworking, WorkloadNetworkingServer};
use client::workload::{
    AttachRequest, AttachResponse, DetachRequest, DetachResponse, StatusRequest, StatusResponse,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The daemon, which ends with this value.
pub(crate) struct Fake {
    socket: PathBuf,
    desk: Desk,
    _runtime: Runtime,
    _folder: TempDir,
}

#[derive(Clone, Default)]
struct Desk {
    unready: Vec<String>,
    attach: Arc<Mutex<Option<AttachRequest>>>,
    detach: Arc<Mutex<Option<DetachRequest>>>,
    adopted: Arc<Mutex<Vec<Attachment>>>,
    adopts: Arc<Mutex<Vec<inspection::AdoptRequest>>>,
    masquerade_rules: Arc<Mutex<Vec<inspection::MasqueradeRule>>>,
}

impl Fake {
    /// One that is ready, with `web-1` attached and a table that is missing.
    pub(crate) fn new() -> Self {
        Self::unready(&[])
    }

    /// One with unmet conditions.
    pub(crate) fn unready(conditions: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let desk = Desk {
            unready: conditions.iter().map(|why| (*why).to_owned()).collect(),
            ..Desk::default()
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&socket).unwrap()
        };
        runtime.spawn(
            Server::builder()
                .add_service(WorkloadNetworkingServer::new(desk.clone()))
                .add_service(InspectionServer::new(desk.clone()))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self {
            socket,
            desk,
            _runtime: runtime,
            _folder: folder,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The last Attach.
    pub(crate) fn attach_asked(&self) -> AttachRequest {
        self.desk.attach.lock().unwrap().take().unwrap()
    }

    /// The last Detach.
    pub(crate) fn detach_asked(&self) -> DetachRequest {
        self.desk.detach.lock().unwrap().take().unwrap()
    }

    /// Has taken over a pod with one address.
    pub(crate) fn takes(&self, owner: &str, id: &str, ip: &str, origin: Origin) {
        self.desk.adopted.lock().unwrap().push(Attachment {
            key: Some(Key {
                owner: owner.into(),
                workload_id: id.into(),
                if_name: "eth0".into(),
            }),
            ip: vec![ip.into()],
            origin: origin.into(),
            ..Attachment::default()
        });
    }

    /// Has a rule of the old plugins in nftables.
    pub(crate) fn holds_rule(&self, handle: u64, comment: &str) {
        let comment = comment.to_owned();
        let rule = inspection::MasqueradeRule { handle, comment };
        self.desk.masquerade_rules.lock().unwrap().push(rule);
    }

    /// Every Adopt since the last time.
    pub(crate) fn adopts_asked(&self) -> Vec<inspection::AdoptRequest> {
        std::mem::take(&mut *self.desk.adopts.lock().unwrap())
    }
}

fn refusal(code: Code, reason: &str, text: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let details = ErrorDetails::with_error_info(reason, "workloadnet.v1", metadata);
    Status::with_error_details(code, text, details)
}

impl Desk {
    fn ready(&self) -> Result<(), Status> {
        if self.unready.is_empty() {
            return Ok(());
        }
        let text = format!("not ready: {}", self.unready.join("; "));
        Err(refusal(Code::Unavailable, "NOT_READY", &text, &[]))
    }
}

#[tonic::async_trait]
impl WorkloadNetworking for Desk {
    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        self.ready()?;
        let request = request.into_inner();
        match &*request.workload_id {
            "held" => {
                let metadata = [("field", "requested_ip"), ("holder", "web-2")];
                let text = "10.77.0.5 is held by web-2";
                return Err(refusal(Code::ResourceExhausted, "ADDRESS_HELD", text, &metadata));
            }
            "kernel" => {
                let text = "ip link add: No buffer space available (errno 105)";
                return Err(refusal(Code::Internal, "KERNEL", text, &[("errno", "105")]));
            }
            _ => {}
        }
        let answer = AttachResponse {
            ip: vec![vec![10, 77, 0, 5]],
            gateway: vec![vec![169, 254, 77, 1]],
            host_link: "wk0123456789abc".into(),
            workload_mac: vec![2, 0, 0, 0, 0, 5],
            mtu: request.mtu,
            ..AttachResponse::default()
        };
        *self.attach.lock().unwrap() = Some(request);
        Ok(Response::new(answer))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        *self.detach.lock().unwrap() = Some(request.into_inner());
        Ok(Response::new(DetachResponse {}))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.ready()?;
        Ok(Response::new(StatusResponse {}))
    }
}

fn web() -> Attachment {
    Attachment {
        key: Some(Key {
            owner: String::new(),
            workload_id: "web-1".into(),
            if_name: "eth0".into(),
        }),
        ..Attachment::default()
    }
}

#[tonic::async_trait]
impl Inspection for Desk {
    async fn list(
        &self,
        request: Request<inspection::ListRequest>,
    ) -> Result<Response<inspection::ListResponse>, Status> {
        let owner = request.into_inner().owner;
        let mut attachment = match owner.as_deref() {
            None | Some("") => vec![web()],
            Some(_) => Vec::new(),
        };
        let adopted = self.adopted.lock().unwrap().clone();
        let is_of = |of: &Attachment| {
            owner
                .as_ref()
                .is_none_or(|owner| of.key.as_ref().unwrap().owner == *owner)
        };
        attachment.extend(adopted.into_iter().filter(is_of));
        Ok(Response::new(inspection::ListResponse { attachment }))
    }

    async fn get(
        &self,
        request: Request<inspection::GetRequest>,
    ) -> Result<Response<inspection::GetResponse>, Status> {
        let key = request.into_inner().key;
        if key != web().key {
            let name = key.unwrap().workload_id;
            let text = format!("{name:?} is not attached");
            return Err(refusal(Code::NotFound, "NOT_ATTACHED", &text, &[("key", &name)]));
        }
        let attachment = Some(web());
        Ok(Response::new(inspection::GetResponse { attachment }))
    }

    async fn check(
        &self,
        request: Request<inspection::CheckRequest>,
    ) -> Result<Response<inspection::CheckResponse>, Status> {
        let missing = Finding {
            key: None,
            text: "table inet workloadnet is missing".into(),
        };
        let finding = match request.into_inner().key {
            Some(_) => Vec::new(),
            None => vec![missing],
        };
        Ok(Response::new(inspection::CheckResponse { finding }))
    }

    async fn collect_garbage(
        &self,
        _: Request<inspection::CollectGarbageRequest>,
    ) -> Result<Response<inspection::CollectGarbageResponse>, Status> {
        Ok(Response::new(inspection::CollectGarbageResponse::default()))
    }

    async fn adopt(
        &self,
        request: Request<inspection::AdoptRequest>,
    ) -> Result<Response<inspection::AdoptResponse>, Status> {
        let request = request.into_inner();
        // A question that names nobody is about the rules alone.
        if !(request.step() == Step::Check && request.candidate.is_empty()) {
            self.adopts.lock().unwrap().push(request.clone());
        }
        let candidates = request
            .candidate
            .iter()
            .filter_map(|candidate| candidate.key.clone());
        let keys: Vec<Key> = request.key.iter().cloned().chain(candidates).collect();
        if keys.iter().any(|key| key.workload_id.len() > 128) {
            let text = "workload_id: has 129 bytes, 128 is the most";
            return Err(refusal(Code::InvalidArgument, "INVALID_FIELD", text, &[]));
        }
        let state = match request.step() {
            Step::Take => State::Taken,
            Step::Undo => State::Undone,
            Step::Commit => State::Committed,
            Step::Check | Step::Unspecified => State::Possible,
        };
        if state == State::Committed {
            let mut adopted = self.adopted.lock().unwrap();
            let named = adopted
                .iter_mut()
                .filter(|of| keys.contains(of.key.as_ref().unwrap()));
            named.for_each(|of| of.set_origin(Origin::Committed));
        }
        let adoption = keys.into_iter().map(|key| inspection::Adoption {
            key: Some(key),
            state: state.into(),
            reason: Vec::new(),
        });
        Ok(Response::new(inspection::AdoptResponse {
            adoption: adoption.collect(),
            masquerade_rule: self.masquerade_rules.lock().unwrap().clone(),
        }))
    }

    async fn set_prefixes(
        &self,
        request: Request<inspection::SetPrefixesRequest>,
    ) -> Result<Response<inspection::SetPrefixesResponse>, Status> {
        let generation = request.into_inner().prefix.len() as u64;
        Ok(Response::new(inspection::SetPrefixesResponse { generation }))
    }

    async fn get_node(
        &self,
        _: Request<inspection::GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        Ok(Response::new(GetNodeResponse {
            version: "0.0.0".into(),
            unready: self.unready.clone(),
            ..GetNodeResponse::default()
        }))
    }
}
