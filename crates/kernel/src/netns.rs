//! Network namespaces: opened by a path without ever opening what is not one, entered for the length of a call.

use crate::confine::{Outside, by_name};
use crate::fault::sys;
use mishap::Kind;
use model::datapath::{Fault, OpenError};
use model::record::NamespaceId;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fstat, fstatfs, open as open_path};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::io;
use std::os::fd::AsRawFd as _;

/// `NSFS_MAGIC`, linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// `CLONE_NEWNET`, linux/sched.h.
const CLONE_NEWNET: i32 = 0x4000_0000;

/// The daemon's own namespace, and what may not be attached to.
#[derive(Debug)]
pub struct Home {
    own: OwnedFd,
    own_id: NamespaceId,
    init: Option<NamespaceId>,
    /// Once this process is confined.
    outside: Option<Outside>,
}

impl Home {
    /// The calling thread's namespace.
    pub fn here() -> Result<Self, Fault> {
        let path = "/proc/thread-self/ns/net";
        let own = open_path(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| sys(format!("open {path}"), errno))?;
        let own_id = identity(own.as_fd()).map_err(|errno| sys(format!("stat {path}"), errno))?;
        // Without the right to look (rootless), there is no right to enter either.
        let init = open_path("/proc/1/ns/net", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|init| identity(init.as_fd()))
            .ok();
        Ok(Self {
            own,
            own_id,
            init,
            outside: None,
        })
    }

    /// Has paths opened by somebody else that this process may not look up any more.
    pub(crate) fn looked_up(self, outside: Option<Outside>) -> Self {
        Self { outside, ..self }
    }

    fn by_name(&self, path: &str) -> Result<OwnedFd, Errno> {
        match (by_name(path), &self.outside) {
            // Whatever the reason: a process that may not be looked at may also seem not to be there (hidepid, proc(5)).
            (Err(_), Some(outside)) => outside.open(path),
            (opened, _) => opened,
        }
    }

    /// Opens a path that has to be a network namespace, and neither ours nor init's.
    ///
    /// First only the name is opened: a FIFO would block, a device might act on being opened.
    pub fn open(&self, path: &str) -> Result<(OwnedFd, NamespaceId), OpenError> {
        let tried = |what: &str| format!("{what} {path:?}");
        let not = |what: &str| OpenError::NotANamespace {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        let opened = may(Kind::Path, "open").and_then(|()| self.by_name(path));
        let name = match opened {
            Ok(name) => name,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::SRCH) => {
                return Err(OpenError::NotFound {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(sys(tried("open"), errno).into()),
        };
        let system = may(Kind::Path, "statfs").and_then(|()| fstatfs(&name));
        let system = system.map_err(|errno| sys(tried("statfs"), errno))?;
        if system.f_type.cast_unsigned() != NSFS_MAGIC {
            let mode = fstat(&name).map_err(|errno| sys(tried("stat"), errno))?.st_mode;
            return Err(not(kind_of(mode)));
        }
        let again = format!("/proc/self/fd/{}", name.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = may(Kind::Path, "open").and_then(|()| open_path(again, flags, Mode::empty()));
        let file = file.map_err(|errno| sys(tried("open"), errno))?;
        match may(Kind::Path, "ask for the kind of").and_then(|()| namespace_type(file.as_fd())) {
            Ok(CLONE_NEWNET) => {}
            Ok(_) => return Err(not("a namespace of another kind")),
            Err(errno) => return Err(sys(tried("ask for the kind of"), errno).into()),
        }
        let id = may(Kind::Path, "stat").and_then(|()| identity(file.as_fd()));
        let id = id.map_err(|errno| sys(tried("stat"), errno))?;
        let forbidden = |whose| OpenError::Forbidden {
            path: path.to_owned(),
            whose,
        };
        if id == self.own_id {
            return Err(forbidden("the daemon itself"));
        }
        if Some(id) == self.init {
            return Err(forbidden("the node's init"));
        }
        Ok((file, id))
    }

    /// Does something in a namespace, on this thread, which must not be one of a pool, and comes back, whatever happens.
    pub(crate) fn visit<T>(&self, namespace: BorrowedFd<'_>, visit: impl FnOnce() -> T) -> Result<T, Fault> {
        let tried = "setns into the workload's namespace";
        let entered = may(Kind::Enter, tried).and_then(|()| enter(namespace));
        entered.map_err(|errno| sys(tried, errno))?;
        let _way_back = WayBack(self.own.as_fd());
        Ok(visit())
    }
}

/// Leads back home when dropped.
struct WayBack<'a>(BorrowedFd<'a>);

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        if let Err(errno) = enter(self.0) {
            // Everything that this thread did from here on would be done to the workload.
            tracing::error!(%errno, "cannot come back from a workload's namespace");
            std::process::abort();
        }
    }
}

/// Whether a call is made: always, but in tests.
fn may(kind: Kind, tried: &str) -> Result<(), Errno> {
    mishap::at(kind, tried).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn kind_of(mode: u32) -> &'static str {
    use rustix::fs::FileType;
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Symlink => "a symbolic link",
        FileType::Unknown => "a file of an unknown kind",
    }
}

fn enter(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

fn identity(file: BorrowedFd<'_>) -> Result<NamespaceId, Errno> {
    fstat(file).map(|stat| NamespaceId {
        device: stat.st_dev,
        inode: stat.st_ino,
    })
}

/// `NS_GET_NSTYPE`, linux/nsfs.h: the kind of a namespace as its CLONE_ flag.
#[expect(unsafe_code, reason = "rustix has no wrapper for this ioctl")]
fn namespace_type(file: BorrowedFd<'_>) -> Result<i32, Errno> {
    use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
    struct NamespaceType;
    // SAFETY: the ioctl takes no argument, writes nothing, and returns the kind as its result.
    unsafe impl Ioctl for NamespaceType {
        type Output = i32;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> Opcode {
            opcode::none(0xb7, 3)
        }
        fn as_ptr(&mut self) -> *mut std::ffi::c_void {
            std::ptr::null_mut()
        }
        unsafe fn output_from_ptr(out: IoctlOutput, _: *mut std::ffi::c_void) -> Result<i32, Errno> {
            Ok(out)
        }
    }
    // SAFETY: as above; on a file that is no namespace the kernel answers ENOTTY.
    unsafe { ioctl(file, NamespaceType) }
}

/// A fresh network namespace, which lives as long as the descriptor.
pub fn create() -> io::Result<OwnedFd> {
    on_a_thread(|| {
        unshare(UnshareFlags::NEWNET)?;
        Ok(open_path(
            "/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    })?
}

/// Does something in a namespace, on a thread of its own. Processes that are started there live there.
pub fn within<T: Send>(namespace: BorrowedFd<'_>, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        enter(namespace)?;
        Ok(act())
    })?
}

fn on_a_thread<T: Send>(act: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .spawn_scoped(scope, act)?
            .join()
            .map_err(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives a process that is not root a network of its own in which it is: new user, network and mount namespaces, with the
/// caller as their root. Has to be called before the process has a second thread.
pub fn become_root_in_new_user_namespace() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    std::fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

#[expect(unsafe_code, reason = "unshare is unsafe where it parts the descriptor table")]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the flags never hold CLONE_FILES, which is what could make descriptors of this thread invalid.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
