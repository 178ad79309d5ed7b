//! What a pod's chain of plugins left on the node beside its link.

use super::files::Pod;
use client::inspection::MasqueradeRule;
use serde_json::Value;
use sha2::{Digest as _, Sha512};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Plugins of a chain that leave nothing behind outside of the pod.
const HARMLESS: [&str; 2] = ["tuning", "sbr"];
/// Those that leave something only if they were asked to: by the runtime, or by these fields of their configuration.
const ON_DEMAND: [(&str, &str, &[&str]); 2] = [
    ("portmap", "portMappings", &[]),
    ("bandwidth", "bandwidth", &["ingressRate", "egressRate"]),
];
/// Takes away a rule by which the plugins masquerade in nftables (their pkg/ip/ipmasq_nftables_linux.go).
const DELETE: &str = "nft delete rule inet cni_plugins_masquerade masq_checks";

/// By what ptp gives packets for the world the node's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masquerade {
    /// Or, unasked, by nftables.
    Iptables,
    Nftables,
}

/// By what the chain masquerades, if it does.
pub(crate) fn masquerade(plugins: &[Value]) -> Option<Masquerade> {
    let first = plugins.first().filter(|first| first["ipMasq"] == true)?;
    Some(match first["ipMasqBackend"] == "nftables" {
        true => Masquerade::Nftables,
        false => Masquerade::Iptables,
    })
}

/// What in a chain of plugins nobody would undo once the old plugins are not called any more.
pub(crate) fn against(plugins: &[Value], asked: &Value) -> Vec<String> {
    let Some((first, chained)) = plugins.split_first() else {
        return vec!["its cached configuration names no plugin".to_owned()];
    };
    let mut reasons = Vec::new();
    // Of a bridge's port the kernel tells, and the daemon says why not.
    match kind(first) {
        "ptp" | "bridge" => {}
        other => reasons.push(format!("{other} made it, and only ptp's are taken over")),
    }
    let ipam = kind(&first["ipam"]);
    if ipam != "host-local" {
        reasons.push(format!("its addresses are {ipam:?}'s, and not host-local's"));
    }
    for plugin in chained {
        let kind = kind(plugin);
        match ON_DEMAND.iter().find(|(name, ..)| *name == kind) {
            _ if HARMLESS.contains(&kind) => {}
            Some((_, capability, fields)) => {
                if !is_nothing(&asked[capability]) {
                    reasons.push(format!("{kind} holds {capability} of it"));
                }
                let set = fields.iter().filter(|field| !is_nothing(&plugin[field]));
                reasons
                    .extend(set.map(|field| format!("{kind} was configured with {field} {}", plugin[field])));
            }
            None => reasons.push(format!(
                "{kind} was called after it, and may hold something of it"
            )),
        }
    }
    reasons
}

fn kind(plugin: &Value) -> &str {
    plugin["type"].as_str().unwrap_or_default()
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

/// How the masquerade rules of pods are taken away, in commands; empty where they have none. `found` are those that nftables
/// has: ptp uses it where it is told to or finds no iptables, and writes nowhere which of both it was.
pub(crate) fn masquerade_rules<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    found: &[MasqueradeRule],
) -> Vec<String> {
    let mut lines = Vec::new();
    for pod in pods {
        let Some(masquerade) = pod.masquerade else {
            continue;
        };
        let begin = instance(pod);
        let of: Vec<&MasqueradeRule> = found
            .iter()
            .filter(|rule| rule.comment.starts_with(&begin))
            .collect();
        match (of.is_empty(), masquerade) {
            (true, Masquerade::Iptables) => lines.extend(commands(pod)),
            // Nobody's are there.
            (true, Masquerade::Nftables) => {}
            (false, _) => lines.extend(of.iter().map(|rule| format!("{DELETE} handle {}", rule.handle))),
        }
    }
    if !lines.is_empty() {
        let head = "the old plugin's masquerade rules are the node's: take them away by";
        lines.insert(0, head.to_owned());
    }
    lines
}

/// How the comments of a pod's rules in nftables begin (`hashForInstance` of the plugins).
fn instance(pod: &Pod) -> String {
    let of_pod = format!("{}:{}", pod.if_name, pod.container);
    format!("{}-{},", hash(&pod.network, 8), hash(&of_pod, 8))
}

/// The first bytes of a SHA-512 sum, in hex.
fn hash(text: &str, bytes: usize) -> String {
    let digest = Sha512::digest(text);
    digest.iter().take(bytes).fold(String::new(), |mut hex, byte| {
        // Never fails on a String.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// How ptp names the chain of a pod and marks its rules (`utils.FormatChainName` of the plugins): the program that made
/// them takes them away, whichever of its two kernel interfaces it uses.
fn commands(pod: &Pod) -> Vec<String> {
    let chain = format!("CNI-{}", hash(&format!("{}{}", pod.network, pod.container), 12));
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
