//! One attachment in real namespaces, compared with what `ip` and `nft` say.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kernel::linux::Linux;
use kernel::netns;
use model::address::Addresses;
use model::datapath::{Datapath as _, Event, OpenError, Target, WireError};
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::plan::{Plan, PlanSettings};
use model::record::{Asked, PathDigest, Record};
use model::ruleset::Ruleset;
use model::survey::Standing;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

const RULESET: Ruleset = Ruleset {
    group: 8,
    masquerade: true,
};

/// Runs a test's body in a namespace of its own.
fn on_a_node(test: impl FnOnce() + Send) {
    let node = netns::create().unwrap();
    netns::within(node.as_fd(), test).unwrap();
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn inside(namespace: &OwnedFd, line: &str) -> String {
    netns::within(namespace.as_fd(), || run(line)).unwrap()
}

fn path(namespace: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

struct Workload {
    namespace: OwnedFd,
    plan: Plan,
}

fn workload(linux: &Linux, id: &str, v4: Option<&str>, v6: Option<&str>, index: u32) -> Workload {
    let namespace = netns::create().unwrap();
    let (_, identity) = linux.open(&path(&namespace)).unwrap();
    let record = Record {
        key: Key::new(
            Owner::default(),
            WorkloadId::new(id).unwrap(),
            InterfaceName::new("eth0").unwrap(),
        )
        .unwrap(),
        addresses: Addresses::new(v4.map(|a| a.parse().unwrap()), v6.map(|a| a.parse().unwrap())).unwrap(),
        namespace: identity,
        path: PathDigest::of("x"),
        asked: Asked::default(),
    };
    Workload {
        namespace,
        plan: Plan::new(record, &PlanSettings { group: 8, mtu: 1400 }, index),
    }
}

fn target(workload: &Workload, index: u32) -> Target {
    Target {
        link: workload.plan.link.host.clone(),
        index,
        group: 8,
    }
}

fn wire(linux: &Linux, workload: &Workload) -> Result<u32, WireError> {
    let (namespace, _) = linux.open(&path(&workload.namespace)).unwrap();
    linux.wire(&namespace, &workload.plan)
}

/// All that a namespace holds, as text; neighbours that come and go by themselves, and counters, are left out.
fn world() -> String {
    [
        "ip -j link show",
        "ip -j address show",
        "ip -j route show table all",
        "ip -j -6 route show table all",
    ]
    .map(run)
    .join("\n")
    // What a link that was up once keeps, and nobody can tell from one that was not.
    .replace("\"qdisc\":\"noqueue\"", "\"qdisc\":\"noop\"")
}

#[test]
fn an_attachment_is_what_its_plan_says() {
    for (v4, v6) in [
        (Some("10.77.0.5"), Some("fd77::5")),
        (Some("10.77.0.5"), None),
        (None, Some("fd77::5")),
    ] {
        on_a_node(|| {
            let linux = Linux::open(8).unwrap();
            linux.publish(&RULESET).unwrap();
            let a = workload(&linux, "a", v4, v6, 100_000);
            let index = wire(&linux, &a).unwrap();
            assert_eq!(index, 100_000);

            let host = a.plan.link.host.as_str();
            let link = run(&format!("ip -d link show {host}"));
            for part in [
                "UP,LOWER_UP",
                "mtu 1400",
                "group 8",
                "numtxqueues 1 ",
                "numrxqueues 1 ",
                "addrgenmode none",
                "altname wk-a",
            ] {
                assert!(link.contains(part), "{part}: {link}");
            }
            assert!(link.contains(&format!("alias {}", a.plan.record)), "{link}");
            let conf = |name: &str| run(&format!("cat /proc/sys/net/{name}")).trim().to_owned();
            assert_eq!(conf(&format!("ipv4/conf/{host}/rp_filter")), "1");
            if v6.is_some() {
                for name in ["accept_ra", "autoconf", "accept_redirects"] {
                    assert_eq!(conf(&format!("ipv6/conf/{host}/{name}")), "0", "{name}");
                }
            } else {
                assert_eq!(conf(&format!("ipv6/conf/{host}/disable_ipv6")), "1");
            }

            // The kernel's view holds every op of the plan, and the record reads back.
            let found = linux.find(&a.plan.link.host).unwrap().unwrap();
            assert_eq!(found.missing(&a.plan.record), Vec::new());
            assert_eq!(
                found.standing(8),
                Standing::Attached(Box::new(a.plan.record.clone()))
            );
            let survey = linux.survey().unwrap();
            assert_eq!(survey.links, std::slice::from_ref(&found));
            assert!(survey.forwarding.v4 && survey.forwarding.v6);

            let eth0 = inside(&a.namespace, "ip -d address show eth0");
            assert!(
                eth0.contains("LOWER_UP") && !eth0.contains("tentative global"),
                "{eth0}"
            );
            let (routes4, routes6) = (
                inside(&a.namespace, "ip route show"),
                inside(&a.namespace, "ip -6 route show"),
            );
            if let Some(v4) = v4 {
                assert!(eth0.contains(&format!("inet {v4}/32")), "{eth0}");
                assert!(
                    routes4.contains(&format!(
                        "default via 169.254.77.1 dev eth0 proto static src {v4}"
                    )),
                    "{routes4}"
                );
                inside(&a.namespace, "ping -c1 -W1 169.254.77.1");
                run(&format!("ping -c1 -W1 {v4}"));
            }
            if let Some(v6) = v6 {
                assert!(eth0.contains(&format!("inet6 {v6}/128")), "{eth0}");
                assert!(
                    routes6.contains(&format!("default via fe80::1 dev eth0 proto static src {v6}")),
                    "{routes6}"
                );
                inside(&a.namespace, "ping -c1 -W1 fe80::1%eth0");
                run(&format!("ping -c1 -W1 {v6}"));
            }
            assert!(inside(&a.namespace, "ip link show lo").contains("UP"));

            assert_eq!(linux.unwire(&[target(&a, index)]), [Ok(())]);
            assert_eq!(linux.find(&a.plan.link.host).unwrap(), None);
            // Gone already is a success, too.
            assert_eq!(linux.unwire(&[target(&a, index)]), [Ok(())]);
        });
    }
}

#[test]
fn a_refused_attach_leaves_both_namespaces_as_they_were() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let same = |what: &str, act: &dyn Fn() -> WireError, expected: &str| {
            let before = (world(), netns::within(a.namespace.as_fd(), world).unwrap());
            assert_eq!(act().to_string(), expected, "{what}");
            let after = (world(), netns::within(a.namespace.as_fd(), world).unwrap());
            assert_eq!(before, after, "{what}");
        };
        let attach = || wire(&linux, &a).unwrap_err();

        inside(&a.namespace, "ip link add eth0 type veth peer name other");
        same(
            "eth0 inside",
            &attach,
            "the namespace has a link named eth0 already",
        );
        inside(&a.namespace, "ip link delete eth0");

        let host = a.plan.link.host.as_str();
        run(&format!("ip link add {host} type veth peer name other"));
        same(
            "the host end's name",
            &attach,
            &format!("a link named {host} exists already"),
        );
        run(&format!("ip link delete {host}"));

        for (family, net) in [("-4", "10.77.0.5/32"), ("-6", "fd77::5/128")] {
            run("ip link set lo up");
            run(&format!("ip {family} route add {net} dev lo"));
            same(
                "a route",
                &attach,
                &format!("{net} is routed by somebody else already"),
            );
            run(&format!("ip {family} route delete {net} dev lo"));
            run("ip link set lo down");
        }
        wire(&linux, &a).unwrap();
    });
}

#[test]
fn indexes_that_are_taken_are_gone_round() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        let (a, b) = (
            workload(&linux, "a", Some("10.77.0.5"), None, 100_000),
            workload(&linux, "b", Some("10.77.0.6"), None, 100_000),
        );
        assert_eq!(wire(&linux, &a), Ok(100_000));
        inside(&b.namespace, "ip link add x type veth peer name y");
        assert_eq!(wire(&linux, &b), Ok(100_001));
        inside(&b.namespace, "ping -c1 -W1 10.77.0.5");
    });
}

#[test]
fn only_a_workloads_network_namespace_is_opened() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let folder = format!("/tmp/workloadnet-test-{}", std::process::id());
        std::fs::create_dir_all(&folder).unwrap();
        let fifo = format!("{folder}/fifo");
        run(&format!("mkfifo {fifo}"));
        let why = |path: &str| linux.open(path).unwrap_err().to_string();
        assert_eq!(why(&fifo), format!("{fifo:?} is not a network namespace: a FIFO"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            why("/dev/zero"),
            "\"/dev/zero\" is not a network namespace: a character device"
        );
        assert_eq!(
            why("/etc/passwd"),
            "\"/etc/passwd\" is not a network namespace: a regular file"
        );
        assert_eq!(
            why("/proc/self/ns/mnt"),
            "\"/proc/self/ns/mnt\" is not a network namespace: a namespace of another kind"
        );
        assert_eq!(why("/nowhere"), "there is nothing at \"/nowhere\"");
        let own = linux.open("/proc/thread-self/ns/net").unwrap_err();
        assert!(
            matches!(
                own,
                OpenError::Forbidden {
                    whose: "the daemon itself",
                    ..
                }
            ),
            "{own}"
        );
        // Where even root may not look at init's namespace, nobody can attach to it.
        let init = linux.open("/proc/1/ns/net").unwrap_err();
        assert!(
            matches!(
                &init,
                OpenError::Forbidden {
                    whose: "the node's init",
                    ..
                }
            ) || matches!(&init, OpenError::Fault(fault) if fault.errno == 13),
            "{init}"
        );
    });
}

#[test]
fn what_is_missing_on_the_host_is_put_back() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let index = wire(&linux, &a).unwrap();
        let host = a.plan.link.host.as_str();
        for damage in [
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
                .missing(&a.plan.record);
            assert_ne!(missing, Vec::new(), "{damage}");
            assert_eq!(
                linux.restore(&target(&a, index), &missing),
                Vec::new(),
                "{damage}"
            );
            let after = linux.find(&a.plan.link.host).unwrap().unwrap();
            assert_eq!(after.missing(&a.plan.record), Vec::new(), "{damage}");
            inside(&a.namespace, "ping -c1 -W1 169.254.77.1");
            run("ping -c1 -W1 fd77::5");
        }
    });
}

#[test]
fn the_first_hop_answers_whatever_arp_ignore_says() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        linux.publish(&RULESET).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        wire(&linux, &a).unwrap();
        for mode in ["0", "1", "2"] {
            std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", mode).unwrap();
            inside(&a.namespace, "ip neighbour flush dev eth0 nud permanent");
            inside(&a.namespace, "ip neighbour flush dev eth0");
            inside(&a.namespace, "ping -c1 -W1 169.254.77.1");
            inside(&a.namespace, "ping -c1 -W2 fe80::1%eth0");
        }
    });
}

#[test]
fn links_are_deleted_together_and_announced_and_others_are_left_alone() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let (sender, events) = mpsc::channel();
        linux
            .watch(Box::new(move |event| drop(sender.send(event))))
            .unwrap();
        run("ip link add foreign group 8 type veth peer name other");
        let all: Vec<Workload> = (0..16)
            .map(|n| {
                workload(
                    &linux,
                    &format!("w{n}"),
                    Some(&format!("10.77.0.{}", n + 5)),
                    None,
                    100_000 + n,
                )
            })
            .collect();
        let mut targets: Vec<Target> = all.iter().map(|w| target(w, wire(&linux, w).unwrap())).collect();
        // A target whose index is another link's by then is left alone.
        let foreign = linux
            .survey()
            .unwrap()
            .links
            .into_iter()
            .find(|l| l.name == "foreign")
            .unwrap();
        targets.push(Target {
            link: all[0].plan.link.host.clone(),
            index: foreign.index,
            group: 8,
        });
        assert_eq!(linux.unwire(&targets), vec![Ok(()); 17]);
        assert!(run("ip link show").contains("foreign"));
        assert!(!run("ip link show").contains("wk"));
        let gone: Vec<Event> = events
            .try_iter()
            .filter(|event| matches!(event, Event::LinkGone { .. }))
            .collect();
        assert_eq!(gone.len(), 16, "{gone:?}");
    });
}

#[test]
fn a_namespace_that_ends_is_announced() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let (sender, events) = mpsc::channel();
        linux
            .watch(Box::new(move |event| drop(sender.send(event))))
            .unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let index = wire(&linux, &a).unwrap();
        drop(a.namespace);
        let gone = Event::LinkGone {
            link: a.plan.link.host.clone(),
            index,
        };
        while events
            .recv_timeout(Duration::from_secs(5))
            .expect("the link's end is announced")
            != gone
        {}
    });
}

#[test]
fn the_table_reads_back_and_every_foreign_change_is_noticed() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let (sender, events) = mpsc::channel();
        linux
            .watch(Box::new(move |event| drop(sender.send(event))))
            .unwrap();
        run("nft add table inet foreign");
        assert_eq!(
            linux.drift(&RULESET).unwrap()[0],
            "nftables table inet workloadnet is missing"
        );
        for damage in [
            "true",
            "nft flush table inet workloadnet",
            "nft delete table inet workloadnet",
            "nft flush ruleset",
            "nft delete chain inet workloadnet outbound",
            "nft insert rule inet workloadnet guard accept",
        ] {
            linux.publish(&RULESET).unwrap();
            assert_eq!(linux.drift(&RULESET), Ok(Vec::new()), "{damage}");
            assert_eq!(run("nft list table inet workloadnet"), RULESET.to_string());
            assert_eq!(
                events.try_iter().find(|event| *event == Event::RulesetTouched),
                None,
                "{damage}"
            );
            if damage == "true" {
                assert!(run("nft list tables").contains("foreign"));
                continue;
            }
            if damage.contains("delete chain") {
                run("nft flush chain inet workloadnet outbound");
            }
            run(damage);
            assert_ne!(linux.drift(&RULESET), Ok(Vec::new()), "{damage}");
            while events.recv_timeout(Duration::from_secs(5)).expect(damage) != Event::RulesetTouched {}
            // One change has several notifications; the rest of them belongs to it.
            while events.recv_timeout(Duration::from_millis(200)).is_ok() {}
        }
    });
}
