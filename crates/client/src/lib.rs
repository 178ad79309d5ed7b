//! Rust client of workloadnetd: connects when needed, gives every call a deadline, and turns statuses into typed errors.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! let client = client::Client::new(client::default_socket())?;
//! for attachment in client.list(None).await? {
//!     println!("{} {:?}", attachment.host_link, attachment.ip);
//! }
//! # Ok(())
//! # }
//! ```

pub use api::{inspection, workload};

use api::inspection::inspection_client::InspectionClient;
use api::workload::workload_networking_client::WorkloadNetworkingClient;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/workloadnet/workloadnet.sock";
/// Names another socket in the environment.
pub const SOCKET_VARIABLE: &str = "WORKLOADNET_SOCKET";

/// The environment's socket, or the default one.
pub fn default_socket() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers on the socket.
    #[error("workloadnetd cannot be reached on {}: {why}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the connection said.
        why: String,
    },
    /// The socket's path cannot be one.
    #[error("{} cannot be a socket's path", .0.display())]
    BadSocket(PathBuf),
    /// The deadline passed.
    #[error("no answer within the deadline: {0}")]
    Deadline(String),
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(Box<Refused>),
}

/// What the daemon said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// gRPC status code.
    pub code: Code,
    /// Reason for programs, e.g. `ADDRESS_HELD`; empty where the daemon gave none.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field that is wrong, where one is.
    pub field: Option<String>,
    /// When to try again, where that helps.
    pub retry_after: Option<Duration>,
    /// All that was said for programs.
    pub metadata: HashMap<String, String>,
}

/// How long calls may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Attach and Detach.
    pub orders: Duration,
    /// Everything else.
    pub questions: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            orders: Duration::from_secs(30),
            questions: Duration::from_secs(2),
        }
    }
}

/// A connection that is made when it is needed, and again when it is lost.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadlines: Deadlines,
    channel: Channel,
}

impl Client {
    /// Has to be called inside a tokio runtime; connects with the first call.
    pub fn new(socket: impl AsRef<Path>) -> Result<Self, Error> {
        let socket = socket.as_ref().to_path_buf();
        let bad = || Error::BadSocket(socket.clone());
        let address = socket
            .to_str()
            .filter(|path| path.starts_with('/'))
            .ok_or_else(bad)?;
        let endpoint = Endpoint::try_from(format!("unix:{address}")).map_err(|_| bad())?;
        let channel = endpoint.connect_lazy();
        Ok(Self {
            socket,
            deadlines: Deadlines::default(),
            channel,
        })
    }

    /// With other deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Attaches a workload.
    pub async fn attach(&self, request: workload::AttachRequest) -> Result<workload::AttachResponse, Error> {
        let request = timed(request, self.deadlines.orders);
        let answer = WorkloadNetworkingClient::new(self.channel.clone())
            .attach(request)
            .await;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner())
    }

    /// Takes a workload off.
    pub async fn detach(&self, request: workload::DetachRequest) -> Result<(), Error> {
        let request = timed(request, self.deadlines.orders);
        let answer = WorkloadNetworkingClient::new(self.channel.clone())
            .detach(request)
            .await;
        answer.map(drop).map_err(|status| self.error(&status))
    }

    /// Whether an attach could succeed now.
    pub async fn status(&self) -> Result<(), Error> {
        let request = timed(workload::StatusRequest {}, self.deadlines.questions);
        let answer = WorkloadNetworkingClient::new(self.channel.clone())
            .status(request)
            .await;
        answer.map(drop).map_err(|status| self.error(&status))
    }

    /// Attachments, of one owner or of all.
    pub async fn list(&self, owner: Option<String>) -> Result<Vec<inspection::Attachment>, Error> {
        let request = timed(inspection::ListRequest { owner }, self.deadlines.questions);
        let answer = InspectionClient::new(self.channel.clone()).list(request).await;
        Ok(answer
            .map_err(|status| self.error(&status))?
            .into_inner()
            .attachment)
    }

    /// One attachment.
    pub async fn get(&self, key: inspection::Key) -> Result<Option<inspection::Attachment>, Error> {
        let request = timed(
            inspection::GetRequest { key: Some(key) },
            self.deadlines.questions,
        );
        let answer = InspectionClient::new(self.channel.clone()).get(request).await;
        Ok(answer
            .map_err(|status| self.error(&status))?
            .into_inner()
            .attachment)
    }

    /// What the kernel holds otherwise than it is to; of one attachment, or of all and the node.
    pub async fn check(&self, key: Option<inspection::Key>) -> Result<Vec<inspection::Finding>, Error> {
        let request = timed(inspection::CheckRequest { key }, self.deadlines.questions);
        let answer = InspectionClient::new(self.channel.clone()).check(request).await;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner().finding)
    }

    /// The node.
    pub async fn node(&self) -> Result<inspection::GetNodeResponse, Error> {
        let request = timed(inspection::GetNodeRequest {}, self.deadlines.questions);
        let answer = InspectionClient::new(self.channel.clone())
            .get_node(request)
            .await;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner())
    }

    fn error(&self, status: &Status) -> Error {
        let details = status.get_error_details();
        let message = status.message().to_owned();
        match (status.code(), details.error_info()) {
            (code, Some(info)) => Error::Refused(Box::new(Refused {
                code,
                reason: info.reason.clone(),
                message,
                field: info.metadata.get("field").cloned(),
                retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
                metadata: info.metadata.clone(),
            })),
            (Code::DeadlineExceeded | Code::Cancelled, None) => Error::Deadline(message),
            // A connection that breaks under a call is Unknown to tonic.
            (Code::Unavailable | Code::Unknown, None) => Error::Unreachable {
                socket: self.socket.clone(),
                why: why(status),
            },
            (code, None) => Error::Refused(Box::new(Refused {
                code,
                reason: String::new(),
                message,
                field: None,
                retry_after: None,
                metadata: HashMap::new(),
            })),
        }
    }
}

fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// The innermost cause, which says e.g. that the socket is missing.
fn why(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
