//! A daemon that is started after another one was killed and much was taken away, and one call of which fails.

use crate::daemon::attach;
use crate::node::{Stand, differences, web};
use crate::sandbox::Sandbox;
use crate::seam::{Calls, Mishap, mishaps};
use mishap::Kind;
use queue::{Deletion, Queue};

/// Two workloads that live on, and one that is to be taken off.
struct Node {
    stand: Stand,
    live: [Sandbox; 2],
    gone: Sandbox,
    link: String,
    whole: Vec<String>,
}

impl Node {
    fn new() -> Self {
        let stand = Stand::started();
        let live = [Sandbox::new(), Sandbox::new()];
        let link = stand.daemon.caller().attach(web(&live[0])).unwrap().host_link;
        stand.daemon.caller().attach(attach("db", &live[1])).unwrap();
        let whole = stand.world();
        Self {
            stand,
            live,
            gone: Sandbox::new(),
            link,
            whole,
        }
    }

    fn queue(&self) -> Queue {
        Queue::beside(&self.stand.daemon.socket())
    }

    /// The daemon is killed, much is taken away, and somebody is to be taken off.
    fn strike(&mut self) -> Vec<String> {
        let caller = self.stand.daemon.caller();
        caller.attach(attach("gone", &self.gone)).unwrap();
        self.stand.daemon.crash();
        self.stand.damage(&self.link);
        self.queue().put(&Deletion::new("", "gone", "eth0", "")).unwrap();
        self.stand.world()
    }

    /// All is as it was, and as was asked for.
    fn is_whole(&self, mishap: &str) {
        self.stand.becomes(&self.whole, &mishap);
        let daemon = &self.stand.daemon;
        let ids: Vec<String> = daemon
            .caller()
            .list()
            .into_iter()
            .map(|a| a.key.unwrap().workload_id)
            .collect();
        assert_eq!(ids, ["db", "web"], "{mishap}");
        daemon.expect_used(2);
        let waits = self.queue().look().unwrap();
        assert!(
            waits.waiting.is_empty() && waits.unreadable.is_empty(),
            "{mishap}: {waits:?}"
        );
        for sandbox in &self.live {
            for outside in stage::OUTSIDE {
                stage::ping(sandbox, outside.parse().unwrap(), stage::wait::A_SECOND).unwrap();
            }
        }
    }
}

#[test]
fn a_start_that_fails_at_any_call_says_so_or_ends_whole() {
    let mut node = Node::new();
    node.strike();
    node.stand.seam.record();
    assert!(node.stand.start());
    node.is_whole("without a mishap");
    let calls = node.stand.seam.recorded();
    let (mut tried, mut ended, mut silent) = (0, 0, Vec::new());
    for mishap in mishaps(&calls, Calls::OfAKind, 1) {
        let before = node.strike();
        node.stand.heard();
        node.stand.seam.plan(Some(&mishap));
        let serves = node.stand.start();
        let has_fired = node.stand.seam.has_fired();
        tried += usize::from(has_fired);
        if !serves {
            ended += 1;
            let said = node.stand.heard();
            let last = said.lines().last().unwrap_or_default();
            is_named(&mishap, last);
            // The world before is the world after.
            assert_eq!(
                differences(&node.stand.world(), &before),
                Vec::<String>::new(),
                "{mishap}: {last}"
            );
            assert!(
                node.stand.start(),
                "{mishap}: {last}: again: {}",
                node.stand.heard()
            );
        }
        node.is_whole(&mishap.to_string());
        let said = node.stand.heard();
        if serves && has_fired && !mishap.reason().is_none_or(|reason| said.contains(&reason)) {
            silent.push(mishap);
        }
    }
    println!(
        "{tried} mishaps of {} calls of a start, {ended} ended it",
        calls.len()
    );
    for mishap in &silent {
        println!("not told: {mishap}");
    }
    assert!(tried > 60 && ended > 5, "{tried}, {ended}");
}

/// The daemon's last words say which call failed, and why.
fn is_named(mishap: &Mishap, last: &str) {
    let reason = mishap.reason().unwrap_or_default();
    assert!(
        last.starts_with("workloadnetd: ") && last.contains(&reason),
        "{mishap}: {last}"
    );
    if mishap.kind() != Kind::File {
        assert!(last.contains(mishap.what()), "{mishap}: {last}");
    }
}
