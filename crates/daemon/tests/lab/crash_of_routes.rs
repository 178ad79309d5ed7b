//! SIGKILL after each kernel step of a change of peers: the next daemon makes of it what the list says, from the list and the
//! kernel alone, and what strangers have stays.

use std::os::unix::process::ExitStatusExt as _;

use crate::daemon::{Build, Daemon};
use crate::witness::{run, world};
use stage::Namespace;
use stage::wait::{PATIENCE, eventually};

/// More steps than any of the changes has.
const MANY: u32 = 100;

/// Nobody.
const NONE: &str = "peer = []\n";
/// b on the node's link, c behind a router.
const TWO: &str = r#"
[[peer]]
name = "b"
addresses = ["192.0.2.2", "2001:db8:1::2"]
prefixes = ["10.77.2.0/24", "fd77:2::/64"]
[[peer]]
name = "c"
addresses = ["198.51.100.3", "2001:db8:2::3"]
prefixes = ["10.77.3.0/24", "fd77:3::/64"]
"#;
/// b has moved behind the router, c is gone, d has come.
const OTHERS: &str = r#"
[[peer]]
name = "b"
addresses = ["198.51.100.2", "2001:db8:2::2"]
prefixes = ["10.77.2.0/24", "fd77:2::/64"]
[[peer]]
name = "d"
addresses = ["192.0.2.4", "2001:db8:1::4"]
prefixes = ["10.77.4.0/24", "fd77:4::/64"]
"#;

fn node() -> Daemon {
    let mut daemon = Daemon::new();
    for command in [
        "ip link add under type veth peer name wire",
        // Without addresses that come into use in their own time.
        "ip link set under addrgenmode none",
        "ip link set wire addrgenmode none",
        "ip address add 192.0.2.1/24 dev under",
        "ip address add 2001:db8:1::1/64 dev under nodad",
        "ip link set wire up",
        "ip link set under up",
        "ip route add 198.51.100.0/24 via 192.0.2.254",
        "ip -6 route add 2001:db8:2::/64 via 2001:db8:1::254",
        // Strangers'.
        "ip route add 10.99.0.0/16 via 192.0.2.99 proto 99",
        "ip route add 10.77.3.0/24 via 192.0.2.99 metric 77 proto 99",
        "ip -6 route add fd99::/32 via 2001:db8:1::99 proto 99",
        "ip address add 10.98.0.1/32 dev lo",
        "ip link add stranger type vxlan id 99 dstport 4790 nolearning",
        "ip link set stranger addrgenmode none",
        "ip link set stranger up",
        "bridge fdb add 02:00:00:00:00:99 dev stranger dst 192.0.2.99",
        "ip neighbour add 10.97.0.1 lladdr 02:00:00:00:00:99 dev stranger nud permanent",
    ] {
        run(&daemon.node.node, command);
    }
    daemon.set_prefixes(&["10.77.1.0/24", "fd77:1::/64"]);
    let file = daemon.folder().join("peers.toml");
    daemon.set_rest(format!("[routes]\nmode = \"auto\"\npeers = {file:?}\n"));
    daemon
}

fn list(daemon: &Daemon, text: &str) {
    let (file, fresh) = (daemon.folder().join("peers.toml"), daemon.folder().join("fresh"));
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, file).unwrap();
}

/// All that routes to other nodes may be made of, and the tables.
fn seen(node: &Namespace) -> Vec<String> {
    let mut lines = world(node);
    let details = [
        "ip -o -4 address show dev lo",
        "ip -o -6 address show dev lo",
        "ip -4 route show",
        "ip -6 route show",
    ];
    for command in details {
        lines.extend(run(node, command).lines().map(|line| line.trim().to_owned()));
    }
    // Of all devices at once: asked for by name, it may be gone before the answer.
    let forwarding = run(node, "bridge fdb show");
    let of_ours = forwarding.lines().filter(|line| line.contains(" dev wkvx"));
    lines.extend(of_ours.map(str::to_owned));
    lines.sort();
    lines
}

/// What has the marks of the strangers, and what they look after.
fn of_strangers(node: &Namespace) -> Vec<String> {
    [
        "ip route show proto 99",
        "ip -6 route show proto 99",
        "ip -o -4 address show dev lo label lo scope global to 10.98.0.1/32",
        "ip link show stranger",
        "bridge fdb show dev stranger",
        "ip neighbour show dev stranger nud permanent",
    ]
    .iter()
    .flat_map(|command| run(node, command).lines().map(str::to_owned).collect::<Vec<_>>())
    .collect()
}

/// Starts the product with a list, and waits until the kernel holds what follows from it.
fn start_with(daemon: &mut Daemon, text: &str) {
    list(daemon, text);
    daemon.start();
    let look = || (daemon.caller().node().warning, daemon.caller().findings());
    eventually(PATIENCE, "routes stand", look, |(said, found)| {
        found.is_empty() && !said.iter().any(|text| text.contains("not known yet"))
    });
}

fn crashed_at_every_step(before: &str, after: &str, least: u32) {
    let mut daemon = node();
    let strangers = of_strangers(&daemon.node.node);
    assert!(strangers.len() >= 7, "{strangers:#?}");
    start_with(&mut daemon, after);
    let expected = seen(&daemon.node.node);
    daemon.stop();
    for step in 1..MANY {
        start_with(&mut daemon, before);
        daemon.stop();
        let alive = daemon.try_start(Build::CrashingAfter(step));
        assert!(alive, "the start has no steps to crash after");
        list(&daemon, after);
        // A change has more than `least` steps, of which the last ones may be such as cannot be seen.
        let over =
            |daemon: &mut Daemon| daemon.has_crashed() || step > least && seen(&daemon.node.node) == expected;
        eventually(
            PATIENCE,
            "it has crashed, or is done",
            || over(&mut daemon),
            |&over| over,
        );
        // Whoever is done may crash after such a step while it is asked to stop.
        let has_crashed = daemon.has_crashed() || {
            daemon.ask_to_stop();
            let status = daemon.wait();
            assert!(
                status.success() || status.signal() == Some(9),
                "the daemon ended with {status}"
            );
            !status.success()
        };
        assert_eq!(of_strangers(&daemon.node.node), strangers, "after step {step}");
        if !has_crashed {
            return;
        }
        start_with(&mut daemon, after);
        assert_eq!(seen(&daemon.node.node), expected, "after step {step}");
        assert_eq!(of_strangers(&daemon.node.node), strangers, "after step {step}");
        daemon.stop();
    }
    panic!("a change of more than {MANY} steps");
}

#[test]
fn a_crash_at_any_step_while_peers_come_is_mended_from_the_list() {
    crashed_at_every_step(NONE, TWO, 9);
}

#[test]
fn a_crash_at_any_step_while_peers_move_come_and_go_is_mended_from_the_list() {
    crashed_at_every_step(TWO, OTHERS, 10);
}

#[test]
fn a_crash_at_any_step_while_peers_go_is_mended_from_the_list() {
    crashed_at_every_step(OTHERS, NONE, 6);
}

/// Prefixes without a workload, too.
#[test]
fn a_restart_moves_neither_address_nor_route_whoever_tells_the_prefixes() {
    for source in ["fixed", "file", "api"] {
        let mut daemon = node();
        let folder = daemon.folder().to_owned();
        let (peers, prefixes) = (folder.join("peers.toml"), folder.join("prefixes.toml"));
        let told = ["10.77.1.0/24".to_owned(), "fd77:1::/64".to_owned()];
        let settings = match source {
            "fixed" => String::new(),
            "file" => format!("[prefixes]\nsource = \"file\"\nfile = {prefixes:?}\n"),
            source => format!("[prefixes]\nsource = {source:?}\n"),
        };
        if source != "fixed" {
            daemon.set_prefixes(&[]);
        }
        daemon.set_rest(format!(
            "[routes]\nmode = \"auto\"\npeers = {peers:?}\n{settings}"
        ));
        std::fs::write(&prefixes, format!("prefixes = {told:?}")).unwrap();
        list(&daemon, TWO);
        match source {
            "api" => {
                daemon.start_lacking("nobody has called SetPrefixes");
                let told = told.to_vec();
                let outcome = daemon
                    .caller()
                    .talk(async |client| client.set_prefixes(told).await);
                outcome.unwrap();
            }
            _ => daemon.start(),
        }
        let stands = |daemon: &Daemon| {
            let look = || (daemon.caller().node().warning, daemon.caller().findings());
            eventually(PATIENCE, "routes stand", look, |(said, found)| {
                found.is_empty() && !said.iter().any(|text| text.contains("not known yet"))
            });
        };
        eventually(
            PATIENCE,
            "all is routed",
            || seen(&daemon.node.node).join("\n"),
            |all| all.contains("fd77:3::/64 via") && all.contains("10.77.1.1/32"),
        );
        stands(&daemon);
        let before = seen(&daemon.node.node);
        let mut monitor = std::process::Command::new("ip");
        monitor
            .args(["monitor", "route", "link", "neigh", "address"])
            .stdout(std::process::Stdio::piped());
        let mut monitor = daemon.spawn(monitor);
        for is_lost in [false, true] {
            daemon.crash();
            if source == "file" && is_lost {
                // Who tells them is away.
                std::fs::remove_file(&prefixes).unwrap();
                daemon.start_lacking("cannot be read: No such file");
            } else {
                daemon.start();
            }
            stands(&daemon);
            assert_eq!(seen(&daemon.node.node), before, "{source}");
        }
        monitor.kill().unwrap();
        let said = String::from_utf8(monitor.wait_with_output().unwrap().stdout).unwrap();
        let ours = said
            .lines()
            .filter(|line| line.contains("proto 77") || line.contains("wkvx8") || line.contains("10.77.1.1"));
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{source}");
    }
}
