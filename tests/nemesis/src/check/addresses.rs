//! Addresses over time: none is two workloads' at once, and none that rests is given out.

use super::key::{Step, What};
use crate::history::{Answer, History};
use crate::plan::{Act, World};
use std::net::IpAddr;

/// A time in which a workload had an address for certain.
#[derive(Debug, Clone, Copy)]
struct Hold {
    key: usize,
    address: IpAddr,
    /// When the answer was there.
    from: u64,
    /// When it was told or forced to end, or `u64::MAX`.
    until: u64,
    /// Whether it was asked for, as far as this answer tells.
    was_asked: bool,
}

/// What is wrong with the addresses of a round.
pub fn complaints(history: &History, steps: &[Vec<Step>], world: &World) -> Vec<String> {
    let holds = holds(history, steps);
    let mut found = Vec::new();
    for (n, one) in holds.iter().enumerate() {
        for other in &holds[n + 1..] {
            if one.key == other.key || one.address != other.address {
                continue;
            }
            if one.from < other.until && other.from < one.until {
                found.push(format!("two have {} at once: {one:?} and {other:?}", one.address));
            }
            for (first, second) in [(one, other), (other, one)] {
                if rested_too_little(history, world, first, second) {
                    found.push(format!(
                        "{} did not rest: {first:?}, then {second:?}",
                        first.address
                    ));
                }
            }
        }
    }
    found
}

/// What was freed after `first.until` was given out before `second.from`.
fn rested_too_little(history: &History, world: &World, first: &Hold, second: &Hold) -> bool {
    // Where nothing else is left, the oldest is given out; what is asked for is, too; and a file that is a second old does
    // not know what was freed in that second.
    let is_excused = world.is_small
        || second.was_asked
        || first.until > second.from
        || history.was_interrupted(first.until, second.from);
    !is_excused && second.from < first.until + world.cool_down * 1_000_000
}

fn holds(history: &History, steps: &[Vec<Step>]) -> Vec<Hold> {
    let mut holds = Vec::new();
    for call in &history.calls {
        let (Act::Attach { key, ask, .. }, Answer::Attached(attached)) = (call.act(), &call.answer) else {
            continue;
        };
        let ends = |step: &&Step| {
            step.end >= call.begin
                && matches!(
                    step.what,
                    What::Detach(_) | What::Collect { .. } | What::Ends(_) | What::Cut
                )
        };
        let until = steps[*key]
            .iter()
            .filter(ends)
            .map(|step| step.begin.max(call.begin))
            .min();
        let until = until.unwrap_or(u64::MAX);
        holds.extend(
            attached
                .addresses
                .iter()
                .filter(|_| until > call.end)
                .map(|address| Hold {
                    key: *key,
                    address: *address,
                    from: call.end,
                    until,
                    was_asked: address.is_ipv4() && ask.v4.is_some(),
                }),
        );
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::super::steps::steps;
    use super::*;
    use crate::history::{Attached, Call, Life, Reign};
    use crate::plan::{Ask, Scope};

    const SECOND: u64 = 1_000_000;

    fn call(act: Act, begin: u64, answer: Answer) -> Call {
        Call::made(act, begin * SECOND, begin * SECOND + 1, answer)
    }

    fn attach(key: usize, begin: u64, address: &str) -> Call {
        let act = Act::Attach {
            key,
            slot: 0,
            ask: Ask::default(),
        };
        let attached = Attached {
            addresses: vec![address.parse().unwrap()],
            link: format!("wk{key}"),
            mac: String::new(),
            inode: None,
            is_leaving: false,
        };
        call(act, begin, Answer::Attached(attached))
    }

    fn detach(key: usize, begin: u64) -> Call {
        call(Act::Detach { key, slot: None }, begin, Answer::Done)
    }

    fn complaints_on(calls: Vec<Call>) -> Vec<String> {
        let mut world = Scope::usual(1).world();
        (world.is_small, world.cool_down) = (false, 10);
        let history = History {
            calls,
            reigns: vec![Reign {
                from: 0,
                until: u64::MAX,
            }],
            lives: vec![Life {
                slot: 0,
                inode: 1,
                from: 0,
                until: u64::MAX,
                gone: u64::MAX,
            }],
            ..History::default()
        };
        complaints(&history, &steps(&history, 1000 * SECOND, &[]), &world)
    }

    #[test]
    fn an_address_on_two_is_found() {
        let found = complaints_on(vec![attach(0, 1, "10.77.0.5"), attach(1, 2, "10.77.0.5")]);
        assert!(found[0].starts_with("two have 10.77.0.5"), "{found:?}");
        let other = complaints_on(vec![attach(0, 1, "10.77.0.5"), attach(1, 2, "10.77.0.6")]);
        assert_eq!(other, Vec::<String>::new());
    }

    #[test]
    fn an_address_that_is_given_out_while_it_rests_is_found() {
        let after = |seconds: u64| {
            complaints_on(vec![
                attach(0, 1, "10.77.0.5"),
                detach(0, 2),
                attach(1, 2 + seconds, "10.77.0.5"),
            ])
        };
        assert!(after(1)[0].contains("did not rest"));
        assert!(after(9)[0].contains("did not rest"));
        assert_eq!(after(11), Vec::<String>::new());
    }
}
