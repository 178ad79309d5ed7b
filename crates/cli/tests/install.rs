//! Installing the CNI plugin, in folders of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        fs::write(machine.path("plugin"), "the plugin").unwrap();
        machine
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn run(&self, command: &str, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_workloadnet"))
            .arg(command)
            .arg("--bin-dir")
            .arg(self.path("opt/bin"))
            .arg("--conf-dir")
            .arg(self.path("etc/net.d"))
            .args(args)
            .env_remove("WORKLOADNET_SOCKET")
            .output()
            .unwrap()
    }

    #[track_caller]
    fn install(&self, args: &[&str]) -> Value {
        let plugin = self.path("plugin");
        let output = self.run(
            "install-cni",
            &[&["--plugin", plugin.to_str().unwrap()], args].concat(),
        );
        assert!(output.status.success(), "{output:?}");
        let conflist = fs::read(self.path("etc/net.d/10-workloadnet.conflist")).unwrap();
        serde_json::from_slice(&conflist).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn plugin_and_network_are_put_where_runtimes_look_and_taken_away() {
    let machine = Machine::new();
    let expected = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": "workloadnet",
        "plugins": [{ "type": "workloadnet-cni", "capabilities": { "dns": true, "ips": true, "portMappings": true } }],
    });
    for _ in 0..2 {
        assert_eq!(machine.install(&[]), expected);
    }
    assert_eq!(machine.names("etc/net.d"), ["10-workloadnet.conflist"]);
    assert_eq!(machine.names("opt/bin"), ["workloadnet-cni"]);
    assert_eq!(
        fs::read(machine.path("opt/bin/workloadnet-cni")).unwrap(),
        b"the plugin"
    );
    assert_eq!(mode(&machine.path("opt/bin/workloadnet-cni")), 0o755);
    assert_eq!(mode(&machine.path("etc/net.d/10-workloadnet.conflist")), 0o644);
    // What others have put there is theirs.
    fs::write(machine.path("etc/net.d/20-other.conflist"), "{}").unwrap();
    for expected in [2, 1] {
        let output = machine.run("uninstall-cni", &[]);
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap().lines().count(),
            expected
        );
    }
    assert_eq!(machine.names("etc/net.d"), ["20-other.conflist"]);
    assert!(machine.names("opt/bin").is_empty());
}

#[test]
fn a_network_has_what_was_asked_for() {
    let machine = Machine::new();
    let args = "--socket /run/other.sock --owner k8s.io --mtu 1400 --capability dns --capability mac --capability portMappings --chain portmap --chain tuning";
    let args: Vec<&str> = args.split(' ').collect();
    let plugins = json!([
        {
            "type": "workloadnet-cni", "socket": "/run/other.sock", "owner": "k8s.io", "mtu": 1400,
            "capabilities": { "dns": true, "mac": true },
        },
        { "type": "portmap", "capabilities": { "portMappings": true } },
        { "type": "tuning" },
    ]);
    let network = machine.install(&args);
    assert_eq!(network["plugins"], plugins);
    // Those behind may be older than ours.
    assert_eq!(
        (&network["cniVersion"], network.get("cniVersions")),
        (&json!("1.0.0"), None)
    );
    let output = machine.run("install-cni", &["--capability", "wings"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = machine.run("install-cni", &["--name", "../x"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // With which each container would be refused.
    let output = machine.run("install-cni", &["--mtu", "60"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let long = "x".repeat(64);
    for option in ["--owner", "--name"] {
        let output = machine.run("install-cni", &[option, &long]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains(option) && error.contains("has 64 bytes, 63 is the most"),
            "{error}"
        );
    }
}

#[test]
fn a_network_is_not_there_before_its_plugin() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("opt/bin/workloadnet-cni")).unwrap();
    let plugin = machine.path("plugin");
    let output = machine.run("install-cni", &["--plugin", plugin.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("cannot write") && error.contains("opt/bin/workloadnet-cni"),
        "{error}"
    );
    assert!(!machine.path("etc/net.d").exists());
    assert_eq!(
        machine.names("opt/bin"),
        ["workloadnet-cni"],
        "nothing half-made stays"
    );
    let output = machine.run("install-cni", &["--plugin", "/nowhere/plugin"]);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("/nowhere/plugin")
    );
}

#[test]
fn the_plugin_stays_for_as_long_as_a_network_needs_it() {
    let machine = Machine::new();
    machine.install(&[]);
    machine.install(&["--name", "second"]);
    fs::write(
        machine.path("etc/net.d/99-own.conf"),
        r#"{ "type": "workloadnet-cni" }"#,
    )
    .unwrap();
    fs::write(machine.path("etc/net.d/99-torn.conflist"), r#"{ "plugins": ["#).unwrap();
    let uninstall = |args: &[&str]| {
        let output = machine.run("uninstall-cni", args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = uninstall(&["--name", "second"]);
    assert!(text.contains("the plugin stays, for") && text.contains("10-workloadnet.conflist"));
    assert_eq!(machine.names("opt/bin"), ["workloadnet-cni"]);
    assert!(uninstall(&[]).contains("99-own.conf"));
    assert_eq!(machine.names("opt/bin"), ["workloadnet-cni"]);
    fs::remove_file(machine.path("etc/net.d/99-own.conf")).unwrap();
    uninstall(&[]);
    assert!(machine.names("opt/bin").is_empty());
}

/// Every container would be refused later.
#[test]
fn a_socket_that_cannot_be_one_is_refused_before_anything_is_written() {
    let machine = Machine::new();
    let plugin = machine.path("plugin");
    let long = format!("/{}", "x".repeat(200));
    for socket in [OsStr::new(&long), OsStr::from_bytes(b"/run/\xff.sock")] {
        let output = Command::new(env!("CARGO_BIN_EXE_workloadnet"))
            .args(["install-cni", "--plugin"])
            .arg(&plugin)
            .arg("--bin-dir")
            .arg(machine.path("opt/bin"))
            .arg("--conf-dir")
            .arg(machine.path("etc/net.d"))
            .arg("--socket")
            .arg(socket)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!machine.path("opt").exists() && !machine.path("etc").exists());
    }
}

#[test]
fn the_documents_show_the_network_that_is_written() {
    let page = include_str!("../../../docs/runtimes.md");
    let (_, rest) = page.split_once("```json\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let shown: Value = serde_json::from_str(shown).unwrap();
    assert_eq!(shown, Machine::new().install(&[]));
}
