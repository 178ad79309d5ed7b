//! The packages of a build and who depends on whom, read from `cargo metadata`
//! (<https://doc.rust-lang.org/cargo/commands/cargo-metadata.html>).

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Part of the product.
    Normal,
    /// For build scripts.
    Build,
    /// For tests, benches and examples.
    Dev,
}

/// One package.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression, as its author wrote it.
    pub(crate) licence: Option<String>,
    /// Where it comes from; `None` for our own.
    pub(crate) source: Option<String>,
    /// Test targets that need features, with those features.
    pub(crate) gated_tests: Vec<(String, Vec<String>)>,
    /// Ids of what it depends on.
    pub(crate) needs: BTreeSet<(Kind, String)>,
}

impl Package {
    /// Whether it lives in this repository.
    pub(crate) fn is_ours(&self) -> bool {
        self.source.is_none()
    }
}

/// All packages by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graph {
    pub(crate) packages: BTreeMap<String, Package>,
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

impl Graph {
    /// Reads format version 1.
    pub(crate) fn parse(metadata: &Value) -> Result<Self> {
        let mut graph = Self {
            root: text(metadata, "workspace_root")?.into(),
            target: text(metadata, "target_directory")?.into(),
            packages: BTreeMap::new(),
        };
        for package in list(metadata, "packages")? {
            graph
                .packages
                .insert(text(package, "id")?.to_owned(), parse_package(package)?);
        }
        let resolve = metadata
            .get("resolve")
            .context("cargo's metadata has no \"resolve\"")?;
        for node in list(resolve, "nodes")? {
            let id = text(node, "id")?;
            let needs = parse_needs(node)?;
            graph
                .packages
                .get_mut(id)
                .with_context(|| format!("{id} is no package"))?
                .needs = needs;
        }
        Ok(graph)
    }

    /// Our own packages.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (&str, &Package)> {
        self.packages
            .iter()
            .filter(|(_, package)| package.is_ours())
            .map(|(id, package)| (id.as_str(), package))
    }

    /// What a package depends on directly.
    pub(crate) fn direct<'a>(&'a self, id: &str, kinds: &'a [Kind]) -> impl Iterator<Item = &'a Package> {
        self.packages
            .get(id)
            .into_iter()
            .flat_map(|package| &package.needs)
            .filter(|(kind, _)| kinds.contains(kind))
            .filter_map(|(_, id)| self.packages.get(id))
    }

    /// Names of everything that ends up in a package's code, with the way there: `a -> b -> c`.
    pub(crate) fn ways(&self, id: &str) -> BTreeMap<String, String> {
        let mut ways = BTreeMap::new();
        let mut open = vec![(id.to_owned(), String::new())];
        let mut seen = BTreeSet::new();
        while let Some((id, way)) = open.pop() {
            let Some(package) = self.packages.get(&id) else {
                continue;
            };
            if !seen.insert(id.clone()) {
                continue;
            }
            let way = if way.is_empty() {
                package.name.clone()
            } else {
                format!("{way} -> {}", package.name)
            };
            for (_, next) in package.needs.iter().filter(|(kind, _)| *kind == Kind::Normal) {
                open.push((next.clone(), way.clone()));
            }
            ways.insert(package.name.clone(), way);
        }
        ways
    }
}

fn parse_package(package: &Value) -> Result<Package> {
    let mut gated_tests = Vec::new();
    for target in list(package, "targets")? {
        let is_test = list(target, "kind")?.iter().any(|kind| kind == "test");
        let features = strings(target.get("required-features"));
        if is_test && !features.is_empty() {
            gated_tests.push((text(target, "name")?.to_owned(), features));
        }
    }
    Ok(Package {
        name: text(package, "name")?.to_owned(),
        version: text(package, "version")?.to_owned(),
        licence: package.get("license").and_then(Value::as_str).map(str::to_owned),
        source: package.get("source").and_then(Value::as_str).map(str::to_owned),
        gated_tests,
        needs: BTreeSet::new(),
    })
}

fn parse_needs(node: &Value) -> Result<BTreeSet<(Kind, String)>> {
    let mut needs = BTreeSet::new();
    for need in list(node, "deps")? {
        let id = text(need, "pkg")?;
        for kind in list(need, "dep_kinds")? {
            let kind = match kind.get("kind").and_then(Value::as_str) {
                None => Kind::Normal,
                Some("build") => Kind::Build,
                Some("dev") => Kind::Dev,
                Some(other) => anyhow::bail!("{id} is needed for {other:?}"),
            };
            needs.insert((kind, id.to_owned()));
        }
    }
    Ok(needs)
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value
        .get(field)
        .and_then(Value::as_array)
        .with_context(|| format!("cargo's metadata has no list {field:?}"))
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value
        .get(field)
        .and_then(Value::as_str)
        .with_context(|| format!("cargo's metadata has no text {field:?}"))
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Metadata for tests, written as `name: needed, needed(dev)`, one package a line. Names without a line are crates of
/// others. The line's end may say `| licence`.
#[cfg(test)]
pub(crate) fn fake(lines: &str) -> Graph {
    let mut graph = Graph::default();
    let foreign = |name: &str| Package {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        licence: Some("MIT".to_owned()),
        source: Some(crate::licences::REGISTRY.to_owned()),
        gated_tests: Vec::new(),
        needs: BTreeSet::new(),
    };
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, needs) = line.split_once(':').expect("name: needs");
        let mut package = foreign(name);
        package.source = None;
        for need in needs.split(',').map(str::trim).filter(|need| !need.is_empty()) {
            let (need, kind) = match need.split_once('(') {
                None => (need, Kind::Normal),
                Some((need, "dev)")) => (need, Kind::Dev),
                Some((need, "build)")) => (need, Kind::Build),
                Some((_, other)) => panic!("{other}"),
            };
            package.needs.insert((kind, need.to_owned()));
            graph
                .packages
                .entry(need.to_owned())
                .or_insert_with(|| foreign(need));
        }
        graph.packages.insert(name.to_owned(), package);
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_becomes_packages_with_kinds_and_gated_tests() {
        let metadata = json!({
            "workspace_root": "/w", "target_directory": "/w/target",
            "packages": [
                {"id": "a#1", "name": "a", "version": "1.0.0", "license": "MIT", "source": null, "targets": [
                    {"kind": ["lib"], "name": "a"},
                    {"kind": ["test"], "name": "crash", "required-features": ["crash-points"]},
                ]},
                {"id": "b#1", "name": "b", "version": "2.0.0", "license": null, "source": "git+x", "targets": []},
            ],
            "resolve": {"nodes": [
                {"id": "a#1", "deps": [{"pkg": "b#1", "dep_kinds": [{"kind": null}, {"kind": "dev"}]}]},
                {"id": "b#1", "deps": []},
            ]},
        });
        let graph = Graph::parse(&metadata).unwrap();
        let a = &graph.packages["a#1"];
        assert!(a.is_ours());
        assert_eq!(
            a.gated_tests,
            [("crash".to_owned(), vec!["crash-points".to_owned()])]
        );
        let needs: Vec<_> = a.needs.iter().cloned().collect();
        assert_eq!(
            needs,
            [(Kind::Normal, "b#1".to_owned()), (Kind::Dev, "b#1".to_owned())]
        );
        assert_eq!(graph.packages["b#1"].licence, None);
        assert!(!graph.packages["b#1"].is_ours());
    }

    #[test]
    fn metadata_that_is_not_understood_is_an_error() {
        let error = Graph::parse(&json!({"workspace_root": "/w", "target_directory": "/t"})).unwrap_err();
        assert_eq!(error.to_string(), "cargo's metadata has no list \"packages\"");
    }

    #[test]
    fn a_way_leads_through_what_lies_between() {
        let graph = fake("a: b, t(dev)\n b: c\n c:");
        let ways = graph.ways("a");
        assert_eq!(ways["c"], "a -> b -> c");
        assert!(!ways.contains_key("t"), "what only tests need is not in the code");
    }
}
