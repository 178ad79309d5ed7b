//! The real daemon on a node of its own, and containers' namespaces.

use crate::plugin::Network;
use serde_json::json;
use stage::Namespace;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A node; its daemon runs or not.
pub(crate) struct Node {
    pub(crate) stage: stage::Node,
    folder: TempDir,
    daemon: Option<Child>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            stage: stage::Node::new().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            daemon: None,
        }
    }

    pub(crate) fn started() -> Self {
        let mut node = Self::new();
        node.start();
        node
    }

    /// Starts the daemon and does not wait for it: additions do.
    pub(crate) fn start(&mut self) {
        self.start_with("");
    }

    /// The same, with other prefixes than those of the settings' default.
    #[cfg(feature = "libcni")]
    pub(crate) fn start_with_prefixes(&mut self, prefixes: &[&str]) {
        self.start_with(&format!("prefixes = {prefixes:?}\n"));
    }

    fn start_with(&mut self, settings_of_network: &str) {
        let binary = stage::sibling("workloadnetd")
            .expect("the daemon is built beside this test: cargo build --package workloadnet-daemon");
        let settings = self.folder.path().join("workloadnetd.toml");
        let state = self.folder.path().join("run/state.json");
        let text = format!(
            "[socket]\npath = {:?}\n[network]\n{settings_of_network}cool_down_seconds = 0\nstate = {state:?}\n",
            self.socket()
        );
        std::fs::write(&settings, text).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = Command::new(binary);
        command
            .arg("--config")
            .arg(settings)
            .env("RUST_LOG", "info,daemon=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let daemon = self.stage.node.within(|| command.spawn()).unwrap().unwrap();
        assert!(self.daemon.replace(daemon).is_none(), "a daemon is running");
    }

    /// SIGKILL.
    pub(crate) fn crash(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon is running");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/workloadnet.sock")
    }

    /// What the command line says; it has to succeed.
    #[cfg(feature = "libcni")]
    pub(crate) fn said(&self, words: &[&str]) -> String {
        let mut command = Command::new(stage::sibling("workloadnet").unwrap());
        let output = command.arg("--socket").arg(self.socket()).args(words).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Attachments that were taken over, by the container's id: `taken` or `committed`.
    #[cfg(feature = "libcni")]
    pub(crate) fn origins(&self) -> std::collections::BTreeMap<String, String> {
        let listed: serde_json::Value =
            serde_json::from_str(&self.said(&["list", "--output", "json"])).unwrap();
        let all = listed["attachment"].as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        all.iter()
            .map(|of| (text(&of["key"]["workload_id"]), text(&of["origin"])))
            .collect()
    }

    /// What a check finds: nothing.
    #[cfg(feature = "libcni")]
    pub(crate) fn findings(&self) -> String {
        let found: serde_json::Value =
            serde_json::from_str(&self.said(&["check", "--output", "json"])).unwrap();
        found["finding"]
            .as_array()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// So that plugins which wait for it are quick.
    #[cfg(feature = "libcni")]
    pub(crate) fn without_duplicate_detection(&self) {
        let quick = || {
            Command::new("sysctl")
                .args(["-qw", "net.ipv6.conf.default.accept_dad=0"])
                .status()
        };
        assert!(self.stage.node.within(quick).unwrap().unwrap().success());
    }

    pub(crate) fn queue(&self) -> queue::Queue {
        queue::Queue::beside(&self.socket())
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A network of the daemon, whose calls are patient.
    pub(crate) fn network(&self) -> Network {
        Network::on(&self.socket()).with("timeouts", json!({ "ready": 20 }))
    }

    /// Host ends that there are.
    pub(crate) fn links(&self) -> Vec<String> {
        self.stage.node.links("wk").unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            eprintln!("--- the daemon's log ---\n{log}---");
        }
    }
}

/// A container's namespace, with a process in it that ends with this one.
pub(crate) struct Sandbox {
    pub(crate) namespace: Namespace,
    holder: Child,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new().unwrap();
        let mut waiting = Command::new("cat");
        waiting.stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = namespace.within(|| waiting.spawn()).unwrap().unwrap();
        Self { namespace, holder }
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
