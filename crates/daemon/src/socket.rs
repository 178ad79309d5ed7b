//! The listening socket: one daemon each, by a lock and not by deleting; never open to more than its mode says.

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;
use rustix::process::umask;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Owner and group may speak; whom they let in is the allow-list's.
const MODE: u32 = 0o660;
/// Whoever can open the lock, if only to read, can take it (flock(2)) and keep the daemon from starting.
const LOCK_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A socket that listens, and the lock that makes it the only one.
#[derive(Debug)]
pub struct Listening {
    /// For the server.
    pub listener: UnixListener,
    _lock: Option<File>,
}

/// Where the lock of a socket is.
pub fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Takes over the socket that systemd listens on (LISTEN_FDS), or listens on a path. Has to be called before there are
/// other threads, because it sets the process's umask for a moment.
pub fn listen(path: &Path, owner: Option<u32>, group: Option<u32>) -> anyhow::Result<Listening> {
    if let Some(listener) = listenfd::ListenFd::from_env().take_unix_listener(0)? {
        return Ok(Listening {
            listener,
            _lock: None,
        });
    }
    let shown = path.display();
    if let Some(folder) = path.parent() {
        let mut maker = DirBuilder::new();
        maker.recursive(true).mode(0o755);
        maker
            .create(folder)
            .with_context(|| format!("cannot make the folder of {shown}"))?;
    }
    let lock = locked(path)?;
    remove_stale(path)?;
    let before = umask(Mode::from_raw_mode(0o117));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.with_context(|| format!("cannot listen on {shown}"))?;
    std::fs::set_permissions(path, Permissions::from_mode(MODE))
        .and_then(|()| {
            if owner.or(group).is_some() {
                chown(path, owner, group)
            } else {
                Ok(())
            }
        })
        .with_context(|| format!("cannot set owner and mode of {shown}"))?;
    Ok(Listening {
        listener,
        _lock: Some(lock),
    })
}

fn locked(socket: &Path) -> anyhow::Result<File> {
    let path = lock_path(socket);
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::open(&path, flags, LOCK_MODE)
        .and_then(|lock| fchmod(&lock, LOCK_MODE).map(|()| File::from(lock)))
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => bail!(
            "another daemon serves {} (it holds {})",
            socket.display(),
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Removes the socket of a daemon that is gone, which whoever has the lock may do. Any other file is somebody's own.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).with_context(|| format!("cannot remove the old socket {shown}"))
        }
        Ok(_) => bail!("{shown} is in the way: it is not a socket, and is left alone"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot look at {shown}")),
    }
}
