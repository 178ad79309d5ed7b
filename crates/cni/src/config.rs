//! The network's configuration, as it comes on stdin. The environment is not read for any of it: runtimes call from where it
//! was stripped.

use crate::failure::Failure;
use crate::text::is_name;
use crate::verb::Verb;
use crate::version::Version;
use client::Deadlines;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Keys that are the specification's, and are read elsewhere or by nobody.
const OF_THE_SPECIFICATION: [&str; 11] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "dns",
    "disableCheck",
    "disableGC",
];
/// Keys that are ours.
const OURS: [&str; 4] = ["socket", "owner", "mtu", "timeouts"];
/// Keys that libcni puts in begin so.
const OF_LIBCNI: &str = "cni.dev/";
const VALID: &str = "cni.dev/valid-attachments";
/// What libcni sends as well, and its first releases alone (containernetworking/cni#1101).
const VALID_BEFORE: &str = "cni.dev/attachments";
/// What a timeout may be at most, in seconds.
const LONGEST: f64 = 600.0;

/// What a network is configured with.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// `None` where nothing depends on it.
    pub(crate) version: Option<Version>,
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    pub(crate) owner: String,
    /// 0: the daemon's.
    pub(crate) mtu: u32,
    pub(crate) deadlines: Deadlines,
    pub(crate) patience: Duration,
    /// The configuration as it came.
    pub(crate) json: Map<String, Value>,
}

impl Config {
    /// Checks what a verb depends on.
    pub(crate) fn read(json: Map<String, Value>, verb: Verb) -> Result<Self, Failure> {
        let version = match verb {
            // It prints nothing, so nothing depends on the version.
            Verb::Del => Version::of(&json).ok(),
            _ => Some(Version::of(&json)?),
        };
        let has = |since| version.is_none_or(|version| version >= since);
        if (verb == Verb::Check && !has(Version::HAS_CHECK))
            || (matches!(verb, Verb::Status | Verb::Gc) && !has(Version::HAS_STATUS))
        {
            let asked = version.map(Version::as_str).unwrap_or_default();
            return Err(Failure::incompatible(format!(
                "cniVersion {asked:?}: has no {verb:?}"
            )));
        }
        if verb != Verb::Del {
            refuse_unknown(&json)?;
        }
        let name = text(&json, "name")?.unwrap_or_default();
        if !is_name(name) {
            return Err(Failure::config("name", &json!(name), "is not a network's name"));
        }
        let timeouts = match (Timeouts::read(&json), verb) {
            // A deletion that fails is repeated for ever: it does with the usual ones.
            (Err(_), Verb::Del) => Timeouts::usual(),
            (timeouts, _) => timeouts?,
        };
        if verb == Verb::Add {
            refuse_torn_result(&json)?;
        }
        Ok(Self {
            version,
            name: name.to_owned(),
            socket: text(&json, "socket")?.unwrap_or(client::DEFAULT_SOCKET).into(),
            owner: text(&json, "owner")?.unwrap_or(name).to_owned(),
            mtu: match json.get("mtu") {
                _ if verb == Verb::Del => 0,
                None | Some(Value::Null) => 0,
                Some(value) => value
                    .as_u64()
                    .and_then(|mtu| u16::try_from(mtu).ok())
                    .ok_or_else(|| Failure::config("mtu", value, "is not 0 to 65535"))?
                    .into(),
            },
            deadlines: Deadlines {
                orders: timeouts.order,
                questions: timeouts.question,
            },
            patience: timeouts.ready,
            json,
        })
    }

    /// The result of the plugin before this one in the chain.
    pub(crate) fn prev_result(&self) -> Option<&Map<String, Value>> {
        self.json.get("prevResult").and_then(Value::as_object)
    }

    /// Container id and interface name of what lives.
    pub(crate) fn valid_attachments(&self) -> Result<Vec<(&str, &str)>, Failure> {
        let given = self.json.get(VALID).or_else(|| self.json.get(VALID_BEFORE));
        let all = match given {
            Some(Value::Array(all)) => all.as_slice(),
            // An empty list, as Go writes one that was never filled.
            Some(Value::Null) => &[],
            Some(value) => return Err(Failure::config(VALID, value, "is not a list")),
            // A list that is not there is not an empty one: everything would be taken off.
            None => return Err(Failure::config(VALID, &Value::Null, "is missing")),
        };
        let pairs = all.iter().map(|one| {
            let part = |name| one.get(name).and_then(Value::as_str);
            let pair = part("containerID").zip(part("ifname"));
            pair.ok_or_else(|| Failure::config(VALID, one, "has no containerID or no ifname"))
        });
        let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
        // Loopback is another plugin's, though runtimes may list it.
        Ok(pairs
            .into_iter()
            .filter(|(_, if_name)| *if_name != "lo")
            .collect())
    }
}

fn refuse_unknown(json: &Map<String, Value>) -> Result<(), Failure> {
    for (key, value) in json {
        let is_known = OF_THE_SPECIFICATION.contains(&key.as_str()) || OURS.contains(&key.as_str());
        if is_known || key.starts_with(OF_LIBCNI) || is_nothing(value) {
            continue;
        }
        let why = match key.as_str() {
            "ipam" => "addresses come from the daemon's own prefixes",
            "ipMasq" => "masquerade is a setting of the daemon",
            _ => "is no setting of this plugin",
        };
        return Err(Failure::unsupported(key, value, why));
    }
    Ok(())
}

/// What plugins before have made would be lost in our result.
fn refuse_torn_result(json: &Map<String, Value>) -> Result<(), Failure> {
    let before = match json.get("prevResult") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(before)) => before,
        Some(value) => return Err(Failure::config("prevResult", value, "is not an object")),
    };
    for key in ["interfaces", "ips", "routes"] {
        if let Some(value) = before.get(key).filter(|v| !v.is_null() && !v.is_array()) {
            let field = format!("prevResult.{key}");
            return Err(Failure::config(&field, value, "is not a list"));
        }
    }
    Ok(())
}

/// Whether a value asks for nothing.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

fn text<'a>(json: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Failure> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(value) => Err(Failure::config(key, value, "is not a text")),
    }
}

/// How long to wait for what.
struct Timeouts {
    /// For a daemon that is not there, or not ready.
    ready: Duration,
    /// For an order.
    order: Duration,
    /// For an answer to a question.
    question: Duration,
}

impl Timeouts {
    fn usual() -> Self {
        let usual = Deadlines::default();
        Self {
            ready: Duration::from_secs(5),
            order: usual.orders,
            question: usual.questions,
        }
    }

    fn read(json: &Map<String, Value>) -> Result<Self, Failure> {
        let mut timeouts = Self::usual();
        let all = match json.get("timeouts") {
            None | Some(Value::Null) => return Ok(timeouts),
            Some(Value::Object(all)) => all,
            Some(value) => return Err(Failure::config("timeouts", value, "is not an object")),
        };
        for (key, value) in all {
            let field = format!("timeouts.{key}");
            let (timeout, least) = match key.as_str() {
                "ready" => (&mut timeouts.ready, 0.0),
                "order" => (&mut timeouts.order, 0.001),
                "question" => (&mut timeouts.question, 0.001),
                _ => {
                    return Err(Failure::config(
                        &field,
                        value,
                        "there are ready, order and question",
                    ));
                }
            };
            let seconds = value
                .as_f64()
                .filter(|seconds| (least..=LONGEST).contains(seconds));
            let wrong = || Failure::config(&field, value, "is not a number of seconds up to 600");
            *timeout = Duration::from_secs_f64(seconds.ok_or_else(wrong)?);
        }
        Ok(timeouts)
    }
}
