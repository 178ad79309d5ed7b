//! What the daemon under test is told to fail at, and what it says that it called: `crates/mishap` has the files' form.

use crate::effects::{EEXIST, effects};
use mishap::{Call, Effect, Kind, Strike};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// One call that fails in one way.
#[derive(Debug, Clone)]
pub(crate) struct Mishap {
    strike: Strike,
    /// What the call is about.
    what: String,
}

impl Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.strike, self.what)
    }
}

impl Mishap {
    /// The error's words, where there are any.
    pub(crate) fn reason(&self) -> Option<String> {
        match self.strike.effect {
            Effect::Errno(errno) | Effect::GivenUp(errno) => {
                let reason = io::Error::from_raw_os_error(errno).to_string();
                Some(reason.split(" (os error").next().unwrap().to_owned())
            }
            Effect::Cut => Some("the kernel's answer was cut short".to_owned()),
            Effect::Interrupted => None,
        }
    }

    /// Whether the error is one that the kernel has for "it is so already".
    pub(crate) fn is_no_error(&self) -> bool {
        self.strike.effect == Effect::Errno(EEXIST)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.strike.kind
    }

    pub(crate) fn what(&self) -> &str {
        &self.what
    }
}

/// The folder by which a daemon is told. It may write there though it is confined.
pub(crate) struct Seam(PathBuf);

impl Seam {
    pub(crate) fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// From the next call on this fails, or nothing does.
    pub(crate) fn plan(&self, mishap: Option<&Mishap>) {
        let text = mishap.map(ToString::to_string).unwrap_or_default();
        std::fs::write(self.0.join("next"), text).unwrap();
        std::fs::rename(self.0.join("next"), self.0.join("plan")).unwrap();
    }

    /// From the next call on they are told.
    pub(crate) fn record(&self) {
        File::create(self.0.join("calls")).unwrap();
        self.plan(None);
    }

    /// The calls since then.
    pub(crate) fn recorded(&self) -> Vec<Call> {
        let calls = std::fs::read_to_string(self.0.join("calls")).unwrap();
        std::fs::remove_file(self.0.join("calls")).unwrap();
        calls.lines().map(parsed).collect()
    }

    /// Whether the mishap came to be; nothing fails any more.
    pub(crate) fn has_fired(&self) -> bool {
        self.plan(None);
        std::fs::remove_file(self.0.join("fired")).is_ok()
    }
}

fn parsed(line: &str) -> Call {
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (kind, nth, what) = (word(), word(), word());
    Call {
        kind: Kind::ALL.into_iter().find(|known| known.name() == kind).unwrap(),
        nth: nth.parse().unwrap(),
        what: what.to_owned(),
    }
}

/// Which calls are tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// The first and the last of those about the same.
    All,
    /// The first of those that begin with the same words: there is one for each of the table's rules.
    OfAKind,
}

/// Each of these calls with so many of its errors at most, the next one's behind them.
pub(crate) fn mishaps(calls: &[Call], which: Calls, most: usize) -> Vec<Mishap> {
    let class = |call: &Call| match which {
        Calls::OfAKind if !matches!(call.kind, Kind::File | Kind::Setting) => {
            call.what.split(' ').take(3).collect::<Vec<_>>().join(" ")
        }
        _ => call.what.clone(),
    };
    let (mut times, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for (n, call) in calls.iter().enumerate() {
        let nth = times.entry((call.kind, &call.what)).or_insert(0);
        *nth += 1;
        let (_, last) = ends
            .entry((call.kind, class(call)))
            .or_insert(((n, *nth), (n, *nth)));
        *last = (n, *nth);
    }
    let mut chosen: Vec<(usize, u32)> = ends
        .into_values()
        .flat_map(|(first, last)| match which {
            Calls::All => vec![first, last],
            Calls::OfAKind => vec![first],
        })
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    let mut turn: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for (n, nth) in chosen {
        let call = &calls[n];
        let mut effects = effects(call);
        if which == Calls::OfAKind {
            // What is put back is there already where the kernel says so.
            effects.retain(|effect| *effect != Effect::Errno(EEXIST));
        }
        let turn = turn.entry(call.kind).or_default();
        let first = *turn % effects.len().max(1);
        *turn += most;
        effects.rotate_left(first);
        effects.truncate(most);
        all.extend(effects.into_iter().map(|effect| Mishap {
            strike: Strike {
                kind: call.kind,
                nth,
                effect,
            },
            what: call.what.clone(),
        }));
    }
    all
}
