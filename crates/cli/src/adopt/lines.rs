//! What became of pods, as it is shown.

use crate::answer::Answer;
use crate::hint::Exit;
use crate::output::Output;
use client::inspection::Adoption;
use client::inspection::adoption::State;
use migrate::{Fate, Pod};
use serde_json::{Value, json};

/// Why nothing is known of a pod but its reservation.
pub(super) const UNCACHED: &str = "no result is cached for it";

/// What became of a pod.
pub(super) struct Told<'a> {
    pub(super) pod: &'a Pod,
    pub(super) state: &'static str,
    pub(super) reasons: Vec<String>,
}

pub(super) fn state(adoption: &Adoption) -> &'static str {
    match adoption.state() {
        State::Possible => "possible",
        State::Taken => "taken",
        State::Undone => "undone",
        State::Committed => "committed",
        State::Refused | State::Unspecified => "refused",
    }
}

/// One line of an answer.
pub(super) struct Line {
    pub(super) state: &'static str,
    network: String,
    container: String,
    if_name: String,
    addresses: Vec<String>,
    reasons: Vec<String>,
}

impl<'a> Told<'a> {
    /// What the files alone say.
    pub(super) fn of_files(pod: &'a Pod) -> Option<Self> {
        let (state, reasons) = match &pod.fate {
            Fate::Open => return None,
            Fate::Refused(reasons) => ("refused", reasons.clone()),
            Fate::Gone => ("stale", vec!["its namespace is gone".to_owned()]),
            Fate::Uncached => ("stale", vec![UNCACHED.to_owned()]),
        };
        Some(Self { pod, state, reasons })
    }

    /// As it is shown.
    pub(super) fn line(&self) -> Line {
        let Pod {
            network,
            container,
            if_name,
            addresses,
            ..
        } = self.pod;
        Line {
            state: self.state,
            network: network.clone(),
            container: container.clone(),
            if_name: if_name.clone(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            reasons: self.reasons.clone(),
        }
    }
}

pub(super) fn by_key(answer: &[Adoption]) -> Vec<Line> {
    let line = |adoption: &Adoption| {
        let key = adoption.key.clone().unwrap_or_default();
        Line {
            state: state(adoption),
            network: String::new(),
            container: key.workload_id,
            if_name: key.if_name,
            addresses: Vec::new(),
            reasons: adoption.reason.clone(),
        }
    };
    answer.iter().map(line).collect()
}

pub(super) fn render(lines: &[Line], rest: &[String], output: Output) -> Answer {
    let exit = match lines.iter().any(|line| line.state == "refused") {
        true => Exit::Refused,
        false => Exit::Done,
    };
    let text = match output {
        Output::Json => {
            let pods: Vec<Value> = lines
                .iter()
                .map(|line| {
                    json!({"state": line.state, "network": line.network, "container": line.container,
                        "if_name": line.if_name, "ip": line.addresses, "reasons": line.reasons})
                })
                .collect();
            format!("{}\n", json!({"pods": pods, "notes": rest}))
        }
        Output::Table if lines.is_empty() && rest.is_empty() => "no pods\n".to_owned(),
        Output::Table => {
            let mut text = String::new();
            for line in lines {
                let (of, ips) = (
                    format!("{}/{}", line.container, line.if_name),
                    line.addresses.join(","),
                );
                text.push_str(format!("{:<10} {of} {ips}", line.state).trim_end());
                text.push('\n');
                for reason in &line.reasons {
                    text.push_str(&format!("           {reason}\n"));
                }
            }
            for note in rest {
                text.push_str(note);
                text.push('\n');
            }
            text
        }
    };
    Answer { text, exit }
}
