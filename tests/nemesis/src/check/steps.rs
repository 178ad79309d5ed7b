//! From a history to the steps of each key.

use super::key::{Named, State, Step, What};
use crate::history::{Answer, Attached, Call, History};
use crate::plan::{Act, FIRST_OF_PLUGIN, KEYS, Kind};
use std::sync::Arc;

/// Reasons of an attach that was refused for what somebody else has.
const IN_THE_WAY: [&str; 7] = [
    "ADDRESS_HELD",
    "PORT_HELD",
    "ADDRESSES_EXHAUSTED",
    "INTERFACE_TAKEN",
    "LINK_IN_THE_WAY",
    "NAMESPACE_TAKEN",
    "ADDRESS_ROUTED",
];

/// The steps of every key. `quiet`: when the round was over; `before`: in which states each key may have been when it began.
pub fn steps(history: &History, quiet: u64, before: &[Vec<State>]) -> Vec<Vec<Step>> {
    let mut all = Steps {
        history,
        of_key: vec![Vec::new(); KEYS],
    };
    history.calls.iter().for_each(|call| all.call(call));
    for (number, life) in history
        .lives
        .iter()
        .enumerate()
        .filter(|(_, life)| life.until < quiet)
    {
        for key in 0..KEYS {
            all.add(
                key,
                life.until,
                quiet,
                true,
                What::Ends(number),
                format!("namespace {number} ends"),
            );
        }
    }
    for blow in &history.blows {
        for &key in &blow.cut {
            all.add(key, blow.begin, quiet, false, What::Cut, blow.what.clone());
        }
    }
    // Ends that concern no life of the key would only be in the way.
    let mut of_key = all.of_key;
    for (key, steps) in of_key.iter_mut().enumerate() {
        let mut named: Vec<usize> = steps.iter().flat_map(places).collect();
        named.extend(before.get(key).into_iter().flatten().filter_map(State::place));
        steps.retain(|step| !matches!(&step.what, What::Ends(life) if !named.contains(life)));
    }
    of_key
}

/// Whether the caller may have given up before the daemon answered.
fn is_short(call: &Call) -> bool {
    call.operation.deadline < 1000
}

fn places(step: &Step) -> Vec<usize> {
    match &step.what {
        What::Attach { places, .. } | What::Seen(_, places) => places.clone(),
        _ => Vec::new(),
    }
}

struct Steps<'a> {
    history: &'a History,
    of_key: Vec<Vec<Step>>,
}

impl Steps<'_> {
    fn add(&mut self, key: usize, begin: u64, end: u64, is_certain: bool, what: What, label: String) {
        self.of_key[key].push(Step {
            begin,
            end,
            is_certain,
            what,
            label,
        });
    }

    fn call(&mut self, call: &Call) {
        if let Answer::Listed(all) = &call.answer {
            self.list(call, all);
            return;
        }
        let label = format!("#{} by {}", call.number, call.caller);
        match call.act() {
            Act::Attach { key, slot, ask } => {
                let ask: Arc<str> = serde_json::to_string(ask).expect("an ask is text").into();
                let places = self.lives_of(*slot, call.begin, self.looked_until(*key, call));
                self.attach(call, *key, &ask, places, label);
            }
            Act::Detach { key, slot } => {
                let until = self.looked_until(*key, call);
                let named = slot.map_or(Named::Any, |slot| self.named(slot, call.begin, until));
                self.effect(call, *key, What::Detach(named), label);
            }
            Act::Collect { valid } => {
                let what = What::Collect {
                    since: call.begin,
                    all_may_be_young: self.history.may_have_looked(call.begin, call.end),
                };
                for key in (FIRST_OF_PLUGIN..KEYS).filter(|key| !valid.contains(key)) {
                    self.effect(call, key, what.clone(), label.clone());
                }
            }
            Act::Get { key } if matches!(&call.answer, Answer::Refused(no) if no.reason == "NOT_ATTACHED") => {
                self.add(*key, call.begin, call.end, true, What::Missed, label);
            }
            _ => {}
        }
    }

    fn attach(&mut self, call: &Call, key: usize, ask: &Arc<str>, places: Vec<usize>, label: String) {
        let (begin, end) = (call.begin, call.end);
        let attach = |answer: Option<&Attached>| What::Attach {
            ask: Arc::clone(ask),
            places: match answer.and_then(|answer| answer.inode) {
                Some(inode) => self.with_inode(&places, inode),
                None => places.clone(),
            },
            answer: answer.map(|answer| answer.text().into()),
        };
        let what = match &call.answer {
            Answer::Attached(attached) => Some((attach(Some(attached)), true, end)),
            Answer::Unknown(_) => Some((attach(None), false, self.history.death_after(end))),
            Answer::Refused(no) if no.reason == "DIFFERENT" => {
                let (ask, places) = (Arc::clone(ask), places.clone());
                Some((What::Differs { ask, places }, true, end))
            }
            Answer::Refused(no) if IN_THE_WAY.contains(&&*no.reason) => {
                let (ask, places) = (Arc::clone(ask), places.clone());
                Some((What::InTheWay { ask, places }, true, end))
            }
            _ => None,
        };
        let ghost = attach(None);
        if let Some((what, is_certain, end)) = what {
            self.add(key, begin, end, is_certain, what, label.clone());
        }
        self.ghost(call, key, ghost, label);
    }

    /// What takes something away.
    fn effect(&mut self, call: &Call, key: usize, what: What, label: String) {
        let (begin, end) = (call.begin, call.end);
        match &call.answer {
            // The plugin leaves what was not answered in time to the daemon, which comes to it when it comes to it.
            Answer::Done | Answer::Unknown(_) if key >= FIRST_OF_PLUGIN && !self.is_surely_done(call) => {
                self.add(key, begin, u64::MAX, false, what.clone(), label.clone());
            }
            Answer::Done => self.add(key, begin, end, true, what.clone(), label.clone()),
            Answer::Unknown(_) => {
                self.add(
                    key,
                    begin,
                    self.history.death_after(end),
                    false,
                    what.clone(),
                    label.clone(),
                );
            }
            // Some were taken off, and some not.
            _ if matches!(what, What::Collect { .. }) => {
                self.add(key, begin, end, false, what.clone(), label.clone());
            }
            _ => {}
        }
        self.ghost(call, key, what, label);
    }

    /// A client whose connection was lost sends the call once more, and the plugin settles what waits first: so there may
    /// have been an effect before the one that was answered.
    fn ghost(&mut self, call: &Call, key: usize, what: What, label: String) {
        if is_short(call) || self.history.was_interrupted(call.begin, call.end) {
            let label = format!("{label}, an earlier try");
            self.add(key, call.begin, call.end, false, what, label);
        }
    }

    fn list(&mut self, call: &Call, all: &[(usize, Attached)]) {
        let label = format!("#{} by {}, seen", call.number, call.caller);
        let concerns = match call.act() {
            Act::Get { key } => *key..*key + 1,
            _ => 0..KEYS,
        };
        for key in concerns {
            match all.iter().find(|(found, _)| *found == key) {
                Some((_, found)) if found.is_leaving => {}
                // What the plugin has left for the next daemon, one that stops still shows.
                _ if key >= FIRST_OF_PLUGIN && self.was_stopping(call.begin, call.end) => {}
                Some((_, found)) => {
                    let lives = 0..self.history.lives.len();
                    let places = match found.inode {
                        Some(inode) => self.with_inode(&lives.collect::<Vec<_>>(), inode),
                        None => lives.collect(),
                    };
                    let what = What::Seen(found.text().into(), places);
                    self.add(key, call.begin, call.end, true, what, label.clone());
                }
                None => self.add(key, call.begin, call.end, true, What::Missed, label.clone()),
            }
        }
    }

    fn was_stopping(&self, begin: u64, end: u64) -> bool {
        let mut blows = self.history.blows.iter();
        blows.any(|blow| blow.strike.kind == Kind::Stop && blow.begin <= end && begin <= blow.end)
    }

    /// A daemon that is out of files, memory or time is left a deletion, too.
    fn is_surely_done(&self, call: &Call) -> bool {
        let mut blows = self.history.blows.iter();
        let was_exhausted = blows.any(|blow| {
            matches!(blow.strike.kind, Kind::OpenFiles | Kind::Memory)
                && blow.begin <= call.end
                && call.begin <= blow.end
        });
        matches!(call.answer, Answer::Done) && !is_short(call) && !was_exhausted
    }

    fn with_inode(&self, places: &[usize], inode: u64) -> Vec<usize> {
        let has = |place: &&usize| self.history.lives[**place].inode == inode;
        places.iter().filter(has).copied().collect()
    }

    /// When a call's path may have been looked at last: an order goes on without its caller, and a deletion that was left is
    /// carried out by a later daemon.
    fn looked_until(&self, key: usize, call: &Call) -> u64 {
        match (&call.answer, call.act()) {
            (Answer::Done | Answer::Unknown(_), Act::Detach { .. })
                if key >= FIRST_OF_PLUGIN && !self.is_surely_done(call) =>
            {
                u64::MAX
            }
            (Answer::Unknown(_), _) => self.history.death_after(call.end),
            _ => call.end,
        }
    }

    /// Lives that a path may have led to at any time between two moments.
    fn lives_of(&self, slot: usize, begin: u64, end: u64) -> Vec<usize> {
        let lives = self.history.lives.iter().enumerate();
        lives
            .filter(|(_, life)| life.slot == slot && life.from <= end && life.gone >= begin)
            .map(|(number, _)| number)
            .collect()
    }

    /// What a path means to a detach: the namespace that it leads to, or by its text where it leads to none.
    fn named(&self, slot: usize, begin: u64, end: u64) -> Named {
        let led = self.lives_of(slot, begin, end);
        let leads = |&&life: &&usize| {
            let life = &self.history.lives[life];
            life.from < begin && life.until > end
        };
        if let ([only], Some(_)) = (&*led, led.iter().find(leads)) {
            return Named::One {
                surely: vec![*only],
                maybe: vec![],
            };
        }
        let lives = self.history.lives.iter().enumerate();
        Named::One {
            surely: vec![],
            maybe: lives
                .filter(|(_, life)| life.slot == slot)
                .map(|(number, _)| number)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::{Verdict, judge};
    use super::*;
    use crate::history::{Life, Refused};
    use crate::plan::Ask;

    /// In the round in which it ends nobody has asked for it before.
    #[test]
    fn a_namespace_that_ends_takes_along_what_an_earlier_round_has_attached_to_it() {
        let no = Refused {
            code: "NotFound".to_owned(),
            reason: "NOT_ATTACHED".to_owned(),
            message: String::new(),
        };
        let missed = Call::made(Act::Get { key: 0 }, 10, 11, Answer::Refused(no));
        let history = History {
            calls: vec![missed],
            lives: vec![Life {
                slot: 0,
                inode: 1,
                from: 0,
                until: 5,
                gone: 6,
            }],
            ..History::default()
        };
        let before = vec![State::Attached {
            ask: None,
            place: 0,
            answer: None,
            since: 1,
        }];
        let steps = steps(&history, 100, std::slice::from_ref(&before));
        assert!(matches!(judge(&before, &steps[0]), Verdict::Possible(_)));
    }

    /// While the daemon was frozen its caller hung up, and another namespace came to the path.
    #[test]
    fn an_order_that_goes_on_without_its_caller_finds_what_the_path_leads_to_by_then() {
        let act = Act::Attach {
            key: 0,
            slot: 0,
            ask: Ask::default(),
        };
        let attached = Attached {
            addresses: vec!["10.77.0.5".parse().unwrap()],
            link: "wk0".to_owned(),
            mac: String::new(),
            inode: Some(2),
            is_leaving: false,
        };
        let life = |inode, from, until| Life {
            slot: 0,
            inode,
            from,
            until,
            gone: until,
        };
        let history = History {
            calls: vec![
                Call::made(act, 10, 11, Answer::Unknown("the caller hung up".to_owned())),
                Call::made(Act::List, 30, 31, Answer::Listed(vec![(0, attached)])),
            ],
            lives: vec![life(1, 0, 12), life(2, 14, u64::MAX)],
            ..History::default()
        };
        let before = vec![State::Absent];
        let steps = steps(&history, 100, std::slice::from_ref(&before));
        assert!(matches!(judge(&before, &steps[0]), Verdict::Possible(_)));
    }
}
