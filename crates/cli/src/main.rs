//! `workloadnet`: asks the daemon, shows the answer, and says what to do where it fails.

mod args;
mod demo;
mod hint;
mod render;

use args::{Cli, Command, KeyArgs, KeyRest};
use clap::{CommandFactory as _, Parser as _};
use client::{Client, Error, inspection, workload};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        // Needs a process with one thread.
        Command::Demo => demo::run().map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "workloadnet", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { folder } => clap_mangen::generate_to(Cli::command(), folder)
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
        _ => ask(&cli),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn ask(cli: &Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(answer(cli)) {
        Ok((text, code)) => {
            // Who reads only the first lines has what they wanted.
            match io::stdout().write_all(text.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(code),
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = hint::of(&error) {
                eprintln!("hint: {hint}");
            }
            Ok(hint::exit_code(&error))
        }
    }
}

/// Text for standard output, and the exit code.
async fn answer(cli: &Cli) -> Result<(String, ExitCode), Error> {
    let client = Client::new(&cli.socket)?;
    let output = cli.output;
    let text = match &cli.command {
        Command::Status => {
            client.status().await?;
            render::status(output)
        }
        Command::Node => render::node(&client.node().await?, output),
        Command::List { owner } => render::list(&client.list(owner.clone()).await?, output),
        Command::Get(of) => {
            let found = client.get(key(&of.workload_id, &of.rest)).await?;
            render::list(found.as_slice(), output)
        }
        Command::Check { workload_id, rest } => {
            let findings = client
                .check(workload_id.as_deref().map(|id| key(id, rest)))
                .await?;
            let code = if findings.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
            return Ok((render::check(&findings, output), code));
        }
        Command::Attach {
            key,
            netns,
            mtu,
            ips,
            labels,
        } => {
            let request = workload::AttachRequest {
                workload_id: key.workload_id.clone(),
                netns: Some(attachment(netns, key)),
                owner: key.rest.owner.clone(),
                mtu: mtu.map(u32::from).unwrap_or_default(),
                labels: labels.iter().cloned().collect(),
                requested_ip: ips.iter().map(octets).collect(),
            };
            render::attached(&client.attach(request).await?, output)
        }
        Command::Detach { key, netns } => {
            let request = workload::DetachRequest {
                workload_id: key.workload_id.clone(),
                netns: Some(attachment(netns.as_deref().unwrap_or_default(), key)),
                owner: key.rest.owner.clone(),
            };
            client.detach(request).await?;
            render::detached(output)
        }
        Command::Demo | Command::Completions { .. } | Command::Man { .. } => String::new(),
    };
    Ok((text, ExitCode::SUCCESS))
}

fn key(workload_id: &str, rest: &KeyRest) -> inspection::Key {
    inspection::Key {
        owner: rest.owner.clone(),
        workload_id: workload_id.to_owned(),
        if_name: rest.if_name.clone(),
    }
}

fn attachment(netns: &str, key: &KeyArgs) -> workload::NetNsAttachment {
    workload::NetNsAttachment {
        netns_path: netns.to_owned(),
        if_name: key.rest.if_name.clone(),
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}
