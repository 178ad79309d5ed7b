//! The plugin, executed as a runtime does.

use super::{INTERFACE, Office, address, name_of};
use crate::daemon::locked;
use crate::history::{Answer, Attached, Refused};
use crate::plan::{Act, Ask, Operation, Wrong};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// More than any sum of the plugin's own limits.
const LIMIT: Duration = Duration::from_secs(180);

/// One call.
pub(super) fn call(office: &Office, operation: &Operation) -> Result<Answer> {
    let room = &office.room;
    let path = |slot: usize| room.path(slot).display().to_string();
    let mut config = config(office, operation);
    match &operation.act {
        Act::Attach { key, slot, ask } => {
            put_into(&mut config, *ask);
            let said = run(office, operation, "ADD", *key, &path(*slot), &config)?;
            Ok(match said {
                Said::Yes(result) => {
                    let attached = attached(&result);
                    locked(&office.results).insert(*key, result);
                    Answer::Attached(attached)
                }
                other => other.answer(),
            })
        }
        Act::AttachWrongly { key, wrong } => {
            let netns = match wrong {
                Wrong::NoNamespace => path(999),
                Wrong::NotANamespace => "/proc".to_owned(),
                // To the daemon, this is itself.
                Wrong::Forbidden => "/proc/self/ns/net".to_owned(),
                _ => path(*key),
            };
            spoil(&mut config, *wrong);
            Ok(run(office, operation, "ADD", *key, &netns, &config)?.answer())
        }
        Act::Detach { key, slot } => {
            let netns = slot.map(path).unwrap_or_default();
            Ok(run(office, operation, "DEL", *key, &netns, &config)?.answer())
        }
        Act::PluginCheck { key } => {
            let Some(result) = locked(&office.results).get(key).cloned() else {
                return Ok(Answer::Done);
            };
            config["prevResult"] = result;
            Ok(run(office, operation, "CHECK", *key, &path(*key), &config)?.answer())
        }
        Act::Collect { valid } => {
            let valid = valid
                .iter()
                .map(|key| json!({ "containerID": name_of(*key).1, "ifname": INTERFACE }));
            config["cni.dev/valid-attachments"] = valid.collect();
            Ok(run(office, operation, "GC", 0, "", &config)?.answer())
        }
        _ => Ok(run(office, operation, "STATUS", 0, "", &config)?.answer()),
    }
}

fn config(office: &Office, operation: &Operation) -> Value {
    let seconds = |milliseconds: u64| Duration::from_millis(milliseconds).as_secs_f64();
    json!({
        "cniVersion": "1.1.0", "name": "nemesis", "type": "workloadnet-cni",
        "socket": office.room.socket(), "owner": "plugin",
        "timeouts": {
            "ready": seconds(operation.patience), "order": seconds(operation.deadline), "question": seconds(operation.deadline),
        },
    })
}

fn put_into(config: &mut Value, ask: Ask) {
    let mut runtime = json!({});
    if let Some(port) = ask.port {
        runtime["portMappings"] = json!([{ "hostPort": port, "containerPort": 80, "protocol": "tcp" }]);
    }
    if let Some(address) = address(ask) {
        runtime["ips"] = json!([format!("{address}/32")]);
    }
    config["runtimeConfig"] = runtime;
    config["mtu"] = json!(ask.mtu);
}

fn spoil(config: &mut Value, wrong: Wrong) {
    match wrong {
        Wrong::Outside => config["runtimeConfig"] = json!({ "ips": ["172.16.0.1/32"] }),
        Wrong::Bytes => config["runtimeConfig"] = json!({ "ips": ["10.77.0.1.9/32"] }),
        Wrong::Mtu => config["mtu"] = json!(100),
        Wrong::Port => {
            config["runtimeConfig"] =
                json!({ "portMappings": [{ "hostPort": 70_000, "containerPort": 80, "protocol": "tcp" }] });
        }
        Wrong::Unsupported => config["runtimeConfig"] = json!({ "bandwidth": { "ingressRate": 1000 } }),
        Wrong::Interface | Wrong::NoNamespace | Wrong::NotANamespace | Wrong::Forbidden => {}
    }
}

/// What the plugin said.
enum Said {
    Yes(Value),
    No(Refused),
    Nothing(String),
}

impl Said {
    fn answer(self) -> Answer {
        match self {
            Self::Yes(result) if result["ips"].is_array() => Answer::Attached(attached(&result)),
            Self::Yes(_) => Answer::Done,
            // It could not reach the daemon, or had no answer, or could not leave the deletion.
            Self::No(no) if matches!(&*no.code, "11" | "5") && no.reason.is_empty() => {
                Answer::Unknown(no.message)
            }
            Self::No(no) => Answer::Refused(no),
            Self::Nothing(why) => Answer::Unknown(why),
        }
    }
}

fn run(
    office: &Office,
    operation: &Operation,
    verb: &str,
    key: usize,
    netns: &str,
    config: &Value,
) -> Result<Said> {
    let interface = match operation.act {
        Act::AttachWrongly {
            wrong: Wrong::Interface,
            ..
        } => "a/b",
        _ => INTERFACE,
    };
    let mut command = Command::new(&office.plugin);
    command
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_PATH", "/opt/cni/bin");
    if !matches!(verb, "STATUS" | "GC") {
        command
            .env("CNI_CONTAINERID", name_of(key).1)
            .env("CNI_IFNAME", interface)
            .env("CNI_NETNS", netns);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start the plugin")?;
    // Who fails before it reads leaves a broken pipe.
    drop(
        child
            .stdin
            .take()
            .context("its input")?
            .write_all(config.to_string().as_bytes()),
    );
    if let Some(after) = operation.hangs_up
        && !stage::wait::within(Duration::from_micros(after), || has_ended(&mut child))
    {
        child.kill()?;
        child.wait()?;
        return Ok(Said::Nothing("the plugin was killed".to_owned()));
    }
    // Its answer fits into a pipe.
    if !stage::wait::within(LIMIT, || has_ended(&mut child)) {
        child.kill()?;
        child.wait()?;
        anyhow::bail!("the plugin hangs");
    }
    let status = child.wait()?;
    let mut text = String::new();
    child
        .stdout
        .take()
        .context("its output")?
        .read_to_string(&mut text)?;
    if status.success() {
        let result = match text.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).with_context(|| format!("the plugin's answer {text:?}"))?,
        };
        return Ok(Said::Yes(result));
    }
    let error: Value =
        serde_json::from_str(&text).with_context(|| format!("the plugin's error {text:?}, {status}"))?;
    let details = error["details"].as_str().unwrap_or_default();
    Ok(Said::No(Refused {
        code: error["code"].to_string(),
        reason: details.split(' ').next().unwrap_or_default().to_owned(),
        message: error["msg"].as_str().unwrap_or_default().to_owned(),
    }))
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().is_ok_and(|status| status.is_some())
}

fn attached(result: &Value) -> Attached {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let none = Vec::new();
    let list = |name: &str| result[name].as_array().unwrap_or(&none);
    let addresses = list("ips")
        .iter()
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
    let inside = list("interfaces").iter().find(|one| one["sandbox"].is_string());
    let host = list("interfaces").iter().find(|one| !one["sandbox"].is_string());
    Attached {
        addresses: addresses.collect(),
        link: host.map(|one| text(&one["name"])).unwrap_or_default(),
        mac: inside
            .map(|one| text(&one["mac"]))
            .unwrap_or_default()
            .to_lowercase(),
        inode: None,
        is_leaving: false,
    }
}
