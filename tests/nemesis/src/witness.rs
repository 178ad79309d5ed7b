//! What `ip` and `nft` say of a namespace: other eyes than the daemon's.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stage::Namespace;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

/// The daemon's link group.
pub const GROUP: &str = "8";

/// Links of strangers: in the daemon's group, with a name like the daemon's, with a name that begins like those.
pub const STRANGERS: [&str; 3] = ["stranger0", "wk0123456789abc", "wkstranger"];

/// Runs a program in a namespace; its output.
pub fn run(namespace: &Namespace, line: &str) -> Result<String> {
    let output = namespace.within(|| {
        let mut words = line.split(' ');
        Command::new(words.next().unwrap_or_default())
            .args(words)
            .output()
    })?;
    let output = output.with_context(|| line.to_owned())?;
    ensure!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The same, read as a list of JSON objects. `ip` leaves empty ones where it filtered something out.
pub fn json(namespace: &Namespace, line: &str) -> Result<Vec<Value>> {
    let text = run(namespace, line)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let all: Vec<Value> = serde_json::from_str(&text).with_context(|| line.to_owned())?;
    Ok(all
        .into_iter()
        .filter(|value| value.as_object().is_some_and(|object| !object.is_empty()))
        .collect())
}

/// A field as text.
pub fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A link of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u64,
    /// Its link group.
    pub group: String,
    /// Its alias, the record of one of ours.
    pub alias: String,
    /// Whether it is up.
    pub is_up: bool,
}

impl Link {
    /// Whether the name has the form of the daemon's.
    pub fn is_named_as_ours(&self) -> bool {
        let digits = self.name.strip_prefix("wk").unwrap_or_default();
        digits.len() == 13
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// Whether it is in a group in which the daemon deletes links together.
    pub fn is_dying(&self) -> bool {
        self.group.parse().is_ok_and(|group: u32| group >> 16 == 0x776b)
    }
}

/// What a node holds.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its links.
    pub links: Vec<Link>,
    /// Destination and link of every route in the main table that goes over a link named "wk...".
    pub routes: Vec<(String, String)>,
    /// Address and link of every permanent neighbour there.
    pub neighbours: Vec<(IpAddr, String)>,
    /// Elements of the maps of ports, as text.
    pub ports: Vec<String>,
    /// Whether the table is there.
    pub has_table: bool,
}

impl Seen {
    /// Looks at a node.
    pub fn of(node: &Namespace) -> Result<Self> {
        let links = json(node, "ip -j link show")?.iter().map(link).collect();
        let mut seen = Self {
            links,
            ..Self::default()
        };
        for family in ["-4", "-6"] {
            for route in json(node, &format!("ip -j {family} route show"))? {
                seen.routes.push((text(&route, "dst"), text(&route, "dev")));
            }
            for neighbour in json(node, &format!("ip -j {family} neighbour show nud permanent"))? {
                let address = text(&neighbour, "dst").parse()?;
                seen.neighbours.push((address, text(&neighbour, "dev")));
            }
        }
        let is_ours = |link: &str| link.starts_with("wk") && !STRANGERS.contains(&link);
        seen.routes.retain(|(_, link)| is_ours(link));
        seen.neighbours.retain(|(_, link)| is_ours(link));
        let tables: Value = serde_json::from_str(&run(node, "nft -j list ruleset")?)?;
        for object in tables["nftables"].as_array().into_iter().flatten() {
            let is_ours = |one: &Value| one["table"] == "workloadnet" && one["family"] == "inet";
            if object["table"]["name"] == "workloadnet" && object["table"]["family"] == "inet" {
                seen.has_table = true;
            }
            let map = &object["map"];
            if is_ours(map) && map["name"].as_str().is_some_and(|name| name.starts_with("ports")) {
                let elements = map["elem"].as_array().into_iter().flatten();
                seen.ports.extend(elements.map(ToString::to_string));
            }
        }
        Ok(seen)
    }
}

fn link(value: &Value) -> Link {
    Link {
        name: text(value, "ifname"),
        index: value["ifindex"].as_u64().unwrap_or_default(),
        group: text(value, "group"),
        alias: text(value, "ifalias"),
        is_up: value["flags"]
            .as_array()
            .is_some_and(|flags| flags.iter().any(|flag| flag == "UP")),
    }
}

/// Addresses of each link inside a workload's namespace, but loopback's and link-local ones.
pub fn inside(namespace: &Namespace) -> Result<Vec<(String, BTreeSet<IpAddr>)>> {
    let mut all = Vec::new();
    for link in json(namespace, "ip -j address show")? {
        let name = text(&link, "ifname");
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        let addresses = addresses
            .filter(|address| text(address, "scope") == "global")
            .filter_map(|address| text(address, "local").parse().ok());
        if name != "lo" {
            all.push((name, addresses.collect()));
        }
    }
    Ok(all)
}
