//! The link that all machines of the cluster share. Its bridge has an address of its own: that is the outside host.

use stage::Namespace;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;

/// The outside host's.
pub(crate) const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];
/// Where the outside host says by which address it sees the client.
pub(crate) const WHO_PORT: u16 = 8080;

pub(crate) struct Underlay(Namespace);

impl Underlay {
    pub(crate) fn new() -> Self {
        let own = Namespace::new().unwrap();
        sh(
            &own,
            "ip link set lo up && ip link add br0 type bridge && ip link set br0 up
             ip address add 203.0.113.1/24 dev br0 && ip -6 address add 2001:db8:113::1/64 dev br0 nodad",
        );
        let server = own
            .within(|| TcpListener::bind(("::", WHO_PORT)).unwrap())
            .unwrap();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in server.incoming().flatten() {
                let seen = stream
                    .peer_addr()
                    .map(|peer| peer.ip().to_canonical().to_string());
                let _ = writeln!(stream, "{}", seen.unwrap_or_default());
            }
        });
        Self(own)
    }

    /// A machine on the link, by the last number of its addresses.
    pub(crate) fn machine(&self, number: u8) -> Namespace {
        let machine = Namespace::new().unwrap();
        sh(
            &machine,
            &format!(
                "ip link set lo up && ip link add eth0 type veth peer name m{number} netns {}
                 ip address add 203.0.113.{number}/24 dev eth0 && ip -6 address add 2001:db8:113::{number}/64 dev eth0 nodad
                 ip link set eth0 up && ip route add default via 203.0.113.1 && ip -6 route add default via 2001:db8:113::1",
                self.0.path()
            ),
        );
        sh(&self.0, &format!("ip link set m{number} master br0 up"));
        machine
    }
}

#[track_caller]
fn sh(namespace: &Namespace, script: &str) {
    let run = || Command::new("sh").args(["-ec", script]).output().unwrap();
    let output = namespace.within(run).unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
