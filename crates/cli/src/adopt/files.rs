//! What the old plugins wrote: host-local's reservations (`DIR/NETWORK/ADDRESS`, with container id and interface name), and
//! libcni's cached results (`DIR/NETWORK-CONTAINER-INTERFACE`, JSON of the kind `cniCacheV1`).
//!
//! Files are read and taken away here, and nowhere else: the daemon goes by what the kernel holds.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Plugins of a chain that leave nothing behind outside of the pod.
const HARMLESS: [&str; 2] = ["tuning", "sbr"];
/// Those that leave something only if they were asked to.
const ON_DEMAND: [(&str, &str); 2] = [("portmap", "portMappings"), ("bandwidth", "bandwidth")];

/// One interface of one container, as the files have it.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) network: String,
    pub(crate) container: String,
    pub(crate) if_name: String,
    /// Of the namespace; empty where no result is cached.
    pub(crate) path: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether the old plugin gives packets for the world the node's address.
    pub(crate) masquerade: bool,
    pub(crate) fate: Fate,
    /// Its reservations, and its cached result.
    pub(crate) files: Vec<PathBuf>,
}

/// What the files alone say of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The kernel is to be asked.
    Open,
    /// It cannot be taken over.
    Refused(Vec<String>),
    /// Its container is dead, and its files were left.
    Stale(&'static str),
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Old {
    pub(crate) pods: Vec<Pod>,
    /// Files that say nothing, and why.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
}

struct Cached {
    path: PathBuf,
    json: Value,
}

impl Cached {
    fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    /// The configuration's plugins, the first one first.
    fn plugins(&self) -> Option<Vec<Value>> {
        let bytes = base64::prelude::BASE64_STANDARD
            .decode(self.text("config"))
            .ok()?;
        let config: Value = serde_json::from_slice(&bytes).ok()?;
        match &config["plugins"] {
            Value::Array(plugins) => Some(plugins.clone()),
            _ => Some(vec![config]),
        }
    }
}

/// Reads both folders; only of these networks, or of all where none is named.
pub(crate) fn read(reservations: &Path, results: &Path, networks: &[String]) -> Result<Old> {
    let mut old = Old::default();
    let cached = cached(results, &mut old)?;
    for network in networks {
        if !reservations.join(network).is_dir() {
            bail!("there is no network {network:?} in {}", reservations.display());
        }
    }
    // By network, container and interface.
    let mut held: BTreeMap<(String, String, String), Vec<(IpAddr, PathBuf)>> = BTreeMap::new();
    for folder in entries(reservations)? {
        let Some(network) = name_of(&folder).filter(|_| folder.is_dir()) else {
            continue;
        };
        if !networks.is_empty() && !networks.contains(&network) {
            continue;
        }
        for file in entries(&folder)? {
            let Some(address) = name_of(&file).and_then(|name| name.parse().ok()) else {
                continue;
            };
            match holder(&file) {
                Ok((container, if_name)) => {
                    let key = (network.clone(), container, if_name);
                    held.entry(key).or_default().push((address, file));
                }
                Err(why) => old.unreadable.push((file, why)),
            }
        }
    }
    for ((network, container, if_name), files) in held {
        old.pods.push(pod(network, container, if_name, files, &cached));
    }
    Ok(old)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut all: Vec<PathBuf> = listed
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .with_context(|| format!("cannot list {}", folder.display()))?;
    all.sort();
    Ok(all)
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Container id and interface name; the latter is empty in files of old releases.
fn holder(file: &Path) -> Result<(String, String), String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let mut lines = text.lines().map(str::trim);
    let container = lines.next().unwrap_or_default();
    match container.is_empty() || container.contains(char::is_control) {
        true => Err("it names no container".to_owned()),
        false => Ok((container.to_owned(), lines.next().unwrap_or_default().to_owned())),
    }
}

fn cached(results: &Path, old: &mut Old) -> Result<Vec<Cached>> {
    if !results.exists() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for path in entries(results)? {
        let read = fs::read(&path).map_err(|error| error.to_string());
        let json = read.and_then(|bytes| {
            serde_json::from_slice::<Value>(&bytes).map_err(|error| format!("it is not JSON: {error}"))
        });
        match json {
            Ok(json) if json["kind"] == "cniCacheV1" => all.push(Cached { path, json }),
            // Results of the first releases tell neither the container nor the namespace.
            Ok(_) => old
                .unreadable
                .push((path, "it is no result of the kind cniCacheV1".to_owned())),
            Err(why) => old.unreadable.push((path, why)),
        }
    }
    Ok(all)
}

fn pod(
    network: String,
    container: String,
    if_name: String,
    held: Vec<(IpAddr, PathBuf)>,
    cached: &[Cached],
) -> Pod {
    let mut addresses: Vec<IpAddr> = held.iter().map(|(address, _)| *address).collect();
    addresses.sort_unstable();
    let mut pod = Pod {
        network,
        container,
        if_name,
        path: String::new(),
        addresses,
        masquerade: false,
        fate: Fate::Stale("no result is cached for it"),
        files: held.into_iter().map(|(_, file)| file).collect(),
    };
    let found = cached.iter().find(|cached| {
        cached.text("containerId") == pod.container
            && cached.text("networkName") == pod.network
            && (pod.if_name.is_empty() || cached.text("ifName") == pod.if_name)
    });
    let Some(found) = found else { return pod };
    found.text("ifName").clone_into(&mut pod.if_name);
    pod.files.push(found.path.clone());
    let result = &found.json["result"];
    let interfaces = result["interfaces"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let inside = interfaces.iter().find(|interface| {
        let has_sandbox = interface["sandbox"].as_str().is_some_and(|path| !path.is_empty());
        has_sandbox && interface["name"].as_str() == Some(&pod.if_name)
    });
    let Some(path) = inside.and_then(|interface| interface["sandbox"].as_str()) else {
        pod.fate = Fate::Refused(vec!["its cached result names no namespace".to_owned()]);
        return pod;
    };
    path.clone_into(&mut pod.path);
    if !Path::new(path).exists() {
        pod.fate = Fate::Stale("its namespace is gone");
        return pod;
    }
    let mut reasons = Vec::new();
    let given = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let given = given
        .iter()
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
    let mut given: Vec<IpAddr> = given.collect();
    given.sort_unstable();
    if given != pod.addresses {
        reasons.push(format!(
            "its cached result has {}, and the reservations {}",
            list(&given),
            list(&pod.addresses)
        ));
    }
    match found.plugins() {
        Some(plugins) => {
            pod.masquerade = plugins[0]["ipMasq"] == true;
            reasons.extend(against(&plugins, &found.json["capabilityArgs"]));
        }
        None => reasons.push("its cached configuration cannot be read".to_owned()),
    }
    pod.fate = match reasons.is_empty() {
        true => Fate::Open,
        false => Fate::Refused(reasons),
    };
    pod
}

/// What in a chain of plugins nobody would undo once the old plugins are not called any more.
fn against(plugins: &[Value], asked: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    let kind = |plugin: &Value| plugin["type"].as_str().unwrap_or_default().to_owned();
    // Of a bridge's port the kernel tells, and the daemon says why not.
    match kind(&plugins[0]).as_str() {
        "ptp" | "bridge" => {}
        other => reasons.push(format!("{other} made it, and only ptp's are taken over")),
    }
    let ipam = kind(&plugins[0]["ipam"]);
    if ipam != "host-local" {
        reasons.push(format!("its addresses are {ipam:?}'s, and not host-local's"));
    }
    for kind in plugins[1..].iter().map(kind) {
        let demand = ON_DEMAND.iter().find(|(name, _)| *name == kind);
        match demand {
            _ if HARMLESS.contains(&&*kind) => {}
            Some((_, capability)) if is_nothing(&asked[capability]) => {}
            Some((_, capability)) => reasons.push(format!("{kind} holds {capability} of it")),
            None => reasons.push(format!(
                "{kind} was called after it, and may hold something of it"
            )),
        }
    }
    reasons
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

pub(crate) fn list(addresses: &[IpAddr]) -> String {
    match addresses.is_empty() {
        true => "nothing".to_owned(),
        false => addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// Takes files of pods away, under host-local's own lock of their network; and what is left of a network that has no
/// reservation any more.
pub(crate) fn remove<'a>(reservations: &Path, pods: impl Iterator<Item = &'a Pod>) -> Result<()> {
    for pod in pods {
        let folder = reservations.join(&pod.network);
        let lock = folder.join("lock");
        let held = File::options().create(true).append(true).open(&lock);
        let held = held.with_context(|| format!("cannot open {}", lock.display()))?;
        held.lock()
            .with_context(|| format!("cannot lock {}", lock.display()))?;
        for file in &pod.files {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", file.display()));
                }
                _ => {}
            }
        }
        let left = entries(&folder)?;
        let is_reservation =
            |file: &PathBuf| name_of(file).is_some_and(|name| name.parse::<IpAddr>().is_ok());
        if !left.iter().any(is_reservation) {
            let own = |name: &str| name == "lock" || name.starts_with("last_reserved_ip.");
            for file in left
                .iter()
                .filter(|file| name_of(file).is_some_and(|name| own(&name)))
            {
                fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
            }
            // Not empty where somebody keeps more in it.
            let _ = fs::remove_dir(&folder);
            // Where it stays, the lock does too, for who comes next.
        }
    }
    Ok(())
}
