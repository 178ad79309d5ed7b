//! Routes to other nodes, direct and over VXLAN.

use crate::effects::{Errors, each, recorded, under};
use crate::world::{index_of, on_a_node, run, same, world};
use kernel::linux::Linux;
use model::address::{Family, Mac};
use model::datapath::Datapath as _;
use model::routes::{Held, Hop, Tunnel};
use std::net::IpAddr;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What there is to be, with one of everything.
fn wanted(under: u32) -> Held {
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let mut held = Held {
        tunnel: Some(Tunnel {
            vni: 77,
            port: 4789,
            family: Family::V4,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1450,
        }),
        ..Held::default()
    };
    held.addresses.extend(["10.77.0.1", "fd77::1"].map(address));
    held.forwarding.insert(mac, address("192.0.2.9"));
    held.neighbours.insert(address("10.79.0.1"), mac);
    let direct = Hop::Link {
        via: address("192.0.2.2"),
        index: under,
        source: None,
    };
    let far = Hop::Tunnel {
        via: address("10.79.0.1"),
        source: None,
    };
    held.routes.insert("10.78.0.0/24".parse().unwrap(), direct);
    held.routes.insert("10.79.0.0/24".parse().unwrap(), far);
    held.unreachable
        .extend(["10.77.0.0/24", "fd77::/64"].map(|net| net.parse::<ipnet::IpNet>().unwrap()));
    held
}

/// Makes the kernel hold this; whether it went well.
fn make(linux: &Linux, wanted: &Held) -> Result<(), String> {
    let found = linux.found_routes().map_err(|fault| fault.to_string())?;
    let steps = found.held.steps_to(wanted);
    let faults = linux.change_routes(&steps).map_err(|fault| fault.to_string())?;
    match faults.as_slice() {
        [] => Ok(()),
        faults => Err(faults
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")),
    }
}

/// What is compared: indexes of links that are made anew differ.
fn seen() -> String {
    let lines = world();
    lines
        .lines()
        .filter(|line| !line.contains(": vxlan") && !line.contains(": wk"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn routes_to_peers_are_in_place_after_any_mishap_once_they_are_looked_at_again() {
    on_a_node(|linux| {
        for line in [
            "ip link set lo up",
            "ip link add under type veth peer name other",
            "ip link set under addrgenmode none",
            "ip link set other addrgenmode none",
            "ip address add 192.0.2.1/24 dev under",
            "ip link set under up",
            "ip link set other up",
        ] {
            run(line);
        }
        let index = index_of("under");
        let (nothing, all) = (Held::default(), wanted(index));
        let empty = seen();
        for (what, from, to) in [("come", &nothing, &all), ("go", &all, &nothing)] {
            make(linux, from).unwrap();
            let calls = recorded(|| make(linux, to).unwrap());
            let mut told = 0;
            let cases = each(&calls, Errors::InTurn, |mut mishap| {
                make(linux, from).unwrap();
                if let Err(text) = under(&mut mishap, || make(linux, to)) {
                    told += 1;
                    mishap.is_named_in(&text);
                } else {
                    let held = linux.found_routes().unwrap().held;
                    assert_eq!(held.steps_to(to), [], "{what}: {mishap:?}: nothing was told");
                }
                // What failed is tried again; what follows from what was there is there once more.
                let again = make(linux, to);
                let held = linux.found_routes().unwrap().held;
                assert_eq!(
                    (again, held.steps_to(to)),
                    (Ok(()), Vec::new()),
                    "{what}: {mishap:?}"
                );
            });
            println!("{what}: {cases} mishaps of {} calls, {told} told", calls.len());
        }
        same(&seen(), &empty, &());
    });
}
