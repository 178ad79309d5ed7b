//! What the machines of the cluster stand on: two links with a router in between, and an outside host.
//!
//! ```text
//!  control   node-a   node-b            node-c
//!     |         |        |                 |
//!  ---+---------+--------+---+--- near     +--- far
//!     |                      |             |
//!  outside host            router ---------'
//! ```
//! `near` is the outside host's bridge; its address is the outside host's. Neither it nor the router has a route to pods.

use stage::Namespace;
use std::io::Write as _;
use std::net::{IpAddr, TcpListener};
use std::process::Command;

/// The outside host's.
pub(crate) const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];
/// Where the outside host says by which address it sees the client.
pub(crate) const WHO_PORT: u16 = 8080;

/// A link that machines share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Near,
    Far,
}

impl Link {
    /// The addresses with a last number, of both families.
    pub(crate) fn addresses(self, number: u8) -> [String; 2] {
        match self {
            Self::Near => [format!("203.0.113.{number}"), format!("2001:db8:113::{number}")],
            Self::Far => [format!("198.51.100.{number}"), format!("2001:db8:51::{number}")],
        }
    }

    /// The router's.
    fn gateway(self) -> [String; 2] {
        self.addresses(254)
    }
}

pub(crate) struct Underlay {
    pub(crate) outside: Namespace,
    router: Namespace,
}

impl Underlay {
    pub(crate) fn new() -> Self {
        let (outside, router) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        sh(
            &outside,
            "ip link set lo up && ip link add near type bridge && ip link set near up
             ip address add 203.0.113.1/24 dev near && ip -6 address add 2001:db8:113::1/64 dev near nodad",
        );
        sh(
            &router,
            "ip link set lo up && ip link add far type bridge && ip link set far up
             echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
        );
        give_addresses(&router, "far", &Link::Far.gateway());
        let underlay = Self { outside, router };
        underlay.plug(&underlay.router, "near", Link::Near, "router");
        give_addresses(&underlay.router, "near", &Link::Near.gateway());
        let [v4, v6] = Link::Near.gateway();
        sh(
            &underlay.outside,
            &format!("ip route add 198.51.100.0/24 via {v4} && ip -6 route add 2001:db8:51::/64 via {v6}"),
        );
        underlay.say_who();
        underlay
    }

    /// A machine on a link, by the last number of its addresses.
    pub(crate) fn machine(&self, link: Link, number: u8) -> Namespace {
        let machine = Namespace::new().unwrap();
        sh(&machine, "ip link set lo up");
        self.plug(&machine, "eth0", link, &format!("m{number}"));
        give_addresses(&machine, "eth0", &link.addresses(number));
        let [v4, v6] = link.gateway();
        sh(
            &machine,
            &format!("ip route add default via {v4} && ip -6 route add default via {v6}"),
        );
        machine
    }

    /// Connects a machine's device with a link, on which it has a port by the other name.
    fn plug(&self, machine: &Namespace, device: &str, link: Link, port: &str) {
        let (bridge, owner) = match link {
            Link::Near => ("near", &self.outside),
            Link::Far => ("far", &self.router),
        };
        let path = owner.path();
        sh(
            machine,
            &format!(
                "ip link add {device} type veth peer name {port} netns {path} && ip link set {device} up"
            ),
        );
        sh(owner, &format!("ip link set {port} master {bridge} up"));
    }

    /// By which address the outside host sees its clients. Ends with the test's process.
    fn say_who(&self) {
        let bind = || TcpListener::bind(("::", WHO_PORT)).unwrap();
        let server = self.outside.within(bind).unwrap();
        std::thread::spawn(move || {
            for mut stream in server.incoming().flatten() {
                let seen = stream
                    .peer_addr()
                    .map(|peer| peer.ip().to_canonical().to_string());
                let _ = writeln!(stream, "{}", seen.unwrap_or_default());
            }
        });
    }
}

/// The outside host's addresses.
pub(crate) fn outside() -> [IpAddr; 2] {
    OUTSIDE.map(|text| text.parse().unwrap())
}

fn give_addresses(machine: &Namespace, device: &str, [v4, v6]: &[String; 2]) {
    sh(
        machine,
        &format!("ip address add {v4}/24 dev {device} && ip -6 address add {v6}/64 dev {device} nodad"),
    );
}

#[track_caller]
pub(crate) fn sh(namespace: &Namespace, script: &str) -> String {
    let run = || Command::new("sh").args(["-ec", script]).output().unwrap();
    let output = namespace.within(run).unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
