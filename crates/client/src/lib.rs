//! Rust client of workloadnetd: connects when needed, gives every call a deadline, and turns statuses into typed errors.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! use client::Client;
//!
//! let client = Client::connect(client::default_socket());
//! for attachment in client.list(None).await? {
//!     println!("{} {:?}", attachment.host_link, attachment.ip);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What the daemon refuses comes with a reason for programs:
//!
//! ```no_run
//! # async fn example(client: client::Client, request: client::workload::AttachRequest) {
//! use client::Error;
//!
//! match client.attach(request).await {
//!     Ok(answer) => println!("attached by {}", answer.host_link),
//!     Err(Error::Refused(refused)) if refused.reason == "ADDRESS_HELD" => {
//!         println!("held by {}", refused.metadata["holder"]);
//!     }
//!     Err(Error::Unreachable { socket, source }) => println!("{}: {source}", socket.display()),
//!     Err(error) => println!("{error}"),
//! }
//! # }
//! ```

mod call;
mod connection;
mod details;
mod error;
mod grpc;
pub mod network;

pub use api::{inspection, workload};
pub use error::{Error, Refused};
pub use tonic::Code;

use connection::Connection;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/workloadnet/workloadnet.sock";
/// Names another socket in the environment.
pub const SOCKET_VARIABLE: &str = "WORKLOADNET_SOCKET";
/// Bytes of a socket's path: `sun_path` without its NUL (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

/// The environment's socket, or the default one.
pub fn default_socket() -> PathBuf {
    socket_named(std::env::var_os(SOCKET_VARIABLE))
}

fn socket_named(by_environment: Option<OsString>) -> PathBuf {
    by_environment
        .filter(|path| !path.is_empty())
        .map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

/// As `proto/` names them.
mod method {
    pub(crate) const ATTACH: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Attach";
    pub(crate) const DETACH: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Detach";
    pub(crate) const STATUS: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Status";
    pub(crate) const LIST: &str = "/workloadnet.v1.Inspection/List";
    pub(crate) const GET: &str = "/workloadnet.v1.Inspection/Get";
    pub(crate) const CHECK: &str = "/workloadnet.v1.Inspection/Check";
    pub(crate) const COLLECT_GARBAGE: &str = "/workloadnet.v1.Inspection/CollectGarbage";
    pub(crate) const ADOPT: &str = "/workloadnet.v1.Inspection/Adopt";
    pub(crate) const NODE: &str = "/workloadnet.v1.Inspection/GetNode";
    pub(crate) const SET_PREFIXES: &str = "/workloadnet.v1.Inspection/SetPrefixes";
}

/// How long calls may take, connecting included.
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

/// A connection that is made when it is needed, and again when it is lost. Clones share it.
///
/// Every call of the contract can be repeated without harm, so one whose connection was lost under it, by an upgrade of
/// the daemon, is sent once more; and so is, until the deadline, one that the daemon answers with the advice to ask again for
/// its outcome (`ORDER_GOES_ON`, `NOT_BEGUN`).
///
/// All calls have to be made inside the same tokio runtime, with I/O and time enabled.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadlines: Deadlines,
    patience: Duration,
    connection: Connection,
}

impl Client {
    /// For the daemon on a socket; connects with the first call.
    pub fn connect(socket: impl Into<PathBuf>) -> Self {
        let socket = socket.into();
        Self {
            connection: Connection::to(socket.clone()),
            socket,
            deadlines: Deadlines::default(),
            patience: Duration::ZERO,
        }
    }

    /// As [`Client::connect`], but says at once where the path cannot be a socket's: it has to be absolute, and to have
    /// 107 bytes at most.
    pub fn new(socket: impl AsRef<Path>) -> Result<Self, Error> {
        let socket = socket.as_ref();
        let bytes = socket.as_os_str().as_bytes();
        if !socket.is_absolute() || bytes.len() > SOCKET_PATH_BYTES || bytes.contains(&0) {
            return Err(Error::BadSocket(socket.to_path_buf()));
        }
        Ok(Self::connect(socket))
    }

    /// With other deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Tries for this long to connect to a daemon that is not there, with pauses of 10 ms that double up to 1 s. Without it
    /// such a call fails at once. The deadline stays what it is.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Attaches a workload.
    pub async fn attach(&self, request: workload::AttachRequest) -> Result<workload::AttachResponse, Error> {
        self.call(self.deadlines.orders, method::ATTACH, &request).await
    }

    /// Takes a workload off.
    pub async fn detach(&self, request: workload::DetachRequest) -> Result<(), Error> {
        let _: workload::DetachResponse = self.call(self.deadlines.orders, method::DETACH, &request).await?;
        Ok(())
    }

    /// Whether an attach could succeed now: if not, an [`Error::Refused`] with the reason `NOT_READY`.
    pub async fn status(&self) -> Result<(), Error> {
        let request = workload::StatusRequest {};
        let _: workload::StatusResponse = self.ask(method::STATUS, &request).await?;
        Ok(())
    }

    /// Attachments, of one owner or of all.
    pub async fn list(&self, owner: Option<String>) -> Result<Vec<inspection::Attachment>, Error> {
        let request = inspection::ListRequest { owner };
        let answer: inspection::ListResponse = self.ask(method::LIST, &request).await?;
        Ok(answer.attachment)
    }

    /// One attachment. Where there is none: an [`Error::Refused`] with the reason `NOT_ATTACHED`.
    pub async fn get(&self, key: inspection::Key) -> Result<Option<inspection::Attachment>, Error> {
        let request = inspection::GetRequest { key: Some(key) };
        let answer: inspection::GetResponse = self.ask(method::GET, &request).await?;
        Ok(answer.attachment)
    }

    /// What the kernel holds otherwise than it is to; of one attachment, or of all and the node.
    pub async fn check(&self, key: Option<inspection::Key>) -> Result<Vec<inspection::Finding>, Error> {
        let request = inspection::CheckRequest { key };
        let answer: inspection::CheckResponse = self.ask(method::CHECK, &request).await?;
        Ok(answer.finding)
    }

    /// Takes off what an owner has attached beside what it says that lives.
    pub async fn collect_garbage(
        &self,
        request: inspection::CollectGarbageRequest,
    ) -> Result<inspection::CollectGarbageResponse, Error> {
        self.call(self.deadlines.orders, method::COLLECT_GARBAGE, &request)
            .await
    }

    /// Takes over what another plugin attached, or gives it back.
    pub async fn adopt(&self, request: inspection::AdoptRequest) -> Result<inspection::AdoptResponse, Error> {
        self.call(self.deadlines.orders, method::ADOPT, &request).await
    }

    /// The node.
    pub async fn node(&self) -> Result<inspection::GetNodeResponse, Error> {
        let request = inspection::GetNodeRequest {};
        self.ask(method::NODE, &request).await
    }

    /// Tells which prefixes serve, as `address/length`; answers the generation.
    pub async fn set_prefixes(&self, prefix: Vec<String>) -> Result<u64, Error> {
        let request = inspection::SetPrefixesRequest { prefix };
        let answer: inspection::SetPrefixesResponse = self.ask(method::SET_PREFIXES, &request).await?;
        Ok(answer.generation)
    }

    async fn ask<Answer: prost::Message + Default>(
        &self,
        method: &'static str,
        question: &impl prost::Message,
    ) -> Result<Answer, Error> {
        self.call(self.deadlines.questions, method, question).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_socket_unless_it_is_empty() {
        assert_eq!(socket_named(Some("/a".into())), Path::new("/a"));
        assert_eq!(socket_named(Some("".into())), Path::new(DEFAULT_SOCKET));
        assert_eq!(socket_named(None), Path::new(DEFAULT_SOCKET));
    }

    #[test]
    fn a_path_that_cannot_be_a_sockets_is_said_at_once() {
        let with = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        assert!(Client::new(with(107)).is_ok());
        for path in [
            with(108),
            "run/x.sock".to_owned(),
            String::new(),
            "/a\0b".to_owned(),
        ] {
            assert!(matches!(Client::new(&path), Err(Error::BadSocket(_))), "{path:?}");
        }
    }
}
