//! `adopt`: running pods of ptp and host-local become the daemon's. `migrate` reads the files, the links are the
//! daemon's.

mod lines;
mod rules;

use crate::answer::{Answer, Failure};
use crate::hint::Exit;
use crate::output::Output;
use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use client::inspection::adopt_request::Step;
use client::inspection::adoption::State;
use client::inspection::attachment::Origin;
use client::inspection::{AdoptRequest, Adoption, Attachment, Candidate, Key, MasqueradeRule};
use client::{Client, Code, Error};
use lines::{Line, Told, render};
use migrate::{Fate, Old, Pod};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The owner of what is taken over, unless another one is named.
const OWNER: &str = "workloadnet";

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
    /// unless it says otherwise [default: workloadnet; with --undo and --commit: every owner]
    #[arg(long)]
    owner: Option<String>,
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

/// Does what was asked for.
pub(crate) async fn adopt(client: &Client, adopt: &Adopt, output: Output) -> Result<Answer, Failure> {
    let From::HostLocal = adopt.from;
    if adopt.clean && !adopt.results_dir.is_dir() {
        let folder = adopt.results_dir.display();
        return Err(Failure::Own(anyhow!(
            "there is no folder {folder}: without cached results nothing tells which containers are dead"
        )));
    }
    // What is given back goes by the files only where a network is named.
    let old = match adopt.undo && adopt.networks.is_empty() {
        true => Ok(Old::default()),
        false => migrate::read(&adopt.data_dir, &adopt.results_dir, &adopt.networks),
    };
    let old = old.map_err(Failure::Own)?;
    Ok(match (adopt.undo, adopt.commit) {
        (true, _) => undo(client, adopt, &old, output).await?,
        (_, true) => commit(client, adopt, &old, output).await?,
        _ => take(client, adopt, &old, output).await?,
    })
}

async fn take(client: &Client, adopt: &Adopt, old: &Old, output: Output) -> Result<Answer, Error> {
    let open: Vec<&Pod> = old.pods.iter().filter(|pod| pod.fate == Fate::Open).collect();
    let all_open =
        old.unreadable.is_empty() && old.pods.iter().all(|pod| !matches!(pod.fate, Fate::Refused(_)));
    // All or nothing, unless it is said otherwise: a node with two plugins gives out addresses twice.
    let step = match adopt.take && (adopt.partial || all_open) {
        true => Step::Take,
        false => Step::Check,
    };
    let owner = adopt.owner.as_deref().unwrap_or(OWNER);
    let mut told: Vec<Told<'_>> = Vec::new();
    for (pod, adoption) in each(client, step, open, owner, adopt.partial).await? {
        told.push(Told {
            pod,
            state: lines::state(&adoption),
            reasons: adoption.reason,
        });
    }
    told.extend(old.pods.iter().filter_map(Told::of_files));
    let mut notes = unreadable(old);
    if told.iter().any(|told| told.state == "refused") && adopt.take && !adopt.partial {
        notes.push("nothing was taken over: see --partial".to_owned());
    }
    let lines: Vec<Line> = told.iter().map(Told::line).collect();
    Ok(render(&lines, &notes, output))
}

/// What becomes of each pod. One that the daemon does not even read keeps none of the others from being told of, only from
/// being taken over.
async fn each<'a>(
    client: &Client,
    step: Step,
    pods: Vec<&'a Pod>,
    owner: &str,
    partial: bool,
) -> Result<Vec<(&'a Pod, Adoption)>, Error> {
    let all = pods.iter().map(|pod| candidate(pod, owner)).collect();
    let error = match pods.is_empty() {
        true => return Ok(Vec::new()),
        false => match ask(client, step, all, Vec::new(), partial).await {
            Ok(adoptions) => return Ok(pods.into_iter().zip(adoptions).collect()),
            Err(error) => error,
        },
    };
    if invalid(&error).is_none() {
        return Err(error);
    }
    let (mut good, mut odd) = (Vec::new(), Vec::new());
    for pod in pods {
        let alone = vec![candidate(pod, owner)];
        match ask(client, Step::Check, alone, Vec::new(), false).await {
            Ok(_) => good.push(pod),
            Err(error) => match invalid(&error) {
                Some(why) => {
                    let state = State::Refused.into();
                    let reason = vec![why];
                    odd.push((
                        pod,
                        Adoption {
                            key: None,
                            state,
                            reason,
                        },
                    ));
                }
                None => return Err(error),
            },
        }
    }
    let step = if partial { step } else { Step::Check };
    let candidates: Vec<Candidate> = good.iter().map(|pod| candidate(pod, owner)).collect();
    let told = match (odd.is_empty(), good.is_empty()) {
        (true, _) => return Err(error),
        (_, true) => Vec::new(),
        _ => ask(client, step, candidates, Vec::new(), partial).await?,
    };
    Ok(good.into_iter().zip(told).chain(odd).collect())
}

/// What is wrong with a request, in words.
fn invalid(error: &Error) -> Option<String> {
    match error {
        Error::Refused(refused) if refused.code == Code::InvalidArgument => Some(refused.message.clone()),
        _ => None,
    }
}

fn unreadable(old: &Old) -> Vec<String> {
    let text = |(path, why): &(PathBuf, String)| format!("{}: {why}", path.display());
    old.unreadable.iter().map(text).collect()
}

async fn undo(client: &Client, adopt: &Adopt, old: &Old, output: Output) -> Result<Answer, Error> {
    let chosen = chosen(client, adopt, old, Origin::Taken).await?;
    if chosen.is_empty() {
        return Ok(render(&[], &["nothing to undo".to_owned()], output));
    }
    let notes: Vec<String> = owners(adopt, &chosen).into_iter().collect();
    let answer = ask(client, Step::Undo, Vec::new(), keys(chosen), false).await?;
    Ok(render(&lines::by_key(&answer), &notes, output))
}

/// The files of what the daemon keeps for good go, whether it has been committed now or by a call that was cut short.
async fn commit(client: &Client, adopt: &Adopt, old: &Old, output: Output) -> Result<Answer, Error> {
    let uncommitted = chosen(client, adopt, old, Origin::Taken).await?;
    let mut notes: Vec<String> = owners(adopt, &uncommitted).into_iter().collect();
    let answer = match uncommitted.is_empty() {
        true => Vec::new(),
        false => ask(client, Step::Commit, Vec::new(), keys(uncommitted), false).await?,
    };
    let kept = chosen(client, adopt, old, Origin::Committed).await?;
    let mut told: Vec<Told<'_>> = Vec::new();
    for pod in old.pods.iter().chain(&old.unreserved) {
        let (state, why) = match pod.fate {
            _ if kept.iter().any(|attachment| is_of(pod, attachment)) => ("committed", None),
            Fate::Gone if adopt.clean => ("cleaned", None),
            Fate::Uncached if adopt.clean => ("left", Some(lines::UNCACHED.to_owned())),
            _ => continue,
        };
        let reasons = why.into_iter().collect();
        told.push(Told { pod, state, reasons });
    }
    let mut lines: Vec<Line> = told.iter().map(Told::line).collect();
    let by_key = lines::by_key(&answer).into_iter();
    lines.extend(by_key.filter(|line| line.state == "refused"));
    if answer.is_empty() && !told.iter().any(|told| told.state == "committed") {
        notes.push("nothing to commit".to_owned());
    }
    let over = || {
        told.iter()
            .filter(|told| told.state != "left")
            .map(|told| told.pod)
    };
    let found = match over().any(|pod| pod.masquerade.is_some()) {
        true => masquerade_rules(client).await?,
        false => Vec::new(),
    };
    notes.extend(rules::masquerade_rules(over(), &found));
    notes.extend(unreadable(old));
    let faults = over().filter_map(|pod| migrate::remove(&adopt.data_dir, pod).err());
    let faults: Vec<String> = faults.map(|error| format!("{error:#}")).collect();
    let has_failed = !faults.is_empty();
    notes.extend(faults);
    let mut answer = render(&lines, &notes, output);
    if has_failed {
        answer.exit = Exit::Refused;
    }
    Ok(answer)
}

/// What the daemon holds of the owner and the networks that were named.
async fn chosen(client: &Client, adopt: &Adopt, old: &Old, origin: Origin) -> Result<Vec<Attachment>, Error> {
    let mut all = client.list(adopt.owner.clone()).await?;
    all.retain(|attachment| {
        let mut pods = old.pods.iter().chain(&old.unreserved);
        let mut is_named = || pods.any(|pod| is_of(pod, attachment));
        attachment.origin() == origin && (adopt.networks.is_empty() || is_named())
    });
    Ok(all)
}

/// The same container may have an interface of the same name in another network, dead by now, with other addresses.
fn is_of(pod: &Pod, attachment: &Attachment) -> bool {
    let is_key = |key: &Key| key.workload_id == pod.container && key.if_name == pod.if_name;
    let has = |ip: &String| ip.parse().is_ok_and(|ip| pod.addresses.contains(&ip));
    attachment.key.as_ref().is_some_and(is_key) && attachment.ip.iter().any(has)
}

fn keys(attachments: Vec<Attachment>) -> Vec<Key> {
    attachments.into_iter().filter_map(|of| of.key).collect()
}

/// Whose they are, where none was named.
fn owners(adopt: &Adopt, attachments: &[Attachment]) -> Option<String> {
    let all: BTreeSet<&str> = attachments
        .iter()
        .filter_map(|of| Some(of.key.as_ref()?.owner.as_str()))
        .collect();
    let all: Vec<&str> = all.into_iter().collect();
    (adopt.owner.is_none() && !all.is_empty()).then(|| format!("of owner {}", all.join(", ")))
}

/// The old plugins' rules that nftables has now.
async fn masquerade_rules(client: &Client) -> Result<Vec<MasqueradeRule>, Error> {
    let request = AdoptRequest {
        step: Step::Check.into(),
        ..AdoptRequest::default()
    };
    Ok(client.adopt(request).await?.masquerade_rule)
}

async fn ask(
    client: &Client,
    step: Step,
    candidate: Vec<Candidate>,
    key: Vec<Key>,
    partial: bool,
) -> Result<Vec<Adoption>, Error> {
    let request = AdoptRequest {
        step: step.into(),
        candidate,
        key,
        partial: partial && step == Step::Take,
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
