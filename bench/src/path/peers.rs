//! Debian's plugins, executed as runtimes execute them: `ptp`, `bridge`, and netavark. All masquerade.

use super::site::{Both, MTU, Site, Workload, said};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use stage::{Namespace, Node};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plugin {
    Ptp,
    Bridge,
    Netavark,
}

pub(crate) const ALL: [Plugin; 3] = [Plugin::Ptp, Plugin::Bridge, Plugin::Netavark];

const CNI: &str = "/usr/lib/cni";
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// Two workloads of a plugin on a node of their own.
pub(crate) fn site(plugin: Plugin) -> Result<Site> {
    let node = Node::new()?;
    let data = tempfile::tempdir_in("/dev/shm").context("make a folder in memory for the plugin")?;
    let pair = [1, 2].map(|n| match plugin {
        Plugin::Ptp => cni(&node.node, data.path(), n, "ptp"),
        Plugin::Bridge => cni(&node.node, data.path(), n, "bridge"),
        Plugin::Netavark => netavark(&node.node, data.path(), n),
    });
    let [a, b] = pair;
    let name = match plugin {
        Plugin::Ptp => "ptp",
        Plugin::Bridge => "bridge",
        Plugin::Netavark => "netavark",
    };
    Ok(Site::of_plugin(name, node, [a?, b?], data))
}

fn cni(node: &Namespace, data: &Path, n: usize, kind: &str) -> Result<Workload> {
    let configuration = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": kind, "mtu": MTU, "ipMasq": true,
        // What only bridge reads.
        "bridge": "cni0", "isGateway": true,
        "ipam": {
            "type": "host-local", "dataDir": data,
            "ranges": [[{"subnet": "10.200.0.0/16"}], [{"subnet": "fd20::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    });
    let namespace = Namespace::new()?;
    let mut command = Command::new(Path::new(CNI).join(kind));
    command
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", format!("{n:0>64x}"))
        .env("CNI_NETNS", namespace.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", CNI);
    let result = asked(node, command, &configuration)?;
    let ips = result["ips"]
        .as_array()
        .context("the plugin names no addresses")?;
    let texts = ips.iter().filter_map(|ip| ip["address"].as_str());
    Ok(Workload {
        namespace,
        addresses: both(texts)?,
        host_end: String::new(),
    })
}

fn netavark(node: &Namespace, data: &Path, n: usize) -> Result<Workload> {
    let own = [format!("10.88.0.{}", n + 1), format!("fd88::{}", n + 1)];
    let configuration = json!({
        "container_id": format!("{n:0>64x}"), "container_name": format!("bench-{n}"),
        "networks": {"bench": {"interface_name": "eth0", "static_ips": own}},
        "network_info": {"bench": {
            "name": "bench", "id": format!("{:0>64x}", 8), "driver": "bridge", "network_interface": "podman1",
            "subnets": [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"},
                        {"subnet": "fd88::/64", "gateway": "fd88::1"}],
            "ipv6_enabled": true, "internal": false, "dns_enabled": false,
            "options": {"mtu": MTU.to_string()},
        }},
    });
    let namespace = Namespace::new()?;
    let mut command = Command::new(NETAVARK);
    command
        .arg("--config")
        .arg(data)
        .args(["setup", &namespace.path()]);
    asked(node, command, &configuration)?;
    Ok(Workload {
        namespace,
        addresses: both(own.iter().map(String::as_str))?,
        host_end: String::new(),
    })
}

/// Addresses, with or without their prefix lengths, IPv4 first.
fn both<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Both> {
    let mut all: Vec<IpAddr> = texts
        .filter_map(|text| text.split('/').next()?.parse().ok())
        .collect();
    all.sort_unstable();
    all.try_into()
        .ok()
        .context("the plugin gave other than one address per family")
}

/// Runs a plugin on a node with its configuration as input; its answer.
fn asked(node: &Namespace, mut command: Command, configuration: &Value) -> Result<Value> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut plugin = node
        .within(|| {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        })?
        .with_context(|| format!("start {program}"))?;
    let mut input = plugin.stdin.take().context("its input is piped")?;
    input.write_all(configuration.to_string().as_bytes())?;
    drop(input);
    let answer = said(&program, plugin.wait_with_output()?)?;
    serde_json::from_str(&answer).with_context(|| format!("{program} answered {answer:?}"))
}
