//! Links that go, and how it is told.

use crate::node::{Workload, on_a_node, run, target, wire, workload};
use kernel::linux::Linux;
use model::datapath::{Datapath as _, Event, Target};
use model::survey::{DYING_GROUPS, Standing};
use std::sync::mpsc;
use std::time::Duration;
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
            link: all[0].plan.link.host,
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
            link: a.plan.link.host,
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
fn a_link_that_was_being_deleted_is_half_made_and_nobody_elses_goes_with_it() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let all: Vec<Workload> = (0..4)
            .map(|n| {
                let address = format!("10.77.0.{}", n + 5);
                workload(&linux, &format!("w{n}"), Some(&address), None, 100_000 + n)
            })
            .collect();
        let mut targets: Vec<Target> = all.iter().map(|w| target(w, wire(&linux, w).unwrap())).collect();
        // As a crash between the two steps of a deletion leaves it; and somebody has a link in such a group, too.
        let first = *DYING_GROUPS.start();
        targets[0].group = first;
        run(&format!("ip link set {} group {first}", targets[0].link));
        run(&format!(
            "ip link add foreign group {} type veth peer name other",
            first + 1
        ));
        let survey = linux.survey().unwrap();
        let standings: Vec<Standing> = survey.links.iter().map(|link| link.standing(8)).collect();
        assert_eq!(standings[0], Standing::HalfMade);
        assert!(
            standings[1..].iter().all(|s| matches!(s, Standing::Attached(_))),
            "{standings:?}"
        );

        assert_eq!(linux.unwire(&targets[..2]), [Ok(()), Ok(())]);
        assert_eq!(linux.unwire(&targets[2..]), [Ok(()), Ok(())]);
        let left = run("ip link show");
        assert!(left.contains("foreign") && !left.contains("wk"), "{left}");
    });
}

#[test]
fn a_link_that_lives_in_another_group_is_not_said_to_be_gone() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let a = workload(&linux, "a", Some("10.77.0.5"), None, 100_000);
        let b = workload(&linux, "b", Some("10.77.0.6"), None, 100_001);
        let targets = [&a, &b].map(|w| target(w, wire(&linux, w).unwrap()));
        let host = a.plan.link.host.as_str();
        run(&format!("ip link set {host} group default"));
        let outcomes = linux.unwire(&targets);
        assert_eq!(
            outcomes[0].as_ref().unwrap_err().to_string(),
            format!("ip link delete {host}: it is in link group 0 and not in 8 (errno 0)")
        );
        assert_eq!(outcomes[1], Ok(()));
        assert!(run("ip link show").contains(host));
        // As a deletion that failed leaves it.
        run(&format!("ip link set {host} group {}", DYING_GROUPS.start()));
        assert_eq!(linux.unwire(&targets), [Ok(()), Ok(())]);
        assert!(!run("ip link show").contains("wk"));
    });
}

#[test]
fn links_go_while_others_come() {
    on_a_node(|| {
        let linux = Linux::open(8).unwrap();
        let make = |n: u32| {
            let address = format!("10.77.0.{}", n + 5);
            let workload = workload(&linux, &format!("w{n}"), Some(&address), None, 100_000 + n);
            let index = wire(&linux, &workload).unwrap();
            (target(&workload, index), workload)
        };
        let old: Vec<_> = (0..24).map(make).collect();
        let targets: Vec<Target> = old.iter().map(|(target, _)| target.clone()).collect();
        let new: Vec<_> = std::thread::scope(|scope| {
            for some in targets.chunks(8) {
                scope.spawn(|| assert_eq!(linux.unwire(some), vec![Ok(()); 8]));
            }
            (24..48).map(make).collect()
        });
        let left = linux.survey().unwrap().links;
        let left: Vec<(u32, bool)> = left
            .iter()
            .map(|link| (link.index, matches!(link.standing(8), Standing::Attached(_))))
            .collect();
        let expected: Vec<(u32, bool)> = new.iter().map(|(target, _)| (target.index, true)).collect();
        assert_eq!(left, expected);
    });
}
