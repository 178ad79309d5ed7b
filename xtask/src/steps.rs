//! What the commands do, step by step.

use crate::cargo::{cargo, count_tests, graph, graph_with_fuzzer, run};
use crate::totals::Totals;
use crate::{dist, documents, figures, go, guest, licences, modules, packages, promises, rooms, sources};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Gated, and not run with the others of that kind: it starts what other steps build.
const CLUSTER_TESTS: &str = "workloadnet-cluster-tests";

/// Whether CI shows the demo, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demo {
    With,
    Without,
}

/// Builds and shows the product. A dev build: it takes half the time of a release build from a fresh clone, and the
/// kernel's share of an attach, which is the most of it, is the same.
pub(crate) fn demo(args: &[String]) -> Result<ExitCode> {
    run(cargo().args([
        "build",
        "--locked",
        "--package",
        "workloadnet-daemon",
        "--package",
        "workloadnet-cli",
        "--bins",
    ]))?;
    let target = graph()?.target;
    let mut demo = Command::new(target.join("debug/workloadnet"));
    let status = demo
        .arg("demo")
        .args(args)
        .status()
        .context("start workloadnet demo")?;
    Ok(exit(status.success()))
}

/// Tests with real clients, all of them or by a part of their names.
pub(crate) fn clients(args: &[String]) -> Result<ExitCode> {
    packages::ensure(packages::FOR_TESTS)?;
    guest::ensure(&graph()?.target)?;
    containerd(&[])?;
    // The tests start these, and cargo does not know.
    run(cargo().args([
        "build",
        "--locked",
        "--package",
        "workloadnet-daemon",
        "--package",
        "workloadnet-cni",
        "--package",
        "workloadnet-cli",
        "--bins",
    ]))?;
    let mut test = cargo();
    test.args(["test", "--locked", "--package", "workloadnet-client-tests", "--"]);
    let status = test.args(args).status().context("start the tests")?;
    Ok(exit(status.success()))
}

/// The test with a cluster of real parts, alone.
pub(crate) fn cluster(args: &[String]) -> Result<ExitCode> {
    packages::ensure(packages::FOR_TESTS)?;
    packages::ensure(packages::FOR_CLUSTER)?;
    go::is_there()?;
    let start = Instant::now();
    go::cluster(&graph()?.target)?;
    println!("the cluster's parts: {:.1} s", start.elapsed().as_secs_f64());
    dist::dist()?;
    let status = cluster_test().args(args).status().context("start the tests")?;
    Ok(exit(status.success()))
}

/// One cluster at a time, and what its scenes say of themselves.
fn cluster_test() -> Command {
    let mut test = cargo();
    test.args([
        "test",
        "--locked",
        "--package",
        CLUSTER_TESTS,
        "--features",
        "cluster",
    ]);
    test.args(["--test", "cluster", "--", "--test-threads=1", "--nocapture"]);
    test
}

/// Measures in a release build, beside what others make, which it installs and builds.
pub(crate) fn bench(args: &[String]) -> Result<ExitCode> {
    packages::ensure(packages::FOR_BENCH)?;
    if args.first().is_some_and(|part| part == "path") {
        packages::ensure(packages::FOR_PATH)?;
    }
    go::is_there()?;
    let plugin = dist::plugin()?;
    let first = go::first(&graph()?.target)?;
    let daemon = dist::daemon_with_names()?;
    let mut bench = cargo();
    bench.env("CARGO_PROFILE_RELEASE_STRIP", "none");
    bench.args([
        "run",
        "--locked",
        "--release",
        "--package",
        "workloadnet-bench",
        "--",
    ]);
    bench.env("WORKLOADNET_CNI", plugin);
    bench.env("WORKLOADNET_DAEMON", daemon);
    bench.env("WORKLOADNET_FIRST", first);
    let status = bench.args(args).status().context("start the bench")?;
    Ok(exit(status.success()))
}

/// The plugin under the real libcni, alone; it is a step of `test`, too. Needs Go, which Debian 12 has too old.
pub(crate) fn libcni() -> Result<ExitCode> {
    packages::ensure(packages::FOR_TESTS)?;
    let driver = libcni_driver()?;
    run(&mut libcni_tests(&driver))?;
    Ok(ExitCode::SUCCESS)
}

/// The driver on libcni, and what its tests start beside the plugin.
fn libcni_driver() -> Result<PathBuf> {
    let driver = graph()?.target.join("cnitool");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&driver).arg(".");
    run(go.current_dir("tests/cnitool")).context("Go 1.21 or later builds the driver on libcni")?;
    run(cargo().args([
        "build",
        "--locked",
        "--package",
        "workloadnet-daemon",
        "--package",
        "workloadnet-cli",
        "--bins",
    ]))?;
    Ok(driver)
}

fn libcni_tests(driver: &Path) -> Command {
    let mut test = cargo();
    test.args(["test", "--locked", "--package", "workloadnet-cni"]);
    // All of them, because a test that is left out counts as skipped.
    test.args(["--features", "libcni", "--test", "all"]);
    test.env("WORKLOADNET_CNITOOL", driver);
    test
}

/// Who knows whom, by declaration and by source text; and whether what documents name, link to and show is so.
pub(crate) fn rooms() -> Result<Vec<String>> {
    let graph = graph()?;
    let mut found = rooms::violations(&graph);
    let sources = sources::read(&graph.root)?;
    found.extend(sources::violations(&sources));
    let documents = documents::read(&graph.root)?;
    found.extend(promises::violations(&documents, &sources));
    found.extend(documents::violations(&documents, |path| {
        graph.root.join(path).exists()
    }));
    found.extend(figures::violations(&graph.root)?);
    Ok(found)
}

/// Licences, bans, sources.
pub(crate) fn licences() -> Result<Vec<String>> {
    Ok(licences::violations(&graph_with_fuzzer()?))
}

/// The same for what `go/cni` links.
pub(crate) fn go_licences() -> Result<Vec<String>> {
    go::is_there()?;
    let linked = go::linked(go::LINKED)?;
    if linked.is_empty() {
        bail!("go list names no module that {} links", go::LINKED);
    }
    Ok(modules::violations(&linked))
}

/// Everything that CI wants to know. Goes on to the end, whatever fails.
pub(crate) fn test(demo: Demo) -> Result<ExitCode> {
    packages::ensure(packages::FOR_TESTS)?;
    packages::ensure(packages::FOR_CLUSTER)?;
    guest::ensure(&graph()?.target)?;
    let gated = gated_tests()?;
    let mut report = Report::default();
    report.step("format", || run(cargo().args(["fmt", "--all", "--check"])));
    report.step("rooms", || none(rooms()?));
    report.step("licences", || none(licences()?));
    for features in [&[] as &[&str], &["--all-features"]] {
        let name = format!("clippy {}", features.concat());
        report.step(name.trim(), || {
            let mut clippy = cargo();
            clippy.args(["clippy", "--locked", "--workspace", "--all-targets"]);
            run(clippy.args(features).args(["--", "--deny", "warnings"]))
        });
    }
    report.step("docs", || {
        let mut doc = cargo();
        doc.args([
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ]);
        run(doc.env("RUSTDOCFLAGS", "--deny warnings"))
    });
    // The releases that the tests with real clients start.
    for release in go::RELEASES {
        report.step(&format!("containerd {release}"), || {
            go::is_there()?;
            go::containerd(&graph()?.target, release).map(drop)
        });
    }
    // Built before any test runs, because a build beside tests is what makes them slow.
    let mut tests = cargo();
    tests.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    report.step("crash points", || {
        tests.env("WORKLOADNET_CRASHING", daemon_with_crash_points()?);
        Ok(())
    });
    report.tests("tests", &mut tests, stdout());
    // Only now, because a build beside tests makes them slow; the nemesis waits most of the time.
    let release = dist::beside();
    report.step("nemesis", crate::nemesis::in_ci);
    for gated in gated {
        report.tests(&gated.name, &mut gated.command(), stdout());
    }
    go_steps(&mut report);
    let mut driver = None;
    report.step("libcni", || {
        driver = Some(libcni_driver()?);
        Ok(())
    });
    if let Some(driver) = driver {
        report.tests("tests libcni", &mut libcni_tests(&driver), stdout());
    }
    cluster_steps(&mut report, release);
    if demo == Demo::With {
        report.step("plugin", || dist::plugin().map(drop));
        report.step("demo", || match self::demo(&[])? {
            ExitCode::SUCCESS => Ok(()),
            _ => bail!("the demo failed"),
        });
    }
    Ok(report.close())
}

/// The cluster's parts and ours are built first, then the cluster lives.
fn cluster_steps(report: &mut Report, release: Result<dist::Beside>) {
    let mut is_built = false;
    report.step("cluster's parts", || {
        go::is_there()?;
        go::cluster(&graph()?.target)?;
        is_built = true;
        Ok(())
    });
    report.step("dist", || release?.end());
    if is_built {
        report.tests("tests cluster", &mut cluster_test(), stdout());
    }
}

/// Everything that there is to know of the Go modules.
pub(crate) fn go() -> Result<ExitCode> {
    let mut report = Report::default();
    go_steps(&mut report);
    Ok(report.close())
}

fn go_steps(report: &mut Report) {
    let mut target = None;
    report.step("go", || {
        go::is_there()?;
        // The daemon that their tests start.
        run(cargo().args(["build", "--locked", "--package", "workloadnet-daemon", "--bins"]))?;
        target = Some(graph()?.target);
        Ok(())
    });
    let Some(target) = target else { return };
    report.step("go format", go::format);
    report.step("go licences", || none(go_licences()?));
    for folder in go::MODULES {
        report.step(&format!("vet {folder}"), || go::vet(folder));
        report.step(&format!("lint {folder}"), || go::lint(&target, folder));
        report.tests(
            &format!("tests {folder}"),
            &mut go::tests(&target, folder),
            stdout(),
        );
    }
}

/// Builds releases of containerd, all where none is named, and prints where they are.
pub(crate) fn containerd(releases: &[String]) -> Result<ExitCode> {
    go::is_there()?;
    let target = graph()?.target;
    let all = go::RELEASES.map(str::to_owned);
    let releases = if releases.is_empty() { &all } else { releases };
    for release in releases {
        let start = Instant::now();
        let folder = go::containerd(&target, release)?;
        println!("{} ({:.1} s)", folder.display(), start.elapsed().as_secs_f64());
    }
    Ok(ExitCode::SUCCESS)
}

/// The build of the daemon that the crash tests start, and a copy of it: what is built next takes its place.
fn daemon_with_crash_points() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--locked", "--package", "workloadnet-daemon", "--bins"]);
    run(build.args(["--features", "crash-points"]))?;
    let target = graph()?.target;
    let copy = target.join("workloadnetd-with-crash-points");
    fs::copy(target.join("debug/workloadnetd"), &copy)
        .with_context(|| format!("copy the daemon to {}", copy.display()))?;
    Ok(copy)
}

/// Tests that are built with features which the product does not have, such as crash points. `cargo test` leaves them
/// out, so each gets a run of its own.
struct GatedTest {
    name: String,
    package: String,
    features: Vec<String>,
}

impl GatedTest {
    fn command(&self) -> Command {
        let mut command = cargo();
        command.args([
            "test",
            "--locked",
            "--package",
            &self.package,
            "--test",
            &self.name,
        ]);
        command.arg("--features").arg(self.features.join(","));
        command
    }
}

fn gated_tests() -> Result<Vec<GatedTest>> {
    let graph = graph()?;
    let mut gated = Vec::new();
    for (_, package) in graph.ours().filter(|(_, package)| package.name != CLUSTER_TESTS) {
        for (name, features) in &package.gated_tests {
            gated.push(GatedTest {
                name: name.clone(),
                package: package.name.clone(),
                features: features.clone(),
            });
        }
    }
    Ok(gated)
}

fn none(violations: Vec<String>) -> Result<()> {
    match violations.as_slice() {
        [] => Ok(()),
        violations => bail!("{}", violations.join("\n")),
    }
}

/// What came of the steps so far.
#[derive(Debug, Default)]
struct Report {
    lines: Vec<String>,
    totals: Totals,
    has_failed: bool,
}

impl Report {
    fn step(&mut self, name: &str, act: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        let start = Instant::now();
        let result = act();
        if let Err(error) = &result {
            println!("{error:#}");
        }
        self.line(name, result.is_ok(), start.elapsed());
    }

    fn tests(&mut self, name: &str, command: &mut Command, show: impl Write + Send + 'static) {
        println!("\n== {name}");
        let start = Instant::now();
        let complaints = match count_tests(command, show) {
            Ok(totals) => {
                self.totals += totals;
                totals.complaints()
            }
            Err(error) => vec![format!("{error:#}")],
        };
        for complaint in &complaints {
            println!("{name}: {complaint}");
        }
        self.line(name, complaints.is_empty(), start.elapsed());
    }

    fn line(&mut self, name: &str, is_good: bool, took: Duration) {
        let verdict = if is_good { "ok" } else { "FAILED" };
        self.has_failed |= !is_good;
        self.lines
            .push(format!("{name:<24} {verdict:<7} {:>6.1} s", took.as_secs_f64()));
    }

    /// Prints what became of each step and, as the very last line, the totals of the tests.
    fn close(&self) -> ExitCode {
        println!("\n== summary");
        for line in &self.lines {
            println!("{line}");
        }
        println!("{}", self.totals);
        exit(!self.has_failed)
    }
}

fn exit(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::sink;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_report_fails_with_any_step_and_goes_on() {
        let mut report = Report::default();
        report.step("bad", || none(vec!["a".to_owned(), "b".to_owned()]));
        report.step("good", || Ok(()));
        assert!(report.has_failed);
        assert_eq!(report.lines.len(), 2);
    }

    #[test]
    fn a_report_fails_when_a_test_is_skipped_or_none_runs() {
        for script in [
            "echo 'test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out'",
            "true",
        ] {
            let mut report = Report::default();
            report.tests("tests", &mut sh(script), sink());
            assert!(report.has_failed, "{script}");
        }
    }

    #[test]
    fn the_rooms_of_this_repository_are_in_order() {
        assert_eq!(rooms().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_dependencies_of_this_repository_are_allowed() {
        assert_eq!(licences().unwrap(), Vec::<String>::new());
    }
}
