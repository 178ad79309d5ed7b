//! What comes with the program: flags, by which settings are checked and printed and nothing is started; and the units that
//! start it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use daemon::config::Config;
use model::address::{Family, Mac};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::routes::Tunnel;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Whether it succeeded, and what it wrote to either output.
fn run(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_workloadnetd"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn checked(path: &Path) -> (bool, String, String) {
    run(&["--config", path.to_str().unwrap(), "--check-config"])
}

#[test]
fn printed_settings_are_a_file_that_says_the_same() {
    let (good, printed, _) = run(&["--print-config"]);
    assert!(good);
    assert_eq!(Config::parse(&printed).unwrap(), Config::default());
    let (_folder, path) = file(&printed);
    assert_eq!(
        checked(&path),
        (true, "the settings can be used\n".to_owned(), String::new())
    );
    let again = run(&["--config", path.to_str().unwrap(), "--print-config"]);
    assert_eq!(again, (true, printed, String::new()));
}

#[test]
fn flags_count_instead_of_the_file() {
    let (_folder, path) =
        file("[socket]\npath = \"/a\"\n[network]\nprefixes = [\"10.1.0.0/24\"]\nmtu = 1400\n");
    let (good, printed, _) = run(&[
        "--config",
        path.to_str().unwrap(),
        "--socket",
        "/b",
        "--state",
        "/c",
        "--proc-sys-net",
        "/d",
        "--prefix",
        "10.2.0.0/24",
        "--prefix",
        "fd02::/64",
        "--print-config",
    ]);
    assert!(good);
    let config = Config::parse(&printed).unwrap();
    assert_eq!(
        [
            config.socket.path,
            config.network.state,
            config.network.proc_sys_net
        ],
        ["/b", "/c", "/d"].map(PathBuf::from)
    );
    let prefixes = config.network.prefixes.unwrap();
    assert_eq!(prefixes, ["10.2.0.0/24", "fd02::/64"]);
    assert_eq!(config.network.mtu, Some(1400));
}

#[test]
fn a_mistake_is_told_with_file_line_and_column() {
    let (_folder, path) = file("# mine\n[network]\nmasquarade = true\n");
    let (good, out, error) = checked(&path);
    assert!(!good && out.is_empty());
    for part in [
        path.to_str().unwrap(),
        "line 3, column 1",
        "unknown field `masquarade`",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_value_that_cannot_be_used_is_told_by_name_wherever_it_comes_from() {
    for (args, part) in [
        (
            &["--prefix", "10.0.0.0/8", "--prefix", "10.1.0.0/16"][..],
            "10.0.0.0/8 and 10.1.0.0/16 overlap",
        ),
        (&["--prefix", "nonsense"], "network.prefixes \"nonsense\""),
        (&["--socket", "here"], "socket.path \"here\": must be absolute"),
        (&["--config", "/nowhere.toml"], "cannot read /nowhere.toml"),
        (
            &["--config", "/dev/zero"],
            "/dev/zero has more than 1048576 bytes",
        ),
    ] {
        let (good, _, error) = run(&[args, &["--check-config"]].concat());
        assert!(!good && error.contains(part), "{args:?}: {error}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let expected = format!("workloadnetd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"]), (true, expected, String::new()));
}

/// The device of routes to other nodes.
const OF_VXLAN: &str = "wkvx*";

#[test]
fn what_is_shipped_for_other_software_matches_our_links() {
    let networkd = include_str!("../../../packaging/networkd/05-workloadnet.network");
    let key = Key::new(
        Owner::new("k8s.io").unwrap(),
        WorkloadId::new("pod-1").unwrap(),
        InterfaceName::new("eth0").unwrap(),
    );
    let link = key.unwrap().host_link();
    let of_workloads = format!("wk{}", "?".repeat(link.as_str().len() - 2));
    assert!(link.as_str().starts_with("wk"));
    assert_eq!(
        section(networkd, "Match"),
        [format!("Name={of_workloads} {OF_VXLAN}")]
    );
    assert_eq!(section(networkd, "Link"), ["Unmanaged=yes"]);
    let tunnel = Tunnel {
        vni: 8,
        port: 4789,
        family: Family::V4,
        mac: Mac([0; 6]),
        mtu: 1450,
    };
    assert_eq!(tunnel.name(), OF_VXLAN.replace('*', "8"));
    // VXLAN's is loose about the reverse path, and a workload's is strict.
    let sysctls = include_str!("../../../packaging/sysctl.d/90-workloadnet.conf");
    for (links, value) in [(&*of_workloads, 1), (OF_VXLAN, 2)] {
        let line = format!("net.ipv4.conf.{links}.rp_filter = {value}");
        assert!(sysctls.lines().any(|other| other == line), "{line}");
    }
    assert_eq!(sysctls.matches("rp_filter = ").count(), 2);
}

/// The settings of a unit's section (systemd.syntax(7)).
fn section<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let heading = format!("[{name}]");
    unit.lines()
        .skip_while(|line| **line != *heading)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn neither_unit_gives_up_however_often_the_daemon_ends() {
    let service = include_str!("../../../packaging/workloadnetd.service");
    let socket = include_str!("../../../packaging/workloadnetd.socket");
    for (unit, name, setting) in [
        (service, "Unit", "StartLimitIntervalSec=0"),
        (service, "Service", "Restart=always"),
        (service, "Service", "WatchdogSec=30s"),
        (service, "Service", "RestartSteps=8"),
        (service, "Service", "RestartMaxDelaySec=10s"),
        (socket, "Socket", "TriggerLimitIntervalSec=0"),
    ] {
        assert!(section(unit, name).contains(&setting), "[{name}] {setting}");
    }
}

#[test]
fn the_unit_allows_the_sockets_that_settings_ask_for() {
    let service = section(include_str!("../../../packaging/workloadnetd.service"), "Service");
    let mut lines = service.iter();
    let allowed = lines.find_map(|line| line.strip_prefix("RestrictAddressFamilies="));
    let allowed: Vec<&str> = allowed.unwrap().split(' ').collect();
    // Netlink, the daemon's socket, metrics on a port of either family, and an API server.
    for family in ["AF_NETLINK", "AF_UNIX", "AF_INET", "AF_INET6"] {
        assert!(allowed.contains(&family), "{family}");
    }
}

#[test]
fn kubernetes_asks_where_the_settings_say_and_kills_nothing_that_waits() {
    let settings = include_str!("../../../packaging/kubernetes/workloadnetd.toml");
    let listen = Config::parse(settings)
        .unwrap()
        .metrics
        .listen
        .unwrap()
        .to_string();
    assert_eq!(listen, "127.0.0.1:4777");
    let daemonset = include_str!("../../../packaging/kubernetes/daemonset.yaml");
    let lines = || daemonset.lines().map(str::trim);
    let asked = |probe: &str| {
        let of_probe = lines().skip_while(|line| *line != probe).nth(1);
        of_probe.unwrap().to_owned()
    };
    assert_eq!(
        asked("startupProbe:"),
        "httpGet: &lives {host: 127.0.0.1, port: 4777, path: /healthz}"
    );
    assert_eq!(asked("livenessProbe:"), "httpGet: *lives");
    assert_eq!(
        asked("readinessProbe:"),
        "httpGet: {host: 127.0.0.1, port: 4777, path: /readyz}"
    );
    assert!(lines().any(|line| line.contains("containerPort: 4777, hostIP: 127.0.0.1")));
}
