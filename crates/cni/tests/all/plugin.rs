//! One call of the plugin, with nothing in its environment but what the call has.

use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) succeeded: bool,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The result of a call that succeeded.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        assert!(self.succeeded, "{self:?}");
        self.json()
    }

    /// That it succeeded and had nothing to say.
    #[track_caller]
    pub(crate) fn is_silent(&self) {
        assert!(self.succeeded && self.text.is_empty(), "{self:?}");
    }

    /// Code and message of a call that failed.
    #[track_caller]
    pub(crate) fn failure(&self) -> (u64, String) {
        assert!(!self.succeeded, "{self:?}");
        let json = self.json();
        assert!(json["cniVersion"].is_string(), "{json}");
        (
            json["code"].as_u64().unwrap(),
            json["msg"].as_str().unwrap().to_owned(),
        )
    }
}

/// Runs the plugin.
pub(crate) fn run<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>, input: &[u8]) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_workloadnet-cni"))
        .env_clear()
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    // Who fails before it reads leaves a broken pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Answer {
        succeeded: output.status.success(),
        text: String::from_utf8(output.stdout).unwrap(),
    }
}

/// A network as its author configured it.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) config: Value,
}

impl Network {
    pub(crate) fn on(socket: &Path) -> Self {
        let config = json!({
            "cniVersion": "1.1.0", "name": "tests", "type": "workloadnet-cni", "socket": socket,
            "timeouts": { "ready": 0.2 },
        });
        Self { config }
    }

    pub(crate) fn with(&self, key: &str, value: Value) -> Self {
        let mut other = self.clone();
        other.config[key] = value;
        other
    }

    /// A call that concerns a container's eth0.
    pub(crate) fn call(&self, verb: &str, container: &str, netns: &str) -> Answer {
        self.call_with_args(verb, container, netns, "")
    }

    pub(crate) fn call_with_args(&self, verb: &str, container: &str, netns: &str, args: &str) -> Answer {
        let variables = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", container),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", netns),
            ("CNI_ARGS", args),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        run(variables, self.config.to_string().as_bytes())
    }

    /// A call that concerns no container.
    pub(crate) fn ask(&self, verb: &str) -> Answer {
        run([("CNI_COMMAND", verb)], self.config.to_string().as_bytes())
    }
}
