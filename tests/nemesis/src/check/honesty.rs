//! One call by itself: whether its answer came in time, and whether a no has a reason that there can have been.

use crate::history::{Answer, Call, History, Refused};
use crate::plan::{Act, Kind, World, Wrong};

/// By how much an answer may be late, in microseconds: two processors have many to serve.
const GRACE: u64 = 10_000_000;
/// How long before and after a blow the daemon may say that it is not ready, in microseconds.
const AFTERMATH: u64 = 15_000_000;
/// Reasons that another try gets over.
const LATER: [&str; 6] = [
    "NOT_READY",
    "STOPPING",
    "OVERLOADED",
    "NODE_EXHAUSTED",
    "NOT_BEGUN",
    "ORDER_GOES_ON",
];

/// What is wrong with the calls of a round.
pub fn complaints(history: &History, world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for call in &history.calls {
        let limit = (call.operation.deadline + call.operation.patience) * 1000 + GRACE;
        if call.end - call.begin > limit {
            found.push(format!("answered too late: {}", shown(call)));
        }
        let is_honest = match &call.answer {
            Answer::Refused(no) => may_refuse(history, world, call, no),
            Answer::Strange(_) => false,
            Answer::Unknown(_) => true,
            _ => !matches!(call.act(), Act::AttachWrongly { .. }),
        };
        if !is_honest {
            found.push(format!("not an honest answer: {}", shown(call)));
        }
    }
    found
}

fn shown(call: &Call) -> String {
    serde_json::to_string(call).unwrap_or_default()
}

fn may_refuse(history: &History, world: &World, call: &Call, no: &Refused) -> bool {
    let reason = &*no.reason;
    let is_near = |kinds: &[Kind]| {
        history.blows.iter().any(|blow| {
            kinds.contains(&blow.strike.kind)
                && blow.begin <= call.end
                && call.begin <= blow.end.saturating_add(AFTERMATH)
        })
    };
    let was_interrupted =
        history.was_interrupted(call.begin.saturating_sub(AFTERMATH), call.end.saturating_add(1));
    if LATER.contains(&reason) || no.code == "11" || no.code == "50" || no.code == "51" {
        return was_interrupted || is_near(&Kind::ALL) || world.is_small || call.operation.deadline < 1000;
    }
    match call.act() {
        Act::Attach { key, slot, .. } => match reason {
            "DIFFERENT" | "ADDRESS_HELD" | "PORT_HELD" | "INTERFACE_TAKEN" => true,
            "ADDRESSES_EXHAUSTED" => world.is_small,
            // One of ours that was renamed still has the route to what is asked for.
            "ADDRESS_ROUTED" => is_near(&[Kind::Rename]),
            "LINK_IN_THE_WAY" => is_near(&[Kind::StrangeLink, Kind::Rename]),
            "INVALID_FIELD" => world.is_told && no.message.starts_with("requested_ip"),
            // Its link was deleted while it was made.
            "NAMESPACE_VANISHED"
                if history.blows.iter().any(|blow| {
                    blow.cut.contains(key) && blow.begin <= call.end && call.begin <= blow.end
                }) =>
            {
                true
            }
            _ => is_of_an_end(history, call, *slot, reason),
        },
        Act::AttachWrongly { key, wrong } => {
            expected(*wrong).contains(&reason)
                || is_of_plugin(*wrong, no)
                || is_of_an_end(history, call, *key, reason)
        }
        Act::Get { .. } | Act::Check { .. } => reason == "NOT_ATTACHED",
        // What an older ADD was answered may be another's by now.
        Act::PluginCheck { .. } => true,
        // What could not be taken off is told.
        Act::Collect { .. } => no.code == "104",
        // Fewer may drain than are in use.
        Act::SetPrefixes { .. } => false,
        // A link that somebody has just put into another group is left alone until it is back in ours.
        Act::Detach { .. } => no.message.contains(": it is in link group ") && is_near(&[Kind::Unroute]),
        Act::Status { .. } | Act::List | Act::Node => false,
    }
}

/// Whether a namespace was just ending, or there was none at its path.
fn is_of_an_end(history: &History, call: &Call, slot: usize, reason: &str) -> bool {
    ["NAMESPACE_NOT_FOUND", "NOT_A_NAMESPACE", "NAMESPACE_VANISHED"].contains(&reason)
        && history.lives.iter().any(|life| {
            life.slot == slot && life.until <= call.end && life.gone.saturating_add(AFTERMATH) >= call.begin
        })
}

fn expected(wrong: Wrong) -> &'static [&'static str] {
    match wrong {
        Wrong::NoNamespace => &["NAMESPACE_NOT_FOUND", "DIFFERENT"],
        Wrong::NotANamespace => &["NOT_A_NAMESPACE"],
        Wrong::Forbidden => &["NAMESPACE_FORBIDDEN"],
        Wrong::Unsupported => &["UNSUPPORTED"],
        Wrong::Outside => &["INVALID_FIELD", "DIFFERENT"],
        // Whether it can be used with these addresses is known only when there are some.
        Wrong::Mtu => &["INVALID_FIELD", "DIFFERENT"],
        Wrong::Interface | Wrong::Bytes | Wrong::Port => &["INVALID_FIELD"],
    }
}

/// What the plugin finds out by itself.
fn is_of_plugin(wrong: Wrong, no: &Refused) -> bool {
    let codes: &[&str] = match wrong {
        Wrong::Interface => &["4"],
        Wrong::Bytes | Wrong::Mtu | Wrong::Port => &["7"],
        Wrong::Unsupported => &["2"],
        _ => &[],
    };
    codes.contains(&&*no.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Reign;
    use crate::plan::{Ask, Scope};

    fn call(act: Act, took: u64, answer: Answer) -> Call {
        Call::made(act, 100_000_000, 100_000_000 + took, answer)
    }

    fn attach() -> Act {
        Act::Attach {
            key: 0,
            slot: 0,
            ask: Ask::default(),
        }
    }

    fn no(reason: &str) -> Answer {
        Answer::Refused(Refused {
            code: "Unavailable".to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
        })
    }

    fn complaints_on(call: Call, reigns: Vec<Reign>) -> usize {
        let mut world = Scope::usual(1).world();
        world.is_small = false;
        let history = History {
            calls: vec![call],
            reigns,
            ..History::default()
        };
        complaints(&history, &world).len()
    }

    #[test]
    fn a_no_needs_a_reason_that_there_can_have_been() {
        let calm = || {
            vec![Reign {
                from: 0,
                until: u64::MAX,
            }]
        };
        let died = vec![
            Reign {
                from: 0,
                until: 99_000_000,
            },
            Reign {
                from: 99_500_000,
                until: u64::MAX,
            },
        ];
        assert_eq!(complaints_on(call(attach(), 1, no("NOT_READY")), calm()), 1);
        assert_eq!(complaints_on(call(attach(), 1, no("NOT_READY")), died), 0);
        assert_eq!(complaints_on(call(attach(), 1, no("KERNEL")), calm()), 1);
        assert_eq!(
            complaints_on(call(attach(), 1, no("NAMESPACE_NOT_FOUND")), calm()),
            1
        );
        assert_eq!(
            complaints_on(call(attach(), 1, no("ADDRESSES_EXHAUSTED")), calm()),
            1
        );
        assert_eq!(complaints_on(call(attach(), 1, no("PORT_HELD")), calm()), 0);
    }

    #[test]
    fn a_detach_may_be_refused_for_a_group_only_where_somebody_changed_one() {
        let act = Act::Detach { key: 0, slot: None };
        let refused = Answer::Refused(Refused {
            code: "Internal".to_owned(),
            reason: "KERNEL".to_owned(),
            message: "ip link delete wk0: it is in link group 0 and not in 8 (errno 0)".to_owned(),
        });
        assert_eq!(complaints_on(call(act, 1, refused), vec![]), 1);
    }

    #[test]
    fn an_answer_after_the_deadline_is_found() {
        assert_eq!(
            complaints_on(call(Act::Node, 41_000_000, Answer::Done), vec![]),
            1
        );
        assert_eq!(
            complaints_on(call(Act::Node, 31_000_000, Answer::Done), vec![]),
            0
        );
    }

    #[test]
    fn what_is_wrong_and_done_all_the_same_is_found() {
        let wrong = Act::AttachWrongly {
            key: 0,
            wrong: Wrong::Mtu,
        };
        assert_eq!(complaints_on(call(wrong.clone(), 1, Answer::Done), vec![]), 1);
        assert_eq!(complaints_on(call(wrong, 1, no("INVALID_FIELD")), vec![]), 0);
    }
}
