//! The kernel of the virtual machine that a test starts: Debian's for clouds, unpacked below the target folder and not
//! installed, which would make it the machine's own.

use crate::{cargo, packages};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Depends on the newest kernel.
const NEWEST: &str = "linux-image-cloud-amd64";
/// What the guest needs of it.
const MODULES: [&str; 9] = [
    "failover",
    "net_failover",
    "virtio",
    "virtio_console",
    "virtio_net",
    "virtio_pci",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_ring",
];

/// Sees to it that the kernel and its modules are in `TARGET/guest`.
pub(crate) fn ensure(target: &Path) -> Result<()> {
    let folder = target.join("guest");
    if folder.join("vmlinuz").is_file() {
        return Ok(());
    }
    eprintln!(
        "xtask: unpacking a kernel for the guest below {}",
        folder.display()
    );
    let parts = folder.join("parts");
    if parts.exists() {
        fs::remove_dir_all(&parts)?;
    }
    fs::create_dir_all(&parts)?;
    if packages::is_root() {
        cargo::run(
            Command::new("apt-get")
                .args(["update", "--quiet"])
                .stdout(std::io::stderr()),
        )?;
    }
    let newest = download(NEWEST, &parts)?;
    let depends = Command::new("dpkg-deb")
        .arg("--field")
        .arg(&newest)
        .arg("Depends")
        .output();
    let depends = String::from_utf8(depends.context("start dpkg-deb")?.stdout)?;
    let kernel = depends
        .split_whitespace()
        .find(|word| word.starts_with("linux-image-"));
    let kernel = kernel.with_context(|| format!("{NEWEST} depends on no kernel, but on {depends:?}"))?;
    let package = download(kernel, &parts)?;
    unpack(&package, &parts)?;
    for module in MODULES {
        let name = format!("{module}.ko");
        fs::rename(find(&parts, &|found| found == name)?, folder.join(&name))?;
    }
    // Last, because it stands for all.
    let image = find(&parts, &|found| found.starts_with("vmlinuz-"))?;
    fs::rename(image, folder.join("vmlinuz"))?;
    fs::remove_dir_all(&parts)?;
    Ok(())
}

/// The file of a Debian package.
fn download(package: &str, to: &Path) -> Result<PathBuf> {
    let mut apt = Command::new("apt-get");
    apt.args(["download", "--quiet", package]).current_dir(to);
    cargo::run(apt.stdout(std::io::stderr()))?;
    find(to, &|found| found.starts_with(package) && found.ends_with(".deb"))
}

/// Only what is wanted of the hundred megabytes.
fn unpack(package: &Path, to: &Path) -> Result<()> {
    let mut whole = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("start dpkg-deb")?;
    let archive = whole.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--wildcards",
        "./boot/vmlinuz-*",
        "*/virtio*.ko",
        "*failover.ko",
    ]);
    cargo::run(tar.current_dir(to).stdin(archive))?;
    match whole.wait()?.success() {
        true => Ok(()),
        false => bail!("{} cannot be read", package.display()),
    }
}

/// The file with such a name, in a folder or below.
fn find(folder: &Path, is_it: &dyn Fn(&str) -> bool) -> Result<PathBuf> {
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path
                .file_name()
                .is_some_and(|name| is_it(&name.to_string_lossy()))
            {
                return Ok(path);
            }
        }
    }
    bail!(
        "the package has not the file that is looked for: {}",
        folder.display()
    )
}
