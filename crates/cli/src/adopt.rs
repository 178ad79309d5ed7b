//! `adopt`: running pods of ptp and host-local become the daemon's. The files are read here, the links are the daemon's.

mod files;

use crate::args::Output;
use crate::commands::Answer;
use crate::hint::Exit;
use anyhow::Result;
use clap::{Args, ValueEnum};
use client::inspection::adopt_request::Step;
use client::inspection::adoption::State;
use client::inspection::{AdoptRequest, Adoption, Candidate, Key, attachment::Origin};
use client::{Client, Error};
use files::{Fate, Pod};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

/// Whose pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// ptp's, with addresses of host-local's.
    HostLocal,
}

/// What is to be taken over.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// Which plugins' pods.
    #[arg(long, value_enum)]
    from: From,
    /// Take them over; without it, they are only looked at.
    #[arg(long, group = "step")]
    take: bool,
    /// Make everything as it was that is taken over and not committed.
    #[arg(long, group = "step")]
    undo: bool,
    /// Keep for good what is taken over, and remove the old plugins' files of it.
    #[arg(long, group = "step")]
    commit: bool,
    /// Take over what can be, though something cannot.
    #[arg(long, requires = "take")]
    partial: bool,
    /// Remove files of dead containers, too.
    #[arg(long, requires = "commit")]
    clean: bool,
    /// The namespace of ids under which the runtime will detach: the owner of the installed network, which is its name
    /// unless it says otherwise.
    #[arg(long, default_value = "workloadnet")]
    owner: String,
    /// Only this network of the old plugins; may be given several times.
    #[arg(long = "network", value_name = "NAME")]
    networks: Vec<String>,
    /// Where host-local keeps its reservations.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/networks")]
    data_dir: PathBuf,
    /// Where libcni keeps results.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/results")]
    results_dir: PathBuf,
}

/// What became of a pod.
struct Told<'a> {
    pod: &'a Pod,
    state: &'static str,
    reasons: Vec<String>,
}

/// Does what was asked for.
pub(crate) async fn adopt(client: &Client, adopt: &Adopt, output: Output) -> Result<Answer, Error> {
    let From::HostLocal = adopt.from;
    if adopt.undo {
        let answer = ask(client, Step::Undo, Vec::new(), false).await?;
        return Ok(render(&told_by_key(&answer), &[], output, "undone"));
    }
    let old = match files::read(&adopt.data_dir, &adopt.results_dir, &adopt.networks) {
        Ok(old) => old,
        Err(error) => return Ok(failed(&error)),
    };
    if adopt.commit {
        return commit(client, adopt, &old, output).await;
    }
    let open = || old.pods.iter().filter(|pod| pod.fate == Fate::Open);
    let candidates: Vec<Candidate> = open().map(|pod| candidate(pod, &adopt.owner)).collect();
    let all_open =
        old.unreadable.is_empty() && old.pods.iter().all(|pod| !matches!(pod.fate, Fate::Refused(_)));
    // All or nothing, unless it is said otherwise: a node with two plugins gives out addresses twice.
    let step = match adopt.take && (adopt.partial || all_open) {
        true => Step::Take,
        false => Step::Check,
    };
    let answer = match candidates.is_empty() {
        true => Vec::new(),
        false => ask(client, step, candidates, adopt.partial).await?,
    };
    let mut told: Vec<Told<'_>> = open()
        .zip(&answer)
        .map(|(pod, adoption)| Told {
            pod,
            state: state(adoption),
            reasons: adoption.reason.clone(),
        })
        .collect();
    told.extend(old.pods.iter().filter_map(of_files));
    let mut rest = unreadable(&old);
    if told.iter().any(|told| told.state == "refused") && adopt.take && !adopt.partial {
        rest.push("nothing was taken over: see --partial".to_owned());
    }
    let lines: Vec<Line> = told.iter().map(Told::line).collect();
    Ok(render(&lines, &rest, output, "pods"))
}

fn of_files(pod: &Pod) -> Option<Told<'_>> {
    let (state, reasons) = match &pod.fate {
        Fate::Open => return None,
        Fate::Refused(reasons) => ("refused", reasons.clone()),
        Fate::Stale(why) => ("stale", vec![(*why).to_owned()]),
    };
    Some(Told { pod, state, reasons })
}

fn unreadable(old: &files::Old) -> Vec<String> {
    let text = |(path, why): &(PathBuf, String)| format!("{}: {why}", path.display());
    old.unreadable.iter().map(text).collect()
}

/// The files of what the daemon keeps for good go, whether it has been committed now or by a call that was cut short.
async fn commit(client: &Client, adopt: &Adopt, old: &files::Old, output: Output) -> Result<Answer, Error> {
    let answer = ask(client, Step::Commit, Vec::new(), false).await?;
    let kept: HashSet<(String, String)> = client
        .list(Some(adopt.owner.clone()))
        .await?
        .into_iter()
        .filter(|attachment| attachment.origin() == Origin::Committed)
        .filter_map(|attachment| attachment.key)
        .map(|key| (key.workload_id, key.if_name))
        .collect();
    let is_kept = |pod: &&Pod| kept.contains(&(pod.container.clone(), pod.if_name.clone()));
    let stale = |pod: &&Pod| adopt.clean && matches!(pod.fate, Fate::Stale(_));
    let mut told: Vec<Told<'_>> = Vec::new();
    for pod in old.pods.iter().filter(|pod| is_kept(pod) || stale(pod)) {
        let state = if is_kept(&pod) { "committed" } else { "cleaned" };
        told.push(Told {
            pod,
            state,
            reasons: Vec::new(),
        });
    }
    let mut rest = Vec::new();
    let masqueraded: Vec<&Pod> = told
        .iter()
        .map(|told| told.pod)
        .filter(|pod| pod.masquerade)
        .collect();
    if !masqueraded.is_empty() {
        rest.push("the old plugin's masquerade rules are the node's: take them away by".to_owned());
        rest.extend(masqueraded.iter().flat_map(|pod| masquerade_commands(pod)));
    }
    let mut lines: Vec<Line> = told.iter().map(Told::line).collect();
    lines.extend(
        told_by_key(&answer)
            .into_iter()
            .filter(|line| line.state == "refused"),
    );
    if let Err(error) = files::remove(&adopt.data_dir, told.iter().map(|told| told.pod)) {
        return Ok(failed(&error));
    }
    Ok(render(&lines, &rest, output, "pods"))
}

async fn ask(
    client: &Client,
    step: Step,
    candidate: Vec<Candidate>,
    partial: bool,
) -> Result<Vec<Adoption>, Error> {
    let request = AdoptRequest {
        step: step.into(),
        candidate,
        partial: partial && step == Step::Take,
        ..AdoptRequest::default()
    };
    Ok(client.adopt(request).await?.adoption)
}

fn candidate(pod: &Pod, owner: &str) -> Candidate {
    Candidate {
        key: Some(Key {
            owner: owner.to_owned(),
            workload_id: pod.container.clone(),
            if_name: pod.if_name.clone(),
        }),
        netns_path: pod.path.clone(),
        ip: pod.addresses.iter().map(ToString::to_string).collect(),
    }
}

fn state(adoption: &Adoption) -> &'static str {
    match adoption.state() {
        State::Possible => "possible",
        State::Taken => "taken",
        State::Undone => "undone",
        State::Committed => "committed",
        State::Refused | State::Unspecified => "refused",
    }
}

/// How ptp names the chain of a pod and marks its rules (`utils.FormatChainName` of the plugins): the program that made
/// them takes them away, whichever of its two kernel interfaces it uses.
fn masquerade_commands(pod: &Pod) -> Vec<String> {
    let digest = Sha512::digest(format!("{}{}", pod.network, pod.container));
    let hex: String = digest.iter().take(12).fold(String::new(), |mut hex, byte| {
        // Never fails on a String.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let chain = format!("CNI-{hex}");
    let comment = format!("name: \"{}\" id: \"{}\"", pod.network, pod.container).replace('\'', "'\\''");
    let mut commands = Vec::new();
    for (program, is_v4) in [("iptables", true), ("ip6tables", false)] {
        let of: Vec<&IpAddr> = pod.addresses.iter().filter(|a| a.is_ipv4() == is_v4).collect();
        for address in &of {
            commands.push(format!(
                "{program} -t nat -D POSTROUTING -s {address} -m comment --comment '{comment}' -j {chain}"
            ));
        }
        if !of.is_empty() {
            commands.push(format!("{program} -t nat -F {chain}"));
            commands.push(format!("{program} -t nat -X {chain}"));
        }
    }
    commands
}

/// One line of an answer.
struct Line {
    state: &'static str,
    network: String,
    container: String,
    if_name: String,
    addresses: Vec<String>,
    reasons: Vec<String>,
}

impl Told<'_> {
    fn line(&self) -> Line {
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

fn told_by_key(answer: &[Adoption]) -> Vec<Line> {
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

fn render(lines: &[Line], rest: &[String], output: Output, what: &str) -> Answer {
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
        Output::Table if lines.is_empty() && rest.is_empty() => format!("no {what}\n"),
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

fn failed(error: &anyhow::Error) -> Answer {
    Answer {
        text: format!("{error:#}\n"),
        exit: Exit::Refused,
    }
}
