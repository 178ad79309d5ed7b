//! Three nodes with a daemon each: a and b on one link, c behind a router.
//!
//! ```text
//!  a 192.0.2.1 ---.
//!                 +--- bridge, 192.0.2.254 [router] 198.51.100.254 --- 198.51.100.3 c
//!  b 192.0.2.2 ---'    2001:db8:1::/64              2001:db8:2::/64
//! ```

use crate::daemon::{Daemon, addresses, attach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use stage::Namespace;
use stage::tcp::{Conversation, Server};
use stage::wait::{PATIENCE, eventually};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that take many packets of the largest size.
const MUCH: usize = 300_000;

pub(super) struct Cluster {
    pub(super) router: Namespace,
    pub(super) nodes: Vec<Daemon>,
}

pub(super) struct Workload {
    pub(super) inside: Sandbox,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) mtu: u32,
}

/// What a node is called, where it is, and its prefixes.
const NODES: [(&str, [&str; 2], [&str; 2]); 3] = [
    (
        "a",
        ["192.0.2.1", "2001:db8:1::1"],
        ["10.77.1.0/24", "fd77:1::/64"],
    ),
    (
        "b",
        ["192.0.2.2", "2001:db8:1::2"],
        ["10.77.2.0/24", "fd77:2::/64"],
    ),
    (
        "c",
        ["198.51.100.3", "2001:db8:2::3"],
        ["10.77.3.0/24", "fd77:3::/64"],
    ),
];

pub(super) fn on(namespace: &Namespace, commands: &[String]) {
    commands.iter().for_each(|command| drop(run(namespace, command)));
}

/// The list of peers, the same for every node, of addresses of the families that are told.
pub(super) fn listed(families: &[usize], nodes: &[usize]) -> String {
    let entry = |n: &usize| {
        let (name, addresses, prefixes) = NODES[*n];
        let addresses: Vec<&str> = families.iter().map(|f| addresses[*f]).collect();
        format!("[[peer]]\nname = {name:?}\naddresses = {addresses:?}\nprefixes = {prefixes:?}\n")
    };
    nodes.iter().map(entry).collect()
}

impl Cluster {
    pub(super) fn new(mode: &str, peers: &str) -> Self {
        let router = Namespace::new().unwrap();
        on(
            &router,
            &[
                "ip link set lo up",
                "ip link add lan type bridge",
                "ip link set lan up",
                "ip address add 192.0.2.254/24 dev lan",
                "ip address add 2001:db8:1::254/64 dev lan nodad",
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            ]
            .map(str::to_owned),
        );
        let nodes = NODES.iter().map(|(name, [v4, v6], prefixes)| {
            let mut daemon = Daemon::new();
            daemon.set_prefixes(prefixes);
            let file = daemon.folder().join("peers.toml");
            std::fs::write(&file, peers).unwrap();
            daemon.set_rest(format!("[routes]\nmode = {mode:?}\npeers = {file:?}\n"));
            let path = router.path();
            on(
                &daemon.node.node,
                &[
                    format!("ip link add under type veth peer name to-{name} netns {path}"),
                    format!("ip address add {v4}/24 dev under"),
                    format!("ip address add {v6}/64 dev under nodad"),
                    "ip link set under up".to_owned(),
                ],
            );
            let (here, there) = if *name == "c" { ("2", "1") } else { ("1", "2") };
            let (gateway, far) = if *name == "c" {
                ("198.51.100.254", "192.0.2.0/24")
            } else {
                ("192.0.2.254", "198.51.100.0/24")
            };
            on(
                &router,
                &match *name {
                    "c" => vec![
                        "ip address add 198.51.100.254/24 dev to-c".to_owned(),
                        "ip address add 2001:db8:2::254/64 dev to-c nodad".to_owned(),
                        "ip link set to-c up".to_owned(),
                    ],
                    name => vec![format!("ip link set to-{name} master lan up")],
                },
            );
            on(
                &daemon.node.node,
                &[
                    format!("ip route add {far} via {gateway}"),
                    format!("ip -6 route add 2001:db8:{there}::/64 via 2001:db8:{here}::254"),
                ],
            );
            daemon.start();
            daemon
        });
        let cluster = Self {
            nodes: nodes.collect(),
            router,
        };
        cluster.settled();
        cluster
    }

    /// Every daemon has made its routes.
    pub(super) fn settled(&self) {
        for node in &self.nodes {
            let look = || (node.caller().node().warning, node.caller().findings());
            eventually(PATIENCE, "routes stand", look, |(said, found)| {
                found.is_empty() && !said.iter().any(|text| text.contains("not known yet"))
            });
        }
    }

    pub(super) fn list(&self, text: &str) {
        for node in &self.nodes {
            // As an editor does it.
            let (file, fresh) = (node.folder().join("peers.toml"), node.folder().join("fresh"));
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(fresh, file).unwrap();
        }
    }

    pub(super) fn workload(&self, node: usize, id: &str) -> Workload {
        let inside = Sandbox::new();
        let answer = self.nodes[node].caller().attach(attach(id, &inside)).unwrap();
        let mtu = self.nodes[node]
            .caller()
            .list()
            .into_iter()
            .find(|a| a.key.as_ref().unwrap().workload_id == id);
        Workload {
            inside,
            addresses: addresses(&answer.ip),
            mtu: mtu.unwrap().mtu,
        }
    }

    pub(super) fn ip(&self, node: usize, command: &str) -> String {
        run(&self.nodes[node].node.node, command)
    }

    /// Waits for what a command on a node says.
    pub(super) fn expect(&self, node: usize, command: &str, holds: impl Fn(&String) -> bool) {
        eventually(PATIENCE, command, || self.ip(node, command), holds);
    }
}

/// Much goes from one workload to another and back, over both families, and the other sees who it is.
pub(super) fn talk(from: &Workload, to: &Workload) {
    talk_over(from, to, &[0, 1]);
}

/// Over IPv4, 0, or IPv6, 1.
pub(super) fn talk_over(from: &Workload, to: &Workload, families: &[usize]) {
    for n in families.iter().copied() {
        let address = &to.addresses[n];
        let server = Server::start(&to.inside, *address).unwrap();
        let to = SocketAddr::new(*address, server.address().port());
        let mut talk = Conversation::open(&from.inside, to, LIMIT).unwrap();
        assert_eq!(talk.seen_as(), from.addresses[n]);
        talk.exchange(MUCH).unwrap();
    }
}
