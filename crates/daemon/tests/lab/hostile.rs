//! Root of a workload's own namespace who means harm, beside a workload that does not, and a host outside. What was tried, and
//! what held: `docs/security.md`.
//!
//! ```text
//!   hostile --- wk... --+
//!                       node --- uplink --- outside, which has routes to the workloads: nothing is masqueraded here
//!   innocent --- wk... -+
//! ```

mod ends;
mod neighbours;
mod sources;
mod tables;

use crate::daemon::{Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use crate::witness::{links, run};
use stage::change::{By, Links};
use stage::frames::{Mac, Packet, ethernet, frames};
use stage::tcp::{Conversation, Server};
use stage::wait::{PATIENCE, eventually};
use stage::{NODE, Namespace, OUTSIDE, ping};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is sent under a foreign name, or to whom it should not get; and what is sent as it should be.
const FORGED: &[u8] = b"forged";
const HONEST: &[u8] = b"honest";

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => panic!("{address} is not of IPv4"),
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => panic!("{address} is not of IPv6"),
    }
}

/// One end of a link, as the daemon told it.
struct Attached {
    sandbox: Sandbox,
    host_link: String,
    mac: Mac,
    ips: [IpAddr; 2],
}

struct Stand {
    daemon: Daemon,
    hostile: Attached,
    innocent: Attached,
    /// The first hop's.
    first_hop: Mac,
    outside: [IpAddr; 2],
    node: [IpAddr; 2],
}

impl Stand {
    fn new() -> Self {
        let mut daemon = Daemon::new();
        daemon.set_rest("masquerade = false\n".to_owned());
        daemon.start();
        let [outside, node] = [OUTSIDE, NODE].map(|both| both.map(|text| text.parse().unwrap()));
        for place in [&daemon.node.node, &daemon.node.outside] {
            // Of the uplink itself, which are made with it.
            let look = || run(place, "ip address show tentative");
            eventually(PATIENCE, "addresses are the uplink's", look, String::is_empty);
        }
        let mut routes = Links::of(&daemon.node.outside).unwrap();
        for (net, gateway) in ["10.77.0.0/24", "fd77::/64"].into_iter().zip(node) {
            routes
                .add_route(net.parse().unwrap(), By::Gateway(gateway))
                .unwrap();
        }
        let mut first_hop = Mac::default();
        let mut attached = |id: &str| {
            let sandbox = Sandbox::new();
            let answer = daemon.caller().attach(attach(id, &sandbox)).unwrap();
            first_hop = answer.host_mac.try_into().unwrap();
            Attached {
                sandbox,
                host_link: answer.host_link,
                mac: answer.workload_mac.try_into().unwrap(),
                ips: addresses(&answer.ip).try_into().unwrap(),
            }
        };
        let (hostile, innocent) = (attached("hostile"), attached("innocent"));
        Self {
            daemon,
            hostile,
            innocent,
            first_hop,
            outside,
            node,
        }
    }

    /// What goes by outside and at the innocent's end.
    fn witnesses(&self) -> [(&'static str, Witness); 2] {
        [
            ("outside", Witness::on(&self.daemon.node.outside)),
            ("the innocent", Witness::on(&self.innocent.sandbox)),
        ]
    }

    /// Sends packets from the hostile end, each with its own MAC, to the first hop's.
    fn send(&self, packets: &[Packet]) {
        let link = frames(&self.hostile.sandbox, "eth0").unwrap();
        for packet in packets {
            let frame = ethernet(self.hostile.mac, self.first_hop, packet);
            link.send(&frame).unwrap();
        }
    }

    /// What the hostile end sent before has arrived, or never will: an echo was answered that was sent after it.
    fn is_heard(&self) {
        for address in self.outside.into_iter().chain(self.node) {
            ping(&self.hostile.sandbox, address, PATIENCE).unwrap();
        }
        for address in self.innocent.ips {
            ping(&self.hostile.sandbox, address, PATIENCE).unwrap();
        }
    }

    /// Everything of the node that others rely on: addresses, routes, settings, and the neighbours that were not learned from
    /// the hostile link. Without lines about that link where `with_hostile` is not set.
    fn node(&self, with_hostile: bool) -> Vec<String> {
        let node = &self.daemon.node.node;
        let mut lines = Vec::new();
        for look in [
            "ip -o link show",
            "ip -o address show",
            "ip -o -4 route show table all",
            "ip -o -6 route show table all",
            "ip -o neighbour show nud permanent",
            "ip -o rule show",
            "ip -o -6 rule show",
            "ip -o maddress show",
            "nft -s list ruleset",
        ] {
            lines.extend(run(node, look).lines().map(|line| format!("{look}: {line}")));
        }
        // Those of workloads' links are compared by the daemon's own check.
        let settings = r"^net\.ipv[46]\.(conf\.(all|default|uplink)|neigh\.default|ip_|route)";
        lines.extend(
            run(node, &format!("sysctl -a --pattern {settings}"))
                .lines()
                .map(str::to_owned),
        );
        for address in self.outside {
            let entry = run(node, &format!("ip neighbour show {address} dev uplink"));
            let mac = entry.split(' ').skip_while(|word| *word != "lladdr").nth(1);
            lines.push(format!("{address} at {}", mac.unwrap_or("?")));
        }
        // What a link was said to be before its other end was up.
        let lines = lines
            .into_iter()
            .map(|line| line.replace("state UNKNOWN", "state UP"));
        let mut lines: Vec<String> = lines.collect();
        // Who asked lately is in the meters, and is no part of the rules.
        lines.retain(|line| !line.contains("elements = {") || line.contains("tcp"));
        if !with_hostile {
            let [v4, v6] = self.hostile.ips;
            let theirs = [self.hostile.host_link.clone(), format!("{v4} "), format!("{v6} ")];
            lines.retain(|line| !theirs.iter().any(|text| line.contains(text.as_str())));
        }
        lines
    }

    /// The node is as it was.
    #[track_caller]
    fn is_unchanged(&self, before: &[String], with_hostile: bool, what: &str) {
        let now = self.node(with_hostile);
        let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
        let came: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
        assert!(
            gone.is_empty() && came.is_empty(),
            "{what}: gone {gone:#?}, came {came:#?}"
        );
    }

    /// Another workload comes and goes.
    fn goes_on_attaching(&self) {
        let another = Sandbox::new();
        let caller = self.daemon.caller();
        let answer = caller.attach(attach("another", &another)).unwrap();
        for address in self.outside {
            ping(&another, address, PATIENCE).unwrap();
        }
        for address in addresses(&answer.ip) {
            ping(&self.innocent.sandbox, address, PATIENCE).unwrap();
        }
        caller.detach(detach("another")).unwrap();
    }

    /// The hostile one is taken off, and nothing of it stays.
    fn is_cleaned_up(&self) {
        self.goes_on_attaching();
        self.daemon.caller().detach(detach("hostile")).unwrap();
        assert_eq!(
            links(&self.daemon.node.node),
            std::slice::from_ref(&self.innocent.host_link)
        );
        eventually(
            PATIENCE,
            "one is left",
            || self.daemon.counts(),
            |counts| counts.iter().all(|(used, _)| *used == 1),
        );
        let findings = self.daemon.caller().findings();
        assert_eq!(findings, Vec::<String>::new());
    }
}

/// Looks at every frame of a place's `eth0`, as long as this value lives, and remembers those with a text of the tests.
struct Witness {
    is_over: Arc<AtomicBool>,
    looking: JoinHandle<Vec<Vec<u8>>>,
}

impl Witness {
    fn on(place: &Namespace) -> Self {
        let frames = frames(place, "eth0").unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let look = move || {
            let mut seen = Vec::new();
            loop {
                // What was there before the end is looked at after it was seen.
                let is_last = ends.load(Ordering::Relaxed);
                while let Some(frame) = frames.next().unwrap() {
                    if has(&frame, FORGED) || has(&frame, HONEST) {
                        seen.push(frame);
                    }
                }
                if is_last {
                    return seen;
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
        };
        Self {
            is_over,
            looking: std::thread::spawn(look),
        }
    }

    /// How often a forged and how often an honest text went by.
    fn saw(self) -> (usize, usize) {
        self.is_over.store(true, Ordering::Relaxed);
        let seen = self.looking.join().unwrap();
        let count = |text| seen.iter().filter(|frame| has(frame, text)).count();
        (count(FORGED), count(HONEST))
    }
}

fn has(frame: &[u8], text: &[u8]) -> bool {
    frame.windows(text.len()).any(|part| part == text)
}

/// Talks from and to the innocent workload for as long as this value lives, and fails where it is taken for somebody else.
struct Undisturbed {
    is_over: Arc<AtomicBool>,
    talking: Vec<JoinHandle<usize>>,
    _servers: Vec<Server>,
}

/// Talks to a server again and again, on a connection that stays and on new ones; returns how often.
fn talk(from: &Namespace, server: SocketAddr, seen_as: IpAddr, is_over: &AtomicBool) -> usize {
    let mut long = Conversation::open(from, server, PATIENCE).unwrap();
    let mut times = 0;
    while times == 0 || !is_over.load(Ordering::Relaxed) {
        long.exchange(3000).unwrap();
        let mut short = Conversation::open(from, server, PATIENCE).unwrap();
        assert_eq!(short.seen_as(), seen_as);
        short.exchange(100).unwrap();
        times += 1;
        // Others have something to do, too.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    times
}

impl Undisturbed {
    fn begin(stand: &Stand) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (mut talking, mut servers) = (Vec::new(), Vec::new());
        let (innocent, outside) = (&stand.innocent.sandbox, &stand.daemon.node.outside);
        for (own, other) in stand.innocent.ips.into_iter().zip(stand.outside) {
            for (server_in, client_in, at, from) in [
                (outside, &**innocent, other, own),
                (&**innocent, outside, own, other),
            ] {
                let server = Server::start(server_in, at).unwrap();
                let address = server.address();
                servers.push(server);
                let client = Namespace::open(Path::new(&client_in.path())).unwrap();
                let is_over = Arc::clone(&is_over);
                talking.push(std::thread::spawn(move || talk(&client, address, from, &is_over)));
            }
        }
        Self {
            is_over,
            talking,
            _servers: servers,
        }
    }

    /// All of it went well until now.
    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for talking in self.talking {
            assert!(talking.join().unwrap() > 0);
        }
    }
}
