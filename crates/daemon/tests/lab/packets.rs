//! Packets through what the daemon attached: that the first one arrives, and that a forged one does not.

use crate::daemon::{Daemon, addresses, attach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use stage::change::Links;
use stage::packets::{udp_listener, udp_receive, udp_send};
use stage::pinger::Pinger;
use stage::wait::A_SECOND;
use stage::{OUTSIDE, ping};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

/// A packet that waited for anything is sent again after a second (RETRANS_TIMER, RFC 4861 section 10).
const AT_ONCE: Duration = Duration::from_millis(800);
const ATTACHES: usize = 300;

/// Each family alone, because what one of them waits for may have settled the other; then together, in turns first.
#[test]
fn the_first_packet_after_the_answer_gets_through() {
    let (v4, v6) = ("10.77.0.0/16", "fd77::/64");
    let outside: [IpAddr; 2] = OUTSIDE.map(|text| text.parse().unwrap());
    for (prefixes, of) in [
        (&[v4][..], &[outside[0]][..]),
        (&[v6], &[outside[1]]),
        (&[v4, v6], &outside),
    ] {
        let mut daemon = Daemon::new();
        daemon.set_prefixes(prefixes);
        daemon.start();
        let caller = daemon.caller();
        for n in 0..ATTACHES {
            let namespace = Sandbox::new();
            let first = of[n % of.len()];
            let pinger = Pinger::open(&namespace, first).unwrap();
            caller.attach(attach(&format!("w{n}"), &namespace)).unwrap();
            let mut aimed = pinger.aim(first, None).unwrap();
            aimed
                .ping(AT_ONCE)
                .unwrap_or_else(|error| panic!("{prefixes:?}, attach {n}: {error:#}"));
            for other in of {
                ping(&namespace, *other, AT_ONCE)
                    .unwrap_or_else(|error| panic!("{prefixes:?}, attach {n}: {error:#}"));
            }
        }
    }
}

/// Which of two datagrams arrive, the first of which has a forged source. What is sent later arrives later.
fn arrived(from: &Sandbox, forged: IpAddr, own: IpAddr, listener: &UdpSocket) -> Vec<IpAddr> {
    let to = listener.local_addr().unwrap();
    udp_send(from, forged, to, "forged").unwrap();
    udp_send(from, own, to, "own").unwrap();
    let mut sources = Vec::new();
    while sources.last() != Some(&own) {
        let (_, source) = udp_receive(listener, A_SECOND)
            .unwrap()
            .expect("what is sent from its own address arrives");
        sources.push(source);
    }
    sources
}

/// The rules themselves are tested where they are written; this is about the daemon putting them in place.
#[test]
fn a_forged_source_is_dropped_for_as_long_as_the_daemon_keeps_its_table() {
    let mut daemon = Daemon::started();
    let (a, b) = (Sandbox::new(), Sandbox::new());
    // Asked for, so that nobody has the forged ones.
    let at = |n: u8| vec![vec![10, 77, 0, n], [&[0xfd, 0x77], &[0; 13][..], &[n]].concat()];
    let mut requests = [attach("a", &a), attach("b", &b)];
    (requests[0].requested_ip, requests[1].requested_ip) = (at(5), at(6));
    let [answer, other] = requests.map(|request| daemon.caller().attach(request).unwrap());
    let (of_a, of_b) = (addresses(&answer.ip), addresses(&other.ip));
    let forged: [IpAddr; 2] = ["10.77.0.222", "fd77::222"].map(|text| text.parse().unwrap());
    for address in forged {
        Links::of(&a)
            .unwrap()
            .add_address("eth0", address.into())
            .unwrap();
    }
    let listeners: Vec<UdpSocket> = of_b
        .iter()
        .map(|address| udp_listener(&b, *address).unwrap())
        .collect();
    let all = || -> Vec<Vec<IpAddr>> {
        (0..2)
            .map(|n| arrived(&a, forged[n], of_a[n], &listeners[n]))
            .collect()
    };
    let guarded = [vec![of_a[0]], vec![of_a[1]]];
    assert_eq!(all(), guarded);

    daemon.crash();
    run(&daemon.node.node, "nft delete table inet workloadnet");
    for link in ["all", &*answer.host_link] {
        let setting = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
        daemon
            .node
            .node
            .within(|| std::fs::write(setting, "0"))
            .unwrap()
            .unwrap();
    }
    assert_eq!(all(), [vec![forged[0], of_a[0]], vec![forged[1], of_a[1]]]);

    daemon.start();
    assert_eq!(all(), guarded);
}
