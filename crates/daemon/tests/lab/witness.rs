//! What `ip` and `nft` say of a namespace: the world before and after, as text that can be compared.

use crate::programs;
use serde_json::Value;
use stage::Namespace;

/// Lines of everything that is not the uplink's or loopback's, sorted; and the nftables ruleset.
pub(crate) fn world(namespace: &Namespace) -> Vec<String> {
    let mut lines = Vec::new();
    for link in json(namespace, "ip -j link show") {
        let alias = text(&link, "ifalias");
        if !alias.is_empty() {
            lines.push(format!("record {} {alias}", text(&link, "ifname")));
        }
    }
    for link in json(namespace, "ip -j address show") {
        let name = text(&link, "ifname");
        if name == "uplink" || name == "lo" {
            continue;
        }
        lines.push(format!(
            "link {name} group {} mtu {} {}",
            text(&link, "group"),
            text(&link, "mtu"),
            if text(&link, "flags").contains("\"UP\"") {
                "up"
            } else {
                "down"
            },
        ));
        for address in link["addr_info"].as_array().unwrap() {
            lines.push(format!("address {} on {name}", text(address, "local")));
        }
    }
    for family in ["-4", "-6"] {
        for route in json(namespace, &format!("ip -j {family} route show table all")) {
            let device = text(&route, "dev");
            if device != "uplink" && device != "lo" {
                lines.push(format!(
                    "route {} {} dev {device}",
                    text(&route, "type"),
                    text(&route, "dst")
                ));
            }
        }
        for neighbour in json(namespace, &format!("ip -j {family} neighbour show nud permanent")) {
            lines.push(format!(
                "neighbour {} dev {}",
                text(&neighbour, "dst"),
                text(&neighbour, "dev")
            ));
        }
    }
    lines.sort();
    lines.extend(run(namespace, "nft list ruleset").lines().map(str::to_owned));
    lines
}

/// Names of our links.
pub(crate) fn links(namespace: &Namespace) -> Vec<String> {
    namespace.links("wk").unwrap()
}

/// Runs a program in a namespace; its output.
pub(crate) fn run(namespace: &Namespace, line: &str) -> String {
    namespace.within(|| programs::run(line)).unwrap()
}

fn json(namespace: &Namespace, line: &str) -> Vec<Value> {
    let text = run(namespace, line);
    if text.trim().is_empty() {
        return Vec::new();
    }
    // ip leaves empty objects where it filtered something out.
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    all.into_iter()
        .filter(|value| value.as_object().is_some_and(|o| !o.is_empty()))
        .collect()
}

fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
