//! A daemon that can be told to fail, its node, and what is to be seen of both.

use crate::daemon::{Build, Daemon, attach_with_port};
use crate::sandbox::Sandbox;
use crate::seam::Seam;
use crate::witness::{run, world};
use client::workload::AttachRequest;
use stage::wait::{PATIENCE, eventually};
use std::collections::HashMap;
use std::net::Ipv6Addr;

/// The daemon and its seam.
pub(crate) struct Stand {
    pub(crate) daemon: Daemon,
    pub(crate) seam: Seam,
    /// Bytes of the log that belong to earlier mishaps.
    heard: usize,
}

impl Stand {
    /// Not running yet. Beside it there are two other nodes: one on the uplink's net, and one behind a router.
    pub(crate) fn new() -> Self {
        let mut daemon = Daemon::new();
        let seam = Seam::new(daemon.folder().join("run/faults"));
        // Alone in its folder: where others write, it is waited for until they are done.
        let peers = daemon.folder().join("peers/list.toml");
        std::fs::create_dir(daemon.folder().join("peers")).unwrap();
        let entry = |name: &str, addresses: [&str; 2], prefixes: [&str; 2]| {
            format!("[[peer]]\nname = {name:?}\naddresses = {addresses:?}\nprefixes = {prefixes:?}\n")
        };
        let near = entry("near", stage::OUTSIDE, ["10.78.0.0/24", "fd78::/64"]);
        let far = entry(
            "far",
            ["198.51.100.3", "2001:db8:2::3"],
            ["10.79.0.0/24", "fd79::/64"],
        );
        std::fs::write(&peers, near + &far).unwrap();
        daemon.set_rest(format!("[routes]\nmode = \"auto\"\npeers = {peers:?}\n"));
        Self {
            daemon,
            seam,
            heard: 0,
        }
    }

    /// Starts it, and waits until it serves; `false` where it ended before.
    pub(crate) fn start(&mut self) -> bool {
        let mut command = self.daemon.command(Build::Usual);
        command.env("WORKLOADNET_FAULTS", self.seam.folder());
        self.daemon.adopt(self.daemon.spawn(command));
        let daemon = &mut self.daemon;
        eventually(
            PATIENCE,
            "the daemon is ready or ends",
            || daemon.has_ended() || daemon.recovered(),
            |&over| over,
        );
        !self.daemon.has_ended()
    }

    /// The same, and that it has made its routes to the other nodes.
    pub(crate) fn started() -> Self {
        let mut stand = Self::new();
        assert!(stand.start());
        let caller = stand.daemon.caller();
        eventually(
            PATIENCE,
            "routes stand",
            || (caller.node().warning, caller.findings()),
            |(said, found)| found.is_empty() && !said.iter().any(|text| text.contains("not known yet")),
        );
        stand
    }

    /// What it has logged since this was asked last.
    pub(crate) fn heard(&mut self) -> String {
        let log = self.daemon.logged();
        let fresh = log[self.heard..].to_owned();
        self.heard = log.len();
        fresh
    }

    /// What the kernel holds on the node.
    pub(crate) fn world(&self) -> Vec<String> {
        let node = &self.daemon.node.node;
        let mut world = world(node);
        for look in [
            "ip route show proto 77",
            "ip -6 route show proto 77",
            "ip -br address show dev lo",
            "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
        ] {
            world.extend(run(node, look).lines().map(str::to_owned));
        }
        world
    }

    /// Takes as much away as can be without taking a link of a workload away.
    pub(crate) fn damage(&self, link: &str) {
        let script = self.daemon.folder().join("damage");
        let lines = [
            "set -e".to_owned(),
            format!("ip link set {link} down"),
            format!("ip address flush dev {link}"),
            format!("ip neighbour flush dev {link} nud permanent"),
            format!("ip link set {link} mtu 1300"),
            format!("ip link property del dev {link} altname wk-web"),
            "ip link delete wkvx8".to_owned(),
            "ip route flush proto 77".to_owned(),
            "ip -6 route flush proto 77".to_owned(),
            "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0".to_owned(),
            "nft flush ruleset".to_owned(),
        ];
        std::fs::write(&script, lines.join("\n")).unwrap();
        run(&self.daemon.node.node, &format!("sh {}", script.display()));
    }

    /// Waits until the kernel holds this and the daemon itself misses nothing.
    #[track_caller]
    pub(crate) fn becomes(&self, world: &[String], why: &impl std::fmt::Display) {
        // What fails may be a look of the check's own.
        let caller = self.daemon.caller();
        let findings = || match caller.talk(async |client| client.check(None).await) {
            Ok(findings) => findings.into_iter().map(|finding| finding.text).collect(),
            Err(error) => vec![error.to_string()],
        };
        let look = || (differences(&self.world(), world), findings());
        eventually(
            PATIENCE,
            &format!("{why}: all is as it was"),
            look,
            |(differences, findings)| differences.is_empty() && findings.is_empty(),
        );
    }
}

/// The same each time, with a port and all that is remembered of it.
pub(crate) fn web(sandbox: &Sandbox) -> AttachRequest {
    let addresses = [
        vec![10, 77, 0, 77],
        "fd77::77".parse::<Ipv6Addr>().unwrap().octets().to_vec(),
    ];
    AttachRequest {
        requested_ip: addresses.to_vec(),
        mtu: 1400,
        labels: HashMap::from([("app".to_owned(), "web".to_owned())]),
        ..attach_with_port("web", sandbox, 8443, 443)
    }
}

/// Lines that only one of them has.
pub(crate) fn differences(is: &[String], was: &[String]) -> Vec<String> {
    let beyond = |all: &[String], other: &[String], sign: &str| -> Vec<String> {
        let lines = all.iter().filter(|line| !other.contains(line));
        lines.map(|line| format!("{sign} {line}")).collect()
    };
    [beyond(is, was, "+"), beyond(was, is, "-")].concat()
}
