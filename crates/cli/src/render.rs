//! Answers as text. `table` writes for people, `json` for programs, with names that stay: docs/operating.md lists them.

mod json;
mod table;

use crate::output::Output;
use client::inspection::{Attachment, Finding, GetNodeResponse, Prefix, attachment, prefix};
use client::workload::AttachResponse;
use std::net::IpAddr;

/// Whether an attach could succeed; if not, why.
pub(crate) fn status(unready: &[String], output: Output) -> String {
    match output {
        Output::Table => table::status(unready),
        Output::Json => json::status(unready),
    }
}

/// What was set is in force.
pub(crate) fn generation(generation: u64, output: Output) -> String {
    match output {
        Output::Table => format!("generation {generation}\n"),
        Output::Json => format!("{}\n", serde_json::json!({ "generation": generation })),
    }
}

/// The node.
pub(crate) fn node(node: &GetNodeResponse, output: Output) -> String {
    match output {
        Output::Table => table::node(node),
        Output::Json => json::node(node),
    }
}

/// Attachments, a line each: of one owner, or all.
pub(crate) fn list(all: &[Attachment], owner: Option<&str>, output: Output) -> String {
    match output {
        Output::Table => table::list(all, owner),
        Output::Json => json::list(all),
    }
}

/// All of one attachment.
pub(crate) fn attachment(one: &Attachment, output: Output) -> String {
    match output {
        Output::Table => table::attachment(one),
        Output::Json => json::attachment(one),
    }
}

/// What is not as it should be.
pub(crate) fn check(findings: &[Finding], output: Output) -> String {
    match output {
        Output::Table => table::check(findings),
        Output::Json => json::check(findings),
    }
}

/// What an attach got.
pub(crate) fn attached(answer: &AttachResponse, output: Output) -> String {
    match output {
        Output::Table => table::attached(answer),
        Output::Json => json::attached(answer),
    }
}

/// What is so after a Detach, whether or not there was anything to take off.
pub(crate) fn detached(workload_id: &str, netns: Option<&str>, output: Output) -> String {
    match (output, netns) {
        (Output::Table, None) => format!("{workload_id} is detached\n"),
        (Output::Table, Some(netns)) => format!("{workload_id} is detached from {netns}\n"),
        (Output::Json, _) => "{}\n".to_owned(),
    }
}

fn state(of: &Attachment) -> &'static str {
    match of.state() {
        attachment::State::Attached => "attached",
        attachment::State::Detaching => "detaching",
        attachment::State::Unspecified => "unknown",
    }
}

fn origin(of: &Attachment) -> &'static str {
    match of.origin() {
        attachment::Origin::Own => "own",
        attachment::Origin::Taken => "taken",
        attachment::Origin::Committed => "committed",
        attachment::Origin::Unspecified => "unknown",
    }
}

fn prefix_state(of: &Prefix) -> &'static str {
    match of.state() {
        prefix::State::Serving => "serving",
        prefix::State::Draining => "draining",
        prefix::State::Unspecified => "unknown",
    }
}

fn addresses(all: &[Vec<u8>]) -> Vec<String> {
    all.iter().map(|bytes| address(bytes)).collect()
}

/// 4 or 16 bytes; empty where the daemon sent anything else.
/// The contract's bytes as an address.
pub(crate) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn address(bytes: &[u8]) -> String {
    address_of(bytes)
        .map(|address| address.to_string())
        .unwrap_or_default()
}

fn mac(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod example {
    //! Answers as a daemon gives them, for the tests of both forms.

    use client::inspection::{Attachment, Finding, GetNodeResponse, HostPort, Key, Limits, Prefix, Source};
    use client::workload::{AttachResponse, NamespaceIdentity, Route};

    pub(super) fn key(owner: &str, workload_id: &str) -> Key {
        Key {
            owner: owner.to_owned(),
            workload_id: workload_id.to_owned(),
            if_name: "eth0".to_owned(),
        }
    }

    pub(super) fn attachments() -> Vec<Attachment> {
        let web = Attachment {
            origin: client::inspection::attachment::Origin::Own.into(),
            key: Some(key("k8s.io", "web-1")),
            ip: vec!["10.77.0.5".into(), "fd77:77:77::5".into()],
            host_link: "wk0123456789abc".into(),
            host_index: 7,
            host_mac: "02:9c:52:fe:6d:0a".into(),
            workload_mac: "02:00:00:00:00:05".into(),
            mtu: 1500,
            gateway: vec!["169.254.77.1".into(), "fe80::1".into()],
            namespace_device: 4,
            namespace_inode: 4026532281,
            labels: [("tier", "front"), ("app", "web")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            state: 1,
            host_port: [("tcp", 8080, "", 80), ("udp", 53, "fd00::1", 53)]
                .map(|(protocol, port, address, workload_port)| HostPort {
                    protocol: protocol.into(),
                    port,
                    address: address.into(),
                    workload_port,
                })
                .to_vec(),
        };
        let bare = Attachment {
            key: Some(key("", "db")),
            ip: vec!["10.77.0.6".into()],
            host_link: "wkfedcba9876543".into(),
            mtu: 1400,
            state: 2,
            ..Attachment::default()
        };
        vec![bare, web]
    }

    pub(super) fn findings() -> Vec<Finding> {
        vec![
            Finding {
                key: None,
                text: "table inet workloadnet is missing".into(),
            },
            Finding {
                key: Some(key("k8s.io", "web-1")),
                text: "host route 10.77.0.5/32 is missing".into(),
            },
        ]
    }

    pub(super) fn node() -> GetNodeResponse {
        GetNodeResponse {
            version: "0.1.0".into(),
            feature: vec!["owner".into(), "mtu".into()],
            prefix: vec![
                Prefix {
                    prefix: "10.77.0.0/24".into(),
                    capacity: 253,
                    used: 2,
                    free: 250,
                    cooling: 1,
                    state: 1,
                    generation: 3,
                },
                Prefix {
                    prefix: "fd77:77:77::/64".into(),
                    capacity: u64::MAX,
                    used: 1,
                    free: u64::MAX - 1,
                    cooling: 0,
                    state: 2,
                    generation: 2,
                },
            ],
            unready: vec!["no IPv4 address is left".into()],
            limits: Some(Limits {
                max_queued: 1024,
                workload_id_bytes: 128,
                owner_bytes: 63,
                identity_bytes: 140,
                labels: 64,
            }),
            attachments: 2,
            mtu: 1500,
            mtu_source: "uplink eth0".into(),
            warning: vec!["10.77.0.0/24 is nearly full".into()],
            source: Some(Source {
                kind: "file".into(),
                generation: 3,
                trouble: String::new(),
            }),
            routes: "auto".into(),
            peer_route: vec![client::inspection::PeerRoute {
                peer: "node-b".into(),
                family: "IPv4".into(),
                way: "direct".into(),
                via: "192.0.2.2".into(),
                device: "eth0".into(),
                fault: String::new(),
            }],
        }
    }

    pub(super) fn answer() -> AttachResponse {
        AttachResponse {
            ip: vec![vec![10, 77, 0, 5]],
            host_link: "wk0123456789abc".into(),
            host_mac: vec![2, 0x9c, 0x52, 0xfe, 0x6d, 0x0a],
            workload_mac: vec![2, 0, 0, 0, 0, 5],
            mtu: 1500,
            gateway: vec![vec![169, 254, 77, 1]],
            route: vec![
                Route {
                    destination: vec![169, 254, 77, 1],
                    prefix_length: 32,
                    gateway: Vec::new(),
                },
                Route {
                    destination: vec![0; 4],
                    prefix_length: 0,
                    gateway: vec![169, 254, 77, 1],
                },
            ],
            namespace: Some(NamespaceIdentity {
                device: 4,
                inode: 4026532281,
            }),
        }
    }
}
