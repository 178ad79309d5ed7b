//! What the kernel knows of ports: kept, put back, and nothing of what could not be done.

use crate::record::key;
use crate::world::{GROUP, ONE, OTHER, RULESET, World, all, of, seen};
use kernel::linux::Linux;
use model::address::Family;
use model::datapath::{Datapath as _, Target};
use model::ports::{HostPort, Place, PortForward, Protocol};
use model::survey::Standing;
use stage::tcp::Server;
use stage::{NODE, Namespace};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

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
    let forwards = record.asked.ports.forwards(record.addresses);
    assert_eq!(linux.set_forwards(100_000, &forwards), Ok(()));
    let drift = || world.on_the_node(|| linux.drift(&RULESET).unwrap());
    assert_eq!(drift(), Vec::<String>::new());
    // From here on it changes what it found.
    let udp: Vec<PortForward> = forwards
        .iter()
        .map(|forward| PortForward {
            place: Place {
                protocol: Protocol::Udp,
                ..forward.place
            },
            ..*forward
        })
        .collect();
    let listed = || world.run("nft", "list map inet workloadnet ports6");
    assert_eq!(linux.set_forwards(100_001, &udp), Ok(()));
    assert!(listed().contains("udp . 8081"), "{}", listed());
    assert_eq!(linux.set_forwards(100_001, &[]), Ok(()));
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
        link: one.plan.host,
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
    let close = || world.on_the_node(|| world.linux.set_forwards(100_000, &[]));
    assert!(close().is_err(), "nobody knows what the table holds");
    // Nor are those that could not be opened.
    let (namespace, ports) = (Namespace::new().unwrap(), [all(Protocol::Tcp, 9090, 80)]);
    let refused = world.wire(&namespace, "refused", OTHER, 100_002, &ports);
    assert!(refused.is_err());
    // A workload without ports is not concerned.
    let other = world.attach("other", OTHER, 100_001, &[]);
    drop(stdin);
    owner.wait().unwrap();
    assert_eq!(close(), Ok(()));
    assert_eq!(world.drift(), Vec::<String>::new());
    let listed = world.run("nft", "list table inet workloadnet");
    assert!(!listed.contains("8080") && !listed.contains("9090"), "{listed}");
    world.detach(&other);
}

#[test]
fn a_port_that_cannot_be_opened_leaves_nothing() {
    let world = World::new();
    // Another link has the name that would tell of the ports.
    let name = format!("{}-1of1-t8080-80", key("one").host_link());
    world.run("ip", &format!("link property add dev uplink altname {name}"));
    let ports = [all(Protocol::Tcp, 8080, 80)];
    let namespace = Namespace::new().unwrap();
    let fault = world.wire(&namespace, "one", ONE, 100_000, &ports).unwrap_err();
    assert!(fault.to_string().contains(&name), "{fault}");
    assert_eq!(world.drift(), Vec::<String>::new());
    assert_eq!(world.node.node.links("wk").unwrap(), Vec::<String>::new());
    let listed = world.run("nft", "list table inet workloadnet");
    assert!(!listed.contains("8080"), "{listed}");
}

/// Lengths of the messages about the node's links, as who dumps them gets them (rtnetlink(7)).
fn lengths(world: &World) -> Vec<u32> {
    use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketType};
    world.on_the_node(|| {
        // NETLINK_ROUTE is 0.
        let socket = net::socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
        // RTM_GETLINK with NLM_F_REQUEST and NLM_F_DUMP, and a struct rtgenmsg.
        let words = [20_u32, 0x0301_0012, 1, 0, 0];
        let request: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        net::send(&socket, &request, SendFlags::empty()).unwrap();
        let mut lengths = Vec::new();
        loop {
            let mut buffer = vec![0; 1 << 16];
            let (received, _) = net::recv(&socket, &mut buffer[..], RecvFlags::empty()).unwrap();
            let mut rest = &buffer[..received];
            while let Some((length, _)) = rest.split_first_chunk() {
                let length = u32::from_ne_bytes(*length);
                // NLMSG_DONE
                if rest[4..6] == 3_u16.to_ne_bytes() {
                    return lengths;
                }
                lengths.push(length);
                rest = rest
                    .get(length.next_multiple_of(4) as usize..)
                    .unwrap_or_default();
            }
        }
    })
}

/// Go's `net.Interfaces` gets a longer one cut off, and no link that follows.
#[test]
fn the_most_ports_leave_the_message_about_a_link_below_4096_bytes() {
    let world = World::new();
    let id = "i".repeat(128);
    let address = "192.168.100.200".parse().unwrap();
    let ports: Vec<HostPort> = (0..)
        .map(|n| HostPort {
            address: Some(address),
            ..all(Protocol::Tcp, 60_000 + n, 65_535)
        })
        .take(36)
        .collect();
    let workload = world.attach(&id, ONE, 1_000_000_000, &ports);
    // What an administrator may add.
    for name in ["uplink-of-the-longest-workload", "another"] {
        world.run(
            "ip",
            &format!("link property add dev {} altname {name}", workload.plan.host),
        );
    }
    let lengths = lengths(&world);
    let longest = lengths.iter().max().copied().unwrap_or_default();
    assert!(lengths.len() >= 3, "{lengths:?}");
    assert!((3000..4096).contains(&longest), "{lengths:?}");
}
