//! One daemon each, by two locks that the kernel takes away with the process.
//!
//! ```text
//!  network  an abstract unix socket: scoped by the network namespace, as our links, routes and table are
//!  socket   flock(2) on a file beside the socket's path
//! ```
//! Why two, and whom the first one believes: `docs/decisions/0014-a-lock-per-network-and-one-per-socket.md`.

use anyhow::Context as _;
use mishap::Kind;
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;

/// The network lock's abstract name, without its leading NUL. One for all link groups: the table is shared.
pub const NAME: &str = "workloadnetd";
/// Whoever can open the socket's lock, if only to read, can take it (flock(2)) and keep the daemon from starting.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Between looks at a lock that is held.
const PAUSE: Duration = Duration::from_millis(20);
/// A daemon that ends, or has bound the name and does not listen yet, is another one of these by then.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Between looks at who asked for our credentials: nobody can keep the door busy here.
const LAZY: Duration = Duration::from_millis(100);

/// Another daemon has the lock.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Held(String);

/// This network namespace is ours alone.
#[derive(Debug)]
pub struct NetworkLock {
    /// `None` where somebody has the name who has no say in it.
    listener: Option<UnixListener>,
}

impl NetworkLock {
    /// Whether another daemon would be kept away.
    pub fn is_held(&self) -> bool {
        self.listener.is_some()
    }

    /// Takes those off the queue who connected to learn whose the name is. Has to be called inside a runtime.
    pub fn show_credentials(&self) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let listener = listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        tokio::spawn(async move {
            loop {
                // The kernel told them when they connected: there is nothing to be said.
                drop(listener.accept().await);
                tokio::time::sleep(LAZY).await;
            }
        });
        Ok(())
    }
}

/// Takes the network lock; waits for a daemon that holds it for as long as the patience lasts.
pub async fn network(patience: Duration) -> anyhow::Result<NetworkLock> {
    let address = SocketAddr::from_abstract_name(NAME)?;
    let mut waiting = Waiting::new(patience);
    let mut unknown: Option<Instant> = None;
    loop {
        let bound = mishap::at(Kind::File, "bind the network's lock");
        match bound.and_then(|()| UnixListener::bind_addr(&address)) {
            Ok(listener) => {
                return Ok(NetworkLock {
                    listener: Some(listener),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).with_context(|| format!("cannot take the lock @{NAME}")),
        }
        match holder().await {
            Ok(holder) if may_hold(holder.uid()) => {
                unknown = None;
                let who = match holder.pid() {
                    Some(pid) => format!("process {pid}"),
                    None => "a process of another PID namespace".to_owned(),
                };
                waiting
                    .go_on(format_args!(
                        "another daemon serves this network namespace ({who} holds the abstract socket @{NAME})"
                    ))
                    .await?;
            }
            Ok(holder) => {
                tracing::warn!(
                    uid = holder.uid(),
                    pid = holder.pid(),
                    "the abstract socket @{NAME} is held by a user who may not: no lock keeps a second daemon away"
                );
                return Ok(NetworkLock { listener: None });
            }
            Err(error) if unknown.get_or_insert_with(Instant::now).elapsed() > UNKNOWN => {
                tracing::warn!(
                    %error,
                    "the abstract socket @{NAME} is held by somebody who does not answer: no lock keeps a second daemon away"
                );
                return Ok(NetworkLock { listener: None });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Who listens on the name: the kernel's word (SO_PEERCRED, unix(7)).
async fn holder() -> io::Result<tokio::net::unix::UCred> {
    let name = [b"\0", NAME.as_bytes()].concat();
    UnixStream::connect(OsStr::from_bytes(&name)).await?.peer_cred()
}

/// Anybody can bind an abstract name; root and our own user could stop us anyway.
fn may_hold(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Whether a call is made: always, but in tests.
fn may(tried: &str) -> Result<(), Errno> {
    mishap::at(Kind::File, tried).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Where the lock of a socket is.
pub fn file_of(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Takes the lock of a socket's path; waits for a daemon that holds it for as long as the patience lasts.
pub async fn socket(socket: &Path, patience: Duration) -> anyhow::Result<File> {
    let path = file_of(socket);
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = may("open the socket's lock")
        .and_then(|()| rustix::fs::open(&path, flags, FILE_MODE))
        .and_then(|lock| fchmod(&lock, FILE_MODE).map(|()| File::from(lock)))
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    let mut waiting = Waiting::new(patience);
    loop {
        match may("lock the socket's lock")
            .and_then(|()| flock(&lock, FlockOperation::NonBlockingLockExclusive))
        {
            Ok(()) => return Ok(lock),
            Err(Errno::WOULDBLOCK) => {
                let (socket, path) = (socket.display(), path.display());
                waiting
                    .go_on(format_args!("another daemon serves {socket} (it holds {path})"))
                    .await?;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// For a daemon that is on its way out.
struct Waiting {
    since: Instant,
    patience: Duration,
    is_told: bool,
}

impl Waiting {
    fn new(patience: Duration) -> Self {
        Self {
            since: Instant::now(),
            patience,
            is_told: false,
        }
    }

    /// A pause; or the reason why not, where there was none to be made, or enough.
    async fn go_on(&mut self, reason: impl Display) -> Result<(), Held> {
        match self.patience {
            Duration::ZERO => return Err(Held(reason.to_string())),
            patience if self.since.elapsed() > patience => {
                return Err(Held(format!("{reason}, after {patience:?} still")));
            }
            patience if !self.is_told => {
                tracing::info!("{reason}: waiting {patience:?} at most for its end");
                self.is_told = true;
            }
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}
