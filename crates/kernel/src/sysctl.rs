//! Settings below /proc/sys/net, which shows the network namespace of the thread that looks.

use crate::fault::{io as io_fault, ours};
use mishap::Kind;
use model::address::Family;
use model::datapath::Fault;
use model::op::Sysctl;
use model::survey::Forwarding;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const FOLDER: &str = "/proc/sys/net";
const FORWARDING_V4: &str = "ipv4/ip_forward";
const FORWARDING_V6: &str = "ipv6/conf/all/forwarding";

/// Whether this kernel runs IPv6 at all (`ipv6.disable=1` leaves no folder).
pub(crate) fn has_ipv6() -> bool {
    Path::new(FOLDER).join("ipv6").exists()
}

/// How forwarding stands.
pub(crate) fn forwarding() -> Forwarding {
    let on = |path| {
        let read = fs::read_to_string(Path::new(FOLDER).join(path));
        read.is_ok_and(|text| text.trim() == "1")
    };
    Forwarding {
        v4: on(FORWARDING_V4),
        v6: on(FORWARDING_V6),
    }
}

/// The folder that is written to: `/proc/sys/net`, or the same by another path, where that one is read-only.
///
/// The kernel chooses the namespace by the thread that looks something up (`net_ctl_header_lookup`, net/sysctl_net.c), whichever
/// mount of a proc file system that goes through.
#[derive(Debug)]
pub(crate) struct Writable {
    folder: PathBuf,
    /// Keeps the folder in the kernel's memory: Landlock's rule is about it, and another one of the same name would be made
    /// (proc_sys_make_inode, fs/proc/proc_sysctl.c) once it had been forgotten.
    pinned: Option<File>,
}

impl Default for Writable {
    fn default() -> Self {
        Self {
            folder: FOLDER.into(),
            pinned: None,
        }
    }
}

/// Below `/proc/sys/net`.
fn path_of(link: &str, sysctl: &Sysctl) -> String {
    let version = match sysctl.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    format!("{version}/conf/{link}/{}", sysctl.name)
}

impl Writable {
    pub(crate) fn at(folder: &Path) -> Result<Self, Fault> {
        let own = folder.join(FORWARDING_V4);
        match own.is_file() {
            true => Ok(Self {
                folder: folder.to_owned(),
                pinned: None,
            }),
            false => Err(ours(
                format!("use {} for settings", folder.display()),
                format!("it is no /proc/sys/net: there is no {}", own.display()),
            )),
        }
    }

    /// The folder, which is this one for good.
    pub(crate) fn pinned(&mut self) -> Result<&Path, Fault> {
        let open = File::open(&self.folder);
        let folder = open.map_err(|error| io_fault(format!("open {}", self.folder.display()), &error))?;
        self.pinned = Some(folder);
        Ok(&self.folder)
    }

    /// Writes one setting of a link where it is another one.
    pub(crate) fn ensure(&self, link: &str, sysctl: &Sysctl) -> Result<(), Fault> {
        let path = Path::new(FOLDER).join(path_of(link, sysctl));
        let stands = fs::read_to_string(path).is_ok_and(|text| text.trim() == sysctl.value.to_string());
        match stands {
            true => Ok(()),
            false => self.write(link, sysctl),
        }
    }

    /// Writes one setting of a link.
    pub(crate) fn write(&self, link: &str, sysctl: &Sysctl) -> Result<(), Fault> {
        let path = self.folder.join(path_of(link, sysctl));
        mishap::at(Kind::Setting, sysctl.of(link))
            .and_then(|()| fs::write(&path, sysctl.value.to_string()))
            .map_err(|error| io_fault(format!("sysctl {}", sysctl.of(link)), &error))
    }

    /// Switches forwarding on where it is off.
    ///
    /// A node that forwards IPv6 forgets its advertised default routes at once and believes no advertisement any more, but on
    /// links whose `accept_ra` is 2 (`rt6_purge_dflt_routers`, net/ipv6/route.c). `advertised` names the links that live from
    /// advertisements: they go on doing so.
    pub(crate) fn ensure_forwarding(
        &self,
        advertised: impl FnOnce() -> Result<Vec<String>, Fault>,
    ) -> Result<(), Fault> {
        let stands = forwarding();
        let write = |path: &str| {
            let path = self.folder.join(path);
            let written = mishap::at(Kind::Setting, path.display()).and_then(|()| fs::write(&path, "1"));
            written.map_err(|error| io_fault(format!("write 1 to {}", path.display()), &error))
        };
        if !stands.v4 {
            write(FORWARDING_V4)?;
        }
        if !stands.v6 && has_ipv6() {
            for link in advertised()? {
                let path = Path::new(FOLDER).join(format!("ipv6/conf/{link}/accept_ra"));
                if fs::read_to_string(path).is_ok_and(|text| text.trim() == "1") {
                    self.write(&link, &Sysctl::v6("accept_ra", 2))?;
                    tracing::info!(
                        link,
                        "accept_ra is set to 2, as its routes are advertised and IPv6 forwarding goes on"
                    );
                }
            }
            write(FORWARDING_V6)?;
        }
        Ok(())
    }
}
