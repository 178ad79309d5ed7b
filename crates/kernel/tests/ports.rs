//! Ports of the node that lead to workloads: who reaches them by which address, and what else they open.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kernel::linux::Linux;
use model::address::{Addresses, Family};
use model::datapath::{Datapath as _, Target};
use model::flows::Past;
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::plan::{LinkPlan, Plan, PlanSettings};
use model::ports::{Door, HostPort, Place, Ports, Protocol};
use model::record::{Asked, PathDigest, Record};
use model::ruleset::Ruleset;
use model::survey::Standing;
use stage::tcp::{Conversation, Server};
use stage::{NODE, Namespace, Node, OUTSIDE, packets};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

const GROUP: u32 = 8;
const RULESET: Ruleset = Ruleset::new(GROUP, true);
const LIMIT: Duration = Duration::from_secs(5);
/// What is not to come does not come within this time.
const NEVER: Duration = Duration::from_millis(300);
const ONE: [&str; 2] = ["10.77.0.2", "fd77::2"];
const OTHER: [&str; 2] = ["10.77.0.3", "fd77::3"];

struct World {
    node: Node,
    linux: Linux,
}

struct Workload {
    namespace: Namespace,
    plan: LinkPlan,
    record: Record,
}

fn of(family: Family, list: [&str; 2]) -> IpAddr {
    list[usize::from(family == Family::V6)].parse().unwrap()
}

fn all(protocol: Protocol, port: u16, to: u16) -> HostPort {
    HostPort {
        protocol,
        port,
        address: None,
        to,
    }
}

impl World {
    fn new() -> Self {
        let node = Node::new().unwrap();
        let linux = node.node.within(|| Linux::open(GROUP)).unwrap().unwrap();
        node.node.within(|| linux.publish(&RULESET).unwrap()).unwrap();
        Self { node, linux }
    }

    fn on_the_node<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.node.node.within(act).unwrap()
    }

    fn attach(&self, id: &str, addresses: [&str; 2], index: u32, ports: &[HostPort]) -> Workload {
        let namespace = Namespace::new().unwrap();
        self.attach_to(namespace, id, addresses, index, ports)
    }

    fn attach_to(
        &self,
        namespace: Namespace,
        id: &str,
        addresses: [&str; 2],
        index: u32,
        ports: &[HostPort],
    ) -> Workload {
        let path = namespace.path();
        let interface = InterfaceName::new("eth0").unwrap();
        let key = Key::new(Owner::default(), WorkloadId::new(id).unwrap(), interface).unwrap();
        let (plan, record) = self.on_the_node(|| {
            let (file, identity) = self.linux.open(&path).unwrap();
            let record = Record {
                key,
                addresses: Addresses::from_list(addresses.map(|a| a.parse().unwrap())).unwrap(),
                namespace: identity,
                path: PathDigest::of(&path),
                asked: Asked {
                    ports: Ports::new(ports.iter().copied()).unwrap(),
                    ..Asked::default()
                },
                adopted: None,
            };
            let settings = PlanSettings {
                group: GROUP,
                mtu: 1500,
            };
            let plan = Plan::new(record.clone(), &settings, index);
            self.linux.wire(&file, &plan).unwrap();
            (plan.link, record)
        });
        Workload {
            namespace,
            plan,
            record,
        }
    }

    fn detach(&self, workload: &Workload) {
        let link = &workload.plan;
        let target = Target {
            link: link.host.clone(),
            index: link.host_index,
            group: GROUP,
        };
        assert_eq!(self.on_the_node(|| self.linux.unwire(&[target])), [Ok(())]);
    }

    fn drift(&self) -> Vec<String> {
        self.on_the_node(|| self.linux.drift(&RULESET).unwrap())
    }

    fn run(&self, program: &str, line: &str) -> String {
        self.on_the_node(|| {
            let output = Command::new(program).args(line.split(' ')).output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {line}: {complaint}");
            String::from_utf8(output.stdout).unwrap()
        })
    }
}

/// Who the server sees of who comes by this address.
fn seen(from: &Namespace, to: IpAddr, port: u16) -> IpAddr {
    let mut talk = Conversation::open(from, SocketAddr::new(to, port), LIMIT).unwrap();
    talk.exchange(50_000).unwrap();
    talk.seen_as()
}

fn is_refused(from: &Namespace, to: IpAddr, port: u16) {
    let to = SocketAddr::new(to, port);
    let tried = from.within(|| TcpStream::connect_timeout(&to, LIMIT)).unwrap();
    let error = tried.expect_err("nobody listens there").kind();
    assert_eq!(error, std::io::ErrorKind::ConnectionRefused, "{to}");
}

#[test]
fn a_port_leads_to_the_workload_from_everywhere_in_both_families() {
    let world = World::new();
    let (node, outside) = (&world.node.node, &world.node.outside);
    let one_namespace = Namespace::new().unwrap();
    // The server is started first, because it chooses its port.
    for family in Family::ALL {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let namespace = Namespace::new().unwrap();
        let server = Server::start(&namespace, any).unwrap();
        let port = server.address().port();
        let one = world.attach_to(namespace, "one", ONE, 100_000, &[all(Protocol::Tcp, 8080, port)]);
        let other = world.attach("other", OTHER, 100_001, &[]);
        let here = of(family, NODE);

        assert_eq!(
            seen(outside, here, 8080),
            of(family, OUTSIDE),
            "the workload sees who comes"
        );
        assert_eq!(seen(&other.namespace, here, 8080), of(family, OTHER));
        assert_eq!(
            seen(&one.namespace, here, 8080),
            here,
            "itself, by way of the node"
        );
        assert_eq!(seen(node, here, 8080), here);
        if family == Family::V4 {
            for loopback in ["127.0.0.1", "127.9.9.9"] {
                assert_eq!(seen(node, loopback.parse().unwrap(), 8080), here, "{loopback}");
            }
        } else {
            is_refused(node, Ipv6Addr::LOCALHOST.into(), 8080);
        }
        // Directly nothing is translated, and other ports are the node's.
        assert_eq!(seen(&other.namespace, of(family, ONE), port), of(family, OTHER));
        assert_eq!(seen(&one.namespace, of(family, ONE), port), of(family, ONE));
        is_refused(outside, here, 8081);
        assert_eq!(world.drift(), Vec::<String>::new());

        world.detach(&one);
        is_refused(outside, here, 8080);
        is_refused(node, here, 8080);
        world.detach(&other);
        assert_eq!(world.drift(), Vec::<String>::new());
        drop(server);
    }
    drop(one_namespace);
}

#[test]
fn datagrams_and_their_answers_pass() {
    let world = World::new();
    let one = world.attach(
        "one",
        ONE,
        100_000,
        &[all(Protocol::Udp, 53, 5353), all(Protocol::Tcp, 53, 1)],
    );
    for family in Family::ALL {
        let server = one
            .namespace
            .within(|| UdpSocket::bind((of(family, ONE), 5353)))
            .unwrap()
            .unwrap();
        let mut ways = vec![
            (&world.node.outside, of(family, NODE)),
            (&world.node.node, of(family, NODE)),
        ];
        if family == Family::V4 {
            ways.push((&world.node.node, Ipv4Addr::LOCALHOST.into()));
        }
        for (from, to) in ways {
            let any: IpAddr = match family {
                Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            let client = packets::udp_listener(from, any).unwrap();
            // Answers come only from who was asked.
            client.connect(SocketAddr::new(to, 53)).unwrap();
            client.send(b"ping").unwrap();
            server.set_read_timeout(Some(LIMIT)).unwrap();
            let mut buffer = [0; 16];
            let (length, peer) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], peer).unwrap();
            client.set_read_timeout(Some(LIMIT)).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 4, "by {to}");
        }
    }
}

/// The beginning of an SCTP association (RFC 9260, section 3.3.2): this kernel tracks and translates it, and has no sockets.
fn sctp_init(to: u16) -> Vec<u8> {
    let mut packet = [
        4000_u16.to_be_bytes(),
        to.to_be_bytes(),
        [0; 2],
        [0; 2],
        [0; 2],
        [0; 2],
    ]
    .concat();
    packet.extend([1, 0, 0, 20]);
    packet.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    // CRC32c (appendix A), without which connection tracking takes it for garbage.
    let mut crc = u32::MAX;
    for byte in &packet {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
    packet
}

#[test]
fn the_beginning_of_an_sctp_association_is_led_to_the_workloads_port() {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};
    let world = World::new();
    let one = world.attach("one", ONE, 100_000, &[all(Protocol::Sctp, 3868, 38_680)]);
    for (family, domain, head) in [
        (Family::V4, AddressFamily::INET, 20),
        (Family::V6, AddressFamily::INET6, 0),
    ] {
        let raw = || socket(domain, SocketType::RAW, Some(ipproto::SCTP)).unwrap();
        let (client, server) = (
            world.node.outside.within(raw).unwrap(),
            one.namespace.within(raw).unwrap(),
        );
        let limit = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&server, limit, Some(LIMIT)).unwrap();
        let to = SocketAddr::new(of(family, NODE), 0);
        sendto(&client, &sctp_init(3868), SendFlags::empty(), &to).unwrap();
        let mut buffer = [0; 128];
        let (length, _) = recv(&server, &mut buffer[..], RecvFlags::empty()).unwrap();
        let came = &buffer[head..length];
        assert_eq!(came[..4], sctp_init(38_680)[..4], "the ports");
        assert_eq!(came, sctp_init(38_680), "and a checksum that fits");
    }
}

/// A client that never pauses, as a resolver or a telephone: its connection is remembered for as long as it sends.
#[test]
fn a_running_flow_of_datagrams_follows_a_port_to_whoever_has_it() {
    let world = World::new();
    let outside = &world.node.outside;
    for (n, family) in (0..).zip(Family::ALL) {
        let here = of(family, NODE);
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let own = world.on_the_node(|| UdpSocket::bind((here, 53))).unwrap();
        let client = packets::udp_listener(outside, of(family, OUTSIDE)).unwrap();
        let sent = |text: &str| client.send_to(text.as_bytes(), (here, 53)).unwrap();
        let hears = |server: &UdpSocket, text: &str| {
            let came = packets::udp_receive(server, LIMIT).unwrap();
            assert_eq!(came, Some((text.to_owned(), of(family, OUTSIDE))));
        };
        let place = Place {
            family,
            protocol: Protocol::Udp,
            port: 53,
            address: None,
        };
        let forget = |past: &Past| world.on_the_node(|| world.linux.forget(past).unwrap().flows);
        sent("to the node");
        hears(&own, "to the node");

        let one = world.attach("one", ONE, 100_000 + 10 * n, &[all(Protocol::Udp, 53, 5353)]);
        let bound = |workload: &Workload| {
            let bind = || UdpSocket::bind((any, 5353)).unwrap();
            workload.namespace.within(bind).unwrap()
        };
        let at_one = bound(&one);
        sent("still to the node");
        hears(&own, "still to the node");
        // A connection to elsewhere has the same port, and is none of the node's own.
        let resolver = packets::udp_listener(outside, any).unwrap();
        let past_it = SocketAddr::new(of(family, OUTSIDE), resolver.local_addr().unwrap().port());
        packets::udp_send(&one.namespace, of(family, ONE), past_it, "to elsewhere").unwrap();
        assert!(packets::udp_receive(&resolver, LIMIT).unwrap().is_some());
        let elsewhere = Place {
            port: past_it.port(),
            ..place
        };
        let opened = Past {
            places: [place, elsewhere].into(),
            ..Past::default()
        };
        assert_eq!(forget(&opened), 1, "the one to the node");
        sent("to one");
        hears(&at_one, "to one");

        world.detach(&one);
        let other = world.attach("other", OTHER, 100_001 + 10 * n, &[all(Protocol::Udp, 53, 5353)]);
        let at_other = bound(&other);
        sent("lost");
        assert_eq!(packets::udp_receive(&at_other, NEVER).unwrap(), None);
        let gone = Past {
            addresses: [of(family, ONE)].into(),
            ..Past::default()
        };
        assert_eq!(forget(&gone), 2, "by the port, and to elsewhere");
        assert_eq!(forget(&gone), 0);
        sent("to the other");
        hears(&at_other, "to the other");
        let many = Past {
            addresses: (3..20_u8)
                .map(|n| match family {
                    Family::V4 => IpAddr::from([10, 77, 0, n]),
                    Family::V6 => format!("fd77::{n:x}").parse().unwrap(),
                })
                .collect(),
            ..Past::default()
        };
        assert_eq!(forget(&many), 1);
        world.detach(&other);
    }
}

#[test]
fn a_port_of_one_address_is_the_nodes_own_at_all_others() {
    let world = World::new();
    world.run("ip", "address add 203.0.113.7/24 dev uplink");
    let namespaces = [(), ()].map(|()| Namespace::new().unwrap());
    let servers = namespaces
        .each_ref()
        .map(|n| Server::start(n, Ipv4Addr::UNSPECIFIED.into()).unwrap());
    let at = |address: &str, server: &Server| HostPort {
        address: Some(address.parse().unwrap()),
        ..all(Protocol::Tcp, 8080, server.address().port())
    };
    let [one, other] = namespaces;
    let ports = [at("203.0.113.7", &servers[0]), at("127.0.0.1", &servers[0])];
    let one = world.attach_to(one, "one", ONE, 100_000, &ports);
    let ports = [at("203.0.113.2", &servers[1])];
    let other = world.attach_to(other, "other", OTHER, 100_001, &ports);
    let (node, outside) = (&world.node.node, &world.node.outside);
    let [second, first] = ["203.0.113.7", "203.0.113.2"].map(|a| a.parse::<IpAddr>().unwrap());
    // A workload that reaches itself sees the node, and so is told from the other one.
    assert_ne!(seen(&one.namespace, second, 8080), of(Family::V4, ONE));
    assert_eq!(seen(&one.namespace, first, 8080), of(Family::V4, ONE));
    assert_eq!(seen(&other.namespace, second, 8080), of(Family::V4, OTHER));
    assert_eq!(seen(outside, second, 8080), of(Family::V4, OUTSIDE));
    seen(node, Ipv4Addr::LOCALHOST.into(), 8080);
    is_refused(node, "127.0.0.2".parse().unwrap(), 8080);
    is_refused(outside, of(Family::V6, NODE), 8080);
    world.detach(&other);
    is_refused(outside, first, 8080);
    assert_eq!(seen(outside, second, 8080), of(Family::V4, OUTSIDE));
}

#[test]
fn what_listens_on_the_nodes_loopback_is_not_open_to_workloads() {
    let world = World::new();
    let one = world.attach("one", ONE, 100_000, &[all(Protocol::Tcp, 8080, 80)]);
    let conf = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", one.plan.host);
    let set = world.on_the_node(|| std::fs::read_to_string(&conf).unwrap());
    assert_eq!(set.trim(), "1", "the link takes packets from 127.0.0.0/8");
    let secret = packets::udp_listener(&world.node.node, Ipv4Addr::LOCALHOST.into()).unwrap();
    let open = packets::udp_listener(&world.node.node, Ipv4Addr::UNSPECIFIED.into()).unwrap();
    // The workload routes 127.0.0.0/8 to the node as its own loopback allows.
    let inside = |name: &str, value: &str| {
        let write = || std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}"), value).unwrap();
        one.namespace.within(write).unwrap();
    };
    inside("all/route_localnet", "1");
    one.namespace
        .within(|| {
            for line in [
                "route delete local 127.0.0.0/8 dev lo table local",
                "route delete local 127.0.0.1 dev lo table local",
                "route add 127.0.0.0/8 via 169.254.77.1",
            ] {
                let done = Command::new("ip").args(line.split(' ')).status().unwrap();
                assert!(done.success(), "{line}");
            }
        })
        .unwrap();
    let own = of(Family::V4, ONE);
    let to = |socket: &UdpSocket, address: Ipv4Addr| {
        SocketAddr::new(address.into(), socket.local_addr().unwrap().port())
    };
    packets::udp_send(&one.namespace, own, to(&secret, Ipv4Addr::LOCALHOST), "no").unwrap();
    packets::udp_send(&one.namespace, own, to(&open, Ipv4Addr::new(127, 0, 0, 5)), "no").unwrap();
    let here = SocketAddr::new(of(Family::V4, NODE), open.local_addr().unwrap().port());
    packets::udp_send(&one.namespace, own, here, "yes").unwrap();
    // What came before it would have been received before it.
    let first = packets::udp_receive(&open, LIMIT).unwrap();
    assert_eq!(first, Some(("yes".to_owned(), own)));
    assert_eq!(packets::udp_receive(&secret, NEVER).unwrap(), None);
    // Without the guard they would come.
    world.run("nft", "flush chain inet workloadnet guard");
    packets::udp_send(&one.namespace, own, to(&secret, Ipv4Addr::LOCALHOST), "no").unwrap();
    let came = packets::udp_receive(&secret, LIMIT).unwrap();
    assert_eq!(came, Some(("no".to_owned(), own)));
}

#[test]
fn a_port_of_the_nodes_loopback_is_closed_to_other_hosts() {
    let world = World::new();
    let port = HostPort {
        address: Some(Ipv4Addr::LOCALHOST.into()),
        ..all(Protocol::Udp, 53, 5353)
    };
    let one = world.attach("one", ONE, 100_000, &[port]);
    let (node, outside) = (&world.node.node, &world.node.outside);
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
    let workload = one.namespace.within(bind).unwrap();
    // A host on the node's link that sends to 127.0.0.1 there.
    outside
        .within(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            for line in [
                "route delete local 127.0.0.0/8 dev lo table local",
                "route delete local 127.0.0.1 dev lo table local",
                "route add 127.0.0.0/8 via 203.0.113.2",
            ] {
                let done = Command::new("ip").args(line.split(' ')).status().unwrap();
                assert!(done.success(), "{line}");
            }
        })
        .unwrap();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53);
    packets::udp_send(outside, of(Family::V4, OUTSIDE), to, "no").unwrap();
    assert_eq!(packets::udp_receive(&workload, NEVER).unwrap(), None);
    packets::udp_send(node, Ipv4Addr::LOCALHOST.into(), to, "yes").unwrap();
    let (text, _) = packets::udp_receive(&workload, LIMIT).unwrap().unwrap();
    assert_eq!(text, "yes");
    // Without the rule it would come.
    let chain = world.run("nft", "-a list chain inet workloadnet ports");
    let rule = chain.lines().find(|line| line.contains("127.0.0.0/8")).unwrap();
    let handle = rule.rsplit(' ').next().unwrap();
    world.run(
        "nft",
        &format!("delete rule inet workloadnet ports handle {handle}"),
    );
    packets::udp_send(outside, of(Family::V4, OUTSIDE), to, "it comes").unwrap();
    let (text, _) = packets::udp_receive(&workload, LIMIT).unwrap().unwrap();
    assert_eq!(text, "it comes");
}

#[test]
fn ports_are_known_from_the_link_alone_and_put_back_with_the_table() {
    let world = World::new();
    let namespace = Namespace::new().unwrap();
    let server = Server::start(&namespace, Ipv4Addr::UNSPECIFIED.into()).unwrap();
    let port = server.address().port();
    let ports: Vec<HostPort> = (0..30)
        .map(|n| all(Protocol::Tcp, 8080 + n, if n == 0 { port } else { 9 }))
        .collect();
    let one = world.attach_to(namespace, "one", ONE, 100_000, &ports);
    let outside = &world.node.outside;
    let here = of(Family::V4, NODE);
    seen(outside, here, 8080);

    // Another process, that knows nothing.
    let linux = world.on_the_node(|| Linux::open(GROUP).unwrap());
    let survey = world.on_the_node(|| linux.survey().unwrap());
    let found = survey
        .links
        .into_iter()
        .find(|link| link.index == 100_000)
        .unwrap();
    let Standing::Attached(record) = found.standing(GROUP) else {
        panic!("{found:?}");
    };
    assert_eq!(*record, one.record);
    assert_eq!(found.missing(&record, &one.plan), Vec::new());
    let doors = record.asked.ports.doors(record.addresses);
    assert_eq!(linux.set_doors(100_000, &doors), Ok(()));
    let drift = || world.on_the_node(|| linux.drift(&RULESET).unwrap());
    assert_eq!(drift(), Vec::<String>::new());
    // From here on it changes what it found.
    let udp: Vec<Door> = doors
        .iter()
        .map(|door| Door {
            place: Place {
                protocol: Protocol::Udp,
                ..door.place
            },
            ..*door
        })
        .collect();
    let listed = || world.run("nft", "list map inet workloadnet ports6");
    assert_eq!(linux.set_doors(100_001, &udp), Ok(()));
    assert!(listed().contains("udp . 8081"), "{}", listed());
    assert_eq!(linux.set_doors(100_001, &[]), Ok(()));
    assert!(!listed().contains("udp"), "{}", listed());

    for damage in [
        "delete element inet workloadnet ports4 { tcp . 8080 }",
        "add element inet workloadnet ports4 { udp . 9999 : 10.77.0.9 . 80 }",
        "add element inet workloadnet addresses6 { fd00::1 . tcp . 9999 : fd77::9 . 80 }",
        "delete element inet workloadnet itself6 { fd77::2 . fd77::2 }",
        "flush map inet workloadnet ports6",
        "flush ruleset",
    ] {
        world.run("nft", damage);
        assert_ne!(drift(), Vec::<String>::new(), "{damage}");
        world.on_the_node(|| linux.publish(&RULESET).unwrap());
        assert_eq!(drift(), Vec::<String>::new(), "{damage}");
        seen(outside, here, 8080);
    }
    // Names that somebody takes away are written again.
    let link = one.plan.host.as_str();
    let lost = found.altnames.iter().find(|name| name.contains("-1of")).unwrap();
    world.run("ip", &format!("link property del dev {link} altname {lost}"));
    world.run("sysctl", &format!("-qw net.ipv4.conf.{link}.route_localnet=0"));
    let found = world.on_the_node(|| linux.find(&one.plan.host).unwrap().unwrap());
    assert!(
        found.beyond_us()[0].contains("of 3 names that tell them are there"),
        "{:?}",
        found.beyond_us()
    );
    let missing = found.missing(&one.record, &one.plan);
    assert_eq!(missing.len(), 2, "{missing:?}");
    let target = Target {
        link: one.plan.host.clone(),
        index: 100_000,
        group: GROUP,
    };
    assert_eq!(world.on_the_node(|| linux.restore(&target, &missing)), Vec::new());
    let found = world.on_the_node(|| linux.find(&one.plan.host).unwrap().unwrap());
    assert_eq!(found.missing(&one.record, &one.plan), Vec::new());
    seen(&world.node.node, Ipv4Addr::LOCALHOST.into(), 8080);
}

#[test]
fn a_table_that_somebody_flushed_is_put_in_place_by_who_opens_or_closes_a_port() {
    let world = World::new();
    world.run("nft", "flush ruleset");
    let one = world.attach("one", ONE, 100_000, &[all(Protocol::Tcp, 8080, 80)]);
    assert_eq!(world.drift(), Vec::<String>::new());
    world.run("nft", "flush map inet workloadnet ports4");
    world.detach(&one);
    assert_eq!(world.drift(), Vec::<String>::new());
    let listed = world.run("nft", "list table inet workloadnet");
    assert!(!listed.contains("8080"), "{listed}");
}

#[test]
fn ports_that_could_not_be_closed_are_not_said_to_be_closed() {
    let world = World::new();
    let one = world.attach("one", ONE, 100_000, &[all(Protocol::Tcp, 8080, 80)]);
    // Somebody has the table for himself, for as long as he lives.
    let mut nft = Command::new("nft");
    nft.arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut owner = world.on_the_node(|| nft.spawn().unwrap());
    let mut stdin = owner.stdin.take().unwrap();
    stdin
        .write_all(
            b"delete table inet workloadnet\nadd table inet workloadnet { flags owner; }\nlist tables\n",
        )
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("inet workloadnet")));

    world.detach(&one);
    let close = || world.on_the_node(|| world.linux.set_doors(100_000, &[]));
    assert!(close().is_err(), "nobody knows what the table holds");
    // A workload without ports is not concerned.
    let other = world.attach("other", OTHER, 100_001, &[]);
    drop(stdin);
    owner.wait().unwrap();
    assert_eq!(close(), Ok(()));
    assert_eq!(world.drift(), Vec::<String>::new());
    world.detach(&other);
}

#[test]
fn a_port_that_cannot_be_opened_leaves_nothing() {
    let world = World::new();
    // Another link has the name that would tell of the ports.
    let key = Key::new(
        Owner::default(),
        WorkloadId::new("one").unwrap(),
        InterfaceName::new("eth0").unwrap(),
    )
    .unwrap();
    let name = format!("{}-1of1-t8080-80", key.host_link());
    world.run("ip", &format!("link property add dev uplink altname {name}"));
    let namespace = Namespace::new().unwrap();
    let path = namespace.path();
    let fault = world.on_the_node(|| {
        let (file, identity) = world.linux.open(&path).unwrap();
        let record = Record {
            key,
            addresses: Addresses::from_list(ONE.map(|a| a.parse().unwrap())).unwrap(),
            namespace: identity,
            path: PathDigest::of(&path),
            asked: Asked {
                ports: Ports::new([all(Protocol::Tcp, 8080, 80)]).unwrap(),
                ..Asked::default()
            },
            adopted: None,
        };
        let settings = PlanSettings {
            group: GROUP,
            mtu: 1500,
        };
        let plan = Plan::new(record, &settings, 100_000);
        world.linux.wire(&file, &plan).unwrap_err()
    });
    assert!(fault.to_string().contains(&name), "{fault}");
    assert_eq!(world.drift(), Vec::<String>::new());
    assert_eq!(world.node.node.links("wk").unwrap(), Vec::<String>::new());
    let listed = world.run("nft", "list table inet workloadnet");
    assert!(!listed.contains("8080"), "{listed}");
}
