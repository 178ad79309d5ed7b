//! Three nodes with a daemon each: a and b on one link, c behind a router.
//!
//! ```text
//!  a 192.0.2.1 ---.
//!                 +--- bridge, 192.0.2.254 [router] 198.51.100.254 --- 198.51.100.3 c
//!  b 192.0.2.2 ---'    2001:db8:1::/64              2001:db8:2::/64
//! ```

use crate::daemon::{Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use stage::tcp::{Conversation, Server};
use stage::wait::{PATIENCE, eventually};
use stage::{Namespace, ping};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that take many packets of the largest size.
const MUCH: usize = 300_000;

struct Cluster {
    router: Namespace,
    nodes: Vec<Daemon>,
}

struct Workload {
    inside: Sandbox,
    addresses: Vec<IpAddr>,
    mtu: u32,
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

fn on(namespace: &Namespace, commands: &[String]) {
    commands.iter().for_each(|command| drop(run(namespace, command)));
}

/// The list of peers, the same for every node, of addresses of the families that are told.
fn listed(families: &[usize], nodes: &[usize]) -> String {
    let entry = |n: &usize| {
        let (name, addresses, prefixes) = NODES[*n];
        let addresses: Vec<&str> = families.iter().map(|f| addresses[*f]).collect();
        format!("[[peer]]\nname = {name:?}\naddresses = {addresses:?}\nprefixes = {prefixes:?}\n")
    };
    nodes.iter().map(entry).collect()
}

impl Cluster {
    fn new(mode: &str, peers: &str) -> Self {
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
    fn settled(&self) {
        for node in &self.nodes {
            let look = || (node.caller().node().warning, node.caller().findings());
            eventually(PATIENCE, "routes stand", look, |(said, found)| {
                found.is_empty() && !said.iter().any(|text| text.contains("not known yet"))
            });
        }
    }

    fn list(&self, text: &str) {
        for node in &self.nodes {
            // As an editor does it.
            let (file, fresh) = (node.folder().join("peers.toml"), node.folder().join("fresh"));
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(fresh, file).unwrap();
        }
    }

    fn workload(&self, node: usize, id: &str) -> Workload {
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

    fn ip(&self, node: usize, command: &str) -> String {
        run(&self.nodes[node].node.node, command)
    }

    /// Waits for what a command on a node says.
    fn expect(&self, node: usize, command: &str, holds: impl Fn(&String) -> bool) {
        eventually(PATIENCE, command, || self.ip(node, command), holds);
    }
}

/// Much goes from one workload to another and back, over both families, and the other sees who it is.
fn talk(from: &Workload, to: &Workload) {
    talk_over(from, to, &[0, 1]);
}

/// Over IPv4, 0, or IPv6, 1.
fn talk_over(from: &Workload, to: &Workload, families: &[usize]) {
    for n in families.iter().copied() {
        let address = &to.addresses[n];
        let server = Server::start(&to.inside, *address).unwrap();
        let to = SocketAddr::new(*address, server.address().port());
        let mut talk = Conversation::open(&from.inside, to, LIMIT).unwrap();
        assert_eq!(talk.seen_as(), from.addresses[n]);
        talk.exchange(MUCH).unwrap();
    }
}

#[test]
fn nodes_on_a_link_are_routed_to_directly_and_others_over_vxlan_in_both_families() {
    // Over IPv4, and over IPv6 alone, which carries IPv4, too.
    for families in [&[0, 1][..], &[1]] {
        let cluster = Cluster::new("auto", &listed(families, &[0, 1, 2]));
        let workloads: Vec<Workload> = (0..3).map(|n| cluster.workload(n, "w")).collect();
        let overhead = if families.len() == 2 { 50 } else { 70 };
        assert!(workloads.iter().all(|w| w.mtu == 1500 - overhead), "{families:?}");
        assert!(
            cluster.nodes[0]
                .caller()
                .node()
                .mtu_source
                .starts_with("VXLAN to peer")
        );
        for from in &workloads {
            for to in &workloads {
                talk(from, to);
            }
        }
        let routes = cluster.ip(0, "ip route show proto 77") + &cluster.ip(0, "ip -6 route show proto 77");
        let over = |net: &str| {
            routes
                .lines()
                .find(|line| line.starts_with(net))
                .unwrap()
                .to_owned()
        };
        for net in ["10.77.2.0/24", "fd77:2::/64"] {
            assert!(over(net).contains("dev under"), "{routes}");
        }
        for net in ["10.77.3.0/24", "fd77:3::/64"] {
            assert!(over(net).contains("dev wkvx8"), "{routes}");
        }
        let node = cluster.nodes[0].caller().node();
        let mut told: Vec<String> = node
            .peer_route
            .iter()
            .map(|r| format!("{} {} {} {}", r.peer, r.family, r.way, r.device))
            .collect();
        told.sort();
        assert_eq!(
            (node.routes.as_str(), told),
            (
                "auto",
                [
                    "b IPv4 direct under",
                    "b IPv6 direct under",
                    "c IPv4 vxlan ",
                    "c IPv6 vxlan "
                ]
                .map(str::to_owned)
                .to_vec()
            )
        );
        // The host itself has a source that the others answer.
        for node in [0, 2] {
            for address in &workloads[1].addresses {
                ping(&cluster.nodes[node].node.node, *address, LIMIT).unwrap();
            }
        }
    }
}

#[test]
fn what_is_taken_away_is_put_back_and_a_strangers_route_stays() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    cluster.ip(0, "ip route add 10.77.3.0/24 via 192.0.2.254");
    for flush in [
        "ip route flush proto 77",
        "ip -6 route flush proto 77",
        "ip neighbour flush dev wkvx8 nud permanent",
        "ip link delete wkvx8",
        "ip link set wkvx8 down",
        "ip address delete 10.77.1.1/32 dev lo",
    ] {
        cluster.ip(0, flush);
        cluster.settled();
    }
    let fdb = cluster.ip(0, "bridge fdb show dev wkvx8");
    let mac = fdb.split(' ').next().unwrap();
    cluster.ip(
        0,
        &format!("bridge fdb delete {mac} dev wkvx8 dst 198.51.100.3 self"),
    );
    cluster.expect(0, "bridge fdb show dev wkvx8", |now| *now == fdb);
    assert!(
        cluster
            .ip(0, "ip route show 10.77.3.0/24")
            .contains("via 192.0.2.254")
    );
    let said = cluster.nodes[0].caller().node().warning;
    assert!(
        said.iter()
            .any(|text| text.contains("a route to 10.77.3.0/24, too")),
        "{said:?}"
    );
    // An address as kernels before 5.18 leave it.
    cluster.nodes[0].crash();
    cluster.ip(0, "ip address delete 10.77.1.1/32 dev lo");
    cluster.ip(0, "ip address add 10.77.1.1/32 dev lo");
    cluster.nodes[0].start();
    let said = || cluster.nodes[0].caller().node().warning;
    eventually(PATIENCE, "what may be wrong is said", said, |all| {
        all.iter()
            .any(|text| text.contains("10.77.1.1, the node's own") && text.contains("older than Linux 5.18"))
    });
}

/// In the kernel's eyes routes of one prefix and metric are one, whoever made them.
#[test]
fn a_strangers_route_with_the_metric_of_ours_is_neither_replaced_nor_taken_away() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    let routes = ["10.77.2.0/24 via 192.0.2.254", "fd77:2::/64 via 2001:db8:1::254"];
    let net = |route: &str| route.split(' ').next().unwrap().to_owned();
    let family = |route: &str| if route.contains(':') { "-6" } else { "-4" };
    let look = |route: &str| format!("ip {} route show {} metric 2048", family(route), net(route));
    for route in routes {
        // It takes the place of ours.
        cluster.ip(
            0,
            &format!("ip {} route replace {route} metric 2048", family(route)),
        );
    }
    let is_strangers = |cluster: &Cluster| {
        for route in routes {
            let text = format!("somebody else has a route to {} with metric 2048", net(route));
            let look_for = || cluster.nodes[0].caller().node().warning;
            eventually(PATIENCE, &text, look_for, |all| {
                all.iter().any(|said| said.contains(&text))
            });
            let stands = cluster.ip(0, &look(route));
            assert!(!stands.contains("proto 77") && stands.contains("254"), "{stands}");
        }
        assert!(cluster.nodes[0].caller().findings().is_empty());
    };
    is_strangers(&cluster);
    // Nor at a start, when nothing is known of what was there.
    cluster.nodes[0].crash();
    cluster.ip(0, "ip route flush proto 77");
    cluster.ip(0, "ip -6 route flush proto 77");
    cluster.nodes[0].start();
    cluster.settled();
    is_strangers(&cluster);
    for route in routes {
        cluster.ip(
            0,
            &format!("ip {} route delete {route} metric 2048", family(route)),
        );
        cluster.expect(0, &look(route), |now| now.contains("proto 77"));
    }
}

#[test]
fn a_strangers_link_with_the_name_of_the_vxlan_device_is_left_as_it_is() {
    let cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1]));
    cluster.ip(0, "ip link add wkvx8 mtu 1400 type veth peer name other");
    let look =
        || ["ip -d link show wkvx8", "sysctl net.ipv4.conf.wkvx8.rp_filter"].map(|look| cluster.ip(0, look));
    let before = look();
    cluster.list(&listed(&[0, 1], &[0, 1, 2]));
    let said = || cluster.nodes[0].caller().node().warning;
    eventually(PATIENCE, "it is said", said, |all| {
        all.iter()
            .any(|text| text.contains("ip link add wkvx8") && text.contains("File exists"))
    });
    assert_eq!(look(), before);
    // What does not go over it stands.
    assert!(cluster.ip(0, "ip route show 10.77.2.0/24").contains("dev under"));
    cluster.ip(0, "ip link delete wkvx8");
    cluster.settled();
    cluster.expect(0, "ip route show 10.77.3.0/24", |now| now.contains("dev wkvx8"));
}

/// A VXLAN device with so small an MTU has no IPv6, which its hops usually are of.
#[test]
fn over_a_narrow_link_ipv4_goes_over_vxlan_and_what_needs_ipv6_is_said() {
    for families in [&[0, 1][..], &[1]] {
        let cluster = Cluster::new("auto", &listed(families, &[0, 1, 2]));
        let workloads: Vec<Workload> = (0..3).map(|n| cluster.workload(n, "w")).collect();
        let set = |mtu: u32| {
            for node in 0..3 {
                cluster.ip(node, &format!("ip link set under mtu {mtu}"));
            }
        };
        let said = |texts: &[&str]| {
            for node in &cluster.nodes {
                let look = || node.caller().node().warning;
                eventually(PATIENCE, "what is said", look, |all| {
                    let refused = all.iter().any(|text| text.contains("(errno"));
                    !refused
                        && texts
                            .iter()
                            .all(|text| all.iter().any(|said| said.contains(text)))
                });
            }
            cluster.settled();
        };
        set(1300);
        if families.len() == 2 {
            said(&[
                "no IPv6 route to peer",
                "VXLAN to it has an MTU of 1250, and needs 1280",
            ]);
            for node in [0, 2] {
                cluster.expect(node, "ip link show wkvx8", |now| now.contains("mtu 1250"));
            }
            // The workloads were made for larger packets, and are told.
            for (from, to) in [(0, 2), (2, 1)] {
                talk_over(&workloads[from], &workloads[to], &[0]);
            }
        } else {
            for version in ["IPv4", "IPv6"] {
                said(&[
                    &format!("no {version} route to peer"),
                    "an MTU of 1230, and needs 1280",
                ]);
            }
            let devices = || cluster.nodes[2].node.node.links("wkvx").unwrap();
            eventually(PATIENCE, "the device is gone", devices, Vec::is_empty);
        }
        // On the link that two share there is no device between.
        talk(&workloads[0], &workloads[1]);
        set(1500);
        cluster.settled();
        for node in [0, 2] {
            cluster.expect(node, "ip -6 route show proto 77", |now| now.contains("wkvx8"));
            let link = cluster.ip(node, "ip -6 address show dev wkvx8");
            assert!(!link.contains("fe80"), "{link}");
        }
        talk(&workloads[0], &workloads[2]);
    }
}

#[test]
fn peers_that_move_change_or_go_take_their_routes_along_and_a_wrong_list_changes_nothing() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    let (from, to) = (cluster.workload(0, "from"), cluster.workload(1, "to"));
    talk(&from, &to);
    for wrong in ["", "[[peer]]\nname = \"x\"\n", "nonsense"] {
        cluster.list(wrong);
        let log = || {
            cluster.nodes[0]
                .logged()
                .matches("the list of peers is not used")
                .count()
        };
        let before = log();
        eventually(PATIENCE, "it is refused", log, |n| *n > before || *n >= 3);
        talk(&from, &to);
    }
    // b is no longer on a's link: its address is behind the router.
    for (node, command) in [
        (1, "ip address delete 192.0.2.2/24 dev under"),
        (1, "ip address delete 2001:db8:1::2/64 dev under"),
        (1, "ip address add 203.0.113.77/32 dev under"),
        (1, "ip address add 192.0.2.77/32 dev under"),
        (1, "ip route add 192.0.2.254 dev under src 203.0.113.77"),
        (1, "ip route add 198.51.100.0/24 via 192.0.2.254 src 203.0.113.77"),
        (1, "ip route add 192.0.2.0/24 via 192.0.2.254 src 203.0.113.77"),
        (0, "ip route add 203.0.113.77 via 192.0.2.254"),
        (2, "ip route add 203.0.113.77 via 198.51.100.254"),
    ] {
        cluster.ip(node, command);
    }
    on(&cluster.router, &["ip route add 203.0.113.77 dev lan".to_owned()]);
    let moved = listed(&[0], &[0, 1, 2]).replace("192.0.2.2\"", "203.0.113.77\"");
    cluster.list(&moved);
    cluster.expect(0, "ip route show 10.77.2.0/24", |now| now.contains("dev wkvx8"));
    cluster.expect(1, "ip route show 10.77.1.0/24", |now| now.contains("dev wkvx8"));
    // The workloads were made for larger packets, and are told.
    talk(&from, &to);
    // Its prefix is another's, and then nobody's.
    let given = moved
        .replace("10.77.2.0/24", "10.77.99.0/24")
        .replace("10.77.3.0/24", "10.77.2.0/24");
    let before = cluster.ip(0, "ip route show 10.77.2.0/24");
    cluster.list(&given);
    cluster.expect(0, "ip route show 10.77.2.0/24", |now| {
        *now != before && now.contains("dev wkvx8")
    });
    cluster.list(&listed(&[0, 1], &[0]));
    cluster.expect(0, "ip route show proto 77", String::is_empty);
    cluster.expect(0, "ip -6 route show proto 77", String::is_empty);
    // The device goes after what went over it.
    let devices = || cluster.nodes[0].node.node.links("wkvx").unwrap();
    eventually(PATIENCE, "the device is gone", devices, Vec::is_empty);
    // Others route from now on.
    let node = &mut cluster.nodes[0];
    node.stop();
    node.set_rest(String::new());
    node.start();
    cluster.expect(0, "ip address show dev lo", |now| !now.contains("10.77.1.1"));
}

/// A workload got from a wide prefix what is the node's own address in the narrow one that comes after it.
#[test]
fn a_workload_keeps_an_address_that_is_the_nodes_own_in_another_prefix() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    let inside = Sandbox::new();
    let mut request = attach("w", &inside);
    request.requested_ip = vec![
        vec![10, 77, 1, 129],
        [&[0xfd, 0x77, 0, 1], &[0; 11][..], &[9]].concat(),
    ];
    let answer = cluster.nodes[0].caller().attach(request).unwrap();
    let other = cluster.workload(1, "other");
    let node = &mut cluster.nodes[0];
    node.stop();
    node.set_prefixes(&["10.77.1.128/25", "fd77:1::/64"]);
    node.start();
    cluster.settled();
    let own = cluster.ip(0, "ip -o address show dev lo");
    assert!(
        own.contains("10.77.1.1/32") && !own.contains("10.77.1.129"),
        "{own}"
    );
    for address in addresses(&answer.ip) {
        ping(&cluster.nodes[0].node.node, address, LIMIT).unwrap();
        ping(&other.inside, address, LIMIT).unwrap();
    }
    let said = cluster.nodes[0].caller().node().warning;
    assert!(
        said.iter()
            .any(|text| text.contains("10.77.1.129, the node's own")),
        "{said:?}"
    );
    cluster.nodes[0].caller().detach(detach("w")).unwrap();
    cluster.expect(0, "ip -o address show dev lo", |own| {
        own.contains("10.77.1.129/32") && !own.contains("10.77.1.1/32")
    });
}

/// Ends with this value.
struct Listener(std::process::Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `nft monitor`, which listens already, and the file that it writes to.
fn watch_tables(node: &Daemon) -> (Listener, std::path::PathBuf) {
    let file = node.folder().join("tables");
    let out = std::fs::File::create(&file).unwrap();
    let mut command = std::process::Command::new("nft");
    command.arg("monitor").stdout(out);
    let listener = Listener(node.spawn(command));
    let look = || {
        run(&node.node.node, "nft add table inet witness");
        run(&node.node.node, "nft delete table inet witness");
        std::fs::read_to_string(&file).unwrap()
    };
    eventually(PATIENCE, "nft listens", look, |said| said.contains("witness"));
    (listener, file)
}

#[test]
fn a_daemon_that_is_killed_and_comes_back_changes_no_route_and_loses_no_packet() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    let (from, to) = (cluster.workload(0, "from"), cluster.workload(2, "to"));
    talk(&from, &to);
    let mut told = cluster.nodes[0]
        .node
        .node
        .within(|| {
            std::process::Command::new("ip")
                .args(["monitor", "route", "link", "neigh", "address"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .unwrap();
    let (tables, said) = watch_tables(&cluster.nodes[0]);
    let servers: Vec<Server> = to
        .addresses
        .iter()
        .map(|address| Server::start(&to.inside, *address).unwrap())
        .collect();
    let talking = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut sent = 0;
            while talking.load(std::sync::atomic::Ordering::Relaxed) {
                for (n, address) in to.addresses.iter().enumerate() {
                    ping(&from.inside, *address, Duration::from_millis(500)).unwrap();
                    // A connection of its own each time: one that was not masqueraded goes on so.
                    let talk = Conversation::open(&from.inside, servers[n].address(), LIMIT).unwrap();
                    assert_eq!(talk.seen_as(), from.addresses[n]);
                    sent += 1;
                }
            }
            sent
        });
        for _ in 0..3 {
            cluster.nodes[0].crash();
            cluster.nodes[0].start();
            cluster.settled();
        }
        talking.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(talk.join().unwrap() > 0);
    });
    // With a list that cannot be read the other nodes stay unknown, and all goes on as it was.
    cluster.nodes[0].crash();
    std::fs::write(cluster.nodes[0].folder().join("peers.toml"), "nonsense").unwrap();
    cluster.nodes[0].start();
    eventually(
        PATIENCE,
        "the router has looked",
        || cluster.nodes[0].logged(),
        |log| log.contains("the list of peers is not used"),
    );
    talk(&from, &to);
    assert!(cluster.nodes[0].caller().findings().is_empty());
    drop(tables);
    let said = std::fs::read_to_string(said).unwrap();
    let ours = said.lines().filter(|line| line.contains("workloadnet"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    told.kill().unwrap();
    let told = String::from_utf8(told.wait_with_output().unwrap().stdout).unwrap();
    let ours = told
        .lines()
        .filter(|line| line.contains("proto 77") || line.contains("wkvx8"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
}
