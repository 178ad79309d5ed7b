//! Network namespaces: one that lives as long as a value, one that another process can find by a path, and one that a
//! mount keeps.

use anyhow::{Context as _, Result};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A network namespace that lives as long as this value, and the processes and sockets in it.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
}

impl Namespace {
    /// A fresh one: nothing in it but a loopback that is down.
    pub fn create() -> Result<Self> {
        let file = kernel::netns::create()
            .context("make a network namespace (are you root, or is `demo` rootless?)")?;
        Ok(Self { file })
    }

    /// Its descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Does something inside, on a thread of its own. Sockets that are opened there and processes that are started there
    /// stay there.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        kernel::netns::within(self.file.as_fd(), act).context("enter a network namespace")?
    }

    /// Starts a process inside.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let what = command.get_program().to_string_lossy().into_owned();
        self.within(|| command.spawn().with_context(|| format!("start {what}")))
    }

    /// Keeps it alive by a process, whose `/proc/PID/ns/net` is a path for others.
    pub fn held(self) -> Result<Held> {
        // cat ends by itself when this process does, even by SIGKILL: its input ends then.
        let mut waiting = Command::new("cat");
        waiting
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let holder = self
            .spawn(&mut waiting)
            .context("a process that holds a network namespace")?;
        Ok(Held {
            namespace: self,
            holder,
        })
    }

    /// Keeps it alive by a bind mount on `path`, which is made; its folder has to exist.
    pub fn mounted(&self, path: &Path) -> Result<Mounted> {
        File::create_new(path).with_context(|| format!("make {}", path.display()))?;
        let text = path.display();
        self.within(|| {
            mount_bind("/proc/thread-self/ns/net", path).with_context(|| format!("mount on {text}"))
        })?;
        let mounted = Mounted {
            path: path.to_owned(),
        };
        mount_change(path, MountPropagationFlags::PRIVATE)
            .with_context(|| format!("make the mount on {text} private"))?;
        Ok(mounted)
    }
}

/// A namespace with a process in it that does nothing but hold it. Ends with this value.
#[derive(Debug)]
pub struct Held {
    namespace: Namespace,
    holder: Child,
}

impl Held {
    /// A fresh one.
    pub fn create() -> Result<Self> {
        Namespace::create()?.held()
    }

    /// Where other processes find it.
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

impl std::ops::Deref for Held {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It can only have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A namespace on a path. Taken away with this value.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Somebody else may have unmounted it, which is what is wanted.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&self.path);
    }
}
