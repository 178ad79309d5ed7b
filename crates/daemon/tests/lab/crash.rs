//! SIGKILL after each kernel step of an attach and of a detach: whatever is there then, the next daemon makes it right.

use crate::daemon::{Build, Daemon, attach, detach};
use crate::sandbox::Sandbox;
use crate::wait::{A_SECOND, within};
use crate::witness::links;
use stage::{OUTSIDE, ping};

/// More steps than any attach or detach has.
const MANY: u32 = 100;

#[test]
fn a_crash_at_any_step_of_an_attach_leaves_all_or_nothing() {
    for step in 1..MANY {
        let mut daemon = Daemon::new();
        let namespace = Sandbox::new();
        let alive = daemon.try_start(Build::CrashingAfter(step));
        assert!(alive, "the start has no steps to crash after");
        let empty = daemon.world();
        let answer = daemon.caller().attach(attach("web", &namespace));
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

        let answer = daemon.caller().attach(attach("web", &namespace)).unwrap();
        if let [before] = &listed[..] {
            let addresses: Vec<String> = crate::daemon::addresses(&answer.ip)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(addresses, before.ip, "after step {step} the attachment changed");
        }
        for outside in OUTSIDE {
            ping(&namespace, outside.parse().unwrap(), A_SECOND).unwrap();
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

#[test]
fn a_crash_at_any_step_of_a_detach_is_finished_by_the_next_one() {
    for step in 1..MANY {
        let mut daemon = Daemon::started();
        let empty = daemon.world();
        let namespaces = [Sandbox::new(), Sandbox::new()];
        for (id, namespace) in ["web", "api"].into_iter().zip(&namespaces) {
            daemon.caller().attach(attach(id, namespace)).unwrap();
        }
        daemon.stop();
        assert!(
            daemon.try_start(Build::CrashingAfter(step)),
            "the start has no steps to crash after"
        );
        // A detach is answered when the kernel announces the link's end, which is before its last step.
        let answers: Vec<_> = ["web", "api"].map(|id| daemon.caller().detach(detach(id))).into();
        if !within(A_SECOND, || daemon.has_crashed()) {
            for answer in answers {
                answer.unwrap();
            }
            assert!(step > 1, "a detach of no steps");
            return;
        }
        daemon.start();
        daemon.expect_used(daemon.caller().list().len() as u64);
        assert_eq!(
            links(&daemon.node.node).len(),
            daemon.caller().list().len(),
            "after step {step}"
        );
        for id in ["web", "api"] {
            daemon.caller().detach(detach(id)).unwrap();
        }
        daemon.expect_used(0);
        assert_eq!(daemon.world(), empty, "after step {step}");
        let answer = daemon.caller().attach(attach("web", &namespaces[0])).unwrap();
        assert_eq!(answer.ip.len(), 2);
    }
    panic!("a detach of more than {MANY} steps");
}

#[test]
fn a_kill_while_nothing_happens_changes_nothing() {
    let mut daemon = Daemon::started();
    let namespace = Sandbox::new();
    let before = daemon.caller().attach(attach("web", &namespace)).unwrap();
    let world = daemon.world();
    let listed = daemon.caller().list();
    daemon.crash();
    assert_eq!(daemon.world(), world);
    for outside in OUTSIDE {
        ping(&namespace, outside.parse().unwrap(), A_SECOND).unwrap();
    }
    daemon.start();
    assert_eq!(daemon.world(), world);
    assert_eq!(daemon.caller().list(), listed);
    assert_eq!(daemon.caller().attach(attach("web", &namespace)).unwrap(), before);
}
