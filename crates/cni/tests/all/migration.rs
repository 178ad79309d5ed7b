//! A node whose pods were made by Debian's ptp and host-local under the real libcni, moved to the daemon by the command line,
//! as docs/migration.md says.

use crate::node::{Node, Sandbox};
use serde_json::Value;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const OTHERS: &str = "/usr/lib/cni";
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Old {
    folder: TempDir,
}

impl Old {
    pub(crate) fn new() -> Self {
        let old = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(old.path("net.d")).unwrap();
        std::fs::create_dir(old.path("networks")).unwrap();
        old.network("old", "ptp", "10.77.0.0/24", "fd77:77:77::/64", "");
        old.network("bridged", "bridge", "10.88.0.0/24", "fd88::/64", "");
        old.network(
            "chained",
            "ptp",
            "10.77.0.0/24",
            "fd77:77:77::/64",
            r#",{"type":"firewall"}"#,
        );
        old
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub(crate) fn network(&self, name: &str, kind: &str, v4: &str, v6: &str, chain: &str) {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"{kind}","ipMasq":true,"isGateway":true,
               "ipam":{{"type":"host-local","dataDir":{:?},"ranges":[[{{"subnet":"{v4}"}}],[{{"subnet":"{v6}"}}]],
               "routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"::/0"}}]}}}}{chain}]}}"#,
            self.path("networks")
        );
        std::fs::write(self.path(&format!("net.d/{name}.conflist")), text).unwrap();
    }

    fn call(&self, node: &Node, verb: &str, network: &str, id: &str, path: &str) -> Output {
        let driver =
            std::env::var("WORKLOADNET_CNITOOL").expect("cargo xtask libcni builds and names the driver");
        let mut command = Command::new(driver);
        command
            .args([verb, network, id, path])
            .env("CNI_PATH", OTHERS)
            .env("NETCONFPATH", self.path("net.d"))
            .env("CACHE_DIR", self.path(""));
        node.stage.node.within(|| command.output()).unwrap().unwrap()
    }

    pub(crate) fn add(&self, node: &Node, network: &str, id: &str) -> Pod {
        let sandbox = Sandbox::new();
        let output = self.call(node, "ADD", network, id, &sandbox.path());
        assert!(output.status.success(), "{output:?}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ips = result["ips"].as_array().unwrap().iter().map(|ip| {
            let text = ip["address"].as_str().unwrap();
            text.split_once('/').unwrap().0.parse().unwrap()
        });
        Pod {
            ips: ips.collect(),
            sandbox,
        }
    }

    /// `workloadnet adopt --from host-local ARGS`.
    pub(crate) fn command(&self, node: &Node, args: &[&str]) -> Command {
        let mut command = Command::new(stage::sibling("workloadnet").unwrap());
        command
            .arg("--socket")
            .arg(node.socket())
            .args(["adopt", "--from", "host-local", "--data-dir"])
            .arg(self.path("networks"))
            .arg("--results-dir")
            .arg(self.path("results"))
            .args(args);
        command
    }

    /// Its exit code, and what it says.
    pub(crate) fn adopt(&self, node: &Node, args: &[&str]) -> (Option<i32>, String) {
        let output = self.command(node, args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let mut all = Vec::new();
        let networks = std::fs::read_dir(self.path("networks")).unwrap();
        let networks =
            networks.map(|entry| format!("networks/{}", entry.unwrap().file_name().to_str().unwrap()));
        for folder in networks.chain(["results".to_owned()]) {
            let Ok(entries) = std::fs::read_dir(self.path(&folder)) else {
                continue;
            };
            all.extend(
                entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap())),
            );
        }
        all.sort();
        all
    }
}

pub(crate) struct Pod {
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) sandbox: Sandbox,
}

fn rules(node: &Node) -> String {
    let list = |program: &str| {
        let listed = node
            .stage
            .node
            .within(|| Command::new(program).args(["-t", "nat", "-S"]).output());
        String::from_utf8(listed.unwrap().unwrap().stdout).unwrap()
    };
    list("iptables") + &list("ip6tables")
}

#[test]
fn a_node_of_ptp_and_host_local_moves_as_the_guide_says() {
    let node = Node::started();
    let old = Old::new();
    let (a, b) = (old.add(&node, "old", "a"), old.add(&node, "old", "b"));
    // A container that died without a DEL.
    drop(old.add(&node, "old", "dead"));
    stage::wait::eventually(
        LIMIT,
        "the daemon answers",
        || old.adopt(&node, &[]).0,
        |code| *code == Some(0),
    );
    // One of another network, whose cached result is torn while it lives.
    let live = old.add(&node, "bridged", "live");
    let torn = old.path("results/bridged-live-eth0");
    std::fs::write(&torn, "{\"kind\":\"cniCa").unwrap();
    let before = old.files();

    let (code, said) = old.adopt(&node, &["--network", "old"]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "possible   a/eth0 10.77.0.2,fd77:77:77::2",
        "possible   b/eth0 10.77.0.3,fd77:77:77::3",
        "stale      dead/eth0",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let (code, said) = old.adopt(&node, &["--take", "--network", "old"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("taken      a/eth0"), "{said}");
    let (code, said) = old.adopt(&node, &["--undo"]);
    assert_eq!(
        (code, said.as_str()),
        (
            Some(0),
            "undone     a/eth0\nundone     b/eth0\nof owner workloadnet\n"
        )
    );
    assert_eq!(old.files(), before);
    // While it is not committed, the old plugin can still take its pod away.
    assert_eq!(old.adopt(&node, &["--take", "--network", "old"]).0, Some(0));
    let pings = |pod: &Pod| {
        for ip in &pod.ips {
            stage::ping(&a.sandbox.namespace, *ip, LIMIT).unwrap();
        }
    };
    pings(&b);

    let (code, said) = old.adopt(&node, &["--commit", "--clean"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("committed  a/eth0") && said.contains("cleaned    dead/eth0"),
        "{said}"
    );
    assert!(said.contains("left       live/eth0"), "{said}");
    let left = old.files();
    let is_left = |file: &str| left.iter().any(|name| name == file);
    assert!(
        !left
            .iter()
            .any(|file| file.starts_with("networks/old") || file.starts_with("results/old"))
            && is_left("networks/bridged/10.88.0.2")
            && is_left("results/bridged-live-eth0"),
        "a live pod's stay: {left:?}"
    );
    // The commands that it names take away what ptp left in others' tables.
    assert!(rules(&node).contains("CNI-"));
    for command in said
        .lines()
        .filter(|line| line.starts_with("iptables") || line.starts_with("ip6tables"))
    {
        let run = || Command::new("sh").args(["-c", command]).output();
        let output = node.stage.node.within(run).unwrap().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
    assert!(
        !rules(&node).contains("10.77.0.2") && !rules(&node).contains("fd77:77:77::3"),
        "{}",
        rules(&node)
    );
    pings(&b);
    drop(live);
    std::fs::remove_file(torn).unwrap();
    // A second commit has nothing left to do.
    assert_eq!(
        old.adopt(&node, &["--commit"]),
        (Some(0), "nothing to commit\n".to_owned())
    );
}

#[test]
fn files_that_do_not_fit_are_told_one_by_one_and_nothing_is_taken_over() {
    let node = Node::started();
    let old = Old::new();
    let _good = old.add(&node, "old", "good");
    let _bridged = old.add(&node, "bridged", "bridged");
    let _chained = old.add(&node, "chained", "chained");
    stage::wait::eventually(
        LIMIT,
        "the daemon answers",
        || old.adopt(&node, &["--network", "old"]).0,
        |code| *code == Some(0),
    );
    std::fs::write(old.path("networks/old/10.77.0.99"), "").unwrap();
    std::fs::write(old.path("networks/old/10.77.0.98"), "nobody\r\neth0").unwrap();
    std::fs::write(old.path("results/old-torn-eth0"), "{\"kind\":\"cniCa").unwrap();
    let before = old.files();
    let (code, said) = old.adopt(&node, &["--take"]);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "is a port of a bridge",
        "10.88.0.2 is in none of this node's prefixes",
        "firewall was called after it, and may hold something of it",
        "10.77.0.99: it names no container",
        "old-torn-eth0: it is not JSON",
        "no result is cached for it",
        "nothing was taken over",
        "possible   good/eth0",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(node.links(), Vec::<String>::new());
    assert_eq!(old.files(), before);
    let (code, said) = old.adopt(&node, &["--network", "nowhere"]);
    assert!(
        code == Some(1) && said.contains("there is no network \"nowhere\""),
        "{said}"
    );
    // What can be, if one insists.
    let (code, said) = old.adopt(&node, &["--take", "--partial"]);
    assert!(code == Some(1) && said.contains("taken      good/eth0"), "{said}");
    let (code, said) = old.adopt(&node, &["--commit"]);
    assert!(code == Some(0) && said.contains("committed  good/eth0"), "{said}");
    assert!(
        old.files().contains(&"networks/old/10.77.0.98".to_owned()),
        "kept without --clean"
    );
}
