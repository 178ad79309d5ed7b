//! What the old plugins wrote: host-local's reservations (`DIR/NETWORK/ADDRESS`, with container id and interface name), and
//! libcni's cached results (`DIR/NETWORK-CONTAINER-INTERFACE`, JSON of the kind `cniCacheV1`).
//!
//! Files are read and taken away here, and nowhere else: the daemon goes by what the kernel holds.
//!
//! ```text
//!  reservations, results --> read --> Old { pods, unreserved, unreadable } --> the command line asks the daemon
//!                                      '--> remove, once the daemon keeps a pod for good
//! ```

mod chain;
#[doc(hidden)]
pub mod played;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

pub use chain::Masquerade;

/// One interface of one container, as the files have it.
#[derive(Debug)]
pub struct Pod {
    /// Name of the network, which is that of a folder, too.
    pub network: String,
    /// Id of the container, as the runtime gave it.
    pub container: String,
    /// Name inside; empty where neither kind of file tells it.
    pub if_name: String,
    /// Of the namespace; empty where no result is cached.
    pub path: String,
    /// Sorted.
    pub addresses: Vec<IpAddr>,
    /// How the old plugin gives packets for the world the node's address; `None`: it does not.
    pub masquerade: Option<Masquerade>,
    /// What the files alone say.
    pub fate: Fate,
    /// The files of its addresses.
    pub reservations: Vec<PathBuf>,
    /// Its cached result.
    pub result: Option<PathBuf>,
}

/// What the files alone say of a pod.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel is to be asked.
    Open,
    /// It cannot be taken over.
    Refused(Vec<String>),
    /// Its namespace is gone: its container is dead, and its files were left.
    Gone,
    /// No cached result tells whether it lives.
    Uncached,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Old {
    /// By network, container and interface.
    pub pods: Vec<Pod>,
    /// Of cached results without a reservation: what a commit that was cut short has left, or another IPAM's.
    pub unreserved: Vec<Pod>,
    /// Files that say nothing, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

struct Cached {
    path: PathBuf,
    json: Value,
}

impl Cached {
    fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    /// The field that names nothing, if there is one.
    fn misnamed(&self) -> Option<String> {
        let is_good = |field: &str, text: &str| match field {
            "networkName" => is_folder(text),
            _ => is_named(text),
        };
        let fields = ["networkName", "containerId", "ifName"];
        let field = fields
            .into_iter()
            .find(|field| !is_good(field, self.text(field)))?;
        let said = self.json[field].to_string();
        Some(format!("its {field} is {}, which names nothing", shown(&said)))
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

/// Reads both folders; only of these networks, or of all where none is named. A file that says nothing is told of and in
/// nobody's way; a folder that cannot be listed, and a network that nobody knows, is an error.
pub fn read(reservations: &Path, results: &Path, networks: &[String]) -> Result<Old> {
    let mut old = Old::default();
    let cached = cached(results, networks, &mut old)?;
    for network in networks {
        let is_cached = cached.iter().any(|one| one.text("networkName") == network);
        if !is_cached && !reservations.join(network).is_dir() {
            bail!("there is no network {network:?} in {}", reservations.display());
        }
    }
    // By network, container and interface.
    let mut held: BTreeMap<(String, String, String), Vec<(IpAddr, PathBuf)>> = BTreeMap::new();
    for folder in entries(reservations)? {
        let Some(network) = name_of(&folder).filter(|name| is_named(name) && folder.is_dir()) else {
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
    refuse_twins(&mut old.pods);
    old.unreserved = unreserved(&old.pods, &cached);
    Ok(old)
}

/// What results of host-local's alone tell.
fn unreserved(pods: &[Pod], cached: &[Cached]) -> Vec<Pod> {
    let is_known = |cached: &&Cached| pods.iter().any(|pod| pod.result.as_ref() == Some(&cached.path));
    let is_host_locals = |cached: &&Cached| {
        let plugins = cached.plugins().unwrap_or_default();
        plugins
            .first()
            .is_some_and(|first| first["ipam"]["type"] == "host-local")
    };
    let left = cached
        .iter()
        .filter(|cached| !is_known(cached) && is_host_locals(cached));
    left.map(|one| {
        let text = |field| one.text(field).to_owned();
        let (network, container) = (text("networkName"), text("containerId"));
        let mut pod = pod(
            network,
            container,
            text("ifName"),
            Vec::new(),
            std::slice::from_ref(one),
        );
        pod.addresses = given(&one.json["result"]);
        pod
    })
    .collect()
}

/// The addresses of a result, sorted.
fn given(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ips = ips
        .iter()
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
    let mut given: Vec<IpAddr> = ips.collect();
    given.sort_unstable();
    given
}

/// The daemon knows a pod by container and interface alone, so one of two networks cannot be told from the other's.
fn refuse_twins(pods: &mut [Pod]) {
    let mut networks: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.fate == Fate::Open) {
        let key = (pod.container.clone(), pod.if_name.clone());
        networks.entry(key).or_default().push(pod.network.clone());
    }
    for pod in pods.iter_mut().filter(|pod| pod.fate == Fate::Open) {
        let of = &networks[&(pod.container.clone(), pod.if_name.clone())];
        if of.len() > 1 {
            let why = format!("it is in several networks: {}", of.join(", "));
            pod.fate = Fate::Refused(vec![why]);
        }
    }
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
    let (container, if_name) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if !is_named(container) {
        return Err("it names no container".to_owned());
    }
    match if_name.contains(char::is_control) {
        true => Err("it names no interface".to_owned()),
        false => Ok((container.to_owned(), if_name.to_owned())),
    }
}

/// What can be shown in a line.
fn is_named(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

/// What files say, on a terminal.
fn shown(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut shown, character| {
            match character.is_control() {
                true => shown.extend(character.escape_default()),
                false => shown.push(character),
            }
            shown
        })
}

/// Bytes of a file's name (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// A network's name is joined to paths, and files below are removed.
fn is_folder(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_one =
        matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    is_one && is_named(name) && name.len() <= NAME_MAX
}

fn cached(results: &Path, networks: &[String], old: &mut Old) -> Result<Vec<Cached>> {
    if !results.exists() {
        return Ok(Vec::new());
    }
    let is_of = |path: &PathBuf| {
        let name = name_of(path).unwrap_or_default();
        let begins = |network: &String| {
            name.strip_prefix(network)
                .is_some_and(|rest| rest.starts_with('-'))
        };
        networks.is_empty() || networks.iter().any(begins)
    };
    let mut all = Vec::new();
    for path in entries(results)?.into_iter().filter(is_of) {
        let read = fs::read(&path).map_err(|error| error.to_string());
        let json = read.and_then(|bytes| {
            serde_json::from_slice::<Value>(&bytes).map_err(|error| format!("it is not JSON: {error}"))
        });
        match json {
            Ok(json) if json["kind"] == "cniCacheV1" => {
                let cached = Cached { path, json };
                match cached.misnamed() {
                    None => all.push(cached),
                    Some(why) => old.unreadable.push((cached.path, why)),
                }
            }
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
        masquerade: None,
        fate: Fate::Uncached,
        reservations: held.into_iter().map(|(_, file)| file).collect(),
        result: None,
    };
    let found = cached.iter().find(|cached| {
        cached.text("containerId") == pod.container
            && cached.text("networkName") == pod.network
            && (pod.if_name.is_empty() || cached.text("ifName") == pod.if_name)
    });
    let Some(found) = found else { return pod };
    found.text("ifName").clone_into(&mut pod.if_name);
    pod.result = Some(found.path.clone());
    let plugins = found.plugins();
    pod.masquerade = plugins.as_deref().and_then(chain::masquerade);
    pod.fate = match fate(&mut pod, found, plugins.as_deref()) {
        Fate::Refused(reasons) => Fate::Refused(reasons.iter().map(|reason| shown(reason)).collect()),
        fate => fate,
    };
    pod
}

fn fate(pod: &mut Pod, found: &Cached, plugins: Option<&[Value]>) -> Fate {
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
        return Fate::Refused(vec!["its cached result names no namespace".to_owned()]);
    };
    path.clone_into(&mut pod.path);
    match Path::new(path).try_exists() {
        Ok(true) => {}
        Ok(false) => return Fate::Gone,
        Err(error) => return Fate::Refused(vec![format!("cannot look at {path}: {error}")]),
    }
    let mut reasons = Vec::new();
    let given = given(result);
    if given != pod.addresses {
        reasons.push(format!(
            "its cached result has {}, and the reservations {}",
            list(&given),
            list(&pod.addresses)
        ));
    }
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        let of: Vec<IpAddr> = pod
            .addresses
            .iter()
            .copied()
            .filter(|a| a.is_ipv4() == is_v4)
            .collect();
        if of.len() > 1 {
            reasons.push(format!(
                "it has {}, and one {family} address is the most",
                list(&of)
            ));
        }
    }
    match plugins {
        Some(plugins) => reasons.extend(chain::against(plugins, &found.json["capabilityArgs"])),
        None => reasons.push("its cached configuration cannot be read".to_owned()),
    }
    match reasons.is_empty() {
        true => Fate::Open,
        false => Fate::Refused(reasons),
    }
}

fn list(addresses: &[IpAddr]) -> String {
    match addresses.is_empty() {
        true => "nothing".to_owned(),
        false => addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// Takes the files of a pod away, under host-local's own lock of their network; and what is left of a network that has
/// nothing else any more. What somebody else has been given meanwhile stays.
pub fn remove(reservations: &Path, pod: &Pod) -> Result<()> {
    let folder = reservations.join(&pod.network);
    let lock = folder.join("lock");
    match File::options().create(true).append(true).open(&lock) {
        Ok(held) => {
            held.lock()
                .with_context(|| format!("cannot lock {}", lock.display()))?;
            for file in &pod.reservations {
                if is_still_held(file, pod)? {
                    delete(file)?;
                }
            }
            remove_if_over(&folder)?;
        }
        // Without the folder there are no reservations.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", lock.display())),
    }
    pod.result.as_deref().map_or(Ok(()), delete)
}

fn is_still_held(file: &Path, pod: &Pod) -> Result<bool> {
    match holder(file) {
        Ok((container, if_name)) => {
            Ok(container == pod.container && (if_name.is_empty() || if_name == pod.if_name))
        }
        Err(_) if !file.exists() => Ok(false),
        Err(why) => Err(anyhow!("cannot remove {}: {why}", file.display())),
    }
}

fn delete(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// host-local's lock is for as long as there is anything else.
fn remove_if_over(folder: &Path) -> Result<()> {
    let own = |name: String| name == "lock" || name.starts_with("last_reserved_ip.");
    let left = entries(folder)?;
    if left.iter().all(|file| name_of(file).is_some_and(own)) {
        left.iter().try_for_each(|file| delete(file))?;
        // Somebody may have come meanwhile.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
