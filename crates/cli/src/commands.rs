//! What each command asks the daemon, and what the answers mean for the exit code.

use crate::answer::{Answer, Failure};
use crate::args::{Command, IF_NAME, KeyArgs, KeyRest};
use crate::hint::Exit;
use crate::output::Output;
use crate::render;
use client::network::octets;
use client::{Client, Error, inspection, workload};
use std::path::Path;

/// Asks the daemon on a socket.
pub(crate) async fn answer(socket: &Path, command: &Command, output: Output) -> Result<Answer, Failure> {
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_path_buf());
    let client = Client::new(socket)?;
    let text = match command {
        Command::Status => return Ok(status(&client, output).await?),
        Command::Node => render::node(&client.node().await?, output),
        Command::List { owner } => {
            let all = client.list(owner.clone()).await?;
            render::list(&all, owner.as_deref(), output)
        }
        Command::Get(of) => {
            let found = client.get(key(&of.workload_id, &of.rest)).await?;
            render::attachment(&found.unwrap_or_default(), output)
        }
        Command::Check {
            workload_id,
            owner,
            if_name,
        } => {
            let of = workload_id.as_ref().map(|id| inspection::Key {
                owner: owner.clone().unwrap_or_default(),
                workload_id: id.clone(),
                if_name: if_name.as_deref().unwrap_or(IF_NAME).to_owned(),
            });
            let findings = client.check(of).await?;
            let exit = match findings.is_empty() {
                true => Exit::Done,
                false => Exit::Refused,
            };
            let text = render::check(&findings, output);
            return Ok(Answer { text, exit });
        }
        Command::Attach {
            key,
            netns,
            mtu,
            ips,
            mac,
            ports,
            labels,
        } => {
            let request = workload::AttachRequest {
                workload_id: key.workload_id.clone(),
                netns: Some(interface(netns, key)),
                owner: key.rest.owner.clone(),
                mtu: mtu.map(u32::from).unwrap_or_default(),
                labels: labels.iter().cloned().collect(),
                requested_ip: ips.iter().map(octets).collect(),
                requested_mac: mac.map(Vec::from).unwrap_or_default(),
                port_mapping: ports.clone(),
                ..workload::AttachRequest::default()
            };
            render::attached(&client.attach(request).await?, output)
        }
        Command::Detach { key, netns } => {
            let request = workload::DetachRequest {
                workload_id: key.workload_id.clone(),
                netns: Some(interface(netns.as_deref().unwrap_or_default(), key)),
                owner: key.rest.owner.clone(),
            };
            client.detach(request).await?;
            render::detached(&key.workload_id, netns.as_deref(), output)
        }
        Command::Adopt(what) => return crate::adopt::adopt(&client, what, output).await,
        Command::SetPrefixes { prefixes } => {
            let generation = client.set_prefixes(prefixes.clone()).await?;
            render::generation(generation, output)
        }
        // Those that ask nobody never come here.
        Command::Demo
        | Command::InstallCni(_)
        | Command::UninstallCni(_)
        | Command::Completions { .. }
        | Command::Man { .. } => String::new(),
    };
    Ok(Answer {
        text,
        exit: Exit::Done,
    })
}

/// Status says yes or no; where it says no, the node's conditions say why, one by one.
async fn status(client: &Client, output: Output) -> Result<Answer, Error> {
    let unready = match client.status().await {
        Ok(()) => Vec::new(),
        Err(Error::Refused(refused)) if refused.reason == "NOT_READY" => match client.node().await {
            Ok(node) if !node.unready.is_empty() => node.unready,
            // It has become ready meanwhile, or says no more.
            _ => vec![refused.message],
        },
        Err(error) => return Err(error),
    };
    let exit = match unready.is_empty() {
        true => Exit::Done,
        false => Exit::NotReady,
    };
    let text = render::status(&unready, output);
    Ok(Answer { text, exit })
}

fn key(workload_id: &str, rest: &KeyRest) -> inspection::Key {
    inspection::Key {
        owner: rest.owner.clone(),
        workload_id: workload_id.to_owned(),
        if_name: rest.if_name.clone(),
    }
}

fn interface(netns: &str, key: &KeyArgs) -> workload::NetNsAttachment {
    workload::NetNsAttachment {
        netns_path: netns.to_owned(),
        if_name: key.rest.if_name.clone(),
    }
}
