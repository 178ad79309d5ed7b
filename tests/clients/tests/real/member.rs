//! What a client has started: it runs scripts, serves HTTP, and has addresses.

use crate::host::{Host, host_addresses, outside_addresses};
use crate::who::{QUESTION, Who, address, listed, talk};
use stage::Namespace;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Output;
use std::time::Duration;

/// A container, pod or guest.
pub(crate) trait Member {
    /// Runs a script of busybox's shell in it; what it prints.
    fn run(&self, script: &str) -> String;
    /// As its client reports them, IPv4 first.
    fn addresses(&self) -> Vec<IpAddr>;
}

/// A script whose errors are in its output, so that they are not taken for its client's warnings.
pub(crate) fn with_errors(script: &str) -> String {
    format!("exec 2>&1; {script}")
}

/// What a script said that a client was to run; where it said nothing, what the client did.
pub(crate) fn said(output: &Output) -> String {
    let by = match output.stdout.is_empty() {
        true => &output.stderr,
        false => &output.stdout,
    };
    String::from_utf8_lossy(by).into_owned()
}

/// The addresses that a member's link has, IPv4 first. gVisor lists them in any order.
pub(crate) fn own_addresses(member: &dyn Member) -> Vec<IpAddr> {
    let found: BTreeSet<IpAddr> = listed(&member.run("ip -o address show dev eth0")).collect();
    found.into_iter().collect()
}

/// How long one conversation may take. A guest under software emulation is slow.
const LIMIT: Duration = Duration::from_secs(5);

/// Each one reaches every other one on both families and is seen by its own address; each reaches the host, and the host
/// it; each reaches the outside host, which sees the host.
#[track_caller]
pub(crate) fn expect_traffic(host: &Host, members: &[&dyn Member]) {
    let addresses: Vec<Vec<IpAddr>> = members.iter().map(|member| member.addresses()).collect();
    for (number, own) in addresses.iter().enumerate() {
        assert_eq!(own.len(), 2, "one address of each family: {own:?}");
        let others = addresses.iter().enumerate().filter(|(other, _)| *other != number);
        let others: Vec<&Vec<IpAddr>> = others.map(|(_, other)| other).collect();
        // All in one script: starting one costs a client up to half a second.
        let (host_end, outside) = (host_addresses(), outside_addresses());
        let mut lines: Vec<String> = others
            .iter()
            .copied()
            .flatten()
            .map(|server| ask(*server))
            .collect();
        lines.extend(host_end.iter().chain(&outside).map(|server| ask_stage(*server)));
        let said = members[number].run(&lines.join("; echo ==; "));
        let mut answers = said.split("==\n");
        let mut answer = || answers.next().unwrap_or_default();
        for (server, family) in others.iter().flat_map(|other| other.iter().zip(0..)) {
            let who = Who::parse(answer()).unwrap_or_default();
            let all = others.iter().find(|other| other.contains(server));
            assert_eq!(who.client, Some(own[family]), "who {server} sees: {said:?}");
            assert_eq!(
                who.server,
                all.unwrap().iter().copied().collect(),
                "who is {server}: {said:?}"
            );
        }
        for (client, server) in own.iter().zip(&host_end) {
            assert_eq!(
                address(answer()),
                Some(*client),
                "who the host sees at {server}: {said:?}"
            );
        }
        for (by, server) in host_end.iter().zip(&outside) {
            assert_eq!(
                address(answer()),
                Some(*by),
                "who the outside host sees at {server}: {said:?}"
            );
        }
        for client in own {
            let said = ask_from_host(host, *client);
            assert_eq!(
                Who::parse(&said).unwrap_or_default().server,
                own.iter().copied().collect(),
                "{said:?}"
            );
        }
    }
}

/// Asks a member for `/cgi-bin/who`.
fn ask(server: IpAddr) -> String {
    let seconds = LIMIT.as_secs();
    format!("printf 'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n' | timeout {seconds} nc {server} 80")
}

/// Asks a server of the stage, which says whom it sees.
fn ask_stage(server: IpAddr) -> String {
    let seconds = LIMIT.as_secs();
    format!("timeout {seconds} nc {server} 7 </dev/null; echo")
}

/// By a port of the node, from outside and from the node, in both families: the member answers who has the port, and sees who
/// comes.
#[track_caller]
pub(crate) fn expect_reached_by(host: &Host, port: u16, member: &dyn Member) {
    let own: BTreeSet<IpAddr> = member.addresses().into_iter().collect();
    let ways = host_addresses()
        .into_iter()
        .zip(outside_addresses())
        .flat_map(|(node, outside)| {
            [
                (&host.stage.outside, node, outside),
                (&host.stage.node, node, node),
            ]
        })
        .chain([(&host.stage.node, Ipv4Addr::LOCALHOST.into(), host_addresses()[0])]);
    for (from, node, seen) in ways {
        let said = ask_from(from, SocketAddr::new(node, port))
            .unwrap_or_else(|error| panic!("{node} port {port}: {error}"));
        let who = Who::parse(&said).unwrap_or_default();
        assert_eq!(
            (who.client, who.server),
            (Some(seen), own.clone()),
            "by {node}: {said}"
        );
    }
}

/// Nobody has the port.
#[track_caller]
pub(crate) fn expect_closed(host: &Host, port: u16) {
    for node in host_addresses() {
        let said = ask_from(&host.stage.outside, SocketAddr::new(node, port));
        let refused = said.expect_err("nobody has the port").kind();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{node}");
    }
}

fn ask_from_host(host: &Host, server: IpAddr) -> String {
    let said = ask_from(&host.stage.node, SocketAddr::new(server, 80));
    said.unwrap_or_else(|error| panic!("the host to {server}: {error}"))
}

fn ask_from(from: &Namespace, server: SocketAddr) -> std::io::Result<String> {
    talk(from, server, QUESTION, LIMIT)
}
