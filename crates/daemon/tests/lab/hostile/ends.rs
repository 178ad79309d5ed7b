//! What a workload does to its own end, and to its own namespace.

use super::{Stand, Undisturbed};
use crate::daemon::detach;
use crate::sandbox::Sandbox;
use crate::witness::{links, run};
use client::workload::{AttachRequest, NetNsAttachment};
use stage::Namespace;
use stage::change::Links;
use stage::packets::{udp_listener, udp_receive, udp_send};
use stage::wait::{PATIENCE, eventually};
use std::process::{Child, Command, Stdio};

/// Of each, whether it is done is the kernel's business: some need a driver that is not everywhere.
fn attempt(namespace: &Namespace, line: &str) -> bool {
    let run = || {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).output().unwrap().status.success()
    };
    namespace.within(run).unwrap()
}

#[test]
fn a_workload_that_changes_its_own_end_harms_only_itself() {
    let stand = Stand::new();
    let undisturbed = Undisturbed::begin(&stand);
    let hostile = &stand.hostile.sandbox;
    let before = stand.node(false);
    let mac = stand.hostile.mac.map(|part| format!("{part:02x}")).join(":");
    let innocent = stand.innocent.mac.map(|part| format!("{part:02x}")).join(":");
    let first_hop = stand.first_hop.map(|part| format!("{part:02x}")).join(":");
    for (there, back) in [
        (
            format!("ip link set eth0 address {innocent}"),
            format!("ip link set eth0 address {mac}"),
        ),
        (
            format!("ip link set eth0 address {first_hop}"),
            format!("ip link set eth0 address {mac}"),
        ),
        (
            "ip link set eth0 mtu 68".to_owned(),
            "ip link set eth0 mtu 1500".to_owned(),
        ),
        (
            "ip link set eth0 mtu 65535".to_owned(),
            "ip link set eth0 mtu 1500".to_owned(),
        ),
        (
            "ip link set eth0 promisc on".to_owned(),
            "ip link set eth0 promisc off".to_owned(),
        ),
        (
            "ip link set eth0 arp off".to_owned(),
            "ip link set eth0 arp on".to_owned(),
        ),
        (
            "ip link set eth0 group 8".to_owned(),
            "ip link set eth0 group 0".to_owned(),
        ),
        (
            "ip link set eth0 alias mine".to_owned(),
            "ip link set eth0 alias eth0".to_owned(),
        ),
        (
            "ip link set eth0 txqueuelen 100000".to_owned(),
            "ip link set eth0 txqueuelen 1000".to_owned(),
        ),
        (
            "ip link set eth0 down".to_owned(),
            "ip link set eth0 up".to_owned(),
        ),
        // Its name, and the names of the node's own links.
        (
            "ip link set eth0 down".to_owned(),
            "ip link set eth0 name uplink".to_owned(),
        ),
        (
            format!("ip link set uplink name {}", stand.hostile.host_link),
            format!("ip link set {} name eth0", stand.hostile.host_link),
        ),
        ("ip link set eth0 up".to_owned(), "ip link set lo up".to_owned()),
    ] {
        for line in [there, back] {
            run(hostile, &line);
            stand.is_unchanged(&before, false, &line);
        }
        stand.goes_on_attaching();
    }
    undisturbed.end();
    stand.is_cleaned_up();
}

#[test]
fn more_links_of_a_workload_are_its_own_and_lead_nowhere_else() {
    let stand = Stand::new();
    let undisturbed = Undisturbed::begin(&stand);
    let hostile = &stand.hostile.sandbox;
    let before = stand.node(true);
    let mut done = 0;
    for line in [
        "ip link add v0 type veth peer name v1",
        "ip link add wk00000000000000 type veth peer name v2 group 8",
        "ip link add br0 type bridge",
        "ip link add m0 link eth0 type macvlan mode bridge",
        "ip link add i0 link eth0 type ipvlan mode l2",
        "ip link add link eth0 name eth0.5 type vlan id 5",
        "ip link add vx0 type vxlan id 8 dstport 4789 dev eth0 remote 203.0.113.2",
        "ip link add t0 type gre remote 203.0.113.2",
        "ip link set eth0 master br0",
        "ip link set v0 up",
        "ip link set br0 up",
        "ip link set m0 up",
        "ip link set i0 up",
        "ip link set eth0.5 up",
        "ip link set vx0 up",
        "ip link set eth0 nomaster",
        "nft add table inet workloadnet",
        "nft flush ruleset",
        "ip route flush table main",
        "ip route flush table local",
        "ip rule flush",
    ] {
        done += usize::from(attempt(hostile, line));
        stand.is_unchanged(&before, true, line);
    }
    assert!(done > 8, "{done}");
    stand.goes_on_attaching();
    undisturbed.end();
    stand.is_cleaned_up();
}

/// Elsewhere it is the same link; the daemon goes by the host end.
#[test]
fn a_workload_that_moves_its_end_to_another_namespace_is_still_who_it_was() {
    let stand = Stand::new();
    let undisturbed = Undisturbed::begin(&stand);
    let before = stand.node(false);
    let elsewhere = Sandbox::new();
    let pid = elsewhere.path().split('/').nth(2).unwrap().to_owned();
    run(&stand.hostile.sandbox, &format!("ip link set eth0 netns {pid}"));
    stand.is_unchanged(&before, false, "afterwards");
    for line in [
        "ip link set lo up",
        "ip link set eth0 up",
        "ip route add 169.254.77.1 dev eth0",
    ] {
        run(&elsewhere, line);
    }
    // Its addresses went with the move, and with those of others it gets no further than before.
    let (own, innocent) = (stand.hostile.ips[0], stand.innocent.ips[0]);
    run(&elsewhere, &format!("ip address add {own}/32 dev eth0"));
    run(&elsewhere, &format!("ip address add {innocent}/32 dev eth0"));
    run(
        &elsewhere,
        "ip route add default via 169.254.77.1 dev eth0 onlink",
    );
    let outside = udp_listener(&stand.daemon.node.outside, stand.outside[0]).unwrap();
    let to = outside.local_addr().unwrap();
    udp_send(&elsewhere, innocent, to, "forged").unwrap();
    udp_send(&elsewhere, own, to, "own").unwrap();
    let got = udp_receive(&outside, PATIENCE).unwrap();
    assert_eq!(got, Some(("own".to_owned(), own)));
    undisturbed.end();
    stand.is_cleaned_up();
}

#[test]
fn a_workload_that_deletes_its_end_has_none_and_its_addresses_are_free() {
    let stand = Stand::new();
    let undisturbed = Undisturbed::begin(&stand);
    let before = stand.node(false);
    run(&stand.hostile.sandbox, "ip link delete eth0");
    eventually(
        PATIENCE,
        "one is left",
        || (links(&stand.daemon.node.node), stand.daemon.caller().list().len()),
        |(links, listed)| links == std::slice::from_ref(&stand.innocent.host_link) && *listed == 1,
    );
    stand.is_unchanged(&before, false, "afterwards");
    // A success, as for whatever is not there.
    stand.daemon.caller().detach(detach("hostile")).unwrap();
    undisturbed.end();
    stand.is_cleaned_up();
}

/// What no rule of ours can hold: Linux lets CAP_NET_ADMIN of a user namespace act on each network that belongs to that one and
/// can be named, and the two ends of a veth name each other's network (IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID).
#[test]
fn the_nodes_links_are_open_to_net_admin_of_its_user_namespace_and_to_no_other() {
    let stand = Stand::new();
    let id = |end: &str| {
        let mut words = end.split(' ').skip_while(|word| *word != "link-netnsid");
        words.nth(1).unwrap().to_owned()
    };
    let look = |id: &str| format!("ip netns list-id target-nsid {id}");
    let (node, hostile) = (&stand.daemon.node.node, &stand.hostile.sandbox);
    let nodes = id(&run(hostile, "ip -o -d link show eth0"));
    run(hostile, &look(&nodes));
    run(node, "ip link add victim type bridge");
    let mut links = Links::of(hostile).unwrap();
    links.delete_elsewhere(nodes.parse().unwrap(), "victim").unwrap();
    assert_eq!(node.links("victim").unwrap(), Vec::<String>::new());

    let apart = Apart::new();
    let request = AttachRequest {
        workload_id: "apart".to_owned(),
        netns: Some(NetNsAttachment {
            netns_path: format!("/proc/{}/ns/net", apart.0.id()),
            if_name: "eth0".to_owned(),
        }),
        ..AttachRequest::default()
    };
    stand.daemon.caller().attach(request).unwrap();
    let nodes = id(&apart.run("ip -o -d link show eth0").0);
    let refused = apart.run(&look(&nodes)).1;
    assert!(
        refused.contains("Invalid target network namespace id"),
        "{refused:?}"
    );
    for line in ["ip link set eth0 down", "ip link set eth0 up"] {
        assert_eq!(apart.run(line).1, "", "root of its own network");
    }
    stand.daemon.caller().detach(detach("apart")).unwrap();
}

/// A process with a network and a user namespace of its own, whose root it is.
struct Apart(Child);

impl Apart {
    fn new() -> Self {
        let mut waiting = Command::new("unshare");
        waiting.args(["--user", "--map-root-user", "--net", "cat"]);
        let child = waiting
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let own = |kind: &str, pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let pid = child.id();
        eventually(
            PATIENCE,
            "it is apart",
            || own("net", pid) != own("net", std::process::id()),
            |is_apart| *is_apart,
        );
        Self(child)
    }

    /// What a program says there, and what it complains of.
    fn run(&self, line: &str) -> (String, String) {
        let pid = self.0.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--user", "--net", "--preserve-credentials"]);
        let output = command.args(line.split(' ')).output().unwrap();
        let [said, complained] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (said, complained)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
