//! A runtime's call: environment and configuration as values. Each verb is asked for no more than it needs: a deletion must
//! not fail because of what only an addition reads.

use crate::config::Config;
use crate::failure::Failure;
use crate::text::{is_interface, is_name};
use crate::verb::Verb;
use crate::version;
use serde_json::{Map, Value};

/// An attachment as the runtime names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) container: String,
    pub(crate) if_name: String,
    /// Empty where a deletion names none.
    pub(crate) netns: String,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    /// Empty for verbs that concern none.
    pub(crate) attachment: Attachment,
    /// `CNI_ARGS`, unread.
    pub(crate) args: String,
    pub(crate) config: Config,
}

impl Call {
    /// Reads the environment and what came on stdin.
    pub(crate) fn read(input: &[u8]) -> Result<Self, Failure> {
        Self::new(
            |name| std::env::var_os(name).map(|value| value.into_string()),
            input,
        )
    }

    /// From whatever there is instead of the environment.
    pub(crate) fn new(
        variable: impl Fn(&str) -> Option<Result<String, std::ffi::OsString>>,
        input: &[u8],
    ) -> Result<Self, Failure> {
        let get = |name: &str| match variable(name) {
            None => Ok(String::new()),
            Some(Ok(value)) => Ok(value),
            Some(Err(value)) => Err(Failure::environment(format!("{name} {value:?}: is not UTF-8"))),
        };
        let verb = match get("CNI_COMMAND")?.as_str() {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "STATUS" => Verb::Status,
            "GC" => Verb::Gc,
            "VERSION" => Verb::Version,
            other => {
                return Err(Failure::environment(format!(
                    "CNI_COMMAND {other:?}: there is none of that name"
                )));
            }
        };
        if verb == Verb::Version {
            return Ok(Self {
                verb,
                attachment: Attachment::default(),
                args: String::new(),
                config: Config {
                    version: version::of_input(input),
                    ..Config::default()
                },
            });
        }
        let attachment = match verb {
            Verb::Add | Verb::Del | Verb::Check => attachment(verb, get)?,
            _ => Attachment::default(),
        };
        // A deletion reads none, whatever they are.
        let args = if verb == Verb::Add {
            get("CNI_ARGS")?
        } else {
            String::new()
        };
        let json: Map<String, Value> = serde_json::from_slice(input).map_err(|error| {
            Failure::decode(format!("the configuration on stdin is no JSON object: {error}"))
        })?;
        Ok(Self {
            verb,
            attachment,
            args,
            config: Config::read(json, verb)?,
        })
    }
}

fn attachment(verb: Verb, get: impl Fn(&str) -> Result<String, Failure>) -> Result<Attachment, Failure> {
    let attachment = Attachment {
        container: get("CNI_CONTAINERID")?,
        if_name: get("CNI_IFNAME")?,
        netns: get("CNI_NETNS")?,
    };
    let Attachment {
        container,
        if_name,
        netns,
    } = &attachment;
    let needed = [
        ("CNI_CONTAINERID", container, true),
        ("CNI_IFNAME", if_name, true),
        ("CNI_NETNS", netns, verb != Verb::Del),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(_, value, is_needed)| *is_needed && value.is_empty())
        .map(|(name, ..)| *name)
        .collect();
    if !missing.is_empty() {
        return Err(Failure::environment(format!(
            "{}: missing or empty",
            missing.join(", ")
        )));
    }
    if !is_name(container) {
        return Err(Failure::environment(format!(
            "CNI_CONTAINERID {container:?}: is not a container's id"
        )));
    }
    if !is_interface(if_name) {
        return Err(Failure::environment(format!(
            "CNI_IFNAME {if_name:?}: is not an interface's name"
        )));
    }
    if verb != Verb::Del && !netns.starts_with('/') {
        return Err(Failure::environment(format!(
            "CNI_NETNS {netns:?}: is not an absolute path"
        )));
    }
    Ok(attachment)
}
