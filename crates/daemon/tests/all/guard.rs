//! What a workload that is root in its own namespace cannot do to others and to the node.

use crate::common::{Host, eventually, run};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};
use stage::Namespace;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

/// Packets that a counter named after what it counts has seen.
fn counted(listing: &str, what: &str) -> u64 {
    let line = listing
        .lines()
        .find(|line| line.contains(what))
        .unwrap_or_else(|| panic!("{what}: {listing}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets").unwrap();
    words[at + 1].parse().unwrap()
}

#[test]
fn a_workload_cannot_use_another_address() {
    let host = Host::new(&["--prefix", "10.9.0.0/24", "--prefix", "fd09::/64"]);
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let of_a = host.attach("a", &a).unwrap();
    let of_b = host.attach("b", &b).unwrap();
    let inside = |namespace: &Namespace, line: &str| namespace.within(|| run(line)).unwrap();
    let forged = ["10.9.0.222", "fd09::222"];
    inside(&b, "nft add table inet probe");
    inside(
        &b,
        "nft add chain inet probe input { type filter hook input priority 0 ; }",
    );
    for (family, all) in [("ip", [&*of_a[0], forged[0]]), ("ip6", [&*of_a[1], forged[1]])] {
        for source in all {
            inside(
                &b,
                &format!("nft add rule inet probe input {family} saddr {source} counter"),
            );
        }
    }
    inside(&a, &format!("ip address add {}/32 dev eth0", forged[0]));
    inside(&a, &format!("ip address add {}/128 dev eth0 nodad", forged[1]));
    for (n, forged) in forged.iter().enumerate() {
        let ping = |source: &str| {
            a.within(|| {
                let args = ["-c", "2", "-i", "0.2", "-W", "1", "-I", source, &of_b[n]];
                std::process::Command::new("ping")
                    .args(args)
                    .output()
                    .unwrap()
                    .status
                    .success()
            })
            .unwrap()
        };
        assert!(!ping(forged), "{forged} got an answer");
        assert!(ping(&of_a[n]), "its own address gets none");
        let listing = inside(&b, "nft list chain inet probe input");
        assert_eq!(counted(&listing, &format!("saddr {forged} ")), 0, "{listing}");
        assert_eq!(counted(&listing, &format!("saddr {} ", of_a[n])), 2, "{listing}");
    }
}

/// Sends an ICMP or ICMPv6 message with hop limit 255 from a workload to its link.
fn send(from: &Namespace, to: SocketAddr, kind: u8, body: &[u8]) {
    from.within(|| {
        let (family, protocol) = match to {
            SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = socket(family, SocketType::RAW, Some(protocol)).unwrap();
        if to.is_ipv6() {
            sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
            sockopt::set_ipv6_unicast_hops(&socket, Some(255)).unwrap();
        }
        let mut packet = vec![kind, 0, 0, 0];
        packet.extend_from_slice(body);
        if to.is_ipv4() {
            let sum: u32 = packet
                .chunks(2)
                .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
                .sum();
            let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        sendto(&socket, &packet, SendFlags::empty(), &to).unwrap();
    })
    .unwrap();
}

#[test]
fn a_workload_cannot_change_the_nodes_routes() {
    let host = Host::new(&["--prefix", "10.9.0.0/24", "--prefix", "fd09::/64"]);
    let workload = Namespace::new().unwrap();
    let addresses = host.attach("a", &workload).unwrap();
    // Sees what comes, before our table does.
    host.on_node("nft add table inet probe");
    host.on_node("nft add chain inet probe early { type filter hook prerouting priority -400 ; }");
    for what in [
        "icmpv6 type nd-router-advert",
        "icmpv6 type nd-redirect",
        "icmp type redirect",
    ] {
        host.on_node(&format!("nft add rule inet probe early {what} counter"));
    }
    let world = || {
        [
            "ip -6 route show table all",
            "ip -4 route show table all",
            "ip -6 address show",
            "ip route show cache",
        ]
        .map(|line| host.on_node(line))
        .join("")
    };
    let before = world();

    let all_nodes = |address: &str| SocketAddrV6::new(address.parse::<Ipv6Addr>().unwrap(), 0, 0, 2).into();
    // Hop limit 64, router for 1800 s; a prefix option for 2001:db8:bad::/64, on-link and autonomous.
    let mut advertisement = vec![64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0];
    advertisement.extend([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    advertisement.extend("2001:db8:bad::".parse::<Ipv6Addr>().unwrap().octets());
    send(&workload, all_nodes("ff02::1"), 134, &advertisement);
    // The outside host is said to be reached by way of the workload.
    let mut redirect = vec![0; 4];
    redirect.extend("fe80::bad".parse::<Ipv6Addr>().unwrap().octets());
    redirect.extend(stage::OUTSIDE[1].parse::<Ipv6Addr>().unwrap().octets());
    send(&workload, all_nodes("fe80::1"), 137, &redirect);
    let mut redirect = vec![169, 254, 77, 1];
    redirect.extend([
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 203, 0, 113, 2, 203, 0, 113, 1, 8, 0, 0, 0, 0, 0, 0, 0,
    ]);
    send(&workload, "169.254.77.1:0".parse().unwrap(), 5, &redirect);

    let seen = || host.on_node("nft list chain inet probe early");
    for what in ["nd-router-advert", "nd-redirect", "icmp type redirect"] {
        eventually(what, || counted(&seen(), what) >= 1);
    }
    assert_eq!(world(), before);
    assert_eq!(host.attach("a", &workload).unwrap(), addresses);
}
