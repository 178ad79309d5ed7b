//! Addresses of the node's prefixes that nobody has. The host outside leads the whole prefixes to the node, which has its default
//! route there: what left by it would go to and fro.

use crate::daemon::{Daemon, addresses, attach, detach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use stage::wait::{A_SECOND, PATIENCE, eventually};
use stage::{NODE, Namespace, ping};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

const PREFIXES: [&str; 2] = ["10.77.0.0/24", "fd77::/64"];
const NOBODYS: [&str; 2] = ["10.77.0.200", "fd77::c8"];
/// As `docs/decisions/0042-what-nobody-has-is-unreachable.md` has it.
const METRIC: &str = "4000000000";

fn lead_back(daemon: &Daemon, prefixes: [&str; 2]) {
    for (prefix, node) in prefixes.into_iter().zip(NODE) {
        run(&daemon.node.outside, &format!("ip route add {prefix} via {node}"));
    }
    let forwarding = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
    run(&daemon.node.outside, &format!("sysctl -qw {forwarding}"));
}

/// What ping says of an address that does not answer.
fn said(from: &Namespace, to: IpAddr) -> String {
    let line = ["-c", "1", "-W", "5", &to.to_string()];
    let output = from.within(|| Command::new("ping").args(line).output().unwrap());
    let output = output.unwrap();
    assert!(!output.status.success(), "{to} answers");
    let both = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    both.concat()
}

#[track_caller]
fn is_unreachable(from: &Namespace, to: IpAddr) {
    let said = said(from, to);
    // What the kernel of the sender says, and what ping makes of what another one says.
    let words = [
        "No route to host",
        "Host Unreachable",
        "No route",
        "Address unreachable",
    ];
    assert!(words.iter().any(|words| said.contains(words)), "{to}: {said}");
}

/// Of both families: kind and prefix.
fn routes(daemon: &Daemon) -> Vec<String> {
    let all = ["-4", "-6"].map(|family| run(&daemon.node.node, &format!("ip {family} route show proto 77")));
    let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    all.iter().flat_map(|text| text.lines()).map(words).collect()
}

#[track_caller]
fn expect_routes(daemon: &Daemon, prefixes: &[&str]) {
    let expected: Vec<String> = prefixes.iter().map(|net| format!("unreachable {net}")).collect();
    let look = || {
        let mut routes = routes(daemon);
        routes.sort();
        routes
    };
    eventually(PATIENCE, "the routes", look, |now| *now == expected);
}

#[test]
fn an_address_that_nobody_has_is_unreachable_at_once_before_and_after_somebody_had_it() {
    let mut daemon = Daemon::new();
    lead_back(&daemon, PREFIXES);
    daemon.start();
    let (web, other) = (Sandbox::new(), Sandbox::new());
    let caller = daemon.caller();
    caller.attach(attach("other", &other)).unwrap();
    let answer = caller.attach(attach("web", &web)).unwrap();
    let from = [&daemon.node.node, &daemon.node.outside, &*other];
    for from in from {
        for to in NOBODYS {
            is_unreachable(from, to.parse().unwrap());
        }
        for address in addresses(&answer.ip) {
            ping(from, address, A_SECOND).unwrap();
        }
    }
    caller.detach(detach("web")).unwrap();
    for from in from {
        for address in addresses(&answer.ip) {
            is_unreachable(from, address);
        }
    }
    // The next one has them again.
    let answer = caller.attach(attach("web", &web)).unwrap();
    for address in addresses(&answer.ip) {
        ping(&daemon.node.outside, address, A_SECOND).unwrap();
    }
}

#[test]
fn what_makes_a_prefix_unreachable_is_put_back_and_a_strangers_route_stays() {
    let daemon = Daemon::started();
    expect_routes(&daemon, &PREFIXES);
    for flush in ["ip route flush proto 77", "ip -6 route flush proto 77"] {
        run(&daemon.node.node, flush);
        expect_routes(&daemon, &PREFIXES);
    }
    let caller = daemon.caller();
    for (family, net) in ["-4", "-6"].into_iter().zip(PREFIXES) {
        let other = PREFIXES.into_iter().filter(|other| *other != net);
        let other: Vec<&str> = other.collect();
        // It is somebody else's from now on, and the kernel would take another one of that metric for the same.
        let strangers = format!("unreachable {net} metric {METRIC}");
        run(
            &daemon.node.node,
            &format!("ip {family} route delete {strangers}"),
        );
        run(
            &daemon.node.node,
            &format!("ip {family} route add {strangers} proto static"),
        );
        let text = format!("somebody else has a route to it with metric {METRIC}");
        eventually(
            PATIENCE,
            &text,
            || caller.node().warning,
            |all| all.iter().any(|said| said.contains(net) && said.contains(&text)),
        );
        let look = format!("ip {family} route show proto static");
        assert!(run(&daemon.node.node, &look).contains(net));
        expect_routes(&daemon, &other);
        run(
            &daemon.node.node,
            &format!("ip {family} route delete {strangers}"),
        );
        expect_routes(&daemon, &PREFIXES);
    }
    assert_eq!(caller.findings(), Vec::<String>::new());
}

/// Else what is on the link, and whatever the default route leads to, could not be reached any more.
#[test]
fn a_prefix_that_has_a_link_of_the_node_in_it_is_left_to_that_link() {
    let daemon = Daemon::started();
    run(&daemon.node.node, "ip link add lan type veth peer name far");
    for (address, net) in [("10.77.0.129/25", PREFIXES[0]), ("fd77::1:1/112", PREFIXES[1])] {
        run(
            &daemon.node.node,
            &format!("ip address add {address} dev lan nodad"),
        );
        run(&daemon.node.node, "ip link set lan up");
        let look = || daemon.caller().node().warning;
        eventually(PATIENCE, "it is said", look, |all| {
            all.iter()
                .any(|said| said.contains(net) && said.contains("is on a link of this node"))
        });
    }
    expect_routes(&daemon, &[]);
    run(&daemon.node.node, "ip link delete lan");
    expect_routes(&daemon, &PREFIXES);
}

fn replace(file: &Path, prefixes: &[&str]) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, format!("prefixes = {prefixes:?}\n")).unwrap();
    std::fs::rename(beside, file).unwrap();
}

#[test]
fn a_prefix_is_unreachable_until_the_last_of_its_workloads_has_gone() {
    let [one, two] = [["10.77.1.0/24", "fd77:1::/64"], ["10.77.2.0/24", "fd77:2::/64"]];
    let mut daemon = Daemon::new();
    let file = daemon.folder().join("prefixes.toml");
    daemon.set_prefixes(&[]);
    daemon.set_rest(format!("[prefixes]\nsource = \"file\"\nfile = {file:?}\n"));
    replace(&file, &one);
    daemon.start();
    expect_routes(&daemon, &one);
    let web = Sandbox::new();
    let caller = daemon.caller();
    caller.attach(attach("web", &web)).unwrap();
    replace(&file, &two);
    expect_routes(&daemon, &[one[0], two[0], one[1], two[1]]);
    daemon.crash();
    daemon.start();
    expect_routes(&daemon, &[one[0], two[0], one[1], two[1]]);
    daemon.caller().detach(detach("web")).unwrap();
    expect_routes(&daemon, &two);
}
