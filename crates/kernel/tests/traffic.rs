//! Packets through what the Linux datapath wires, on a node of each test's own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ipnet::IpNet;
use kernel::linux::Linux;
use model::address::{Addresses, FIRST_HOP_V4, FIRST_HOP_V6, Family};
use model::datapath::{Datapath as _, Target};
use model::key::{HostLink, InterfaceName, Key, Owner, WorkloadId};
use model::plan::{LinkPlan, Plan, PlanSettings, WORKLOAD_INDEX};
use model::record::{Asked, PathDigest, Record};
use model::ruleset::Ruleset;
use model::survey::Standing;
use stage::change::{By, Links};
use stage::pinger::Pinger;
use stage::tcp::{Conversation, Server};
use stage::{NODE, Namespace, Node, OUTSIDE, packets, ping};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

const GROUP: u32 = 8;
const LIMIT: Duration = Duration::from_secs(5);

/// The address of a family in a list of one per family, IPv4 first.
fn of(family: Family, list: [&str; 2]) -> IpAddr {
    list[usize::from(family == Family::V6)].parse().unwrap()
}

/// A node with a datapath, and no daemon.
struct World {
    node: Node,
    linux: Linux,
}

struct Workload {
    namespace: Namespace,
    addresses: Addresses,
    host_link: String,
    plan: LinkPlan,
}

impl World {
    fn new() -> Self {
        let world = Self::unguarded();
        let ruleset = Ruleset::new(GROUP, true);
        world.on_the_node(|| world.linux.publish(&ruleset).unwrap());
        world
    }

    /// Without our table; forwarding is on.
    fn unguarded() -> Self {
        let node = Node::new().unwrap();
        let linux = node.node.within(|| Linux::open(GROUP)).unwrap().unwrap();
        let world = Self { node, linux };
        world.sysctl("net/ipv4/ip_forward", "1");
        world.sysctl("net/ipv6/conf/all/forwarding", "1");
        world
    }

    fn on_the_node<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.node.node.within(act).unwrap()
    }

    fn sysctl(&self, name: &str, value: &str) {
        self.on_the_node(|| std::fs::write(format!("/proc/sys/{name}"), value).unwrap());
    }

    /// What `ip` says of the node.
    fn ip(&self, line: &str) -> String {
        self.on_the_node(|| {
            let output = Command::new("ip").args(line.split(' ')).output().unwrap();
            assert!(
                output.status.success(),
                "ip {line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn attach(&self, id: &str, addresses: &[&str], index: u32) -> Workload {
        self.attach_to(Namespace::new().unwrap(), id, addresses, index)
    }

    fn attach_to(&self, namespace: Namespace, id: &str, addresses: &[&str], index: u32) -> Workload {
        let path = namespace.path();
        let addresses = Addresses::from_list(addresses.iter().map(|a| a.parse().unwrap())).unwrap();
        let (owner, interface) = (Owner::default(), InterfaceName::new("eth0").unwrap());
        let key = Key::new(owner, WorkloadId::new(id).unwrap(), interface).unwrap();
        self.on_the_node(|| {
            let (file, identity) = self.linux.open(&path).unwrap();
            let record = Record {
                key,
                addresses,
                namespace: identity,
                path: PathDigest::of(&path),
                asked: Asked::default(),
                adopted: None,
            };
            let plan = Plan::new(
                record,
                &PlanSettings {
                    group: GROUP,
                    mtu: 1500,
                },
                index,
            );
            self.linux.wire(&file, &plan).unwrap();
            Workload {
                namespace,
                addresses,
                host_link: plan.link.host.to_string(),
                plan: plan.link,
            }
        })
    }

    fn reaches_everything(&self, one: &Workload, other: &Workload) {
        for family in one.families() {
            let address = one.address(family);
            ping(&one.namespace, family.first_hop(), LIMIT).unwrap();
            ping(&self.node.node, address, LIMIT).unwrap();

            let outside = Server::start(&self.node.outside, of(family, OUTSIDE)).unwrap();
            ping(&one.namespace, of(family, OUTSIDE), LIMIT).unwrap();
            let mut talk = Conversation::open(&one.namespace, outside.address(), LIMIT).unwrap();
            assert_eq!(talk.seen_as(), of(family, NODE), "the outside sees the node");
            talk.exchange(100_000).unwrap();

            ping(&one.namespace, other.address(family), LIMIT).unwrap();
            let inside = Server::start(&other.namespace, other.address(family)).unwrap();
            let mut talk = Conversation::open(&one.namespace, inside.address(), LIMIT).unwrap();
            assert_eq!(talk.seen_as(), address, "workloads see each other");
            talk.exchange(100_000).unwrap();
        }
    }
}

impl Workload {
    fn families(&self) -> Vec<Family> {
        self.addresses.iter().map(Family::of).collect()
    }

    fn address(&self, family: Family) -> IpAddr {
        self.addresses.of(family).unwrap()
    }

    /// One more address on the workload's own end.
    fn add_address(&self, address: &str) {
        let address: IpNet = address.parse().unwrap();
        Links::of(&self.namespace)
            .unwrap()
            .add_address("eth0", address)
            .unwrap();
    }
}

/// Two workloads with these addresses reach everything from both sides.
fn two_workloads(one: &[&str], other: &[&str]) {
    let world = World::new();
    let (one, other) = (
        world.attach("one", one, 100_000),
        world.attach("other", other, 100_001),
    );
    world.reaches_everything(&one, &other);
    world.reaches_everything(&other, &one);
}

#[test]
fn ipv4_alone_reaches_everything() {
    two_workloads(&["10.77.0.2"], &["10.77.0.3"]);
}

#[test]
fn ipv6_alone_reaches_everything() {
    two_workloads(&["fd77::2"], &["fd77::3"]);
}

#[test]
fn dual_stack_reaches_everything() {
    two_workloads(&["10.77.0.2", "fd77::2"], &["10.77.0.3", "fd77::3"]);
}

#[test]
fn two_prefixes_of_a_family_reach_each_other() {
    two_workloads(&["10.77.0.2", "fd77::2"], &["192.168.55.7", "fd99:5::7"]);
}

#[test]
fn the_first_hop_answers_under_every_arp_ignore() {
    for mode in ["0", "1", "2"] {
        let world = World::new();
        world.sysctl("net/ipv4/conf/all/arp_ignore", mode);
        let (one, other) = (
            world.attach("one", &["10.77.0.2", "fd77::2"], 100_000),
            world.attach("other", &["10.77.0.3", "fd77::3"], 100_001),
        );
        let mut links = Links::of(&one.namespace).unwrap();
        for family in Family::ALL {
            links.delete_neighbour("eth0", family.first_hop()).unwrap();
        }
        world.reaches_everything(&one, &other);
    }
}

/// Whether a datagram with this source, sent by a workload, arrives at a place.
fn arrives(workload: &Workload, source: IpAddr, place: &Namespace, address: IpAddr) -> bool {
    let listener = packets::udp_listener(place, address).unwrap();
    let to = listener.local_addr().unwrap();
    packets::udp_send(&workload.namespace, source, to, "forged or not").unwrap();
    // What was sent before an answered echo has arrived, or never will.
    ping(&workload.namespace, address, LIMIT).unwrap();
    packets::udp_receive(&listener, Duration::from_millis(1))
        .unwrap()
        .is_some()
}

#[test]
fn a_foreign_source_is_dropped() {
    for (family, foreign) in [(Family::V4, "10.99.0.9/32"), (Family::V6, "fd99::9/128")] {
        let world = World::new();
        let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
        let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
        one.add_address(foreign);
        let foreign = foreign.parse::<IpNet>().unwrap().addr();
        let places = [
            (&world.node.node, of(family, NODE)),
            (&world.node.outside, of(family, OUTSIDE)),
            (&other.namespace, other.address(family)),
        ];
        for (place, address) in places {
            assert!(
                arrives(&one, one.address(family), place, address),
                "{address} from its own address"
            );
            assert!(
                !arrives(&one, foreign, place, address),
                "{address} from {foreign}"
            );
        }
    }
}

#[test]
fn another_workloads_address_as_source_is_dropped() {
    for (family, length) in [(Family::V4, 32), (Family::V6, 128)] {
        let world = World::new();
        let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
        let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
        let stolen = other.address(family);
        one.add_address(&format!("{stolen}/{length}"));
        let (node, address) = (&world.node.node, of(family, NODE));
        assert!(!arrives(&one, stolen, node, address), "{family}");
        assert!(arrives(&other, stolen, node, address), "{family}");
    }
}

#[test]
fn a_workload_sends_nothing_to_the_tunnels_port() {
    let world = World::new();
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    // Of both families.
    let on_the_node = packets::udp_listener(&world.node.node, Ipv6Addr::UNSPECIFIED.into()).unwrap();
    let port = on_the_node.local_addr().unwrap().port();
    let outside = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port));
    let outside = world.node.outside.within(outside).unwrap().unwrap();
    let targets = [
        (&on_the_node, SocketAddr::new(of(Family::V4, NODE), port)),
        (&on_the_node, SocketAddr::new(of(Family::V6, NODE), port)),
        (&on_the_node, SocketAddr::new(FIRST_HOP_V4.into(), port)),
        (
            &on_the_node,
            SocketAddrV6::new(FIRST_HOP_V6, port, 0, WORKLOAD_INDEX).into(),
        ),
        (&outside, SocketAddr::new(of(Family::V4, OUTSIDE), port)),
        (&outside, SocketAddr::new(of(Family::V6, OUTSIDE), port)),
    ];
    for tunnel in [Some(port), None] {
        let ruleset = Ruleset {
            tunnel,
            ..Ruleset::new(GROUP, true)
        };
        world.on_the_node(|| world.linux.publish(&ruleset).unwrap());
        for (listener, to) in &targets {
            let (family, any): (_, IpAddr) = match to {
                SocketAddr::V4(_) => (Family::V4, Ipv4Addr::UNSPECIFIED.into()),
                SocketAddr::V6(_) => (Family::V6, Ipv6Addr::UNSPECIFIED.into()),
            };
            let socket = packets::udp_listener(&one.namespace, any).unwrap();
            socket.send_to(b"as if from a node", to).unwrap();
            // What was sent before an answered echo has arrived, or never will.
            ping(&one.namespace, of(family, OUTSIDE), LIMIT).unwrap();
            let arrived = packets::udp_receive(listener, Duration::from_millis(1)).unwrap();
            assert_eq!(arrived.is_some(), tunnel.is_none(), "{to} with {tunnel:?}");
        }
    }
}

/// The tests of foreign sources could fail: without the guard, a foreign source does arrive.
#[test]
fn a_foreign_source_arrives_without_the_guard() {
    for (family, foreign) in [(Family::V4, "10.99.0.9/32"), (Family::V6, "fd99::9/128")] {
        let world = World::unguarded();
        let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
        let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
        world.sysctl(&format!("net/ipv4/conf/{}/rp_filter", one.host_link), "0");
        one.add_address(foreign);
        let foreign = foreign.parse::<IpNet>().unwrap().addr();
        assert!(
            arrives(&one, foreign, &other.namespace, other.address(family)),
            "{family}"
        );
    }
}

#[test]
fn the_nodes_advertised_routes_outlive_forwarding() {
    let node = Node::new().unwrap();
    let linux = node.node.within(|| Linux::open(GROUP)).unwrap().unwrap();
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
    let mut links = Links::of(&node.outside).unwrap();
    links
        .add_address("eth0", format!("{router}/64").parse().unwrap())
        .unwrap();
    let ip = |line: &str| {
        let run = || Command::new("ip").args(line.split(' ')).output().unwrap().stdout;
        String::from_utf8(node.node.within(run).unwrap()).unwrap()
    };
    ip("link add quiet type bridge");
    let default = format!("default via {router} dev uplink proto ra");
    let start = Instant::now();
    while !ip("-6 route show").contains(&default) {
        assert!(start.elapsed() < LIMIT, "{}", ip("-6 route show"));
        let prefix = "2001:db8:7::".parse().unwrap();
        packets::send_router_advertisement(&node.outside, "eth0", router, prefix).unwrap();
    }
    let accept_ra = |link: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
        let text = node
            .node
            .within(|| std::fs::read_to_string(path))
            .unwrap()
            .unwrap();
        text.trim().to_owned()
    };
    assert_eq!(accept_ra("uplink"), "1");
    let ruleset = Ruleset::new(GROUP, true);
    node.node.within(|| linux.publish(&ruleset)).unwrap().unwrap();
    assert!(ip("-6 route show").contains(&default), "{}", ip("-6 route show"));
    assert_eq!([accept_ra("uplink"), accept_ra("quiet")], ["2", "1"]);
}

/// Senders that a workload makes up, more than it may ask from at once.
const MADE_UP: u16 = 60;

/// The node's neighbours on a link that it has learned, but the last few that it may have forgotten.
fn learned(world: &World, link: &str) -> usize {
    let all = world.ip(&format!("neighbour show dev {link} nud all"));
    all.lines()
        .filter(|line| line.contains("lladdr") && !line.contains("PERMANENT"))
        .count()
}

#[test]
fn a_workload_cannot_fill_the_nodes_neighbour_table_by_solicitations() {
    let world = World::new();
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    for n in 0..MADE_UP {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xbad, n);
        one.add_address(&format!("{source}/128"));
        packets::send_neighbour_solicitation(&one.namespace, "eth0", source, FIRST_HOP_V6).unwrap();
    }
    ping(&one.namespace, FIRST_HOP_V6.into(), LIMIT).unwrap();
    let learned = learned(&world, &one.host_link);
    assert!((1..=15).contains(&learned), "{learned}");
    // Others are not limited by what one has sent.
    let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
    let mut links = Links::of(&other.namespace).unwrap();
    links.delete_neighbour("eth0", FIRST_HOP_V6.into()).unwrap();
    ping(&other.namespace, FIRST_HOP_V6.into(), LIMIT).unwrap();
}

#[test]
fn a_workload_cannot_fill_the_nodes_neighbour_table_by_arp() {
    let world = World::new();
    // With the strict check, which a larger number here overrules, the node remembers no sender that it does not route back.
    world.sysctl("net/ipv4/conf/all/rp_filter", "2");
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    let mut links = Links::of(&one.namespace).unwrap();
    for n in 0..MADE_UP {
        let source = IpAddr::from(Ipv4Addr::new(10, 99, 0, u8::try_from(n).unwrap()));
        one.add_address(&format!("{source}/32"));
        // Gone already where it was not answered.
        let _ = links.delete_neighbour("eth0", FIRST_HOP_V4.into());
        let to = SocketAddr::from((FIRST_HOP_V4, 9));
        packets::udp_send(&one.namespace, source, to, "who has it").unwrap();
    }
    let learned = learned(&world, &one.host_link);
    assert!((1..=15).contains(&learned), "{learned}");
    let other = world.attach("other", &["10.77.0.3", "fd77::3"], 100_001);
    let mut links = Links::of(&other.namespace).unwrap();
    links.delete_neighbour("eth0", FIRST_HOP_V4.into()).unwrap();
    ping(&other.namespace, FIRST_HOP_V4.into(), LIMIT).unwrap();
}

/// Between its move to a group for deletions and its end nothing of our group's rules concerns a link.
#[test]
fn a_link_that_is_about_to_be_deleted_sends_nothing() {
    let world = World::new();
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    let regroup = |group| world.ip(&format!("link set {} group {group}", one.host_link));
    for dying in [
        model::survey::DYING_GROUPS.start(),
        model::survey::DYING_GROUPS.end(),
    ] {
        for family in Family::ALL {
            ping(&one.namespace, of(family, NODE), LIMIT).unwrap();
            regroup(*dying);
            ping(&one.namespace, of(family, NODE), Duration::from_millis(100)).unwrap_err();
            regroup(GROUP);
        }
    }
    ping(&one.namespace, of(Family::V4, NODE), LIMIT).unwrap();
}

const WORKLOAD_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xabcd);
const FOOLED_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
const FOOLED_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
const BEYOND_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
const BEYOND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 5);

/// A workload by way of which the node reaches something, as a redirect has to come from a gateway in use.
fn a_gateway(world: &World) -> Workload {
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    // The host asks for a gateway's neighbour before it believes a redirect, so it has to be there.
    for address in [
        format!("{WORKLOAD_LINK_LOCAL}/128"),
        format!("{FOOLED_V4}/32"),
        format!("{FOOLED_V6}/128"),
    ] {
        one.add_address(&address);
    }
    let mut links = Links::of(&world.node.node).unwrap();
    links
        .add_route(
            "192.0.2.0/24".parse().unwrap(),
            By::Gateway(one.address(Family::V4)),
        )
        .unwrap();
    let gateway = By::GatewayOn(WORKLOAD_LINK_LOCAL.into(), &one.host_link);
    links
        .add_route("2001:db8:99::/64".parse().unwrap(), gateway)
        .unwrap();
    one
}

/// Everything that a workload can say in order to change the node's routes; returns when the node has heard it.
fn mislead(one: &Workload) {
    let prefix = "2001:db8:bad::".parse().unwrap();
    let v4 = one.addresses.v4().unwrap();
    // Twice: the first redirect only makes the node ask who the gateway is.
    for _ in 0..2 {
        packets::send_router_advertisement(&one.namespace, "eth0", WORKLOAD_LINK_LOCAL, prefix).unwrap();
        packets::send_redirect_v4(&one.namespace, v4, FIRST_HOP_V4, BEYOND_V4, FOOLED_V4).unwrap();
        packets::send_redirect_v6(
            &one.namespace,
            "eth0",
            WORKLOAD_LINK_LOCAL,
            FIRST_HOP_V6,
            BEYOND_V6,
            FOOLED_V6,
        )
        .unwrap();
        // What was sent before an answered echo has been heard.
        for family in Family::ALL {
            ping(&one.namespace, of(family, NODE), LIMIT).unwrap();
        }
    }
}

/// What the node would do with packets.
fn ways(world: &World) -> String {
    let lines = [
        "-j address show".to_owned(),
        "-j -4 route show table all".to_owned(),
        "-j -6 route show table all".to_owned(),
        format!("-j route get {BEYOND_V4}"),
        format!("-j route get {BEYOND_V6}"),
    ];
    lines.map(|line| world.ip(&line)).join("")
}

#[test]
fn router_advertisements_and_redirects_of_a_workload_change_nothing_on_the_host() {
    let world = World::new();
    let one = a_gateway(&world);
    let before = ways(&world);
    mislead(&one);
    assert_eq!(ways(&world), before);
    assert!(!before.contains("2001:db8:bad"));
}

/// The test above could fail: a host that listens to workloads is misled by the same packets.
#[test]
fn a_host_that_listens_to_workloads_is_misled() {
    let world = World::unguarded();
    let one = a_gateway(&world);
    world.sysctl("net/ipv4/ip_forward", "0");
    world.sysctl("net/ipv6/conf/all/forwarding", "0");
    let link = &one.host_link;
    for setting in ["accept_redirects", "accept_ra", "autoconf"] {
        world.sysctl(&format!("net/ipv6/conf/{link}/{setting}"), "1");
    }
    for link in ["all", link] {
        world.sysctl(&format!("net/ipv4/conf/{link}/accept_redirects"), "1");
    }
    let way_v4 = world.ip(&format!("route get {BEYOND_V4}"));
    let way_v6 = world.ip(&format!("route get {BEYOND_V6}"));
    mislead(&one);
    assert_ne!(world.ip(&format!("route get {BEYOND_V4}")), way_v4);
    assert_ne!(world.ip(&format!("route get {BEYOND_V6}")), way_v6);
    assert!(
        world.ip("-6 route show").contains("default via fe80::abcd"),
        "{}",
        world.ip("-6 route show")
    );
}

/// What is lost is sent again by the kernel after a second; an answer within half of one was not waited for.
#[test]
fn the_first_packet_after_an_attach_gets_through() {
    const ATTACHES: u32 = 300;
    const QUICK: Duration = Duration::from_millis(500);
    let world = World::new();
    let mut slow = Vec::new();
    for family in Family::ALL {
        for n in 0..ATTACHES {
            let address = match family {
                Family::V4 => IpAddr::from(Ipv4Addr::from(0x0a4d_0002 + n)),
                Family::V6 => IpAddr::from(Ipv6Addr::from((0xfd77_u128 << 112) + 2 + u128::from(n))),
            };
            let namespace = Namespace::new().unwrap();
            let mut from_inside = Some(Pinger::open(&namespace, address).unwrap());
            let mut from_the_node = Some(Pinger::open(&world.node.node, address).unwrap());
            let id = format!("{family}-{n}");
            let workload = world.attach_to(namespace, &id, &[&address.to_string()], 100_000 + n);
            let (what, aimed) = match n % 3 {
                0 => (
                    "first hop",
                    from_inside.take().unwrap().aim(family.first_hop(), Some("eth0")),
                ),
                1 => (
                    "outside",
                    from_inside.take().unwrap().aim(of(family, OUTSIDE), None),
                ),
                _ => (
                    "from the node",
                    from_the_node.take().unwrap().aim(workload.address(family), None),
                ),
            };
            match aimed.unwrap().ping(QUICK) {
                Ok(_) => {}
                Err(error) => slow.push(format!("{id} {what}: {error}")),
            }
        }
    }
    assert_eq!(slow, Vec::<String>::new());
}

#[test]
fn the_first_packet_after_a_link_was_put_back_gets_through() {
    const TIMES: u32 = 100;
    const QUICK: Duration = Duration::from_millis(500);
    let world = World::new();
    // IPv4 alone, because an IPv6 address that is put back is waited for, which gives the carrier time.
    let one = world.attach("one", &["10.77.0.2"], 100_000);
    let link = HostLink::parse(&one.host_link).unwrap();
    let mut links = Links::of(&world.node.node).unwrap();
    let mut inside = Links::of(&one.namespace).unwrap();
    let mut slow = Vec::new();
    for n in 0..TIMES {
        let family = Family::V4;
        let from_inside = Pinger::open(&one.namespace, family.first_hop()).unwrap();
        links.set_up(&one.host_link, false).unwrap();
        // From here on the workload's end has no carrier, and sends nothing.
        inside.index("eth0").unwrap();
        world.on_the_node(|| {
            let found = world.linux.find(&link).unwrap().unwrap();
            let Standing::Attached(record) = found.standing(GROUP) else {
                panic!("{found:?}")
            };
            let target = Target {
                link: link.clone(),
                index: found.index,
                group: GROUP,
            };
            assert_eq!(
                world.linux.restore(&target, &found.missing(&record, &one.plan)),
                Vec::new()
            );
        });
        let aimed = match n % 2 {
            0 => from_inside.aim(family.first_hop(), Some("eth0")),
            _ => from_inside.aim(of(family, OUTSIDE), None),
        };
        if let Err(error) = aimed.unwrap().ping(QUICK) {
            slow.push(format!("{n}: {error}"));
        }
    }
    assert_eq!(slow, Vec::<String>::new());
}

#[test]
fn a_server_in_a_workload_is_reached_from_the_host() {
    let world = World::new();
    let one = world.attach("one", &["10.77.0.2", "fd77::2"], 100_000);
    for family in Family::ALL {
        let server = Server::start(&one.namespace, one.address(family)).unwrap();
        let to: SocketAddr = server.address();
        Conversation::open(&world.node.node, to, LIMIT)
            .unwrap()
            .exchange(100_000)
            .unwrap();
    }
}
