//! Answers as text: tables for people, JSON for programs. JSON's names are those of the protos.

use crate::args::Output;
use client::inspection::{Attachment, Finding, GetNodeResponse, Key};
use client::workload::AttachResponse;
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(crate) fn status(output: Output) -> String {
    match output {
        Output::Table => "ready\n".to_owned(),
        Output::Json => pretty(&json!({ "ready": true })),
    }
}

pub(crate) fn detached(output: Output) -> String {
    match output {
        Output::Table => "detached\n".to_owned(),
        Output::Json => pretty(&json!({})),
    }
}

fn key(key: Option<&Key>) -> Value {
    key.map_or(
        Value::Null,
        |k| json!({ "owner": k.owner, "workload_id": k.workload_id, "if_name": k.if_name }),
    )
}

pub(crate) fn list(all: &[Attachment], output: Output) -> String {
    match output {
        Output::Table if all.is_empty() => "nothing is attached\n".to_owned(),
        Output::Table => table(
            &[
                "OWNER",
                "WORKLOAD",
                "LINK INSIDE",
                "ADDRESSES",
                "LINK",
                "MTU",
                "STATE",
                "LABELS",
            ],
            all.iter().map(|a| {
                let of = a.key.clone().unwrap_or_default();
                let mut labels: Vec<String> = a
                    .labels
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                labels.sort();
                vec![
                    of.owner,
                    of.workload_id,
                    of.if_name,
                    a.ip.join(" "),
                    a.host_link.clone(),
                    a.mtu.to_string(),
                    state(a).to_owned(),
                    labels.join(" "),
                ]
            }),
        ),
        Output::Json => {
            let all = all.iter().map(|a| {
                json!({
                    "key": key(a.key.as_ref()), "ip": a.ip, "host_link": a.host_link, "host_index": a.host_index,
                    "host_mac": a.host_mac, "workload_mac": a.workload_mac, "mtu": a.mtu, "gateway": a.gateway,
                    "namespace": { "device": a.namespace_device, "inode": a.namespace_inode },
                    "labels": a.labels, "state": state(a),
                })
            });
            pretty(&json!({ "attachment": all.collect::<Vec<_>>() }))
        }
    }
}

fn state(attachment: &Attachment) -> &'static str {
    use client::inspection::attachment::State;
    match attachment.state() {
        State::Attached => "attached",
        State::Detaching => "detaching",
        State::Unspecified => "unknown",
    }
}

pub(crate) fn check(findings: &[Finding], output: Output) -> String {
    match output {
        Output::Table if findings.is_empty() => "the kernel holds all that it is to hold\n".to_owned(),
        Output::Table => table(
            &["WORKLOAD", "FINDING"],
            findings.iter().map(|f| {
                let of = f
                    .key
                    .as_ref()
                    .map_or("(node)".to_owned(), |k| k.workload_id.clone());
                vec![of, f.text.clone()]
            }),
        ),
        Output::Json => {
            let all = findings
                .iter()
                .map(|f| json!({ "key": key(f.key.as_ref()), "text": f.text }));
            pretty(&json!({ "finding": all.collect::<Vec<_>>() }))
        }
    }
}

fn address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return IpAddr::from(v4).to_string();
    }
    <[u8; 16]>::try_from(bytes)
        .map(|v6| IpAddr::from(v6).to_string())
        .unwrap_or_default()
}

fn mac(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

pub(crate) fn attached(answer: &AttachResponse, output: Output) -> String {
    let list = |all: &[Vec<u8>]| all.iter().map(|bytes| address(bytes)).collect::<Vec<_>>();
    match output {
        Output::Table => {
            let rows = [
                ("addresses", list(&answer.ip).join(" ")),
                ("gateways", list(&answer.gateway).join(" ")),
                ("link on the node", answer.host_link.clone()),
                ("MAC of the workload", mac(&answer.workload_mac)),
                ("MTU", answer.mtu.to_string()),
            ];
            rows.iter().fold(String::new(), |mut text, (name, value)| {
                writeln!(text, "{name:<20} {value}").expect("a string can always be written to");
                text
            })
        }
        Output::Json => {
            let routes = answer.route.iter().map(|r| {
                json!({ "destination": format!("{}/{}", address(&r.destination), r.prefix_length), "gateway": address(&r.gateway) })
            });
            pretty(&json!({
                "ip": list(&answer.ip), "host_link": answer.host_link, "host_mac": mac(&answer.host_mac),
                "workload_mac": mac(&answer.workload_mac), "mtu": answer.mtu, "gateway": list(&answer.gateway),
                "route": routes.collect::<Vec<_>>(),
            }))
        }
    }
}

pub(crate) fn node(node: &GetNodeResponse, output: Output) -> String {
    use client::inspection::prefix::State;
    let state = |p: &client::inspection::Prefix| match p.state() {
        State::Serving => "serving",
        State::Draining => "draining",
        State::Unspecified => "unknown",
    };
    match output {
        Output::Table => {
            let mut text = table(
                &["PREFIX", "STATE", "USED", "FREE", "COOLING", "CAPACITY"],
                node.prefix.iter().map(|p| {
                    let mut row = vec![p.prefix.clone(), state(p).to_owned()];
                    row.extend([p.used, p.free, p.cooling, p.capacity].map(|n| n.to_string()));
                    row
                }),
            );
            let mut line = |name: &str, value: &str| {
                writeln!(text, "{name:<12} {value}").expect("a string can always be written to");
            };
            line("version", &node.version);
            line("attachments", &node.attachments.to_string());
            line("MTU", &format!("{} ({})", node.mtu, node.mtu_source));
            line("features", &node.feature.join(" "));
            node.unready.iter().for_each(|why| line("not ready", why));
            node.warning.iter().for_each(|why| line("warning", why));
            text
        }
        Output::Json => {
            let prefixes = node.prefix.iter().map(|p| {
                json!({ "prefix": p.prefix, "state": state(p), "used": p.used, "free": p.free, "cooling": p.cooling,
                    "capacity": p.capacity })
            });
            pretty(&json!({
                "version": node.version, "feature": node.feature, "prefix": prefixes.collect::<Vec<_>>(),
                "unready": node.unready, "warning": node.warning, "attachments": node.attachments, "mtu": node.mtu,
                "mtu_source": node.mtu_source,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table_for_people_and_json_for_programs() {
        let one = Attachment {
            key: Some(Key {
                owner: "k8s.io".into(),
                workload_id: "web-1".into(),
                if_name: "eth0".into(),
            }),
            ip: vec!["10.77.0.5".into(), "fd77::5".into()],
            host_link: "wk0123456789abc".into(),
            mtu: 1500,
            state: 1,
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..Attachment::default()
        };
        let text = list(std::slice::from_ref(&one), Output::Table);
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words[1],
            [
                "k8s.io",
                "web-1",
                "eth0",
                "10.77.0.5",
                "fd77::5",
                "wk0123456789abc",
                "1500",
                "attached",
                "app=web"
            ]
        );
        let json: Value = serde_json::from_str(&list(&[one], Output::Json)).unwrap();
        assert_eq!(json["attachment"][0]["key"]["workload_id"], "web-1");
        assert_eq!(list(&[], Output::Table), "nothing is attached\n");
    }

    #[test]
    fn a_check_says_what_is_wrong_and_where() {
        let finding = Finding {
            key: None,
            text: "nftables table inet workloadnet is missing".into(),
        };
        assert!(check(&[finding], Output::Table).contains("(node)"));
        assert_eq!(
            check(&[], Output::Table),
            "the kernel holds all that it is to hold\n"
        );
    }
}
