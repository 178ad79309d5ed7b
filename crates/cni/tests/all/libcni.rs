//! The plugin under the real libcni, which runtimes have inside, with the network that `workloadnet install-cni` writes; and
//! with Debian's plugins behind it.

use crate::node::{Node, Sandbox};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Debian's containernetworking-plugins.
const OTHERS: &str = "/usr/lib/cni";

struct Runtime {
    folder: TempDir,
}

impl Runtime {
    /// With the network installed.
    fn new(node: &Node, args: &[&str]) -> Self {
        let runtime = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let installed = Command::new(stage::sibling("workloadnet").unwrap())
            .args(["install-cni", "--plugin", env!("CARGO_BIN_EXE_workloadnet-cni")])
            .arg("--bin-dir")
            .arg(runtime.path("bin"))
            .arg("--conf-dir")
            .arg(runtime.path("net.d"))
            .arg("--socket")
            .arg(node.socket())
            .args(args)
            .output()
            .unwrap();
        assert!(installed.status.success(), "{installed:?}");
        runtime
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn call(&self, node: &Node, args: &[&str], capabilities: &str) -> Output {
        let driver =
            std::env::var("WORKLOADNET_CNITOOL").expect("cargo xtask libcni builds and names the driver");
        let mut command = Command::new(driver);
        command
            .args(args)
            .env("CNI_PATH", format!("{}:{OTHERS}", self.path("bin").display()))
            .env("NETCONFPATH", self.path("net.d"))
            .env("CACHE_DIR", self.path("cache"))
            .env("CAP_ARGS", capabilities);
        // On the node, as runtimes are: plugins behind ours work on it.
        node.stage.node.within(|| command.output()).unwrap().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, node: &Node, args: &[&str], capabilities: &str) -> String {
        let output = self.call(node, args, capabilities);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, node: &Node, args: &[&str]) -> String {
        let output = self.call(node, args, "");
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn every_verb_works_under_libcni() {
    let mut node = Node::started();
    let runtime = Runtime::new(&node, &[]);
    let sandbox = Sandbox::new();
    let path = sandbox.path();
    let call = |node: &Node, verb: &str| runtime.succeeds(node, &[verb, "workloadnet", "web-1", &path], "");
    let result: Value = serde_json::from_str(&call(&node, "ADD")).unwrap();
    assert_eq!(result["cniVersion"], "1.1.0", "the highest that both know");
    assert_eq!(result["ips"].as_array().unwrap().len(), 2);
    call(&node, "CHECK");
    runtime.succeeds(&node, &["STATUS", "workloadnet"], "");
    call(&node, "GC");
    assert_eq!(node.links().len(), 1);
    node.crash();
    let status = runtime.fails(&node, &["STATUS", "workloadnet"]);
    assert!(
        status.contains("code 50") && status.contains("cannot be reached"),
        "{status}"
    );
    call(&node, "DEL");
    call(&node, "DEL");
    node.start();
    call(&node, "ADD");
    runtime.succeeds(&node, &["GC", "workloadnet"], "");
    assert!(node.links().is_empty());
    let refused = runtime.fails(&node, &["ADD", "workloadnet", "web-1", "/dev/null"]);
    assert!(
        refused.contains("code 8") && refused.contains("/dev/null"),
        "{refused}"
    );
}

/// Debian's plugins that run after ours.
const CHAINED: [&str; 4] = ["tuning", "bandwidth", "portmap", "firewall"];

#[test]
fn other_plugins_work_behind_ours() {
    for plugin in CHAINED {
        assert!(
            Path::new(OTHERS).join(plugin).exists(),
            "Debian's containernetworking-plugins are needed"
        );
    }
    let node = Node::started();
    let chain: Vec<&str> = CHAINED.iter().flat_map(|plugin| ["--chain", plugin]).collect();
    let runtime = Runtime::new(&node, &chain);
    let sandbox = Sandbox::new();
    let path = sandbox.path();
    let limits = r#"{"bandwidth":{"ingressRate":1000000,"ingressBurst":1000000},
        "portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#;
    let web = |verb| [verb, "workloadnet", "web-1", &path];
    let result: Value = serde_json::from_str(&runtime.succeeds(&node, &web("ADD"), limits)).unwrap();
    assert_eq!(result["cniVersion"], "1.0.0");
    let link = node.links().remove(0);
    let qdiscs = node
        .stage
        .node
        .within(|| Command::new("tc").args(["qdisc", "show", "dev", &link]).output())
        .unwrap()
        .unwrap();
    let qdiscs = String::from_utf8(qdiscs.stdout).unwrap();
    assert!(
        qdiscs.contains("tbf") && qdiscs.contains("rate 1Mbit"),
        "{qdiscs}"
    );
    let rules = |table: &str| {
        let listed = node
            .stage
            .node
            .within(|| Command::new("iptables").args(["-t", table, "-S"]).output());
        String::from_utf8(listed.unwrap().unwrap().stdout).unwrap()
    };
    let address = result["ips"][0]["address"].as_str().unwrap();
    let address = address.split_once('/').unwrap().0;
    assert!(
        rules("nat").contains(&format!("--dport 8080 -j DNAT --to-destination {address}:80")),
        "{}",
        rules("nat")
    );
    assert!(rules("filter").contains(address), "{}", rules("filter"));
    // Not asked for a CHECK: in both families at once, portmap 1.1.1 looks for rules of IPv4 in the table of IPv6.
    runtime.succeeds(&node, &web("DEL"), limits);
    assert!(node.links().is_empty());
    assert!(!rules("nat").contains(address) && !rules("filter").contains(address));
}

#[test]
fn other_plugins_behind_ours_are_checked() {
    let node = Node::started();
    let runtime = Runtime::new(&node, &["--chain", "tuning", "--chain", "bandwidth"]);
    let sandbox = Sandbox::new();
    let path = sandbox.path();
    let limits = r#"{"bandwidth":{"ingressRate":1000000,"ingressBurst":1000000}}"#;
    for verb in ["ADD", "CHECK", "DEL"] {
        runtime.succeeds(&node, &[verb, "workloadnet", "web-1", &path], limits);
    }
    assert!(node.links().is_empty());
}
