//! What others do on the node: they take away what is ours, and have what we would have chosen.

use crate::daemon::{Daemon, addresses, attach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use stage::wait::{A_SECOND, eventually};
use stage::{OUTSIDE, ping};

#[test]
fn what_others_take_away_is_put_back() {
    let daemon = Daemon::started();
    let namespace = Sandbox::new();
    let answer = daemon.caller().attach(attach("web", &namespace)).unwrap();
    let (link, ips) = (&answer.host_link, addresses(&answer.ip));
    let world = daemon.world();
    for damage in [
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
