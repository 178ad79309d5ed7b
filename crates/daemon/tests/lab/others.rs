//! What others do on the node: they take away what is ours, and have what we would have chosen.

use crate::daemon::{Daemon, addresses, attach, attach_with_port, detach};
use crate::sandbox::Sandbox;
use crate::witness::{links, run};
use stage::wait::{A_SECOND, eventually, throughout};
use stage::{OUTSIDE, ping};

#[test]
fn what_others_take_away_is_put_back() {
    let daemon = Daemon::started();
    let namespace = Sandbox::new();
    let request = attach_with_port("web", &namespace, 8080, 80);
    let answer = daemon.caller().attach(request).unwrap();
    let (link, ips) = (&answer.host_link, addresses(&answer.ip));
    let world = daemon.world();
    for damage in [
        "nft delete element inet workloadnet ports4 { tcp . 8080 }".to_owned(),
        "nft add element inet workloadnet ports6 { udp . 53 : fd00::1 . 53 }".to_owned(),
        "nft flush table inet workloadnet".to_owned(),
        "nft delete table inet workloadnet".to_owned(),
        "nft flush ruleset".to_owned(),
        format!("ip route delete {} dev {link}", ips[0]),
        format!("ip -6 route delete {} dev {link}", ips[1]),
        format!("ip route flush dev {link}"),
        format!("ip address flush dev {link}"),
        format!("ip neighbour delete {} dev {link}", ips[0]),
        format!("ip -6 neighbour delete {} dev {link}", ips[1]),
        format!("ip link set {link} down"),
    ] {
        run(&daemon.node.node, &damage);
        eventually(A_SECOND, &damage, || daemon.world(), |now| *now == world);
        for outside in OUTSIDE {
            ping(&namespace, outside.parse().unwrap(), A_SECOND)
                .unwrap_or_else(|error| panic!("{damage}: {error:#}"));
        }
    }
}

/// Two links must not have the index that we meant, one after the other: the kernel acknowledges an end long after it has
/// announced it.
#[test]
fn a_foreign_link_at_the_index_that_was_meant_costs_nobody_its_addresses() {
    let mut daemon = Daemon::new();
    daemon.set_cool_down(30);
    run(
        &daemon.node.node,
        "ip link add foreign index 100000 type veth peer name foreign1",
    );
    daemon.start();
    let (a, b) = (Sandbox::new(), Sandbox::new());
    let caller = daemon.caller();
    caller.attach(attach("a", &a)).unwrap();
    caller.detach(detach("a")).unwrap();
    let link = caller.attach(attach("b", &b)).unwrap().host_link;
    let look = || {
        let ids: Vec<String> = caller
            .list()
            .into_iter()
            .map(|a| a.key.unwrap().workload_id)
            .collect();
        (ids, links(&daemon.node.node), daemon.counts())
    };
    // Those of a cool down.
    let expected = (vec!["b".to_owned()], vec![link], vec![(1, 1); 2]);
    throughout(A_SECOND, "b is attached", look, |seen| *seen == expected);
    assert!(run(&daemon.node.node, "ip link show").contains("100000: foreign"));
}
