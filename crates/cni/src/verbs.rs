//! What each verb asks the daemon, and what its answers mean.

use crate::args::address;
use crate::asked;
use crate::call::{Attachment, Call};
use crate::failure::{Failure, own};
use crate::result::result;
use crate::verb::Verb;
use crate::version::{self, Version};
use client::inspection::{self, Key};
use client::network::Network;
use client::{Code, Error};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

/// What is to be printed, if anything.
pub(crate) fn carry_out(call: &Call, began: Instant) -> Result<Option<Value>, Failure> {
    if call.verb == Verb::Version {
        return Ok(Some(versions(call)));
    }
    let config = &call.config;
    let network = Network::new(&config.socket, config.owner.as_str())
        .map_err(|error| Failure::of(&error))?
        .with_deadlines(config.deadlines)
        .with_patience(config.patience);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io(format!("no event loop: {error}")))?;
    runtime.block_on(async {
        match (call.verb, config.version) {
            (Verb::Add, Some(version)) => add(call, version, &network).await.map(Some),
            (Verb::Del, _) => del(&call.attachment, &network).await.map(|()| None),
            (Verb::Check, _) => check(call, &network).await.map(|()| None),
            (Verb::Status, _) => status(&network).await.map(|()| None),
            (Verb::Gc, _) => gc(call, &network, began).await.map(|()| None),
            (Verb::Add, None) | (Verb::Version, _) => Ok(None),
        }
    })
}

/// The answer to VERSION.
pub(crate) fn versions(call: &Call) -> Value {
    json!({
        "cniVersion": version::of_answer(call.config.version), "supportedVersions": version::SUPPORTED,
    })
}

async fn add(call: &Call, version: Version, network: &Network) -> Result<Value, Failure> {
    let options = asked::options(call)?;
    let Attachment {
        container,
        if_name,
        netns,
    } = &call.attachment;
    let attached = network.setup(container, if_name, netns, &options).await;
    let attached = attached.map_err(|error| Failure::of(&error))?;
    Ok(result(call, version, &attached))
}

async fn del(attachment: &Attachment, network: &Network) -> Result<(), Failure> {
    let Attachment {
        container,
        if_name,
        netns,
    } = attachment;
    // No ADD succeeds with a path that is not absolute: this is about nothing that is attached.
    if !netns.is_empty() && !netns.starts_with('/') {
        return Ok(());
    }
    match network.remove(container, if_name, netns).await {
        Ok(_) => Ok(()),
        // Under what is no key nothing can be attached, and a deletion that fails is repeated for ever.
        Err(Error::Refused(refused)) if refused.code == Code::InvalidArgument => Ok(()),
        Err(error) => Err(Failure::of(&error)),
    }
}

async fn check(call: &Call, network: &Network) -> Result<(), Failure> {
    let Attachment {
        container,
        if_name,
        netns,
    } = &call.attachment;
    let before = checked_result(call)?;
    let key = Key {
        owner: call.config.owner.clone(),
        workload_id: container.clone(),
        if_name: if_name.clone(),
    };
    let found = network.client().get(key).await;
    let found = found.map_err(|error| Failure::of(&error))?.unwrap_or_default();
    let mut wrong = differences(&found, before, &call.attachment);
    match std::fs::metadata(netns) {
        Ok(at) if (at.dev(), at.ino()) == (found.namespace_device, found.namespace_inode) => {}
        Ok(_) => wrong.push(format!("{netns} is not the namespace that is attached")),
        Err(error) => wrong.push(format!("{netns}: {error}")),
    }
    let findings = network.check(container, if_name).await;
    let findings = findings.map_err(|error| Failure::of(&error))?;
    wrong.extend(findings.into_iter().map(|finding| finding.text));
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(own::DIFFERS, wrong.join("; "))),
    }
}

/// The result that is to be checked.
pub(crate) fn checked_result(call: &Call) -> Result<&Map<String, Value>, Failure> {
    let missing = || Failure::config("prevResult", &Value::Null, "CHECK needs the result of ADD");
    call.config.prev_result().ok_or_else(missing)
}

/// What a result says otherwise than the daemon. Other plugins' interfaces and addresses are theirs.
pub(crate) fn differences(
    found: &inspection::Attachment,
    before: &Map<String, Value>,
    attachment: &Attachment,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let list = |key: &str| {
        before
            .get(key)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice)
    };
    let text = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let interfaces = list("interfaces");
    let is_inside = |one: &Value| text(one, "name") == attachment.if_name && !text(one, "sandbox").is_empty();
    let inside = interfaces.iter().position(is_inside);
    match inside.and_then(|at| interfaces.get(at)) {
        None => wrong.push(format!("prevResult has no interface {}", attachment.if_name)),
        Some(own) => {
            let (mac, sandbox) = (text(own, "mac"), text(own, "sandbox"));
            if !mac.is_empty() && !mac.eq_ignore_ascii_case(&found.workload_mac) {
                wrong.push(format!(
                    "{} has MAC {} and not {mac}",
                    attachment.if_name, found.workload_mac
                ));
            }
            if sandbox != attachment.netns {
                wrong.push(format!(
                    "prevResult is of {sandbox} and not of {}",
                    attachment.netns
                ));
            }
        }
    }
    if !interfaces.iter().any(|one| text(one, "name") == found.host_link) {
        wrong.push(format!("prevResult has no interface {}", found.host_link));
    }
    let held: Vec<IpAddr> = found.ip.iter().filter_map(|ip| ip.parse().ok()).collect();
    let claims = list("ips").iter().filter(|ip| {
        let at = ip.get("interface").and_then(Value::as_u64);
        at.is_none_or(|at| inside.is_some_and(|inside| inside as u64 == at))
    });
    let claimed: Vec<String> = claims.map(|ip| text(ip, "address")).collect();
    let claimed_addresses: Vec<IpAddr> = claimed.iter().filter_map(|text| address(text)).collect();
    for text in &claimed {
        if address(text).is_none_or(|address| !held.contains(&address)) {
            wrong.push(format!("{text} is not {}'s", attachment.if_name));
        }
    }
    for address in held.iter().filter(|address| !claimed_addresses.contains(address)) {
        wrong.push(format!("prevResult lacks {address}"));
    }
    wrong
}

async fn status(network: &Network) -> Result<(), Failure> {
    let Err(error) = network.status().await else {
        return Ok(());
    };
    let failure = Failure::of_status(&error);
    // What stands has all that it needs unless the daemon, which reads the kernel for this, says otherwise.
    if matches!(&error, Error::Refused(refused) if refused.reason == "NOT_READY")
        && let Ok(findings) = network.client().check(None).await
        && let Some(finding) = findings.first()
    {
        let msg = format!("{}; {}", failure.msg, finding.text);
        return Err(Failure::limited(msg));
    }
    Err(failure)
}

async fn gc(call: &Call, network: &Network, began: Instant) -> Result<(), Failure> {
    let valid = call.config.valid_attachments()?;
    let collected = network.collect_garbage(valid, began).await;
    let collected = collected.map_err(|error| Failure::of(&error))?;
    if collected.failed.is_empty() {
        return Ok(());
    }
    let left: Vec<String> = collected
        .failed
        .into_iter()
        .map(|finding| {
            let key = finding.key.unwrap_or_default();
            format!("{} {}: {}", key.workload_id, key.if_name, finding.text)
        })
        .collect();
    Err(Failure::new(own::LEFT, left.join("; ")))
}
