//! What a pod's chain of plugins left on the node beside its link, by its cached configuration.

use serde_json::Value;

/// Plugins of a chain that leave nothing behind outside of the pod.
const HARMLESS: [&str; 2] = ["tuning", "sbr"];
/// Those that leave something only if they were asked to: by the runtime, or by these fields of their configuration.
const ON_DEMAND: [(&str, &str, &[&str]); 2] = [
    ("portmap", "portMappings", &[]),
    ("bandwidth", "bandwidth", &["ingressRate", "egressRate"]),
];
/// By what ptp gives packets for the world the node's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// Or, unasked, by nftables.
    Iptables,
    /// As it was told to.
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
