//! What is to happen: a pure function of the seed, so that a run can be had again.
//!
//! A round is a list of operations, which callers take one after the other, and of strikes, each of which comes when so many
//! operations have begun. How the two interleave is the machine's affair; what they are is not.

mod round;

pub use round::round;

use crate::random::Random;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Keys that are attached and detached.
pub const KEYS: usize = 64;
/// From here on keys are the plugin's: a queue of deletions concerns whoever uses it, so no key is of both ways.
pub const FIRST_OF_PLUGIN: usize = 40;
/// Namespaces, one for each key, a few that are nobody's, and two that are never touched.
pub const SLOTS: usize = 70;

/// What a run is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// From which everything is drawn.
    pub seed: u64,
    /// Threads that call.
    pub callers: usize,
    /// Operations of a round.
    pub operations: usize,
    /// Strikes of a round.
    pub strikes: usize,
    /// Which nemeses strikes are drawn from; not none.
    pub kinds: BTreeSet<Kind>,
    /// Which of those that were drawn do not come.
    pub without: BTreeSet<Kind>,
}

impl Scope {
    /// The usual one of a seed.
    pub fn usual(seed: u64) -> Self {
        Self {
            seed,
            callers: 16,
            operations: 400,
            strikes: 10,
            kinds: Kind::ALL.into_iter().collect(),
            without: BTreeSet::new(),
        }
    }

    /// The world of the seed.
    pub fn world(&self) -> World {
        let mut random = Random::new(self.seed, u64::MAX);
        let is_told = random.percent(50);
        let is_small = random.percent(30);
        World {
            lists: if is_small { SMALL } else { LARGE }
                .map(|list| list.map(str::to_owned).to_vec())
                .to_vec(),
            is_told,
            is_small,
            cool_down: random.one_of(&[0, 2, 10]),
        }
    }
}

/// Lists of prefixes, the first of which serves from the start.
const LARGE: [[&str; 2]; 3] = [
    ["10.77.0.0/20", "fd77::/64"],
    ["10.77.16.0/20", "fd77::/64"],
    ["10.77.0.0/20", "fd77:1::/64"],
];
/// With fewer addresses than keys.
const SMALL: [[&str; 2]; 3] = [
    ["10.77.0.0/26", "fd77::/122"],
    ["10.77.1.0/26", "fd77::/122"],
    ["10.77.0.0/26", "fd77:1::/122"],
];

/// What the node is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Lists of prefixes.
    pub lists: Vec<Vec<String>>,
    /// Whether prefixes are told by SetPrefixes, and may change; else the first list serves.
    pub is_told: bool,
    /// Whether addresses may run out.
    pub is_small: bool,
    /// Seconds that a freed address rests.
    pub cool_down: u64,
}

impl World {
    /// Many addresses, the first list, and the daemon's usual rest.
    pub fn calm() -> Self {
        Self {
            lists: LARGE.map(|list| list.map(str::to_owned).to_vec()).to_vec(),
            is_told: false,
            is_small: false,
            cool_down: 150,
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// How long the caller waits, in milliseconds.
    pub deadline: u64,
    /// How long the caller waits for a daemon that is not there, in milliseconds.
    pub patience: u64,
    /// After how many microseconds the caller hangs up.
    pub hangs_up: Option<u64>,
    /// What is asked.
    pub act: Act,
}

impl Operation {
    /// With all patience.
    pub fn patient(act: Act) -> Self {
        Self {
            deadline: 30_000,
            patience: 0,
            hangs_up: None,
            act,
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Attach a key to a namespace.
    Attach {
        /// Number of the key.
        key: usize,
        /// Number of the namespace.
        slot: usize,
        /// What is asked for.
        ask: Ask,
    },
    /// Attach with a field that cannot be used.
    AttachWrongly {
        /// Number of the key.
        key: usize,
        /// What is wrong.
        wrong: Wrong,
    },
    /// Detach a key, and name its namespace or not.
    Detach {
        /// Number of the key.
        key: usize,
        /// Number of the namespace.
        slot: Option<usize>,
    },
    /// Whether an attach could succeed.
    Status {
        /// By the plugin.
        by_plugin: bool,
    },
    /// Everything that is attached.
    List,
    /// One attachment.
    Get {
        /// Number of the key.
        key: usize,
    },
    /// The node.
    Node,
    /// What the kernel holds otherwise.
    Check {
        /// Number of the key; none: everything.
        key: Option<usize>,
    },
    /// The plugin's CHECK with the result of the last ADD.
    PluginCheck {
        /// Number of the key.
        key: usize,
    },
    /// The plugin's GC.
    Collect {
        /// Numbers of keys that live.
        valid: Vec<usize>,
    },
    /// Another list of prefixes.
    SetPrefixes {
        /// Number of the list.
        list: usize,
    },
}

/// What an attach asks for beside a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Ask {
    /// The last byte of the IPv4 address in the first list's prefix.
    pub v4: Option<u8>,
    /// A port of the node.
    pub port: Option<u16>,
    /// 0: the daemon's.
    pub mtu: u32,
}

/// A field that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrong {
    /// Nothing is at the path.
    NoNamespace,
    /// A folder is at the path.
    NotANamespace,
    /// The daemon's own namespace.
    Forbidden,
    /// A name that no link can have.
    Interface,
    /// An address of no prefix.
    Outside,
    /// An address of five bytes.
    Bytes,
    /// Too small.
    Mtu,
    /// No port has this number.
    Port,
    /// Bandwidth, which no release can limit.
    Unsupported,
}

/// A nemesis' kind, by which it can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL, and another daemon.
    Kill,
    /// SIGTERM, and another daemon.
    Stop,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// The daemon's /run is full for a while.
    FillRun,
    /// The state file is torn, garbage, empty or gone, and is read now and then.
    SpoilState,
    /// Namespaces end, and fresh ones come to their paths.
    EndNamespace,
    /// The same while the daemon is frozen.
    EndFrozen,
    /// A link is deleted.
    DeleteLink,
    /// A link is renamed, and is nobody's until it is deleted a while later.
    Rename,
    /// A link is taken down.
    LinkDown,
    /// A link loses routes, neighbours, addresses, its group, its MTU or its record.
    Unroute,
    /// A stranger's link has the name that a key's would have.
    StrangeLink,
    /// More is announced than the daemon's socket holds, while it is frozen, and a link ends meanwhile.
    Churn,
    /// The tables are deleted, flushed, or lose their maps' elements.
    Table,
    /// The daemon may open no more files for a while.
    OpenFiles,
    /// The daemon gets no more memory for a while.
    Memory,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::Kill,
        Self::Stop,
        Self::Pause,
        Self::FillRun,
        Self::SpoilState,
        Self::EndNamespace,
        Self::EndFrozen,
        Self::DeleteLink,
        Self::Rename,
        Self::LinkDown,
        Self::Unroute,
        Self::StrangeLink,
        Self::Churn,
        Self::Table,
        Self::OpenFiles,
        Self::Memory,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::FillRun => "fill-run",
            Self::SpoilState => "spoil-state",
            Self::EndNamespace => "end-namespace",
            Self::EndFrozen => "end-frozen",
            Self::DeleteLink => "delete-link",
            Self::Rename => "rename",
            Self::LinkDown => "link-down",
            Self::Unroute => "unroute",
            Self::StrangeLink => "strange-link",
            Self::Churn => "churn",
            Self::Table => "table",
            Self::OpenFiles => "open-files",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let all = Self::ALL.map(Self::word).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.word() == word);
        found.ok_or_else(|| format!("there is no nemesis {word:?}; there are {all}"))
    }
}

/// One blow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// It comes when so many operations of the round have begun.
    pub after: usize,
    /// And after so many microseconds.
    pub delay: u64,
    /// What comes.
    pub kind: Kind,
    /// A number, for what the kind leaves open.
    pub number: u64,
    /// How long it lasts, in milliseconds, where it does.
    pub lasts: u64,
}

/// What is to happen before the next quiet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Its number, from 0.
    pub number: u64,
    /// In the order in which callers take them.
    pub operations: Vec<Operation>,
    /// In the order in which they come.
    pub strikes: Vec<Strike>,
}
