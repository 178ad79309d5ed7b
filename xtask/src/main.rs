//! The commands of development: `cargo xtask demo`, `cargo xtask test`, `cargo xtask deps`.

mod deps;
mod totals;

use anyhow::{Context as _, bail};
use std::env;
use std::process::{Command, Stdio};

/// Programs that tests use as independent witnesses, and the Debian packages that have them.
const WITNESSES: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("mkfifo", "coreutils"),
];

fn main() -> anyhow::Result<()> {
    match env::args().nth(1).as_deref() {
        Some("demo") => demo(),
        Some("test") => test(),
        Some("deps") => deps::check(),
        _ => bail!("usage: cargo xtask demo | test | deps"),
    }
}

/// Builds daemon and command line, and runs the demo.
fn demo() -> anyhow::Result<()> {
    println!("building workloadnetd and workloadnet (the first time this takes a minute or two)");
    cargo(&[
        "build",
        "--quiet",
        "--package",
        "workloadnet-daemon",
        "--package",
        "workloadnet-cli",
    ])?;
    let program = deps::target_folder()?.join("debug/workloadnet");
    run(Command::new(program).arg("demo"))
}

/// Everything that has to hold before a change lands.
fn test() -> anyhow::Result<()> {
    install_witnesses()?;
    step("format");
    cargo(&["fmt", "--all", "--check"])?;
    step("direction of dependencies, licences, bans");
    deps::check()?;
    step("lints, warnings are errors");
    cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ])?;
    cargo(&[
        "clippy",
        "--quiet",
        "--package",
        "workloadnet-daemon",
        "--features",
        "crash-points",
        "--",
        "--deny",
        "warnings",
    ])?;
    step("documentation, warnings are errors");
    run(program("cargo")
        .args(["doc", "--quiet", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "--deny warnings"))?;
    step("tests");
    cargo(&["build", "--quiet", "--workspace"])?;
    // The daemon that kills itself after the n-th kernel step, for the crash tests.
    cargo(&[
        "build",
        "--quiet",
        "--package",
        "workloadnet-daemon",
        "--features",
        "crash-points",
        "--target-dir",
        "target/crash-points",
    ])?;
    let totals = totals::of(program("cargo").args(["test", "--workspace", "--no-fail-fast"]))?;
    println!("\n{totals}");
    totals.verdict()
}

fn step(what: &str) {
    println!("\n=== {what}");
}

fn install_witnesses() -> anyhow::Result<()> {
    let missing: Vec<&str> = WITNESSES
        .iter()
        .filter(|(program, _)| !has(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!(
        "tests need these Debian packages, which are installed now: {}",
        missing.join(" ")
    );
    run(program("apt-get").args(["update", "--quiet"]))?;
    let mut install = program("apt-get");
    install
        .args(["install", "--quiet", "--yes", "--no-install-recommends"])
        .args(missing);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    command
}

fn cargo(args: &[&str]) -> anyhow::Result<()> {
    run(program("cargo").args(args))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
