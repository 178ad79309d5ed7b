//! One key: whether there is an order of its calls, each at a moment between its begin and its end, in which every answer is
//! right (linearizability; Wing and Gong 1993, with Lowe's memory of what was tried).
//!
//! A key is absent, or attached in a way. Calls whose outcome nobody knows may have had their effect or not, until the daemon
//! that had heard them was dead. What nemeses take away is a step like any other.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// More than so many states are not looked at.
const PATIENCE: usize = 3_000_000;

/// A key, as far as answers depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// Not attached.
    Absent,
    /// Attached.
    Attached {
        /// What was asked for; `None`: nobody knows.
        ask: Option<Arc<str>>,
        /// The number of the namespace's life.
        place: usize,
        /// What was answered; `None`: nobody has seen it.
        answer: Option<Arc<str>>,
        /// When an answer was there that said so; `u64::MAX`: there was none.
        since: u64,
    },
}

impl State {
    /// The number of its namespace's life.
    pub fn place(&self) -> Option<usize> {
        match self {
            Self::Absent => None,
            Self::Attached { place, .. } => Some(*place),
        }
    }
}

/// A call, or something that was done to the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// It had no effect before this moment.
    pub begin: u64,
    /// Nor after this one.
    pub end: u64,
    /// Whether it had one for certain.
    pub is_certain: bool,
    /// What it was.
    pub what: What,
    /// For people.
    pub label: String,
}

/// What it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An attach. `answer`: `None` where nobody knows the outcome.
    Attach {
        /// What was asked for.
        ask: Arc<str>,
        /// Numbers of the namespaces' lives that the path may have led to.
        places: Vec<usize>,
        /// What was answered.
        answer: Option<Arc<str>>,
    },
    /// An attach that was refused because the key is attached in another way.
    Differs {
        /// What was asked for.
        ask: Arc<str>,
        /// Where the path may have led to.
        places: Vec<usize>,
    },
    /// An attach that was refused for what somebody else has: an address, a port, a name.
    InTheWay {
        /// What was asked for.
        ask: Arc<str>,
        /// Where the path may have led to.
        places: Vec<usize>,
    },
    /// A detach.
    Detach(Named),
    /// A collection of garbage that names the key not, and what was attached since then stays.
    Collect {
        /// When it began.
        since: u64,
        /// A daemon takes what it finds at its start for young.
        all_may_be_young: bool,
    },
    /// Seen to be attached so; lives that the namespace may be one of.
    Seen(Arc<str>, Vec<usize>),
    /// Seen to be absent.
    Missed,
    /// A namespace ended.
    Ends(usize),
    /// The link was taken away.
    Cut,
}

/// The namespace that a detach means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// None.
    Any,
    /// One, be it by identity or by its path's text.
    One {
        /// Lives that it concerns.
        surely: Vec<usize>,
        /// Lives that it may concern.
        maybe: Vec<usize>,
    },
}

/// In which ways a key can have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// These.
    Possible(Vec<State>),
    /// In none: somebody lied. In words.
    Impossible(String),
    /// Too many orders.
    TooHard,
}

/// Looks for all states that a key can be in after its steps.
pub fn judge(before: &[State], steps: &[Step]) -> Verdict {
    assert!(steps.len() <= 128, "a bit for each step");
    let mut search = Search {
        steps,
        tried: HashSet::new(),
        last: HashSet::new(),
        farthest: (0, String::new()),
    };
    for state in before {
        search.go(0, state.clone());
        if search.tried.len() > PATIENCE {
            return Verdict::TooHard;
        }
    }
    if search.last.is_empty() {
        return Verdict::Impossible(search.explain(before));
    }
    Verdict::Possible(search.last.into_iter().collect())
}

struct Search<'a> {
    steps: &'a [Step],
    tried: HashSet<(u128, State)>,
    last: HashSet<State>,
    /// How many certain steps could be explained, and the state after them.
    farthest: (u32, String),
}

impl Search<'_> {
    fn go(&mut self, done: u128, state: State) {
        let mut open = vec![(done, state)];
        while let Some((done, state)) = open.pop() {
            if self.tried.len() > PATIENCE || !self.tried.insert((done, state.clone())) {
                continue;
            }
            let is_done = |n: usize| done & (1 << n) != 0;
            let mut certain = 0;
            // A step that must come before any that begins later.
            let mut limit = u64::MAX;
            let mut latest_begin = 0;
            let mut is_over = true;
            for (n, step) in self.steps.iter().enumerate() {
                match is_done(n) {
                    true => {
                        latest_begin = latest_begin.max(step.begin);
                        certain += u32::from(step.is_certain);
                    }
                    false if step.is_certain => {
                        limit = limit.min(step.end);
                        is_over = false;
                    }
                    false => {}
                }
            }
            if certain >= self.farthest.0 {
                self.farthest = (certain, format!("{state:?}, {:?} done", marks(done, self.steps)));
            }
            if is_over {
                self.last.insert(state.clone());
            }
            for (n, step) in self.steps.iter().enumerate() {
                if is_done(n) || step.begin > limit || step.end < latest_begin {
                    continue;
                }
                for next in after(&state, step) {
                    if step.is_certain || next != state {
                        open.push((done | 1 << n, next));
                    }
                }
            }
        }
    }

    fn explain(&self, before: &[State]) -> String {
        let mut text = format!("no order of these explains every answer; before: {before:?}\n");
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by_key(|step| step.begin);
        for step in steps {
            let sure = if step.is_certain { "" } else { " (perhaps)" };
            let end = if step.end == u64::MAX {
                "...".to_owned()
            } else {
                step.end.to_string()
            };
            let _ = writeln!(
                text,
                "  {:>10} - {end:>10}{sure} {} {:?}",
                step.begin, step.label, step.what
            );
        }
        let _ = write!(text, "  the farthest: {}", self.farthest.1);
        text
    }
}

fn marks(done: u128, steps: &[Step]) -> Vec<&str> {
    let marked = steps.iter().enumerate().filter(|(n, _)| done & (1 << n) != 0);
    marked.map(|(_, step)| &*step.label).collect()
}

/// The states that a step can lead to; none where what it says is not so.
fn after(state: &State, step: &Step) -> Vec<State> {
    match &step.what {
        What::Attach { ask, places, answer } => attach(state, step, ask, places, answer.as_ref()),
        What::Differs { ask, places } => match state {
            State::Attached { ask: is, place, .. }
                if is.as_ref().is_none_or(|is| is != ask) || !places.contains(place) || places.len() > 1 =>
            {
                vec![state.clone()]
            }
            _ => vec![],
        },
        What::InTheWay { ask, places } => match state {
            State::Attached { ask: is, place, .. } if is.as_ref() == Some(ask) && *places == [*place] => {
                vec![]
            }
            _ => vec![state.clone()],
        },
        What::Detach(named) => detach(state, named),
        What::Collect {
            since,
            all_may_be_young,
        } => match state {
            State::Attached { since: attached, .. } if attached >= since || *all_may_be_young => {
                vec![State::Absent, state.clone()]
            }
            _ => vec![State::Absent],
        },
        What::Seen(text, places) => seen(state, text, places, step.end),
        What::Missed => match state {
            State::Absent => vec![State::Absent],
            State::Attached { .. } => vec![],
        },
        What::Ends(life) => match state {
            State::Attached { place, .. } if place == life => vec![State::Absent],
            _ => vec![state.clone()],
        },
        What::Cut => vec![State::Absent],
    }
}

fn attach(
    state: &State,
    step: &Step,
    ask: &Arc<str>,
    places: &[usize],
    answer: Option<&Arc<str>>,
) -> Vec<State> {
    let since = if answer.is_some() { step.end } else { u64::MAX };
    match state {
        State::Absent => places
            .iter()
            .map(|&place| State::Attached {
                ask: Some(Arc::clone(ask)),
                place,
                answer: answer.cloned(),
                since,
            })
            .collect(),
        // The same again, or nobody knows.
        State::Attached { .. } if answer.is_none() => vec![state.clone()],
        State::Attached {
            ask: is,
            place,
            answer: said,
            since: attached,
        } => {
            let same = is.as_ref().is_none_or(|is| is == ask)
                && places.contains(place)
                && said.as_ref().is_none_or(|said| Some(said) == answer);
            match same {
                true => vec![State::Attached {
                    ask: Some(Arc::clone(ask)),
                    place: *place,
                    answer: answer.cloned(),
                    since: since.min(*attached),
                }],
                false => vec![],
            }
        }
    }
}

fn detach(state: &State, named: &Named) -> Vec<State> {
    let (State::Attached { place, .. }, Named::One { surely, maybe }) = (state, named) else {
        return vec![State::Absent];
    };
    match (surely.contains(place), maybe.contains(place)) {
        (true, _) => vec![State::Absent],
        (false, true) => vec![State::Absent, state.clone()],
        (false, false) => vec![state.clone()],
    }
}

fn seen(state: &State, text: &Arc<str>, places: &[usize], when: u64) -> Vec<State> {
    match state {
        State::Attached {
            ask,
            place,
            answer,
            since,
        } if places.contains(place) && answer.as_ref().is_none_or(|answer| answer == text) => {
            vec![State::Attached {
                ask: ask.clone(),
                place: *place,
                answer: Some(Arc::clone(text)),
                since: when.min(*since),
            }]
        }
        _ => vec![],
    }
}

#[cfg(test)]
mod tests;
