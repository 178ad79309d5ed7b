//! Where prefixes come from, one place at a time, and the list of the other nodes. Each source tells the desk good values and
//! troubles; the desk keeps the last good value whatever comes afterwards.
//!
//! ```text
//!  settings ---(once)---.
//!  file -- watched -----+--> Desk::set_prefixes, Desk::source_fails
//!  SetPrefixes (door) --+
//!  Kubernetes, watched --'
//! ```

pub mod file;
pub mod kubernetes;
pub mod peers;
pub mod watched;

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where the prefixes that serve come from: `prefixes.source` of the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `network.prefixes`.
    #[default]
    Fixed,
    /// A file that is followed.
    File,
    /// `spec.podCIDRs` of the own Node.
    Kubernetes,
    /// SetPrefixes.
    Api,
}

impl Kind {
    /// What is waited for as long as nobody has said anything.
    pub(crate) fn awaited(self) -> &'static str {
        match self {
            Self::Fixed => "network.prefixes is empty",
            Self::File => "the file is being read",
            Self::Kubernetes => "the Kubernetes API is being asked",
            Self::Api => "nobody has called SetPrefixes",
        }
    }
}

impl Kind {
    /// What is said of prefixes that serve because the source said so before a restart; `None`: they do not.
    pub(crate) fn doubt(self) -> Option<&'static str> {
        match self {
            Self::Fixed | Self::File => None,
            Self::Kubernetes => Some(self.awaited()),
            Self::Api => Some("nobody has called SetPrefixes since the daemon began"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed => "fixed",
            Self::File => "file",
            Self::Kubernetes => "kubernetes",
            Self::Api => "api",
        })
    }
}
