//! What is refused, and that nothing of it is left.

use crate::node::{inside, on_a_node, run, target, until, wire, workload, world};
use kernel::linux::Linux;
use kernel::netns;
use model::datapath::{Datapath as _, OpenError, WireError};
use model::plan::{Plan, PlanSettings};
use model::ports::{HostPort, Ports, Protocol};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
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
        run("ip link add other type bridge");
        run("ip link set other addrgenmode none");
        run("ip link set other up");
        // The answer means that nothing of it changes any more.
        run("ip link show dev other");
        for (what, make, end, net) in [
            (
                "a better metric",
                "ip -6 route add fd77::5/128 dev other metric 1",
                "ip -6 route delete fd77::5/128 dev other",
                "fd77::5/128",
            ),
            (
                "a better metric that leads nowhere",
                "ip -6 route add blackhole fd77::5/128 metric 1",
                "ip -6 route delete blackhole fd77::5/128 metric 1",
                "fd77::5/128",
            ),
            (
                "an IPv4 address of the node",
                "ip address add 10.77.0.5/24 dev other",
                "ip address delete 10.77.0.5/24 dev other",
                "10.77.0.5/32",
            ),
            (
                "an IPv6 address of the node",
                "ip address add fd77::5/64 dev other nodad",
                "ip address delete fd77::5/64 dev other",
                "fd77::5/128",
            ),
        ] {
            run(make);
            if make.contains("/64") {
                // The kernel makes an IPv6 address's own route a moment later.
                until("the address is answered", || {
                    run("ip -6 route show table local").contains("fd77::5")
                });
            }
            same(
                what,
                &attach,
                &format!("{net} is routed by somebody else already"),
            );
            run(end);
        }
        run("ip link delete other");
        wire(&linux, &a).unwrap();
    });
}

/// As where somebody has renamed a link of ours, which keeps its further names.
#[test]
fn who_has_the_name_of_a_port_is_named_and_nothing_is_left() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let mut a = workload(&linux, "a", Some("10.77.0.5"), None, 100_000);
        let port = HostPort {
            protocol: Protocol::Tcp,
            port: 8080,
            address: None,
            to: 80,
        };
        let mut record = a.plan.record.clone();
        record.asked.ports = Ports::new([port]).unwrap();
        a.plan = Plan::new(record, &PlanSettings { group: 8, mtu: 1400 }, 100_000);
        let index = wire(&linux, &a).unwrap();
        let host = a.plan.link.host.as_str();
        run(&format!("ip link set {host} name renamed"));
        let before = world();
        let first = std::mem::replace(&mut a.namespace, netns::create().unwrap());
        let refused = wire(&linux, &a).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("a link has the name {host}-1of1-t8080-80 already")
        );
        assert_eq!(world(), before);
        run("ip link delete renamed");
        drop(first);
        assert_eq!(wire(&linux, &a).unwrap(), index);
    });
}

/// Another attachment of the same namespace that is just being detached, say: the kernel says that the name is taken, and then
/// nobody has it.
#[test]
fn who_has_the_interfaces_name_only_for_a_moment_is_named_or_waited_for() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), Some("fd77::5"), 100_000);
        let churn = "link add eth0 type ifb\nlink delete eth0\n".repeat(60);
        let mut churner = Command::new("ip");
        churner.args(["-force", "-batch", "-"]);
        churner
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut churner = netns::within(a.namespace.as_fd(), || churner.spawn())
            .unwrap()
            .unwrap();
        let mut lines = churner.stdin.take().unwrap();
        let writer = std::thread::spawn(move || lines.write_all(churn.as_bytes()));
        while churner.try_wait().unwrap().is_none() {
            match wire(&linux, &a) {
                // The churner may have deleted it since.
                Ok(index) => assert_eq!(linux.unwire(&[target(&a, index)]), [Ok(())]),
                Err(WireError::InterfaceTaken { .. } | WireError::Vanished(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        writer.join().unwrap().unwrap();
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
