//! The whole daemon, over its socket, in namespaces of its own: life, damage, recovery.
use crate::common::{Host, crashing_daemon, detach_request, eventually, refusal, request};
use stage::{Namespace, OUTSIDE, ping};
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(1);

fn reaches(from: &Namespace, to: &[String]) {
    for address in to {
        ping(from, address.parse().unwrap(), ANSWER).unwrap();
    }
}

#[test]
fn workloads_reach_each_other_and_the_world_and_are_gone_afterwards() {
    for prefixes in [
        &["--prefix", "10.9.0.0/24", "--prefix", "fd09::/64"][..],
        &["--prefix", "10.9.0.0/24"],
        &["--prefix", "fd09::/64"],
        &[
            "--prefix",
            "10.9.0.0/30",
            "--prefix",
            "10.9.1.0/24",
            "--prefix",
            "fd09::/126",
            "--prefix",
            "fd09:1::/64",
        ],
    ] {
        let host = Host::new(prefixes);
        let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let of_a = host.attach("a", &a).unwrap();
        let of_b = host.attach("b", &b).unwrap();
        reaches(&a, &of_b);
        reaches(&b, &of_a);
        reaches(&host.node.node, &of_a);
        for (address, outside) in of_a
            .iter()
            .map(|ip| (ip, if ip.contains(':') { OUTSIDE[1] } else { OUTSIDE[0] }))
        {
            ping(&a, outside.parse().unwrap(), ANSWER).unwrap_or_else(|e| panic!("{address}: {e:#}"));
        }
        assert_eq!(host.findings(), Vec::<String>::new());
        assert_eq!(host.attach("a", &a).unwrap(), of_a);
        host.detach("a", "").unwrap();
        host.detach("a", "").unwrap();
        host.detach("b", &b.path()).unwrap();
        host.nothing_is_left();
    }
}

#[test]
fn the_first_packet_after_the_answer_gets_through() {
    let host = Host::new(&["--prefix", "10.9.0.0/16", "--prefix", "fd09::/64"]);
    for n in 0..300 {
        let workload = Namespace::new().unwrap();
        host.attach(&format!("w{n}"), &workload).unwrap();
        for outside in OUTSIDE {
            // A lost packet would be sent again after a second; the stage's ping sends one only.
            ping(&workload, outside.parse().unwrap(), Duration::from_millis(500)).unwrap();
        }
    }
}

#[test]
fn kill_9_after_every_step_of_an_attach_leaves_all_or_nothing() {
    let program = crashing_daemon();
    let workload = Namespace::new().unwrap();
    let mut step = 0;
    loop {
        step += 1;
        let mut host = Host::without_daemon(&[]);
        host.program.clone_from(&program);
        host.start(Some(step));
        if host.attach("a", &workload).is_ok() {
            assert!(step > 15, "an attach has more than {step} steps");
            break;
        }
        assert!(host.has_crashed());
        host.start(None);
        let listed = host.listed();
        eventually("what is half-made is taken away", || {
            host.node.node.links("wk").unwrap().len() == listed.len()
        });
        let addresses = host
            .attach("a", &workload)
            .unwrap_or_else(|error| panic!("after step {step}: {error}"));
        reaches(&host.node.node, &addresses);
        reaches(&workload, &OUTSIDE.map(str::to_owned));
        assert_eq!(host.findings(), Vec::<String>::new(), "after step {step}");
        host.detach("a", "").unwrap();
        host.nothing_is_left();
    }
}

#[test]
fn kill_9_after_every_step_of_a_detach_leaves_nothing_or_all() {
    let program = crashing_daemon();
    for step in 1.. {
        let mut host = Host::without_daemon(&[]);
        let workloads: Vec<Namespace> = (0..3).map(|_| Namespace::new().unwrap()).collect();
        host.start(None);
        for (n, workload) in workloads.iter().enumerate() {
            host.attach(&format!("w{n}"), workload).unwrap();
        }
        host.crash();
        host.program.clone_from(&program);
        host.start(Some(step));
        let detaches: Vec<_> = (0..3)
            .map(|n| {
                let client = host.client.clone();
                host.runtime
                    .spawn(async move { client.detach(detach_request(&format!("w{n}"), "")).await })
            })
            .collect();
        let outcomes: Vec<bool> = detaches
            .into_iter()
            .map(|one| host.runtime.block_on(one).unwrap().is_ok())
            .collect();
        let all_done = outcomes.iter().all(|done| *done);
        // The answers go out when the kernel announces the links' ends, which is before the last step.
        if all_done && !host.crashes_soon() {
            host.nothing_is_left();
            break;
        }
        assert!(host.has_crashed());
        host.start(None);
        for n in 0..3 {
            host.detach(&format!("w{n}"), "")
                .unwrap_or_else(|error| panic!("after step {step}: {error}"));
        }
        eventually("nothing is left", || {
            host.node.node.links("wk").unwrap().is_empty()
        });
        host.nothing_is_left();
    }
}

#[test]
fn after_kill_9_everything_is_there_and_every_answer_is_the_same() {
    let mut host = Host::new(&[]);
    let workloads: Vec<Namespace> = (0..20).map(|_| Namespace::new().unwrap()).collect();
    let attach_all = |host: &Host| -> Vec<Vec<String>> {
        workloads
            .iter()
            .enumerate()
            .map(|(n, w)| host.attach(&format!("w{n}"), w).unwrap())
            .collect()
    };
    let before = attach_all(&host);
    host.crash();
    for state in ["", "{", "\0\0garbage", "{\"version\":9}"] {
        std::fs::write(host.folder.join("state.json"), state).unwrap();
        host.start(None);
        assert_eq!(host.listed().len(), 20);
        assert_eq!(attach_all(&host), before);
        host.crash();
    }
    std::fs::remove_file(host.folder.join("state.json")).unwrap();
    // What others did meanwhile is put right.
    let link = host.node.node.links("wk").unwrap()[0].clone();
    host.on_node(&format!("ip route flush dev {link}"));
    host.on_node("nft flush ruleset");
    host.start(None);
    assert_eq!(host.findings(), Vec::<String>::new());
    reaches(&workloads[0], &before[1]);
}

#[test]
fn a_namespace_that_ends_gives_its_addresses_back() {
    let host = Host::new(&[]);
    let workload = Namespace::new().unwrap();
    host.attach("a", &workload).unwrap();
    assert_eq!(host.pool(), (1, 0));
    drop(workload);
    eventually("the addresses cool down", || host.pool() == (0, 1));
    host.nothing_is_left();
}

#[test]
fn what_others_take_away_is_put_back() {
    let host = Host::new(&[]);
    let workload = Namespace::new().unwrap();
    let addresses = host.attach("a", &workload).unwrap();
    let link = host.node.node.links("wk").unwrap()[0].clone();
    for damage in [
        "nft flush table inet workloadnet".to_owned(),
        "nft delete table inet workloadnet".to_owned(),
        "nft flush ruleset".to_owned(),
        format!("ip route delete {} dev {link}", addresses[0]),
        format!("ip -6 route delete {} dev {link}", addresses[1]),
        format!("ip address flush dev {link}"),
        format!("ip link set {link} down"),
    ] {
        host.on_node(&damage);
        eventually(&damage, || host.findings().is_empty());
        // What was sent while it was away is lost; what is sent from some moment on is not.
        for outside in OUTSIDE {
            eventually(&damage, || {
                ping(&workload, outside.parse().unwrap(), ANSWER).is_ok()
            });
        }
    }
}

#[test]
fn an_older_sandbox_of_the_same_id_leaves_the_live_one_alone() {
    let host = Host::new(&[]);
    let (old, new) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    host.attach("a", &old).unwrap();
    let (code, reason, text) = refusal(host.attach("a", &new));
    assert_eq!((&*code, &*reason), ("AlreadyExists", "DIFFERENT"));
    assert!(text.contains("namespace"), "{text}");
    let old_path = old.path();
    drop(old);
    eventually("the old one is gone", || host.listed().is_empty());
    let addresses = host.attach("a", &new).unwrap();
    host.detach("a", &old_path).unwrap();
    host.detach("a", "/run/netns/never-was").unwrap();
    assert_eq!(host.listed(), ["a"]);
    reaches(&new, &OUTSIDE.map(str::to_owned));
    assert_eq!(host.attach("a", &new).unwrap(), addresses);
    host.detach("a", &new.path()).unwrap();
    host.nothing_is_left();
}

#[test]
fn an_exhausted_pool_says_so_and_recovers() {
    let host = Host::new(&["--prefix", "10.9.0.0/29"]);
    let workloads: Vec<Namespace> = (0..6).map(|_| Namespace::new().unwrap()).collect();
    for (n, workload) in workloads.iter().take(5).enumerate() {
        host.attach(&format!("w{n}"), workload).unwrap();
    }
    let (code, reason, text) = refusal(host.attach("w5", &workloads[5]));
    assert_eq!((&*code, &*reason), ("ResourceExhausted", "ADDRESSES_EXHAUSTED"));
    assert_eq!(text, "no address is left in 10.9.0.0/29");
    let (code, _, text) = refusal(host.runtime.block_on(host.client.status()));
    assert_eq!(
        (&*code, &*text),
        ("Unavailable", "not ready: no IPv4 address is left")
    );
    let freed = host.attach("w2", &workloads[2]).unwrap();
    host.detach("w2", "").unwrap();
    // Warm, but the only one.
    assert_eq!(host.attach("w5", &workloads[5]).unwrap(), freed);
}

#[test]
fn requested_addresses_and_mtu_are_granted_or_refused_by_name() {
    let host = Host::new(&["--prefix", "10.9.0.0/24", "--prefix", "fd09::/64"]);
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let mut wish = request("a", &a.path());
    wish.requested_ip = vec![vec![10, 9, 0, 77]];
    wish.mtu = 1400;
    assert_eq!(host.attach_request(wish.clone()).unwrap()[0], "10.9.0.77");
    assert_eq!(host.attach_request(wish.clone()).unwrap()[0], "10.9.0.77");
    let (_, _, text) = refusal(host.attach("a", &a));
    assert_eq!(
        text,
        "/a/eth0 is attached already, with MTU 1400 instead of the default, IPv4 address 10.9.0.77 instead of any"
    );
    wish.workload_id = "b".to_owned();
    wish.netns = request("b", &b.path()).netns;
    let (code, _, text) = refusal(host.attach_request(wish.clone()));
    assert_eq!(
        (&*code, &*text),
        ("ResourceExhausted", "10.9.0.77 is held by /a/eth0")
    );
    wish.requested_ip = vec![vec![203, 0, 113, 2]];
    assert_eq!(refusal(host.attach_request(wish.clone())).0, "InvalidArgument");
    wish.requested_ip.clear();
    wish.mtu = 1279;
    let (code, _, text) = refusal(host.attach_request(wish));
    assert_eq!(
        (&*code, &*text),
        (
            "InvalidArgument",
            "mtu: an MTU of 1279 is below 1280, which IPv6 needs"
        )
    );
    assert_eq!(host.listed(), ["a"]);
    assert_eq!(host.pool().0, 1);
}

#[test]
fn two_hundred_attaches_and_detaches_from_sixteen_callers_cross() {
    let host = Host::new(&["--prefix", "10.9.0.0/24", "--prefix", "fd09::/64"]);
    let workloads: Vec<Namespace> = (0..200).map(|_| Namespace::new().unwrap()).collect();
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let client = host.client.clone();
            let mine: Vec<(usize, String)> = (0..200)
                .filter(|n| n % 16 == caller)
                .map(|n| (n, workloads[n].path()))
                .collect();
            host.runtime.spawn(async move {
                for (n, path) in mine {
                    let id = format!("w{n}");
                    let attach = client.attach(request(&id, &path));
                    let (attached, detached) = match n % 3 {
                        // One after the other; crossing; a detach for nothing.
                        0 => (attach.await, client.detach(detach_request(&id, &path)).await),
                        1 => {
                            let detach = client.detach(detach_request(&id, ""));
                            let attach = tokio::spawn({
                                let (client, request) = (client.clone(), request(&id, &path));
                                async move { client.attach(request).await }
                            });
                            let detached = detach.await;
                            (attach.await.unwrap(), detached)
                        }
                        _ => (attach.await, client.detach(detach_request("nobody", "")).await),
                    };
                    attached.unwrap();
                    detached.unwrap();
                }
            })
        })
        .collect();
    callers
        .into_iter()
        .for_each(|caller| host.runtime.block_on(caller).unwrap());
    assert_eq!(host.findings(), Vec::<String>::new());
    for id in host.listed() {
        host.detach(&id, "").unwrap();
    }
    host.nothing_is_left();
}

#[test]
fn sigterm_ends_the_daemon_and_not_the_datapath() {
    let mut host = Host::new(&[]);
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    host.attach("a", &a).unwrap();
    let of_b = host.attach("b", &b).unwrap();
    assert_eq!(host.terminate(), Some(0));
    reaches(&a, &of_b);
    host.start(None);
    assert_eq!(host.listed(), ["a", "b"]);
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let host = Host::new(&[]);
    let second = std::process::Command::new(&host.program)
        .arg("--socket")
        .arg(host.folder.join("socket"))
        .output()
        .unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("another daemon serves"), "{text}");
    host.runtime.block_on(host.client.status()).unwrap();
}
