//! For programs: one object, with the protos' names and text forms. Names are added, never changed.

use super::{address, addresses, mac, origin, prefix_state, state};
use client::inspection::{Attachment, Finding, GetNodeResponse, Key};
use client::workload::AttachResponse;
use serde_json::{Value, json};

pub(super) fn status(unready: &[String]) -> String {
    text(&json!({ "ready": unready.is_empty(), "unready": unready }))
}

pub(super) fn list(all: &[Attachment]) -> String {
    let all: Vec<Value> = all.iter().map(attachment_value).collect();
    text(&json!({ "attachment": all }))
}

pub(super) fn attachment(one: &Attachment) -> String {
    text(&json!({ "attachment": attachment_value(one) }))
}

pub(super) fn check(findings: &[Finding]) -> String {
    let all: Vec<Value> = findings
        .iter()
        .map(|finding| json!({ "key": key(finding.key.as_ref()), "text": finding.text }))
        .collect();
    text(&json!({ "finding": all }))
}

pub(super) fn attached(answer: &AttachResponse) -> String {
    let routes = answer.route.iter().map(|route| {
        json!({
            "destination": format!("{}/{}", address(&route.destination), route.prefix_length),
            "gateway": address(&route.gateway),
        })
    });
    let namespace = answer
        .namespace
        .map(|namespace| json!({ "device": namespace.device, "inode": namespace.inode }));
    text(&json!({
        "ip": addresses(&answer.ip),
        "host_link": answer.host_link,
        "host_mac": mac(&answer.host_mac),
        "workload_mac": mac(&answer.workload_mac),
        "mtu": answer.mtu,
        "gateway": addresses(&answer.gateway),
        "route": routes.collect::<Vec<_>>(),
        "namespace": namespace,
    }))
}

pub(super) fn node(node: &GetNodeResponse) -> String {
    let prefixes = node.prefix.iter().map(|prefix| {
        json!({
            "prefix": prefix.prefix,
            "state": prefix_state(prefix),
            "used": prefix.used,
            "free": prefix.free,
            "cooling": prefix.cooling,
            "capacity": prefix.capacity,
            "generation": prefix.generation,
        })
    });
    let limits = node.limits.map(|limits| {
        json!({
            "max_queued": limits.max_queued,
            "workload_id_bytes": limits.workload_id_bytes,
            "owner_bytes": limits.owner_bytes,
            "identity_bytes": limits.identity_bytes,
            "labels": limits.labels,
        })
    });
    let routes = node.peer_route.iter().map(|route| {
        json!({
            "peer": route.peer,
            "family": route.family,
            "way": route.way,
            "via": route.via,
            "device": route.device,
            "fault": route.fault,
        })
    });
    text(&json!({
        "routes": node.routes,
        "peer_route": routes.collect::<Vec<_>>(),
        "version": node.version,
        "feature": node.feature,
        "prefix": prefixes.collect::<Vec<_>>(),
        "unready": node.unready,
        "warning": node.warning,
        "source": node.source.as_ref().map(|source| json!({
            "kind": source.kind,
            "generation": source.generation,
            "trouble": source.trouble,
        })),
        "limits": limits,
        "attachments": node.attachments,
        "mtu": node.mtu,
        "mtu_source": node.mtu_source,
    }))
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

fn key(key: Option<&Key>) -> Value {
    key.map_or(
        Value::Null,
        |key| json!({ "owner": key.owner, "workload_id": key.workload_id, "if_name": key.if_name }),
    )
}

fn attachment_value(one: &Attachment) -> Value {
    json!({
        "key": key(one.key.as_ref()),
        "ip": one.ip,
        "host_link": one.host_link,
        "host_index": one.host_index,
        "host_mac": one.host_mac,
        "workload_mac": one.workload_mac,
        "mtu": one.mtu,
        "gateway": one.gateway,
        "namespace": { "device": one.namespace_device, "inode": one.namespace_inode },
        "labels": one.labels,
        "state": state(one),
        "origin": origin(one),
        "host_port": one.host_port.iter().map(|port| json!({
            "protocol": port.protocol,
            "port": port.port,
            "address": port.address,
            "workload_port": port.workload_port,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    /// Compares with text that has everything: a name that is missing, changed or new is seen.
    fn assert_shows(text: &str, expected: &str) {
        let text: Value = serde_json::from_str(text).unwrap();
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(text, expected);
    }

    const WEB: &str = r#"{
        "key": { "owner": "k8s.io", "workload_id": "web-1", "if_name": "eth0" },
        "ip": ["10.77.0.5", "fd77:77:77::5"],
        "host_link": "wk0123456789abc",
        "host_index": 7,
        "host_mac": "02:9c:52:fe:6d:0a",
        "workload_mac": "02:00:00:00:00:05",
        "mtu": 1500,
        "gateway": ["169.254.77.1", "fe80::1"],
        "namespace": { "device": 4, "inode": 4026532281 },
        "labels": { "app": "web", "tier": "front" },
        "state": "attached",
        "origin": "own",
        "host_port": [
            { "protocol": "tcp", "port": 8080, "address": "", "workload_port": 80 },
            { "protocol": "udp", "port": 53, "address": "fd00::1", "workload_port": 53 }
        ]
    }"#;

    #[test]
    fn attachments_keep_their_names() {
        let all = example::attachments();
        assert_shows(&attachment(&all[1]), &format!(r#"{{ "attachment": {WEB} }}"#));
        assert_shows(&list(&all[1..]), &format!(r#"{{ "attachment": [{WEB}] }}"#));
        assert_shows(&list(&[]), r#"{ "attachment": [] }"#);
    }

    #[test]
    fn findings_keep_their_names() {
        assert_shows(
            &check(&example::findings()),
            r#"{ "finding": [
                { "key": null, "text": "table inet workloadnet is missing" },
                { "key": { "owner": "k8s.io", "workload_id": "web-1", "if_name": "eth0" },
                  "text": "host route 10.77.0.5/32 is missing" }
            ] }"#,
        );
    }

    #[test]
    fn a_status_keeps_its_names() {
        assert_shows(&status(&[]), r#"{ "ready": true, "unready": [] }"#);
        assert_shows(
            &status(&["no prefix is set".to_owned()]),
            r#"{ "ready": false, "unready": ["no prefix is set"] }"#,
        );
    }

    #[test]
    fn an_attach_keeps_its_names() {
        assert_shows(
            &attached(&example::answer()),
            r#"{
                "ip": ["10.77.0.5"],
                "host_link": "wk0123456789abc",
                "host_mac": "02:9c:52:fe:6d:0a",
                "workload_mac": "02:00:00:00:00:05",
                "mtu": 1500,
                "gateway": ["169.254.77.1"],
                "route": [
                    { "destination": "169.254.77.1/32", "gateway": "" },
                    { "destination": "0.0.0.0/0", "gateway": "169.254.77.1" }
                ],
                "namespace": { "device": 4, "inode": 4026532281 }
            }"#,
        );
    }

    #[test]
    fn a_node_keeps_its_names() {
        assert_shows(
            &node(&example::node()),
            r#"{
                "version": "0.1.0",
                "feature": ["owner", "mtu"],
                "prefix": [
                    { "prefix": "10.77.0.0/24", "state": "serving", "used": 2, "free": 250, "cooling": 1, "capacity": 253, "generation": 3 },
                    { "prefix": "fd77:77:77::/64", "state": "draining", "used": 1, "free": 18446744073709551614, "cooling": 0,
                      "capacity": 18446744073709551615, "generation": 2 }
                ],
                "unready": ["no IPv4 address is left"],
                "routes": "auto",
                "peer_route": [{
                    "peer": "node-b",
                    "family": "IPv4",
                    "way": "direct",
                    "via": "192.0.2.2",
                    "device": "eth0",
                    "fault": ""
                }],
                "warning": ["10.77.0.0/24 is nearly full"],
                "limits": { "max_queued": 1024, "workload_id_bytes": 128, "owner_bytes": 63, "identity_bytes": 140, "labels": 64 },
                "source": { "kind": "file", "generation": 3, "trouble": "" },
                "attachments": 2,
                "mtu": 1500,
                "mtu_source": "uplink eth0"
            }"#,
        );
    }
}
