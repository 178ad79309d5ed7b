//! The Debian packages that tests need: found by the programs that they bring, installed where they are missing.

use crate::cargo;
use anyhow::{Result, bail};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that tests start, and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needed {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// What `cargo xtask test` needs.
pub(crate) const FOR_TESTS: &[Needed] = &[
    Needed {
        program: "ip",
        package: "iproute2",
    },
    Needed {
        program: "nft",
        package: "nftables",
    },
    Needed {
        program: "ping",
        package: "iputils-ping",
    },
    Needed {
        program: "kill",
        package: "procps",
    },
    // The real clients.
    Needed {
        program: "/bin/busybox",
        package: "busybox-static",
    },
    Needed {
        program: "containerd",
        package: "containerd",
    },
    Needed {
        program: "runc",
        package: "runc",
    },
    // What containerd executes, and what it does not.
    Needed {
        program: "strace",
        package: "strace",
    },
    // portmap and firewall behind our plugin.
    Needed {
        program: "iptables",
        package: "iptables",
    },
    Needed {
        program: "/usr/lib/cni/loopback",
        package: "containernetworking-plugins",
    },
    Needed {
        program: "podman",
        package: "podman",
    },
    Needed {
        program: "runsc",
        package: "runsc",
    },
    Needed {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
];

/// What the cluster test needs: its own parts are Go modules.
pub(crate) const FOR_CLUSTER: &[Needed] = &[
    Needed {
        program: "openssl",
        package: "openssl",
    },
    Needed {
        program: "nft",
        package: "nftables",
    },
];

/// What `cargo xtask fuzz` builds libFuzzer with.
pub(crate) const FOR_FUZZ: &[Needed] = &[Needed {
    program: "c++",
    package: "g++",
}];

/// What `cargo xtask bench` compares with.
pub(crate) const FOR_BENCH: &[Needed] = &[
    Needed {
        program: "/usr/lib/cni/ptp",
        package: "containernetworking-plugins",
    },
    Needed {
        program: "/usr/lib/podman/netavark",
        package: "netavark",
    },
    // netavark's firewall.
    Needed {
        program: "iptables",
        package: "iptables",
    },
    Needed {
        program: "/bin/busybox",
        package: "busybox-static",
    },
    // What calls are made of.
    Needed {
        program: "/usr/bin/strace",
        package: "strace",
    },
    Needed {
        program: "/usr/bin/perf",
        package: "linux-perf",
    },
];

/// What `cargo xtask bench path` needs beside that: what makes its trials.
pub(crate) const FOR_PATH: &[Needed] = &[
    Needed {
        program: "ip",
        package: "iproute2",
    },
    Needed {
        program: "ethtool",
        package: "ethtool",
    },
    Needed {
        program: "clang-14",
        package: "clang-14",
    },
    Needed {
        program: "/usr/include/bpf/bpf_helpers.h",
        package: "libbpf-dev",
    },
    Needed {
        program: "bpftool",
        package: "bpftool",
    },
];

/// Installs what is missing, and says so.
pub(crate) fn ensure(needed: &[Needed]) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian has ip and nft in sbin, which is on root's path only.
    let folders: Vec<PathBuf> = env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .collect();
    let packages = missing(needed, |program| {
        folders.iter().any(|folder| folder.join(program).is_file())
    });
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !is_root() || !Path::new("/usr/bin/apt-get").exists() {
        bail!("these Debian packages are needed and missing: {list} (as root: apt-get install {list})");
    }
    eprintln!("xtask: installing the Debian packages that are needed and missing: {list}");
    let apt = || {
        let mut apt = Command::new("apt-get");
        // Some packages bring a service. Tests start their own, and the machine's network stays as it is.
        apt.env("SYSTEMD_OFFLINE", "1");
        // What is measured or tested has the standard output for itself.
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::io::stderr());
        apt
    };
    cargo::run(apt().args(["update", "--quiet"]))?;
    cargo::run(
        apt()
            .args(["install", "--quiet", "--yes", "--no-install-recommends"])
            .args(&packages),
    )
}

fn missing(needed: &[Needed], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> = needed
        .iter()
        .filter(|needed| !is_there(needed.program))
        .map(|needed| needed.package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing(FOR_TESTS, |_| true), Vec::<&str>::new());
        assert_eq!(
            missing(FOR_TESTS, |program| !["nft", "ping"].contains(&program)),
            ["iputils-ping", "nftables"]
        );
    }
}
