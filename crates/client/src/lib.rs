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
mod error;
pub mod network;

pub use api::{inspection, workload};
pub use error::{Error, Refused};
pub use tonic::Code;

use api::inspection::inspection_client::InspectionClient;
use api::workload::workload_networking_client::WorkloadNetworkingClient;
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
/// the daemon, is sent once more.
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
        self.call(self.deadlines.orders, request, |connection, request| async move {
            networking(connection).attach(request).await
        })
        .await
    }

    /// Takes a workload off.
    pub async fn detach(&self, request: workload::DetachRequest) -> Result<(), Error> {
        self.call(self.deadlines.orders, request, |connection, request| async move {
            networking(connection).detach(request).await
        })
        .await
        .map(drop)
    }

    /// Whether an attach could succeed now: if not, an [`Error::Refused`] with the reason `NOT_READY`.
    pub async fn status(&self) -> Result<(), Error> {
        let request = workload::StatusRequest {};
        self.call(
            self.deadlines.questions,
            request,
            |connection, request| async move { networking(connection).status(request).await },
        )
        .await
        .map(drop)
    }

    /// Attachments, of one owner or of all.
    pub async fn list(&self, owner: Option<String>) -> Result<Vec<inspection::Attachment>, Error> {
        let request = inspection::ListRequest { owner };
        self.call(
            self.deadlines.questions,
            request,
            |connection, request| async move { inspector(connection).list(request).await },
        )
        .await
        .map(|answer| answer.attachment)
    }

    /// One attachment. Where there is none: an [`Error::Refused`] with the reason `NOT_ATTACHED`.
    pub async fn get(&self, key: inspection::Key) -> Result<Option<inspection::Attachment>, Error> {
        let request = inspection::GetRequest { key: Some(key) };
        self.call(
            self.deadlines.questions,
            request,
            |connection, request| async move { inspector(connection).get(request).await },
        )
        .await
        .map(|answer| answer.attachment)
    }

    /// What the kernel holds otherwise than it is to; of one attachment, or of all and the node.
    pub async fn check(&self, key: Option<inspection::Key>) -> Result<Vec<inspection::Finding>, Error> {
        let request = inspection::CheckRequest { key };
        self.call(
            self.deadlines.questions,
            request,
            |connection, request| async move { inspector(connection).check(request).await },
        )
        .await
        .map(|answer| answer.finding)
    }

    /// Takes off what `owner` has attached beside `valid`, unless it was attached later than `age` ago.
    pub async fn collect_garbage(
        &self,
        request: inspection::CollectGarbageRequest,
    ) -> Result<inspection::CollectGarbageResponse, Error> {
        self.call(self.deadlines.orders, request, |connection, request| async move {
            inspector(connection).collect_garbage(request).await
        })
        .await
    }

    /// The node.
    pub async fn node(&self) -> Result<inspection::GetNodeResponse, Error> {
        let request = inspection::GetNodeRequest {};
        self.call(
            self.deadlines.questions,
            request,
            |connection, request| async move { inspector(connection).get_node(request).await },
        )
        .await
    }
}

/// A full /16 with labels is more than the 4 MiB that a message may have by default, and the daemon is trusted.
fn inspector(connection: Connection) -> InspectionClient<Connection> {
    InspectionClient::with_origin(connection, Connection::origin()).max_decoding_message_size(usize::MAX)
}

fn networking(connection: Connection) -> WorkloadNetworkingClient<Connection> {
    WorkloadNetworkingClient::with_origin(connection, Connection::origin())
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
