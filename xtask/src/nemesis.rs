//! The random test (`tests/nemesis`): built with what it starts, and run.

use crate::cargo::{cargo, graph, run as run_step};
use crate::packages;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Seeds of which each has its share of CI's five minutes, beside a fresh one.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// Runs it with these arguments.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    packages::ensure(packages::FOR_TESTS)?;
    let program = build()?;
    let status = Command::new(program)
        .args(args)
        .status()
        .context("start the nemesis")?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Five minutes of it.
pub(crate) fn in_ci() -> Result<()> {
    let program = build()?;
    let mut failed = Vec::new();
    for seed in SEEDS.map(Some).into_iter().chain([None]) {
        let mut nemesis = Command::new(&program);
        nemesis.args(["--minutes", "1"]);
        // It prints a fresh seed itself.
        nemesis.args(seed.map(|seed| format!("--seed={seed}")));
        if !nemesis.status().context("start the nemesis")?.success() {
            failed.push(seed.map_or("a fresh one".to_owned(), |seed| seed.to_string()));
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("these seeds fail: {}", failed.join(", ")),
    }
}

fn build() -> Result<PathBuf> {
    run_step(cargo().args([
        "build",
        "--locked",
        "--package",
        "workloadnet-daemon",
        "--package",
        "workloadnet-cni",
        "--package",
        "workloadnet-nemesis",
        "--bins",
    ]))?;
    Ok(graph()?.target.join("debug/nemesis"))
}
