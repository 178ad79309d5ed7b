//! SIGKILL at any time, after each kernel step of an attach and of a detach above all: whatever is there then, the next
//! daemon makes it right.

use crate::daemon::{Build, Daemon, addresses, attach, attach_with_port, detach};
use crate::sandbox::Sandbox;
use crate::witness::{links, run};
use stage::tcp::{Conversation, Server};
use stage::wait::{A_SECOND, within};
use stage::{NODE, OUTSIDE, ping};
use std::net::{Ipv4Addr, SocketAddr};

/// More steps than any attach or detach has.
const MANY: u32 = 100;

#[test]
fn a_crash_at_any_step_of_an_attach_leaves_all_or_nothing() {
    for step in 1..MANY {
        // The routes that it makes at its start are there, and no steps.
        let mut daemon = Daemon::started();
        daemon.crash();
        let namespace = Sandbox::new();
        let server = Server::start(&namespace, Ipv4Addr::UNSPECIFIED.into()).unwrap();
        let web = |namespace: &Sandbox| attach_with_port("web", namespace, 8080, server.address().port());
        let alive = daemon.try_start(Build::CrashingAfter(step));
        assert!(alive, "the start has no steps to crash after");
        let empty = daemon.world();
        let answer = daemon.caller().attach(web(&namespace));
        if answer.is_ok() {
            assert!(
                !daemon.has_crashed(),
                "step {step}: the daemon is dead and answered"
            );
            assert!(step > 11, "an attach of {step} steps");
            return;
        }
        assert!(
            within(A_SECOND, || daemon.has_crashed()),
            "step {step}: {answer:?}"
        );

        daemon.start();
        let listed = daemon.caller().list();
        match listed.len() {
            0 => assert_eq!(daemon.world(), empty, "after step {step}"),
            1 => assert_eq!(
                links(&daemon.node.node),
                [listed[0].host_link.clone()],
                "after step {step}"
            ),
            _ => panic!("after step {step}: {listed:#?}"),
        }
        daemon.expect_used(listed.len() as u64);

        let answer = daemon.caller().attach(web(&namespace)).unwrap();
        if let [before] = &listed[..] {
            let given: Vec<String> = addresses(&answer.ip).iter().map(ToString::to_string).collect();
            assert_eq!(given, before.ip, "after step {step} the attachment changed");
        }
        let outside = OUTSIDE.map(|text| text.parse().unwrap());
        let node = SocketAddr::new(NODE[0].parse().unwrap(), 8080);
        let by_the_port = Conversation::open(&daemon.node.outside, node, A_SECOND);
        by_the_port.unwrap_or_else(|error| panic!("after step {step}: {error:#}"));
        let pings = outside.map(|address| (&*namespace, address));
        let pings = pings
            .into_iter()
            .chain(addresses(&answer.ip).into_iter().map(|a| (&daemon.node.node, a)));
        for (from, address) in pings {
            ping(from, address, A_SECOND).unwrap_or_else(|error| panic!("after step {step}: {error:#}"));
        }
        assert_eq!(
            daemon.caller().findings(),
            Vec::<String>::new(),
            "after step {step}"
        );
        daemon.expect_used(1);
        daemon.caller().detach(detach("web")).unwrap();
        daemon.expect_used(0);
        assert_eq!(daemon.world(), empty, "after step {step}");
    }
    panic!("an attach of more than {MANY} steps");
}

/// More detaches than are deleted together, which are 16.
const TOGETHER: usize = 30;

#[test]
fn a_crash_at_any_step_of_a_detach_is_finished_by_the_next_one() {
    let ids: Vec<String> = (0..TOGETHER).map(|n| format!("w{n}")).collect();
    let mut in_the_middle_of_a_group = false;
    for step in 1..MANY {
        let mut daemon = Daemon::started();
        let empty = daemon.world();
        let namespaces: Vec<Sandbox> = ids.iter().map(|_| Sandbox::new()).collect();
        for (id, namespace) in ids.iter().zip(&namespaces) {
            daemon.caller().attach(attach(id, namespace)).unwrap();
        }
        daemon.stop();
        assert!(
            daemon.try_start(Build::CrashingAfter(step)),
            "the start has no steps to crash after"
        );
        // A detach is answered when the kernel announces the link's end, which is before its last step.
        let answers = detach_all_at_once(&daemon, &ids);
        if !within(A_SECOND, || daemon.has_crashed()) {
            for answer in answers {
                answer.unwrap();
            }
            assert!(step > TOGETHER as u32, "{TOGETHER} detaches of {step} steps");
            assert!(in_the_middle_of_a_group, "nothing was deleted together");
            return;
        }
        in_the_middle_of_a_group |= daemon.world().iter().any(|line| is_dying(line));
        daemon.start();
        daemon.expect_used(daemon.caller().list().len() as u64);
        assert_eq!(
            links(&daemon.node.node).len(),
            daemon.caller().list().len(),
            "after step {step}"
        );
        for id in &ids {
            daemon.caller().detach(detach(id)).unwrap();
        }
        daemon.expect_used(0);
        assert_eq!(daemon.world(), empty, "after step {step}");
        let answer = daemon.caller().attach(attach("web", &namespaces[0])).unwrap();
        assert_eq!(answer.ip.len(), 2);
    }
    panic!("detaches of more than {MANY} steps");
}

fn detach_all_at_once(daemon: &Daemon, ids: &[String]) -> Vec<Result<(), client::Error>> {
    daemon.caller().talk(async |client| {
        let tasks: Vec<_> = ids
            .iter()
            .map(|id| {
                let (client, request) = (client.clone(), detach(id));
                tokio::spawn(async move { client.detach(request).await })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        answers
    })
}

/// A link in one of the groups that are only used for deleting: "wk" and 16 bits (docs/decisions/0009).
fn is_dying(line: &str) -> bool {
    let group = line.strip_prefix("link ").and_then(|rest| rest.split(' ').nth(2));
    group
        .and_then(|text| text.parse::<u32>().ok())
        .is_some_and(|group| group >> 16 == u32::from_be_bytes(*b"\0\0wk"))
}

#[test]
fn after_kill_9_everything_is_there_and_every_answer_is_the_same() {
    let mut daemon = Daemon::started();
    let namespaces: Vec<Sandbox> = (0..20).map(|_| Sandbox::new()).collect();
    let attach_all = |daemon: &Daemon| -> Vec<_> {
        let all = namespaces.iter().enumerate();
        all.map(|(n, namespace)| {
            let id = format!("w{n}");
            let request = match n {
                7 => attach_with_port(&id, namespace, 8080, 80),
                _ => attach(&id, namespace),
            };
            daemon.caller().attach(request).unwrap()
        })
        .collect()
    };
    let answers = attach_all(&daemon);
    let (world, listed) = (daemon.world(), daemon.caller().list());
    // What the state file says is a comfort; what it cannot be read as is none.
    for state in [
        None,
        Some(""),
        Some("{"),
        Some("\0\0garbage"),
        Some("{\"version\":9}"),
    ] {
        daemon.crash();
        assert_eq!(daemon.world(), world);
        for outside in OUTSIDE {
            ping(&namespaces[0], outside.parse().unwrap(), A_SECOND).unwrap();
        }
        if let Some(state) = state {
            std::fs::write(daemon.state(), state).unwrap();
        }
        daemon.start();
        assert_eq!(daemon.world(), world, "{state:?}");
        assert_eq!(daemon.caller().list(), listed, "{state:?}");
        assert_eq!(attach_all(&daemon), answers, "{state:?}");
    }
    // What others do meanwhile is put right before the daemon is ready.
    daemon.crash();
    let link = &answers[0].host_link;
    for family in ["-4", "-6"] {
        run(&daemon.node.node, &format!("ip {family} route flush dev {link}"));
    }
    run(&daemon.node.node, "nft flush ruleset");
    daemon.start();
    assert_eq!(daemon.world(), world);
    for address in addresses(&answers[1].ip) {
        ping(&namespaces[0], address, A_SECOND).unwrap();
    }
}
