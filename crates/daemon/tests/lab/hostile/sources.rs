//! Packets under a name that is not the sender's, and such that nobody should send at all.

use super::{FORGED, HONEST, Stand, Undisturbed, v4, v6};
use crate::witness::run;
use stage::Namespace;
use stage::frames::{
    BROADCAST, Mac, Packet, datagram, ethernet, frames, icmp, icmpv6, ipv4, ipv6, ipv6_fragment,
};
use stage::packets::{udp_listener, udp_receive};
use stage::wait::PATIENCE;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

/// In which every text is, so that a fragment has it whole.
const TEXT: usize = 8;

fn heard(listener: &UdpSocket) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some((text, from)) = udp_receive(listener, Duration::from_millis(1)).unwrap() {
        texts.push(format!("{text} from {from}"));
    }
    texts
}

fn parsed<const N: usize>(texts: [&str; N]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Addresses that the hostile workload does not have. Link-local ones are not among them: they mean its own link, and are led
/// nowhere else.
fn foreign(stand: &Stand) -> Vec<IpAddr> {
    let mut all = stand.innocent.ips.to_vec();
    all.extend(stand.node);
    all.extend(stand.outside);
    // The first hop's, the node's own of each prefix, one that nobody has, a stranger's, and those that are nobody's at all.
    all.extend(parsed([
        "169.254.77.1",
        "10.77.0.1",
        "10.77.0.255",
        "10.77.0.200",
        "198.51.100.7",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
    ]));
    all.extend(parsed([
        "fd77::1",
        "fd77::200",
        "2001:db8:99::7",
        "::1",
        "::",
        "ff02::1",
        "::ffff:10.77.0.3",
        "fec0::1",
    ]));
    all
}

#[test]
fn whatever_a_workload_makes_up_arrives_nowhere_under_a_foreign_name() {
    let stand = Stand::new();
    let before = stand.node(true);
    let undisturbed = Undisturbed::begin(&stand);
    let on_the_node = udp_listener(&stand.daemon.node.node, Ipv6Addr::UNSPECIFIED.into()).unwrap();
    let port = on_the_node.local_addr().unwrap().port();
    let witnesses = stand.witnesses();
    let link = frames(&stand.hostile.sandbox, "eth0").unwrap();
    let macs: [Mac; 5] = [
        stand.hostile.mac,
        stand.innocent.mac,
        stand.first_hop,
        BROADCAST,
        Mac::default(),
    ];
    let targets: Vec<IpAddr> = [stand.outside, stand.innocent.ips, stand.node].concat();
    for from in foreign(&stand) {
        for to in targets.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
            for mac in macs {
                let frame = ethernet(mac, stand.first_hop, &datagram(from, *to, port, FORGED));
                // The workload's own kernel may refuse to send what has no sender.
                link.send(&frame).unwrap();
            }
        }
    }
    for to in &targets {
        let own = stand.hostile.ips[usize::from(to.is_ipv6())];
        for mac in macs {
            let frame = ethernet(mac, stand.first_hop, &datagram(own, *to, port, HONEST));
            link.send(&frame).unwrap();
        }
    }
    stand.is_heard();
    // First, for a witness looks at everything, and has an end where nothing comes any more.
    undisturbed.end();
    for (name, witness) in witnesses {
        let (forged, honest) = witness.saw();
        assert_eq!(forged, 0, "{name}");
        // Who sends by which MAC means nothing on a link with one sender.
        assert!(honest >= 8, "{name}: {honest}");
    }
    let texts = heard(&on_the_node);
    assert!(texts.iter().all(|text| text.starts_with("honest")), "{texts:?}");
    assert!(texts.len() >= 8, "{texts:?}");
    stand.is_unchanged(&before, true, "afterwards");
    stand.is_cleaned_up();
}

/// A datagram in two pieces, the second of which overlaps the first: whoever takes the later bytes sees another one.
fn overlapping(from: IpAddr, to: IpAddr, port: u16) -> Vec<Packet> {
    let whole = |text: &[u8]| datagram(from, to, port, text).bytes;
    let pieces = [
        whole(&[b"harmless", &[b'.'; 24][..]].concat()),
        whole(&[FORGED, &[b'!'; 26][..]].concat()),
    ];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => vec![
            ipv4(from, to, 17, 0x2000, &pieces[0][20..44]),
            ipv4(from, to, 17, 1, &pieces[1][28..]),
        ],
        (IpAddr::V6(from), IpAddr::V6(to)) => vec![
            ipv6_fragment(from, to, 1, &pieces[0][40..64]),
            ipv6_fragment(from, to, 8, &pieces[1][48..]),
        ],
        _ => panic!("of two families"),
    }
}

/// A datagram in the smallest pieces that there are.
fn tiny(from: IpAddr, to: IpAddr, port: u16, text: &[u8]) -> Vec<Packet> {
    let whole = datagram(from, to, port, &[text, &[b'.'; TEXT][..]].concat());
    let header = if from.is_ipv4() { 20 } else { 40 };
    let payload = &whole.bytes[header..];
    let pieces = payload.chunks(8).enumerate().map(|(n, piece)| {
        let (place, more) = (u16::try_from(n).unwrap(), (n + 1) * 8 < payload.len());
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let follows = if more { 0x2000 } else { 0 };
                ipv4(from, to, 17, place | follows, piece)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ipv6_fragment(from, to, (place * 8) | u16::from(more), piece)
            }
            _ => panic!("of two families"),
        }
    });
    pieces.collect()
}

#[test]
fn pieces_of_packets_carry_no_foreign_name_and_do_not_overlap() {
    let stand = Stand::new();
    let before = stand.node(true);
    let undisturbed = Undisturbed::begin(&stand);
    let listeners = [
        &*stand.innocent.sandbox,
        &stand.daemon.node.outside,
        &stand.daemon.node.node,
    ]
    .map(|place| {
        let listener = udp_listener(place, Ipv6Addr::UNSPECIFIED.into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    });
    let targets = [stand.innocent.ips, stand.outside, stand.node];
    for ((_, port), target) in listeners.iter().zip(targets) {
        for (own, to) in stand.hostile.ips.into_iter().zip(target) {
            stand.send(&overlapping(own, to, *port));
            let others = stand
                .innocent
                .ips
                .into_iter()
                .chain(stand.node)
                .chain(stand.outside);
            for from in others.filter(|from| from.is_ipv4() == to.is_ipv4() && *from != to) {
                stand.send(&tiny(from, to, *port, FORGED));
                stand.send(&overlapping(from, to, *port));
            }
        }
    }
    stand.is_heard();
    // Afterwards, as a piece with the number of another packet's would be taken for one of it.
    for ((_, port), target) in listeners.iter().zip(targets) {
        for (own, to) in stand.hostile.ips.into_iter().zip(target) {
            stand.send(&[datagram(own, to, *port, HONEST)]);
        }
    }
    stand.is_heard();
    for (listener, _) in &listeners {
        let texts = heard(listener);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts.iter().all(|text| text.starts_with("honest")), "{texts:?}");
    }
    undisturbed.end();
    stand.is_unchanged(&before, true, "afterwards");
    stand.is_cleaned_up();
}

/// The Ethernet address of a link.
fn mac_of(place: &Namespace, link: &str) -> Mac {
    let told = run(place, &format!("ip -o link show {link}"));
    let words = told.split_ascii_whitespace();
    let mac = words.skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

/// Linux puts pieces of an IPv4 packet together by addresses and number, whichever links they come by.
#[test]
fn a_piece_that_a_workload_makes_up_completes_no_packet_that_came_by_another_link() {
    let stand = Stand::new();
    let listener = udp_listener(&stand.innocent.sandbox, Ipv6Addr::UNSPECIFIED.into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let [from, to] = [stand.outside[0], stand.innocent.ips[0]];
    let whole = datagram(from, to, port, b"begin...end here").bytes;
    let (from, to) = (v4(from), v4(to));
    let end = |text: &[u8; 8]| ipv4(from, to, 17, 2, text);
    stand.send(&[end(b"forged..")]);
    stand.is_heard();
    let outside = &stand.daemon.node.outside;
    let link = frames(outside, "eth0").unwrap();
    let (own, next) = (mac_of(outside, "eth0"), mac_of(&stand.daemon.node.node, "uplink"));
    for piece in [ipv4(from, to, 17, 0x2000, &whole[20..36]), end(b"end here")] {
        link.send(&ethernet(own, next, &piece)).unwrap();
    }
    let text = udp_receive(&listener, PATIENCE).unwrap().map(|(text, _)| text);
    assert_eq!(text.as_deref(), Some("begin...end here"));
    assert_eq!(heard(&listener), [] as [&str; 0]);
    stand.is_cleaned_up();
}

/// Quoted are answers of the node to a ping, of which the kernel asks nobody whether they were sent.
#[test]
fn what_a_workload_says_of_mtus_is_not_believed_by_the_node() {
    let stand = Stand::new();
    let before = stand.node(true);
    let [own4, node4, outside4] = [stand.hostile.ips, stand.node, stand.outside].map(|of| v4(of[0]));
    let [own6, node6, outside6] = [stand.hostile.ips, stand.node, stand.outside].map(|of| v6(of[1]));
    let answer4 = ipv4(node4, outside4, 1, 0, &[0; 16]).bytes;
    let answer6 = ipv6(
        node6,
        outside6,
        58,
        &[[129, 0, 0, 0].as_slice(), &[0; 12]].concat(),
    )
    .bytes;
    stand.send(&[
        icmp(
            own4,
            node4,
            [[3, 4, 0, 0, 0, 0, 2, 88].as_slice(), &answer4].concat(),
        ),
        icmpv6(
            own6,
            node6,
            [[2, 0, 0, 0, 0, 0, 5, 0].as_slice(), &answer6].concat(),
        ),
    ]);
    stand.is_heard();
    for address in stand.outside {
        let route = run(&stand.daemon.node.node, &format!("ip route get {address}"));
        assert!(!route.contains(" mtu "), "{route}");
    }
    stand.is_unchanged(&before, true, "afterwards");
    stand.is_cleaned_up();
}

/// What is for everybody reaches the node at most: there is no link that workloads share, and the node passes none of it on.
#[test]
fn what_is_sent_to_everybody_reaches_no_other_workload_and_no_other_host() {
    let stand = Stand::new();
    let before = stand.node(true);
    let undisturbed = Undisturbed::begin(&stand);
    let witnesses = stand.witnesses();
    let link = frames(&stand.hostile.sandbox, "eth0").unwrap();
    let [own4, own6] = stand.hostile.ips;
    let link_local: IpAddr = "fe80::bad".parse().unwrap();
    let to: Vec<IpAddr> = parsed([
        "255.255.255.255",
        "203.0.113.255",
        "224.0.0.1",
        "224.0.0.251",
        "239.1.2.3",
        "ff02::1",
        "ff02::fb",
        "ff05::2",
        "ff0e::101",
    ]);
    let v4_multicast: Mac = [1, 0, 0x5e, 0, 0, 0xfb];
    let v6_multicast: Mac = [0x33, 0x33, 0, 0, 0, 1];
    for to in to {
        let from = if to.is_ipv4() {
            vec![own4]
        } else {
            vec![own6, link_local]
        };
        for (from, target) in from
            .iter()
            .flat_map(|from| [stand.first_hop, BROADCAST, v4_multicast, v6_multicast].map(|mac| (*from, mac)))
        {
            let frame = ethernet(stand.hostile.mac, target, &datagram(from, to, 5353, FORGED));
            link.send(&frame).unwrap();
        }
    }
    // Questions of a multicast router (RFC 2236, RFC 2710), which others would answer to.
    let all_v4 = Ipv4Addr::new(224, 0, 0, 1);
    let own4 = match own4 {
        IpAddr::V4(own) => own,
        IpAddr::V6(_) => panic!("{own4} first"),
    };
    stand.send(&[
        ipv4(own4, all_v4, 2, 0, &[0x11, 1, 0xee, 0xfe, 0, 0, 0, 0]),
        icmpv6(
            "fe80::bad".parse().unwrap(),
            "ff02::1".parse().unwrap(),
            [&[130, 0, 0, 0, 0, 1, 0, 0][..], &[0; 16]].concat(),
        ),
    ]);
    stand.is_heard();
    undisturbed.end();
    for (name, witness) in witnesses {
        assert_eq!(witness.saw().0, 0, "{name}");
    }
    stand.is_unchanged(&before, true, "afterwards");
    stand.is_cleaned_up();
}
