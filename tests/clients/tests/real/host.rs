//! A host with the daemon on it, installed as a user would, and with an outside host beyond its uplink.

use crate::member::Member;
use crate::room::{Room, Running};
use client::{Client, inspection};
use stage::wait::{PATIENCE, eventually};
use stage::{Echo, NODE, Node, OUTSIDE};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use tokio::runtime::Runtime;

pub(crate) struct Host {
    pub(crate) room: Room,
    pub(crate) stage: Node,
    runtime: Runtime,
    client: Client,
    daemon: RefCell<Option<Running>>,
    /// What the kernel held before any client came.
    before: BTreeSet<String>,
}

impl Host {
    /// With the daemon ready and the plugin installed.
    pub(crate) fn new() -> Self {
        let mut host = Self::bare();
        host.install_plugin();
        host.start_daemon();
        host.before = host.world();
        host
    }

    /// With the daemon ready, no plugin of any kind, and a release of containerd that was built with go/cni.
    pub(crate) fn with_release(release: &str) -> Self {
        let folder = built("containerd").join(release);
        assert!(
            folder.join("containerd").is_file(),
            "{} is missing: cargo xtask containerd {release} builds it",
            folder.display()
        );
        let mut host = Self::bare();
        host.room.prefer(&folder);
        host.room.trace();
        host.start_daemon();
        host.before = host.world();
        host
    }

    fn bare() -> Self {
        let stage = Node::new().unwrap();
        for namespace in [&stage.node, &stage.outside] {
            Echo::start(namespace).unwrap();
        }
        let room = Room::new(&stage.node);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let socket = room.reach("/run/workloadnet/workloadnet.sock");
        let client = runtime.block_on(async { Client::new(socket) }).unwrap();
        Self {
            room,
            stage,
            runtime,
            client,
            daemon: RefCell::new(None),
            before: BTreeSet::new(),
        }
    }

    /// As docs/runtimes.md says, with the plugin for loopback, which containerd 1 starts for every pod.
    fn install_plugin(&self) {
        let program = stage::sibling("workloadnet").unwrap();
        self.room.run(&[program.to_str().unwrap(), "install-cni"]);
        self.room
            .run(&["install", "-t", "/opt/cni/bin", "/usr/lib/cni/loopback"]);
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) fn start_daemon(&self) {
        assert!(self.daemon.borrow().is_none(), "a daemon is running");
        let program = stage::sibling("workloadnetd").unwrap();
        let mut daemon = self.room.start("workloadnetd", &[program.to_str().unwrap()]);
        let status = || {
            assert!(!daemon.has_ended(), "the daemon has ended");
            self.runtime.block_on(self.client.status())
        };
        let _ready = eventually(PATIENCE, "the daemon is ready", status, Result::is_ok);
        *self.daemon.borrow_mut() = Some(daemon);
    }

    /// SIGKILL.
    pub(crate) fn kill_daemon(&self) {
        let daemon = self.daemon.take().expect("a daemon is running");
        self.room.kill(daemon);
    }

    /// Whether the daemon is down with this many deletions waiting for it.
    #[track_caller]
    pub(crate) fn expect_waiting(&self, deletions: usize) {
        assert!(self.daemon.borrow().is_none(), "a daemon is running");
        assert_eq!(self.waiting().len(), deletions, "{:?}", self.waiting());
    }

    /// Deletions that wait for the daemon.
    fn waiting(&self) -> Vec<PathBuf> {
        let queue = fs::read_dir(self.room.reach("/run/workloadnet/queue"));
        queue
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    /// What the daemon says is attached.
    pub(crate) fn attachments(&self) -> Vec<inspection::Attachment> {
        self.runtime.block_on(self.client.list(None)).unwrap()
    }

    /// The workload with this id.
    #[track_caller]
    pub(crate) fn attachment(&self, workload: &str) -> inspection::Attachment {
        let all = self.attachments();
        let is_it = |attachment: &&inspection::Attachment| {
            attachment
                .key
                .as_ref()
                .is_some_and(|key| key.workload_id == workload)
        };
        let found = all.iter().find(is_it).cloned();
        found.unwrap_or_else(|| panic!("{workload} is not attached: {all:#?}"))
    }

    /// Whether the daemon lists a workload with the addresses that its client reports.
    #[track_caller]
    pub(crate) fn expect_listed(&self, workload: &str, member: &dyn Member) {
        let listed = self.attachment(workload).ip;
        let listed: Vec<IpAddr> = listed.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(listed, member.addresses(), "{workload}");
    }

    /// What the kernel was found to hold otherwise than it is to.
    pub(crate) fn findings(&self) -> Vec<String> {
        let findings = self.runtime.block_on(self.client.check(None)).unwrap();
        findings.into_iter().map(|finding| finding.text).collect()
    }

    /// Waits until all is as it was before any client came.
    #[track_caller]
    pub(crate) fn expect_nothing_left(&self) {
        assert_eq!(self.attachments(), []);
        assert_eq!(self.waiting(), Vec::<PathBuf>::new());
        let prefixes = self.runtime.block_on(self.client.node()).unwrap().prefix;
        assert!(prefixes.iter().all(|prefix| prefix.used == 0), "{prefixes:#?}");
        assert_eq!(self.findings(), Vec::<String>::new());
        let now = self.world();
        let (left, lost): (Vec<_>, Vec<_>) = (
            now.difference(&self.before).collect(),
            self.before.difference(&now).collect(),
        );
        assert!(
            left.is_empty() && lost.is_empty(),
            "left: {left:#?}\nlost: {lost:#?}"
        );
    }

    /// Links, addresses, routes, neighbours that somebody has set, and the whole of nftables; but the uplink's link-local
    /// address, which comes when the kernel has made sure that nobody else has it, and the counts of what workloads asked,
    /// which end by themselves a minute later.
    fn world(&self) -> BTreeSet<String> {
        let commands = [
            "ip -o link show",
            "ip -o address show",
            "ip route show table all",
            "ip -6 route show table all",
            "ip neighbour show nud permanent",
            "nft list ruleset",
        ];
        let said = commands.map(|line| self.room.run(&line.split(' ').collect::<Vec<_>>()));
        commands
            .iter()
            .zip(&said)
            .flat_map(|(command, said)| said.lines().map(move |line| format!("{command}: {line}")))
            .filter(|line| !(line.contains("uplink") && line.contains(" fe80:")))
            .filter(|line| !(line.contains("limit rate over") && line.contains("expires")))
            .collect()
    }
}

/// A folder of things that cargo xtask makes beside the programs.
pub(crate) fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).expect("TARGET/PROFILE/deps/real");
    target.join(name)
}

/// The first part of docs/runtimes.md in a language, so that what it tells users to write is what tests use.
pub(crate) fn documented(language: &str) -> &'static str {
    let page = include_str!("../../../../docs/runtimes.md");
    let part = page.split("```").find_map(|part| part.strip_prefix(language));
    part.unwrap_or_else(|| panic!("docs/runtimes.md has no {language}"))
}

/// The host's and the outside host's addresses on their link.
pub(crate) fn host_addresses() -> Vec<IpAddr> {
    NODE.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn outside_addresses() -> Vec<IpAddr> {
    OUTSIDE.iter().map(|text| text.parse().unwrap()).collect()
}
