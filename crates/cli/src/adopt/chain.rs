//! What a pod's chain of plugins left on the node beside its link.

use super::files::Pod;
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
/// Where the plugins masquerade by nftables (their pkg/ip/ipmasq_nftables_linux.go).
const NFTABLES: &str = "inet cni_plugins_masquerade";

/// By what ptp gives packets for the world the node's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masquerade {
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

/// How the masquerade rules of pods are taken away, in commands and words; empty where they have none.
pub(crate) fn masquerade_rules<'a>(pods: impl Iterator<Item = &'a Pod> + Clone) -> Vec<String> {
    let by = |backend| pods.clone().filter(move |pod| pod.masquerade == Some(backend));
    let mut lines: Vec<String> = by(Masquerade::Iptables).flat_map(commands).collect();
    if !lines.is_empty() {
        let head = "the old plugin's masquerade rules are the node's: take them away by";
        lines.insert(0, head.to_owned());
    }
    let in_nftables = by(Masquerade::Nftables).map(|pod| {
        format!(
            "the old plugin's masquerade rule of {} is in nftables: delete the rule whose comment has \"id: {}\" from chain \
             masq_checks of table {NFTABLES}, or the table where no pod of the old plugins is left",
            pod.container, pod.container
        )
    });
    lines.extend(in_nftables);
    lines
}

/// How ptp names the chain of a pod and marks its rules (`utils.FormatChainName` of the plugins): the program that made
/// them takes them away, whichever of its two kernel interfaces it uses.
fn commands(pod: &Pod) -> Vec<String> {
    let digest = Sha512::digest(format!("{}{}", pod.network, pod.container));
    let hex: String = digest.iter().take(12).fold(String::new(), |mut hex, byte| {
        // Never fails on a String.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let chain = format!("CNI-{hex}");
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
