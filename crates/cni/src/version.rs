//! Versions of the specification.

use crate::failure::{Failure, shortened};
use serde_json::{Map, Value, json};

/// All that can be asked for, the oldest first.
pub(crate) const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What an answer is in where nothing was asked for.
const NEWEST: &str = SUPPORTED[SUPPORTED.len() - 1];

/// One of them; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(usize);

impl Version {
    /// Since this one there is CHECK.
    pub(crate) const HAS_CHECK: Self = Self(2);
    /// Since this one addresses say no version.
    pub(crate) const HAS_PLAIN_ADDRESSES: Self = Self(3);
    /// Since this one there are STATUS, GC, and MTUs in results.
    pub(crate) const HAS_STATUS: Self = Self(4);

    pub(crate) fn of(config: &Map<String, Value>) -> Result<Self, Failure> {
        let asked = match config.get("cniVersion") {
            // The specification's default is 0.1.0, which is not supported.
            None | Some(Value::Null) => &json!("0.1.0"),
            Some(asked) => asked,
        };
        match SUPPORTED.iter().position(|version| asked == version) {
            Some(at) => Ok(Self(at)),
            None => Err(Failure::incompatible(format!(
                "cniVersion {}: supported are {}",
                shortened(asked),
                SUPPORTED.join(", ")
            ))),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        SUPPORTED[self.0]
    }
}

/// What an input asks for, if it can be read.
pub(crate) fn of_input(input: &[u8]) -> Option<Version> {
    let config: Map<String, Value> = serde_json::from_slice(input).ok()?;
    Version::of(&config).ok()
}

/// What an answer is in: the asked version, if there was one.
pub(crate) fn of_answer(asked: Option<Version>) -> &'static str {
    asked.map_or(NEWEST, Version::as_str)
}
