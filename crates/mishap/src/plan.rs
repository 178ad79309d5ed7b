//! Who is to fail, and how.

use crate::Kind;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Of `struct nlmsghdr` (linux/netlink.h): its length, `NLMSG_DONE`, `NLM_F_DUMP_INTR`.
const HEADER: usize = 16;
const DONE: u16 = 3;
const INTERRUPTED: u16 = 0x10;

/// A call that was made, or was to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its kind.
    pub kind: Kind,
    /// Counted from 1 on among those of its kind.
    pub nth: u32,
    /// What it is about.
    pub what: String,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// With this error; what was received meanwhile is lost.
    Errno(i32),
    /// A datagram ends in the middle.
    Cut,
    /// A dump says that something changed meanwhile.
    Interrupted,
    /// A dump ends with this error, as if it were complete.
    GivenUp(i32),
}

/// One call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// Of this kind.
    pub kind: Kind,
    /// From 1 on.
    pub nth: u32,
    /// How.
    pub effect: Effect,
}

impl Effect {
    pub(crate) fn spoil(self, datagram: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Errno(errno) => {
                datagram.clear();
                return Err(io::Error::from_raw_os_error(errno));
            }
            // No message ends there.
            Self::Cut => datagram.truncate((datagram.len() / 2) | 1),
            Self::Interrupted => each_message(datagram, |message| {
                let flags = u16_at(message, 6) | INTERRUPTED;
                message[6..8].copy_from_slice(&flags.to_ne_bytes());
            }),
            Self::GivenUp(errno) => each_message(datagram, |message| {
                if u16_at(message, 4) == DONE && message.len() >= HEADER + 4 {
                    message[HEADER..HEADER + 4].copy_from_slice(&(-errno).to_ne_bytes());
                }
            }),
        }
        Ok(())
    }
}

fn u16_at(message: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([message[at], message[at + 1]])
}

fn each_message(mut bytes: &mut [u8], mut each: impl FnMut(&mut [u8])) {
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if length < HEADER || length > bytes.len() {
            return;
        }
        each(&mut bytes[..length]);
        let next = length.next_multiple_of(4).min(bytes.len());
        bytes = &mut bytes[next..];
    }
}

impl Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.kind.name(), self.nth)?;
        match self.effect {
            Effect::Errno(errno) => write!(f, "errno {errno}"),
            Effect::Cut => write!(f, "cut"),
            Effect::Interrupted => write!(f, "interrupted"),
            Effect::GivenUp(errno) => write!(f, "given-up {errno}"),
        }
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("no strike: {text:?}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let (kind, nth, how) = match words.as_slice() {
            [kind, nth, how @ ..] => (*kind, *nth, how),
            _ => return Err(wrong()),
        };
        let errno = |text: &str| text.parse().map_err(|_| wrong());
        let effect = match how {
            ["errno", number] => Effect::Errno(errno(number)?),
            ["cut"] => Effect::Cut,
            ["interrupted"] => Effect::Interrupted,
            ["given-up", number] => Effect::GivenUp(errno(number)?),
            _ => return Err(wrong()),
        };
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
        Ok(Self {
            kind: kind.ok_or_else(wrong)?,
            nth: nth.parse().map_err(|_| wrong())?,
            effect,
        })
    }
}

/// What was planned, and what has been called since.
#[derive(Debug, Default)]
struct Plan {
    strikes: Vec<Strike>,
    /// Strikes of calls that are about this, counted among those.
    of_texts: Vec<(Strike, String)>,
    counts: BTreeMap<Kind, u32>,
    counts_of_texts: BTreeMap<(Kind, String), u32>,
    calls: Vec<Call>,
}

impl Plan {
    fn new(strikes: Vec<Strike>) -> Self {
        Self {
            strikes,
            ..Self::default()
        }
    }

    /// One strike a line, those of a text with ` of TEXT` behind them.
    fn parse(text: &str) -> Result<Self, String> {
        let mut plan = Self::default();
        for line in text.lines() {
            match line.split_once(" of ") {
                Some((strike, text)) => plan.of_texts.push((strike.parse()?, text.to_owned())),
                None => plan.strikes.push(line.parse()?),
            }
        }
        Ok(plan)
    }

    fn count(&mut self, kind: Kind, what: &str) -> (u32, Option<Effect>) {
        let nth = self.counts.entry(kind).or_default();
        *nth += 1;
        let is_struck = |strike: &Strike, nth: u32| strike.kind == kind && strike.nth == nth;
        let mut strikes = self.strikes.iter();
        let mut effect = strikes.find(|strike| is_struck(strike, *nth)).map(|s| s.effect);
        if !self.of_texts.is_empty() {
            let nth = self.counts_of_texts.entry((kind, what.to_owned())).or_default();
            *nth += 1;
            let mut strikes = self.of_texts.iter();
            let strike = strikes.find(|(strike, text)| text == what && is_struck(strike, *nth));
            effect = effect.or(strike.map(|(strike, _)| strike.effect));
        }
        (*nth, effect)
    }
}

thread_local! {
    static OF_THE_THREAD: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// Where the process's plan is told.
static FOLDER: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| Some(PathBuf::from(std::env::var_os("WORKLOADNET_FAULTS")?)));
static OF_THE_PROCESS: Mutex<Option<Plan>> = Mutex::new(None);

/// Calls of this thread are counted from here on, and those that the strikes name fail.
pub fn arm(strikes: &[Strike]) {
    let plan = Plan::new(strikes.to_vec());
    OF_THE_THREAD.with(|of_the_thread| *of_the_thread.borrow_mut() = Some(plan));
}

/// Nothing of this thread fails any more; what it has called since it was armed.
pub fn disarm() -> Vec<Call> {
    let plan = OF_THE_THREAD.with(|of_the_thread| of_the_thread.borrow_mut().take());
    plan.unwrap_or_default().calls
}

/// What this thread has called since it was armed.
pub fn calls() -> Vec<Call> {
    OF_THE_THREAD.with(|plan| {
        plan.borrow()
            .as_ref()
            .map(|plan| plan.calls.clone())
            .unwrap_or_default()
    })
}

pub(crate) fn strike(kind: Kind, what: &dyn Display) -> Option<Effect> {
    let of_the_thread = OF_THE_THREAD.with(|plan| {
        let mut plan = plan.borrow_mut();
        let plan = plan.as_mut()?;
        let what = what.to_string();
        let (nth, effect) = plan.count(kind, &what);
        plan.calls.push(Call { kind, nth, what });
        effect
    });
    of_the_thread.or_else(|| strike_by_the_folder(kind, what))
}

fn strike_by_the_folder(kind: Kind, what: &dyn Display) -> Option<Effect> {
    let folder = FOLDER.as_ref()?;
    let mut plan = OF_THE_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    let file = folder.join("plan");
    if let Ok(text) = fs::read_to_string(&file) {
        *plan = Some(Plan::parse(&text).expect("a test writes strikes"));
        fs::remove_file(&file).expect("who reads a plan can remove it");
    }
    // Without a plan calls are counted, too: who records wants their numbers.
    let what = what.to_string();
    let (nth, effect) = plan.get_or_insert_default().count(kind, &what);
    let line = format!("{} {nth} {what}\n", kind.name());
    let append = |name: &str, create: bool| {
        let file = OpenOptions::new()
            .append(true)
            .create(create)
            .open(folder.join(name));
        file.and_then(|mut file| file.write_all(line.as_bytes()))
    };
    // Where nobody wants them there is no file.
    drop(append("calls", false));
    if effect.is_some() {
        append("fired", true).expect("the folder of a test can be written to");
    }
    effect
}
