//! The Go modules: format, vet, lint, tests under the race detector; and the builds of containerd that tests start.

use crate::cargo::{answer, run};
use crate::modules::{self, Module};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Modules that are checked.
pub(crate) const MODULES: [&str; 4] = ["go/cni", "go/dev", CHARTS, FIRST];
/// Compares texts, by Kubernetes' own code: there is nothing to race, and that code takes minutes to compile.
const CHARTS: &str = "tests/charts";
/// What `cargo xtask bench` measures the daemon beside.
const FIRST: &str = "bench/first";
/// The one that runtimes link.
pub(crate) const LINKED: &str = "go/cni";
/// The build tag of tests that start the daemon. Modules without such tests do not mind it.
const TAGS: &str = "-tags=e2e";

/// Releases of containerd that can be built, by their folders below `tests/containerd`.
pub(crate) const RELEASES: [&str; 3] = ["newest", "older", "oldest"];
/// What those builds leave out: file systems that need C libraries or kernel parts which no test has, and man pages.
const RELEASE_TAGS: &str = "-tags=urfave_cli_no_docs,no_btrfs,no_zfs,no_devmapper";

/// Modules of the cluster test, each with dependencies that the others' would change.
const CLUSTER: [&str; 3] = ["kubernetes", "containerd", "helm"];

/// The go command in a module's folder, undisturbed by a workspace around it. Without cgo, so that packages which several
/// modules have are compiled once.
fn go(folder: &str) -> Command {
    let mut go = Command::new("go");
    go.args(["-C", folder]).env("GOWORK", "off").stdin(Stdio::null());
    go.env("CGO_ENABLED", "0");
    go
}

/// Whether there is Go at all, in words.
pub(crate) fn is_there() -> Result<()> {
    answer(Command::new("go").arg("version"))
        .map(drop)
        .context("Go 1.26 or later is needed on the path, for go/cni and containerd")
}

/// Files that gofmt would write otherwise are an error.
pub(crate) fn format() -> Result<()> {
    let root = answer(Command::new("go").args(["env", "GOROOT"]))?;
    let mut gofmt = Command::new(Path::new(root.trim()).join("bin/gofmt"));
    match answer(gofmt.args(["-l", "go", "tests", "bench"]))?.trim() {
        "" => Ok(()),
        files => bail!("gofmt would write these otherwise:\n{files}"),
    }
}

/// What the compiler's own checker finds.
pub(crate) fn vet(folder: &str) -> Result<()> {
    run(go(folder).args(["vet", TAGS, "./..."]))
}

/// What staticcheck finds, which is a tool of `go/dev`.
pub(crate) fn lint(target: &Path, folder: &str) -> Result<()> {
    let program = target.join("go/staticcheck");
    let mut build = go("go/dev");
    build.args(["build", "-buildvcs=false", "-o"]).arg(&program);
    run(build.arg("honnef.co/go/tools/cmd/staticcheck"))?;
    let mut lint = Command::new(program);
    run(lint
        .args([TAGS, "./..."])
        .envs([("GOWORK", "off"), ("CGO_ENABLED", "0")])
        .current_dir(folder))
}

/// The modules that a module's programs link, with their licences: from the module cache, where the build has put them.
pub(crate) fn linked(folder: &str) -> Result<Vec<Module>> {
    let words = "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{with .Replace}}{{.Path}}{{end}}\t{{.Dir}}{{end}}{{end}}";
    let said = answer(go(folder).args(["list", "-deps", "-f", words, "./..."]))?;
    // One line for each package.
    let lines: BTreeSet<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    lines.into_iter().map(module).collect()
}

fn module(line: &str) -> Result<Module> {
    let &[path, version, replacement, folder] = &line.split('\t').collect::<Vec<_>>()[..] else {
        bail!("go list said {line:?}");
    };
    let mut licences = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {folder}, of {path}"))? {
        let file = entry?.path();
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if file.is_file() && modules::is_licence(&name) {
            licences
                .push(std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?);
        }
    }
    Ok(Module {
        path: path.to_owned(),
        version: version.to_owned(),
        replacement: Some(replacement.to_owned()).filter(|by| !by.is_empty()),
        licences,
    })
}

/// A module's tests, with the daemon that they are to start. None is answered from a cache: they read what Go does not
/// know of, as the daemon, and the other module.
pub(crate) fn tests(target: &Path, folder: &str) -> Command {
    let mut tests = go(folder);
    tests.args(["test", "-count=1", "-v", TAGS]);
    if folder != CHARTS {
        tests.arg("-race").env("CGO_ENABLED", "1");
    }
    tests
        .arg("./...")
        .env("WORKLOADNETD", target.join("debug/workloadnetd"));
    tests
}

/// Builds a release of containerd with go/cni in it, and says where its programs are.
pub(crate) fn containerd(target: &Path, release: &str) -> Result<PathBuf> {
    if !RELEASES.contains(&release) {
        bail!(
            "there is no release {release:?} of containerd, but {}",
            RELEASES.join(", ")
        );
    }
    let folder = target.join("containerd").join(release);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let mut build = go(&format!("tests/containerd/{release}"));
    build.args(["build", "-buildvcs=false", "-ldflags=-s -w", RELEASE_TAGS, "-o"]);
    run(build.arg(&folder).arg("tool"))?;
    Ok(folder)
}

/// Builds the first version's sequence of calls, and says where it is.
pub(crate) fn first(target: &Path) -> Result<PathBuf> {
    let program = target.join("go/first");
    let mut build = go(FIRST);
    build.args(["build", "-buildvcs=false", "-ldflags=-s -w", "-o"]);
    run(build.arg(&program).arg("."))?;
    Ok(program)
}

/// Builds what a cluster is made of, unmodified, and says where the programs are. Go's own cache knows what is current.
/// Kubernetes' own builds are told their version in this way, too; Helm asks for it.
pub(crate) fn cluster(target: &Path) -> Result<PathBuf> {
    let folder = target.join("cluster");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let words = ["list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"];
    let version = answer(go("tests/cluster/kubernetes").args(words))?;
    let linked = format!(
        "-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={}",
        version.trim()
    );
    for module in CLUSTER {
        let mut build = go(&format!("tests/cluster/{module}"));
        build.args(["build", "-buildvcs=false", &linked, RELEASE_TAGS, "-o"]);
        run(build.arg(&folder).arg("tool"))?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_of_containerd_has_a_module_with_ours_in_it() {
        for release in RELEASES {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../tests/containerd")
                .join(release);
            let module = std::fs::read_to_string(path.join("go.mod")).unwrap();
            assert!(
                module.contains("replace github.com/containerd/go-cni => ../../../go/cni"),
                "{release}"
            );
        }
    }

    #[test]
    fn a_release_that_is_not_there_is_named() {
        assert_eq!(
            containerd(Path::new("/nowhere"), "latest")
                .unwrap_err()
                .to_string(),
            "there is no release \"latest\" of containerd, but newest, older, oldest"
        );
    }
}
