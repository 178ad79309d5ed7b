//! Routes to other nodes: the plan against rules that are told in another way, and the steps against what a kernel makes of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ipnet::IpNet;
use model::address::Family;
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::peer::Peer;
use model::prefix::Prefix;
use model::routes::{
    Facts, FoundRoutes, Held, Hop, How, Mode, Own, Planned, Reach, Settings, Step, node_address, plan,
};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn v4(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, n).into()
}

fn v6(n: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
}

/// A world: who has which addresses and prefixes, how the addresses are reached, and the mode.
#[derive(Debug, Clone)]
struct World {
    settings: Settings,
    peers: Vec<Peer>,
    reach: HashMap<IpAddr, Reach>,
    own: Own,
    found: FoundRoutes,
}

fn own() -> Vec<Prefix> {
    ["10.77.0.0/24", "fd77::/64"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

fn reach() -> impl Strategy<Value = Reach> {
    (0_u8..4, 1250_u32..1600).prop_map(|(kind, mtu)| match kind {
        0 => Reach::Nowhere("no route".to_owned()),
        kind => Reach::Over {
            index: 2,
            device: "eth0".to_owned(),
            mtu,
            shared: kind == 1,
            on_link: kind != 3,
            source: Some(v4(1)),
        },
    })
}

fn world() -> impl Strategy<Value = World> {
    let peer = (
        any::<[bool; 2]>(),
        prop::collection::btree_set(0_u8..6, 0..3),
        any::<[bool; 2]>(),
        reach(),
        reach(),
        // Now and then its address is where workloads are.
        prop::option::weighted(0.1, 0_u8..6),
    );
    let key = Key::new(
        Owner::default(),
        WorkloadId::new("w").unwrap(),
        InterfaceName::new("eth0").unwrap(),
    );
    let key = key.unwrap();
    let lent = prop::collection::btree_set(0_usize..2, 0..2);
    let same_metric = prop::collection::btree_set(0_u8..6, 0..2);
    let beside = |nets: &'static [&str]| {
        let net = prop::sample::select(nets).prop_map(|text| text.parse::<IpNet>().unwrap());
        prop::collection::hash_set(net, 0..2)
    };
    let strangers = (
        same_metric,
        beside(&["10.77.0.0/24", "fd77::/64"]),
        beside(&[
            "10.77.0.0/24",
            "10.0.0.0/8",
            "10.77.0.64/26",
            "10.78.0.0/16",
            "fd77:0:0:1::/64",
            "fd77::/48",
        ]),
    );
    let mode = prop::sample::select(vec![Mode::None, Mode::Auto, Mode::Direct, Mode::Vxlan]);
    let world = (mode, prop::collection::vec(peer, 0..6), lent, strangers);
    world.prop_map(
        move |(mode, all, lent, (same_metric, same_unreachable, on_link))| {
            let (mut peers, mut reach) = (Vec::new(), HashMap::new());
            for (n, ([has4, has6], subnets, [net4, net6], reach4, reach6, inside)) in (2..).zip(all) {
                let mut addresses = Vec::new();
                if has6 {
                    addresses.push(v6(n));
                    reach.insert(v6(n), reach6);
                }
                if has4 {
                    let address = inside.map_or(v4(n), |subnet| Ipv4Addr::new(10, 77, subnet, n).into());
                    addresses.push(address);
                    reach.insert(address, reach4);
                }
                let mut prefixes: Vec<Prefix> = Vec::new();
                for subnet in subnets {
                    prefixes.extend(net4.then(|| format!("10.77.{subnet}.0/24").parse::<Prefix>().unwrap()));
                    prefixes
                        .extend(net6.then(|| format!("fd77:0:0:{subnet}::/64").parse::<Prefix>().unwrap()));
                }
                peers.push(Peer::new(&format!("node-{n}"), addresses, prefixes).unwrap());
            }
            let settings = Settings {
                mode,
                addresses: vec![v4(1), v6(1)],
                ..Settings::default()
            };
            World {
                settings,
                peers,
                reach,
                own: Own {
                    prefixes: own(),
                    lent: lent
                        .into_iter()
                        .map(|n| (node_address(&own()[n]).unwrap(), key.clone()))
                        .collect(),
                },
                found: FoundRoutes {
                    same_metric: same_metric
                        .into_iter()
                        .map(|n| format!("10.77.{n}.0/24").parse().unwrap())
                        .collect(),
                    same_unreachable,
                    on_link,
                    ..FoundRoutes::default()
                },
            }
        },
    )
}

impl World {
    fn plan(&self) -> Planned {
        let facts = Facts {
            own: &self.own,
            peers: &self.peers,
            reach: &self.reach,
            found: &self.found,
            ipv6: true,
        };
        plan(&self.settings, facts)
    }

    fn over(&self, address: IpAddr) -> Option<(bool, bool, u16)> {
        match self.reach.get(&address) {
            Some(Reach::Over {
                shared, on_link, mtu, ..
            }) => Some((*shared, *on_link, u16::try_from(*mtu).unwrap())),
            _ => None,
        }
    }
}

/// Every hop of a tunnel has a neighbour, which has a node.
fn is_whole(held: &Held) -> bool {
    held.routes.values().all(|hop| match hop {
        Hop::Link { .. } => true,
        Hop::Tunnel { via, .. } => {
            held.tunnel.is_some()
                && held
                    .neighbours
                    .get(via)
                    .is_some_and(|mac| held.forwarding.contains_key(mac))
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_prefix_goes_to_the_first_that_claims_it_by_the_way_that_its_addresses_allow(world in world()) {
        let planned = world.plan();
        let held = &planned.held;
        prop_assert!(is_whole(held));
        let is_node = |net: &IpNet| {
            let mut nodes = world.peers.iter().flat_map(|p| &p.addresses).chain(&world.settings.addresses);
            nodes.any(|a| net.contains(a))
        };
        // Whoever routes: what claims a node is masqueraded on the way there.
        let all = world.peers.iter().flat_map(|peer| &peer.prefixes).map(Prefix::net);
        prop_assert_eq!(all.filter(|net| !is_node(net)).collect::<Vec<_>>(), planned.spared.clone());
        if world.settings.mode == Mode::None {
            let spared = planned.spared.clone();
            let to_others = Planned {
                held: Held { unreachable: BTreeSet::new(), ..held.clone() },
                warnings: Vec::new(),
                ..planned.clone()
            };
            prop_assert_eq!(to_others, Planned { spared, ..Planned::default() });
            return Ok(());
        }
        // What workloads hold is no address of the node, and no packet comes from where it is not.
        let lent = |a: &IpAddr| world.own.lent.contains_key(a);
        prop_assert!(!held.addresses.iter().any(lent));
        for hop in held.routes.values() {
            let (Hop::Link { source, .. } | Hop::Tunnel { source, .. }) = hop;
            prop_assert!(source.is_none_or(|source| held.addresses.contains(&source)));
        }
        // No route of ours changes how a node is reached, so what was asked before them holds after them.
        prop_assert!(!held.routes.keys().any(is_node));
        // What is routed keeps its address, and so does what would be if something did not stand in its way.
        prop_assert!(held.routes.keys().all(|net| planned.spared.contains(net)));
        for peer in &world.peers {
            for prefix in &peer.prefixes {
                let net = prefix.net();
                let stranger = world.found.same_metric.contains(&net);
                if !own().contains(prefix) && (stranger || is_node(&net)) {
                    let said = |text: &String| text.starts_with(&format!("peer {}: ", peer.name)) && text.contains(&net.to_string());
                    prop_assert!(planned.warnings.iter().any(said), "{net} is not said");
                    prop_assert!(!held.routes.contains_key(&net));
                    continue;
                }
                let first = world.peers.iter().find(|other| other.prefixes.contains(prefix)).unwrap();
                let mine = own().contains(prefix);
                if mine || first.name != peer.name {
                    let said = format!("peer {}: {net} overlaps", peer.name);
                    prop_assert!(planned.warnings.iter().any(|text| text.contains(&said)), "{} is not said", said);
                    prop_assert!(!mine || !held.routes.contains_key(&net));
                    continue;
                }
                let way = planned.ways.iter().find(|way| way.peer == peer.name && way.family == prefix.family());
                match (held.routes.get(&net), way.map(|way| &way.how)) {
                    (Some(Hop::Link { via, .. }), Some(Ok(How::Direct { .. }))) => {
                        let (shared, on_link, _) = world.over(*via).unwrap();
                        prop_assert!(peer.addresses.contains(via) && on_link && world.settings.mode != Mode::Vxlan);
                        prop_assert!(shared || world.settings.mode == Mode::Direct);
                        prop_assert!(prefix.family() == Family::V4 || via.is_ipv6());
                    }
                    (Some(Hop::Tunnel { via, .. }), Some(Ok(How::Vxlan { to }))) => {
                        prop_assert!(world.settings.mode != Mode::Direct && peer.addresses.contains(to));
                        prop_assert_eq!(held.forwarding[&held.neighbours[via]], *to);
                        let tunnel = held.tunnel.unwrap();
                        prop_assert_eq!(Family::of(*to), tunnel.family);
                        prop_assert_eq!(via.is_ipv6(), tunnel.mtu >= 1280);
                        prop_assert!(tunnel.mtu >= 1280 || prefix.family() == Family::V4);
                        if world.settings.mode == Mode::Auto {
                            let direct = |a: &IpAddr| (a.is_ipv6() || prefix.family() == Family::V4)
                                && world.over(*a).is_some_and(|(shared, ..)| shared);
                            prop_assert!(!peer.addresses.iter().any(direct));
                        }
                    }
                    (None, Some(Err(_))) => {}
                    other => prop_assert!(false, "{net}: {other:?}"),
                }
            }
        }
        // No way is narrower than what is told, nor is the device wider than any of its ways.
        for way in &planned.ways {
            let least = planned.mtu.as_ref().map(|(mtu, _)| *mtu);
            match &way.how {
                Ok(How::Direct { via, .. }) => prop_assert!(least.unwrap() <= world.over(*via).unwrap().2),
                Ok(How::Vxlan { to }) => {
                    let room = world.over(*to).unwrap().2 - if to.is_ipv4() { 50 } else { 70 };
                    prop_assert!(least.unwrap() <= room && held.tunnel.unwrap().mtu <= room);
                }
                Err(_) => {}
            }
        }
    }

    #[test]
    fn an_own_prefix_is_unreachable_as_such_unless_others_are_in_it(world in world()) {
        let planned = world.plan();
        for prefix in own() {
            let net = prefix.net();
            let mut nodes = world.peers.iter().flat_map(|p| &p.addresses).chain(&world.settings.addresses);
            let mut on_link = world.found.on_link.iter();
            let is_shared = nodes.any(|a| net.contains(a))
                || on_link.any(|other| other.contains(&net.network()) || net.contains(&other.network()))
                || world.found.same_unreachable.contains(&net);
            prop_assert_eq!(planned.held.unreachable.contains(&net), !is_shared);
            let said = |text: &String| text.starts_with(&format!("what is sent to addresses of {net} that nobody has"));
            prop_assert_eq!(planned.warnings.iter().any(said), is_shared);
        }
        prop_assert!(planned.held.unreachable.len() <= own().len());
    }

    #[test]
    fn the_steps_lead_there_and_never_break_what_stays(before in world(), after in world(), damage in any::<[bool; 3]>()) {
        let (mut held, wanted) = (before.plan().held, after.plan().held);
        // Somebody was at it.
        let [tunnel, down, route] = damage;
        held.odd.tunnel = tunnel && held.tunnel.is_some();
        held.odd.down = down && held.tunnel.is_some();
        if route && let Some((net, _)) = held.routes.pop_first() {
            held.odd.routes.insert(net);
        }
        let stays = held.clone();
        let kind = |held: &Held| held.tunnel.map(|t| (t.mac, t.family, t.carries_ipv6()));
        let same_device = kind(&held) == kind(&wanted) && !held.odd.tunnel;
        for step in held.steps_to(&wanted) {
            // The kernel refuses to add what is there.
            if let Step::AddRoute(net, _) = &step {
                prop_assert!(!held.routes.contains_key(net) && !held.odd.routes.contains(net), "{step}");
            }
            held.apply(&step);
            if same_device {
                prop_assert!(is_whole(&held), "after {step}");
                for (net, _) in stays.routes.iter().filter(|(net, _)| wanted.routes.contains_key(net)) {
                    prop_assert!(held.routes.contains_key(net), "{net} is missing after {step}");
                }
            }
        }
        prop_assert_eq!(held.steps_to(&wanted), vec![]);
        prop_assert_eq!(held, wanted);
    }
}

#[test]
fn a_node_that_claims_too_much_takes_nothing_from_the_others() {
    let peer =
        |name: &str, n: u8, net: &str| Peer::new(name, vec![v4(n)], vec![net.parse().unwrap()]).unwrap();
    let peers = [
        peer("a-greedy", 11, "10.128.0.0/9"),
        peer("b", 12, "10.129.1.0/24"),
        peer("c", 13, "10.200.1.0/24"),
        peer("d-late", 14, "10.200.1.0/24"),
    ];
    let over = |n: u8| {
        let reach = Reach::Over {
            index: 2,
            device: "eth0".to_owned(),
            mtu: 1500,
            shared: true,
            on_link: true,
            source: None,
        };
        (v4(n), reach)
    };
    let reach = (11..=14).map(over).collect();
    let (own, found) = (Own::default(), FoundRoutes::default());
    let settings = Settings {
        mode: Mode::Auto,
        ..Settings::default()
    };
    let facts = Facts {
        own: &own,
        peers: &peers,
        reach: &reach,
        found: &found,
        ipv6: true,
    };
    let planned = plan(&settings, facts);
    let to = |(net, hop): (&ipnet::IpNet, &Hop)| match hop {
        Hop::Link { via, .. } | Hop::Tunnel { via, .. } => format!("{net} {via}"),
    };
    let routes: Vec<String> = planned.held.routes.iter().map(to).collect();
    let [a, b, c] = [v4(11), v4(12), v4(13)];
    let expected = [
        format!("10.128.0.0/9 {a}"),
        format!("10.129.1.0/24 {b}"),
        format!("10.200.1.0/24 {c}"),
    ];
    assert_eq!(routes, expected);
    let warnings = [
        "peer b: 10.129.1.0/24 overlaps 10.128.0.0/9 of peer a-greedy, and goes to b",
        "peer c: 10.200.1.0/24 overlaps 10.128.0.0/9 of peer a-greedy, and goes to c",
        "peer d-late: 10.200.1.0/24 overlaps 10.200.1.0/24 of peer c",
    ];
    assert_eq!(planned.warnings, warnings);
}

/// What is planned for these peers where each address of a list is reached so.
fn planned(mode: Mode, peers: &[Peer], reach: &[(IpAddr, Reach)]) -> Planned {
    let settings = Settings {
        mode,
        ..Settings::default()
    };
    let facts = Facts {
        own: &Own::default(),
        peers,
        reach: &reach.iter().cloned().collect(),
        found: &FoundRoutes::default(),
        ipv6: true,
    };
    plan(&settings, facts)
}

fn routed() -> Reach {
    Reach::Over {
        index: 2,
        device: "eth0".to_owned(),
        mtu: 1500,
        shared: false,
        on_link: false,
        source: None,
    }
}

fn named(name: &str, addresses: &[IpAddr], net: &str) -> Peer {
    Peer::new(name, addresses.to_vec(), vec![net.parse().unwrap()]).unwrap()
}

#[test]
fn a_node_that_has_no_address_yet_changes_nothing_for_the_others() {
    let (a, b) = (
        named("a", &[v6(1)], "fd77::/64"),
        named("b", &[v6(2)], "fd77:0:0:1::/64"),
    );
    let reach = [(v6(1), Reach::Own), (v6(2), routed())];
    let before = planned(Mode::Auto, &[a.clone(), b.clone()], &reach);
    assert_eq!(before.held.tunnel.map(|tunnel| tunnel.family), Some(Family::V6));
    let young = named("young", &[], "fd77:0:0:2::/64");
    let after = planned(Mode::Auto, &[a, b, young], &reach);
    assert_eq!(after.held, before.held);
    let how: Vec<&How> = after
        .ways
        .iter()
        .filter_map(|way| way.how.as_ref().ok())
        .collect();
    assert_eq!(how, [&How::Vxlan { to: v6(2) }]);
}

/// As an address that moves between nodes, or one that each of them has.
#[test]
fn a_peer_that_lists_an_address_of_this_node_is_not_taken_for_it_where_its_name_is_known() {
    let myself = Peer {
        is_self: true,
        ..named("a", &[v4(1)], "10.77.1.0/24")
    };
    let b = named("b", &[v4(9), v4(2)], "10.77.2.0/24");
    let c = named("c", &[v4(9)], "10.77.3.0/24");
    let reach = [(v4(1), Reach::Own), (v4(9), Reach::Own), (v4(2), routed())];
    let told = |planned: &Planned| -> Vec<String> {
        let one = |way: &model::routes::Way| format!("{} {:?}", way.peer, way.how);
        planned.ways.iter().map(one).collect()
    };
    let known = planned(Mode::Direct, &[myself.clone(), b.clone(), c.clone()], &reach);
    assert_eq!(
        told(&known)[1],
        format!(
            "c Err(\"no address of it is on a link of this node that could carry IPv4: {} is this node's own, too\")",
            v4(9)
        )
    );
    assert!(told(&known)[0].starts_with("b "), "{known:#?}");
    // Where nobody knows the name it is said.
    let unmarked = Peer {
        is_self: false,
        ..myself
    };
    let unknown = planned(Mode::Direct, &[unmarked, b, c], &reach);
    assert_eq!(told(&unknown), Vec::<String>::new());
    assert_eq!(
        unknown.warnings[0],
        "peers a and b both have addresses of this node, and neither is routed to"
    );
}
