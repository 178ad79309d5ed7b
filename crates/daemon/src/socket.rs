//! The listening socket: taken over from the service manager, or on a path of our own, where nobody's is deleted who still
//! listens; never open to more than its mode says.

use crate::lock;
use anyhow::{Context as _, bail};
use mishap::{Kind, at};
use rustix::fs::Mode;
use rustix::process::umask;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Owner and group may speak; whom they let in is the allow-list's.
const MODE: u32 = 0o660;

/// A socket that listens, and the lock that makes it the only one.
#[derive(Debug)]
pub struct Listening {
    /// For the server.
    pub listener: UnixListener,
    /// Where, unless it has no path.
    pub path: Option<PathBuf>,
    /// Held for as long as this is there.
    pub lock: Option<File>,
}

/// The socket that the service manager listens on (LISTEN_FDS, sd_listen_fds(3)), where there is one.
pub fn activated() -> anyhow::Result<Option<UnixListener>> {
    listenfd::ListenFd::from_env()
        .take_unix_listener(0)
        .context("LISTEN_FDS: the first descriptor has to be a unix socket that listens")
}

/// Takes over a socket, once the daemon that served it has ended.
pub async fn take_over(listener: UnixListener, patience: Duration) -> anyhow::Result<Listening> {
    let address = listener.local_addr()?;
    let path = address.as_pathname();
    let lock = match path {
        // Its folder is the service manager's, and may be closed to us. Then only the network lock is left.
        Some(path) => match lock::socket(path, patience).await {
            Err(error) if error.is::<lock::Held>() => return Err(error),
            Err(error) => {
                tracing::warn!(error = %format_args!("{error:#}"), "the socket has no lock");
                None
            }
            Ok(lock) => Some(lock),
        },
        None => None,
    };
    let path = path.map(PathBuf::from);
    Ok(Listening { listener, path, lock })
}

/// Listens on a path. Has to be called before there are other threads, because it sets the process's umask for a moment.
pub async fn listen(path: &Path, owner: Option<u32>, group: Option<u32>) -> anyhow::Result<Listening> {
    make_folder(path)?;
    let lock = lock::socket(path, Duration::ZERO).await?;
    let listener = bind(path, owner, group).await?;
    Ok(Listening {
        listener,
        path: Some(path.to_owned()),
        lock: Some(lock),
    })
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    let mut maker = DirBuilder::new();
    maker.recursive(true).mode(0o755);
    at(Kind::File, "make the socket's folder")
        .and_then(|()| maker.create(folder))
        .with_context(|| format!("cannot make the folder of {}", path.display()))
}

/// Listens on a path that nobody else may claim. As [`listen`], before there are other threads.
pub(crate) async fn bind(
    path: &Path,
    owner: Option<u32>,
    group: Option<u32>,
) -> anyhow::Result<UnixListener> {
    let shown = path.display();
    make_folder(path)?;
    remove_stale(path).await?;
    let before = umask(Mode::from_raw_mode(0o117));
    let bound = at(Kind::File, "bind the socket").and_then(|()| UnixListener::bind(path));
    umask(before);
    let listener = bound.with_context(|| format!("cannot listen on {shown}"))?;
    at(Kind::File, "set the socket's mode")
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(MODE)))
        .and_then(|()| {
            if owner.or(group).is_some() {
                chown(path, owner, group)
            } else {
                Ok(())
            }
        })
        .with_context(|| format!("cannot set owner and mode of {shown}"))?;
    Ok(listener)
}

/// Removes the socket of a daemon that is gone. Any other file is somebody's own, and so is a socket that is listened on:
/// the service manager's, while no daemon runs.
async fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => bail!("{shown} is in the way: it is not a socket, and is left alone"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let removed = at(Kind::File, "remove the old socket").and_then(|()| std::fs::remove_file(path));
            removed.with_context(|| format!("cannot remove the old socket {shown}"))
        }
        // WouldBlock: its queue is full.
        Ok(_) => bail!(
            "{shown} is in the way: somebody listens there, maybe the service manager (workloadnetd.socket)"
        ),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("{shown} is in the way: somebody listens there, with a full queue")
        }
        Err(error) => Err(error).with_context(|| format!("cannot tell whether somebody listens on {shown}")),
    }
}
