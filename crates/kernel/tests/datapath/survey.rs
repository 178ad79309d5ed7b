//! What is found, and what is put back.

use crate::node::{RULESET, inside, on_a_node, run, target, wire, workload};
use kernel::linux::Linux;
use model::datapath::Datapath as _;
use model::op::Op;
use model::survey::{ForeignNet, FoundLink, Standing, Uplink};
use std::sync::atomic::{AtomicBool, Ordering};
#[test]
fn what_is_missing_on_the_host_is_put_back() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let index = wire(&linux, &a).unwrap();
        let host = a.plan.link.host.as_str();
        linux.publish(&RULESET).unwrap();
        run("ip link add bridge type bridge");
        let write = |name: &str, value| format!("sysctl -qw net/{}={value}", name.replace("LINK", host));
        for damage in [
            format!("ip link set {host} address 02:00:00:00:00:99"),
            format!("ip link set {host} mtu 1300"),
            format!("ip link set {host} mtu 1000"),
            format!("ip link set {host} master bridge"),
            format!("ip link set {host} addrgenmode eui64"),
            format!("ip link set {host} alias wl1"),
            format!("ip link property del dev {host} altname wk-a"),
            write("ipv4/conf/LINK/forwarding", 0),
            write("ipv4/conf/LINK/rp_filter", 0),
            write("ipv4/conf/LINK/accept_redirects", 1),
            write("ipv4/conf/LINK/send_redirects", 1),
            write("ipv6/conf/LINK/forwarding", 0),
            write("ipv6/conf/LINK/accept_ra", 2),
            write("ipv6/conf/LINK/disable_ipv6", 1),
            format!("ip route delete 10.77.0.5 dev {host}"),
            format!("ip -6 route delete fd77::5 dev {host}"),
            format!("ip address flush dev {host}"),
            format!("ip neighbour flush dev {host} nud permanent"),
            format!("ip link set {host} down"),
        ] {
            run(&damage);
            let missing = linux
                .find(&a.plan.link.host)
                .unwrap()
                .unwrap()
                .missing(&a.plan.record, &a.plan.link);
            assert_ne!(missing, Vec::new(), "{damage}");
            assert_eq!(
                linux.restore(&target(&a, index), &missing),
                Vec::new(),
                "{damage}"
            );
            // The kernel tells of what follows from a change, and it is looked at again.
            let missing = linux
                .find(&a.plan.link.host)
                .unwrap()
                .unwrap()
                .missing(&a.plan.record, &a.plan.link);
            linux.restore(&target(&a, index), &missing);
            let after = linux.find(&a.plan.link.host).unwrap().unwrap();
            assert_eq!(
                after.missing(&a.plan.record, &a.plan.link),
                Vec::new(),
                "{damage}"
            );
            assert_eq!(after.beyond_us(), Vec::<String>::new(), "{damage}");
            inside(&a.namespace, "ping -c1 -W1 169.254.77.1");
            run("ping -c1 -W1 fd77::5");
        }
    });
}

#[test]
fn a_second_name_that_another_link_has_stays_with_it() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        run("ip link add other type veth peer name beyond");
        run("ip link property add dev other altname wk-a");
        let a = workload(&linux, "a", Some("10.77.0.5"), None, 100_000);
        wire(&linux, &a).unwrap();
        let missing = |found: &FoundLink| found.missing(&a.plan.record, &a.plan.link);
        assert_eq!(missing(&linux.find(&a.plan.link.host).unwrap().unwrap()), []);
        assert_eq!(missing(&linux.survey().unwrap().links[0]), []);
        run("ip link property del dev other altname wk-a");
        let name = [Op::AltName("wk-a".to_owned())];
        assert_eq!(missing(&linux.find(&a.plan.link.host).unwrap().unwrap()), name);
        assert_eq!(missing(&linux.survey().unwrap().links[0]), name);
    });
}

#[test]
fn a_route_that_is_there_already_is_no_fault_and_one_that_somebody_else_has_is() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let index = wire(&linux, &a).unwrap();
        let all: Vec<_> = a.plan.host.clone();
        assert_eq!(linux.restore(&target(&a, index), &all), Vec::new());

        run("ip link add other type veth peer name beyond");
        run("ip link set other up");
        for (family, net) in [("-4", "10.77.0.5/32"), ("-6", "fd77::5/128")] {
            run(&format!("ip {family} route delete {net}"));
            run(&format!("ip {family} route add {net} dev other"));
        }
        let faults: Vec<String> = linux
            .restore(&target(&a, index), &all)
            .iter()
            .map(ToString::to_string)
            .collect();
        let host = a.plan.link.host.as_str();
        assert_eq!(
            faults,
            [
                format!("ip route add 10.77.0.5/32 dev {host} scope link: File exists (errno 17)"),
                format!("ip route add fd77::5/128 dev {host}: File exists (errno 17)"),
            ]
        );
        // Another link of the same name is not touched.
        let gone = model::datapath::Target {
            index: index + 1,
            ..target(&a, index)
        };
        assert_eq!(linux.restore(&gone, &all), Vec::new());
    });
}

#[test]
fn a_link_that_was_taken_out_of_the_group_is_put_back() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let index = wire(&linux, &a).unwrap();
        let host = a.plan.link.host.as_str();
        let find = || linux.find(&a.plan.link.host).unwrap().unwrap();
        run(&format!("ip link set {host} group default"));
        let record = Box::new(a.plan.record.clone());
        assert_eq!(find().standing(8), Standing::Regrouped(record.clone()));
        assert_eq!(linux.survey().unwrap().links[0].standing(8), find().standing(8));
        let missing = find().missing(&a.plan.record, &a.plan.link);
        assert_eq!(missing, [Op::Group(8)]);
        assert_eq!(linux.restore(&target(&a, index), &missing), Vec::new());
        assert_eq!(find().standing(8), Standing::Attached(record));

        // What does not say of itself that it is ours is left alone.
        run(&format!("ip link set {host} group default"));
        run(&format!("ip link set {host} alias somebodys"));
        assert_eq!(find().standing(8), Standing::Foreign);
        let missing = find().missing(&a.plan.record, &a.plan.link);
        let faults = linux.restore(&target(&a, index), &missing);
        let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [format!(
                "put back what is missing of {host}: it is in link group 0 and not in 8 (errno 0)"
            )]
        );
        assert_eq!(find().standing(8), Standing::Foreign);
    });
}

#[test]
fn what_somebody_else_has_before_us_is_said() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        wire(&linux, &a).unwrap();
        run("ip link add other type veth peer name beyond");
        run("ip link set other up");
        let host = a.plan.link.host.as_str();
        let said = || {
            let found = linux.find(&a.plan.link.host).unwrap().unwrap().beyond_us();
            let surveyed = linux.survey().unwrap().links[0].beyond_us();
            assert_eq!(found, surveyed);
            found
        };
        run("ip -6 route add fd77::5/128 dev other metric 5000");
        assert_eq!(said(), Vec::<String>::new());
        for (make, end, net) in [
            (
                "ip -6 route add fd77::5/128 dev other metric 1",
                "ip -6 route delete fd77::5/128 dev other metric 1",
                "fd77::5/128",
            ),
            (
                "ip address add 10.77.0.5/24 dev other",
                "ip address delete 10.77.0.5/24 dev other",
                "10.77.0.5/32",
            ),
        ] {
            run(make);
            let words = format!("packets to {net} do not go over {host}: somebody else has it");
            assert_eq!(said(), [words]);
            run(end);
        }
        assert_eq!(said(), Vec::<String>::new());
    });
}

#[test]
fn addresses_of_others_and_the_uplink_are_found() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        assert_eq!(linux.uplink(), Ok(None));
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        wire(&linux, &a).unwrap();
        for line in [
            "ip link add up0 mtu 1420 type veth peer name up1",
            "ip link set up0 up",
            "ip link set up1 up",
            "ip address add 192.0.2.2/24 dev up0",
            "ip address add 2001:db8::2/64 dev up0 nodad",
            "ip route add 10.77.0.9/32 dev up0",
            "ip route add 10.78.0.0/16 dev up0",
            "ip route add blackhole 10.77.0.10/32",
            "ip -6 route add blackhole fd77::10/128",
            "ip -6 route add unreachable default metric 1",
            "ip -6 route add fd77::9/128 via 2001:db8::1",
            "ip -6 route add default via 2001:db8::1",
            // Somebody else's, in our group and with a name like ours.
            "ip link add grouped group 8 type bridge",
            "ip link set grouped up",
            "ip address add 10.77.0.20/32 dev grouped",
            "ip route add 10.77.0.21/32 dev grouped",
            "ip link add wk0123456789abc type bridge",
            "ip address add 10.77.0.22/32 dev wk0123456789abc",
        ] {
            run(line);
        }
        let uplink = |name: &str, mtu| {
            Ok(Some(Uplink {
                name: name.to_owned(),
                mtu,
            }))
        };
        assert_eq!(linux.uplink(), uplink("up0", 1420));
        // IPv4's comes before IPv6's; several next hops are an uplink, too; the lowest metric wins.
        run("ip route add default metric 7 nexthop via 192.0.2.1 dev up0 nexthop via 192.0.2.3 dev up0");
        run("ip link set up0 mtu 1500");
        assert_eq!(linux.uplink(), uplink("up0", 1500));
        run("ip link add low0 mtu 1300 type veth peer name low1");
        run("ip link set low0 up");
        run("ip route add default dev low0 metric 5");
        assert_eq!(linux.uplink(), uplink("low0", 1300));

        let survey = linux.survey().unwrap();
        assert_eq!(Ok(survey.uplink), linux.uplink());
        let mut taken: Vec<String> = survey.taken.iter().map(ToString::to_string).collect();
        taken.retain(|address| !address.starts_with("fe80:"));
        taken.sort();
        assert_eq!(
            taken,
            [
                "10.77.0.10",
                "10.77.0.20",
                "10.77.0.21",
                "10.77.0.22",
                "10.77.0.9",
                "192.0.2.2",
                "2001:db8::2",
                "fd77::10",
                "fd77::9"
            ]
        );
        assert_eq!(survey.links.len(), 3);
    });
}

#[test]
fn what_of_others_could_hinder_is_found() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        wire(&linux, &a).unwrap();
        for line in [
            "ip link add up0 type veth peer name up1",
            "ip link set up0 up",
            "ip link set up1 up",
            "ip address add 10.77.0.130/25 dev up0",
            "ip address add fd77:1::2/64 dev up0 nodad",
            "ip route add 10.78.0.0/16 dev up0",
            "ip route add 10.79.0.0/16 via 10.77.0.129",
            "ip route add blackhole 10.80.0.0/16",
            "ip route add default via 10.77.0.129",
            "nft add table ip filter",
            "nft add table ip6 harmless",
        ] {
            run(line);
        }
        for (chain, policy) in [("ip filter FORWARD", "drop"), ("ip6 harmless forward", "accept")] {
            let base = format!("{{ type filter hook forward priority 0; policy {policy}; }}");
            let output = std::process::Command::new("nft")
                .arg(format!("add chain {chain} {base}"))
                .status();
            assert!(output.unwrap().success());
        }
        let survey = linux.survey().unwrap();
        let mut nets: Vec<String> = survey
            .nets
            .iter()
            .map(|ForeignNet { net, link, on_link }| format!("{net} {link:?} {on_link}"))
            .collect();
        nets.sort();
        assert_eq!(
            nets,
            [
                "10.77.0.128/25 \"up0\" true",
                "10.78.0.0/16 \"up0\" true",
                "10.79.0.0/16 \"up0\" false",
                "10.80.0.0/16 \"\" false",
                "fd77:1::/64 \"up0\" true",
            ]
        );
        assert_eq!(survey.forward_drops, ["ip filter FORWARD"]);
    });
}

#[test]
fn a_survey_is_whole_while_links_come_and_go() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        // So many that the kernel needs several datagrams to tell of them, between which it can be interrupted.
        let all: Vec<_> = (0..150)
            .map(|n| {
                let address = format!("10.77.0.{}", n + 5);
                workload(&linux, &format!("w{n}"), Some(&address), None, 100_000 + n)
            })
            .collect();
        for workload in &all {
            wire(&linux, workload).unwrap();
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            for n in 0..4 {
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        run(&format!("ip link add churn{n} type veth peer name nruhc{n}"));
                        run(&format!("ip address add 192.0.2.{n}/24 dev churn{n}"));
                        run(&format!("ip link delete churn{n}"));
                    }
                });
            }
            let mut surveys = 0;
            while surveys < 100 {
                let found = linux.survey();
                stop.fetch_or(found.is_err(), Ordering::Relaxed);
                let found = found.unwrap().links;
                let standing = |link: &model::survey::FoundLink| match link.standing(8) {
                    Standing::Attached(record) => {
                        let of = all.iter().find(|w| w.plan.record == *record).unwrap();
                        link.missing(&record, &of.plan.link).is_empty()
                    }
                    _ => false,
                };
                let whole = found.len() == all.len() && found.iter().all(standing);
                stop.fetch_or(!whole, Ordering::Relaxed);
                assert!(whole, "{found:#?}");
                surveys += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}
