//! Development commands. `cargo xtask help` lists them.
//!
//! Each check is a pure function from what was read (cargo's metadata, source text) to a list of violations. Programs are
//! started by `cargo`, `dist`, `fuzz`, `go`, `guest`, `nemesis`, `packages` and `steps` only.

mod cargo;
mod dist;
mod documents;
mod figures;
mod fuzz;
mod go;
mod graph;
mod guest;
mod licences;
mod modules;
mod nemesis;
mod packages;
mod promises;
mod rooms;
mod sources;
mod steps;
mod totals;

use anyhow::{Context as _, Result, bail};
use std::env;
use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask demo [ARGS]     build the daemon and the command line, and show what they do
cargo xtask test            install what the tests need, then run every check and every test
cargo xtask test --cluster  only the test with a Kubernetes cluster, whose parts it builds first
cargo xtask ci              as test, plus the plugin as it is shipped and the demo
cargo xtask clients [NAME]  only the tests with real clients, all or those with NAME in theirs
cargo xtask nemesis [ARGS]  try to break the daemon: --seed N, --minutes M or --operations N (docs/reliability.md)
cargo xtask soak [ARGS]     attach and detach for --minutes 60, in a release build; bench/report/soak shows how flat it was
cargo xtask bench [ARGS]    measure, in a release build, and write bench/report (docs/figures.md)
cargo xtask fuzz [TARGET] [--seconds N] [--minimise]
                            try the readers of what comes from outside with what libFuzzer makes up (docs/reliability.md)
cargo xtask dist            build what is shipped into target/dist; the plugin static, and not too large
cargo xtask libcni          the CNI plugin under the real libcni, in Go, and with Debian's plugins behind it
cargo xtask deps            who knows whom: the rooms' dependencies and their source text; what documents promise, link to and show
cargo xtask go              checks and tests of the Go modules
cargo xtask containerd [..] build containerd with go/cni in it: newest, older, oldest (tests/containerd)
cargo xtask licences        licences, bans and sources of the dependencies; licences of what go/cni links
";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match run(&command, &rest) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, rest: &[String]) -> Result<ExitCode> {
    // The same from any folder of the repository.
    let own = env::var("CARGO_MANIFEST_DIR").context("call it as cargo xtask")?;
    env::set_current_dir(Path::new(&own).join("..")).context("go to the repository's root")?;
    match command {
        "demo" => steps::demo(rest),
        "test" => match rest.split_first() {
            Some((word, rest)) if word == "--cluster" => steps::cluster(rest),
            _ => steps::test(steps::Demo::Without),
        },
        "ci" => steps::test(steps::Demo::With),
        "clients" => steps::clients(rest),
        "nemesis" => nemesis::run(rest),
        "soak" => nemesis::soak(rest),
        "bench" => steps::bench(rest),
        "fuzz" => fuzz::fuzz(rest),
        "libcni" => steps::libcni(),
        "dist" => dist::dist(),
        "deps" => report(steps::rooms()?),
        "go" => steps::go(),
        "containerd" => steps::containerd(rest),
        "licences" => report([steps::licences()?, steps::go_licences()?].concat()),
        "" | "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("there is no command {other:?}\n{HELP}"),
    }
}

/// Prints violations, one a line.
fn report(violations: Vec<String>) -> Result<ExitCode> {
    for violation in &violations {
        println!("{violation}");
    }
    if !violations.is_empty() {
        bail!("{} violation(s)", violations.len());
    }
    println!("nothing to complain about");
    Ok(ExitCode::SUCCESS)
}
