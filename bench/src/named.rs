//! Network namespaces by names, as runtimes keep them below /run/netns: a path that anybody may look up, where `/proc/PID/fd/N` is a
//! process's own. The names are mounts, so the bench has mounts of its own, which end with it.

use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use stage::Namespace;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set in the environment where the mounts are our own: the folder of the names.
const INSIDE: &str = "WORKLOADNET_BENCH_INSIDE";

/// A namespace that has a name, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Named {
    namespace: Namespace,
    path: PathBuf,
}

impl Named {
    /// A fresh one.
    pub(crate) fn new() -> Result<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let path = folder()?.join(MADE.fetch_add(1, Ordering::Relaxed).to_string());
        let namespace = Namespace::new()?;
        std::fs::write(&path, "").with_context(|| format!("make {}", path.display()))?;
        mount_bind(namespace.path(), &path).with_context(|| format!("mount {}", path.display()))?;
        Ok(Self { namespace, path })
    }

    /// Its name.
    pub(crate) fn path(&self) -> String {
        self.path.display().to_string()
    }
}

impl Deref for Named {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // All mounts end with the process.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// In memory, as /run is.
fn folder() -> Result<PathBuf> {
    let folder = std::env::var_os(INSIDE).context("mounts of one's own are needed first")?;
    Ok(folder.into())
}

/// Starts the program anew with mounts of its own; `None` where it has them already.
pub(crate) fn enter() -> Result<Option<ExitCode>> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    let folder = tempfile::tempdir_in("/dev/shm").context("make a folder in memory for names")?;
    let status = Command::new("unshare")
        .args(["--mount", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, folder.path())
        .status()
        .context("start unshare")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(code.unwrap_or(1).into()))
}
