//! What is shipped, all of it static, so that it runs in an image with nothing else in it: the daemon, the command line, and
//! the plugin, which is small because it is started for every container.

use crate::cargo::{cargo, graph, host, run};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

const PLUGIN: &str = "workloadnet-cni";
const STATIC: &str = "-C target-feature=+crt-static -C relocation-model=static";
/// Bytes that the plugin may have. An empty static C program has 680 kB here, an empty Rust one 1090 kB.
const PLUGIN_LIMIT: u64 = 1_700_000;

/// A build of what is shipped, static.
fn release(host: &str) -> Command {
    let mut build = cargo();
    build.args(["build", "--locked", "--release", "--bins", "--target", host]);
    build.env("RUSTFLAGS", STATIC);
    build
}

/// The daemon as it is shipped, but with the names of its functions, which change no instruction and graphs want to tell.
pub(crate) fn daemon_with_names() -> Result<PathBuf> {
    let host = host()?;
    let mut build = release(&host);
    build.env("CARGO_PROFILE_RELEASE_STRIP", "none");
    run(build.args(["--package", "workloadnet-daemon"]))?;
    Ok(graph()?.target.join(host).join("release/workloadnetd"))
}

/// Builds everything into `target/dist`, beside what else is done, and with what that leaves of the processors: much of it is
/// done by one thread. What it says is in `target/dist.log`.
pub(crate) fn beside() -> Result<Beside> {
    let log = graph()?.target.join("dist.log");
    let file = fs::File::create(&log).with_context(|| format!("make {}", log.display()))?;
    let errors = file.try_clone().context("share a file")?;
    // What runs, also where another command has built it anew meanwhile.
    let this = format!("/proc/{}/exe", std::process::id());
    let mut dist = Command::new("nice");
    dist.args(["-n", "19"]).arg(this).arg("dist");
    dist.stdin(Stdio::null()).stdout(file).stderr(errors);
    let child = dist.spawn().context("start nice")?;
    Ok(Beside { child, log })
}

/// A build that is under way.
pub(crate) struct Beside {
    child: Child,
    log: PathBuf,
}

impl Beside {
    /// Waits for its end, and shows what it said.
    pub(crate) fn end(mut self) -> Result<()> {
        let status = self.child.wait().context("wait for cargo xtask dist")?;
        let said = fs::read(&self.log).unwrap_or_default();
        print!("{}", String::from_utf8_lossy(&said));
        match status.success() {
            true => Ok(()),
            false => bail!("cargo xtask dist: {status}"),
        }
    }
}

/// Builds everything into `target/dist`.
pub(crate) fn dist() -> Result<ExitCode> {
    let host = host()?;
    let mut build = release(&host);
    build.args(["--package", "workloadnet-daemon", "--package", "workloadnet-cli"]);
    run(&mut build)?;
    let plugin = plugin()?;
    let target = graph()?.target;
    let folder = target.join("dist");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let release = target.join(host).join("release");
    let programs = ["workloadnetd", "workloadnet"].map(|name| release.join(name));
    for program in &programs {
        is_static(&read(program)?, program)?;
    }
    for from in programs.iter().chain([&plugin]) {
        let to = folder.join(from.file_name().context("a program has a name")?);
        fs::copy(from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        println!("{:>9} bytes  {}", fs::metadata(&to)?.len(), to.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the plugin as it is shipped, and says where it is, unless it is too large or not static.
pub(crate) fn plugin() -> Result<PathBuf> {
    let host = host()?;
    let mut build = cargo();
    build.args(["build", "--locked", "--profile", "plugin", "--package", PLUGIN]);
    // With a target named, the flags do not reach procedural macros, which cannot be static.
    build.args(["--target", &host]);
    run(build.env("RUSTFLAGS", STATIC))?;
    let built = graph()?.target.join(host).join("plugin").join(PLUGIN);
    check(&built)?;
    Ok(built)
}

fn check(built: &Path) -> Result<()> {
    let elf = read(built)?;
    let size = elf.len() as u64;
    if size > PLUGIN_LIMIT {
        bail!("{PLUGIN} has {size} bytes, {PLUGIN_LIMIT} is the most");
    }
    is_static(&elf, built)
}

fn read(built: &Path) -> Result<Vec<u8>> {
    fs::read(built).with_context(|| format!("read {}", built.display()))
}

fn is_static(elf: &[u8], built: &Path) -> Result<()> {
    match has_interpreter(elf) {
        Some(false) => Ok(()),
        Some(true) => bail!("{} is not static: it needs a loader", built.display()),
        None => bail!("{} is no 64-bit little-endian ELF file", built.display()),
    }
}

/// Whether one of the program headers is PT_INTERP (elf(5)).
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?).into());
    let offset = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?);
    let (offset, size, count): (usize, usize, usize) = (offset.try_into().ok()?, half(54)?, half(56)?);
    for header in 0..count {
        let kind = elf.get(offset + header * size..)?.first_chunk::<4>()?;
        if u32::from_le_bytes(*kind) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_loader_is_told_from_others() {
        // This test does.
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(has_interpreter(&own), Some(true));
        assert_eq!(has_interpreter(b"#!/bin/sh"), None);
        let mut without = own[..64].to_vec();
        without[56] = 0;
        without[57] = 0;
        assert_eq!(has_interpreter(&without), Some(false));
    }
}
