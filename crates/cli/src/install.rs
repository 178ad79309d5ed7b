//! The CNI plugin and its network, put where runtimes look, and taken away again. A runtime may look at any moment: files
//! are written beside their place and renamed, the network last; and they go in the other order.

use crate::output::Output;
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes that an owner may have.
const OWNER_BYTES: usize = 63;
const PLUGIN: &str = "workloadnet-cni";
/// What runtimes of all ages understand; newer ones choose the highest of the list.
const VERSION: &str = "1.0.0";
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What runtimes may pass on (CNI's CONVENTIONS.md, and containerd's). The plugin decodes all of it; the daemon refuses by
/// name what it cannot do.
const CAPABILITIES: [&str; 8] = [
    "aliases",
    "bandwidth",
    "cgroupPath",
    "dns",
    "io.kubernetes.cri.pod-annotations",
    "ips",
    "mac",
    "portMappings",
];

/// Where runtimes look, and for what.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Folder of plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Folder of networks.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Name of the network.
    #[arg(long, default_value = "workloadnet", value_parser = name)]
    name: String,
}

/// What is to be installed.
#[derive(Debug, Args)]
pub(crate) struct Network {
    #[command(flatten)]
    place: Place,
    /// The plugin to copy; without it, the one beside this program.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The namespace of ids that containers are attached under; without it, the network's name.
    #[arg(long)]
    owner: Option<String>,
    /// MTU of every link, in bytes; without it, the daemon's setting.
    #[arg(long, value_parser = clap::value_parser!(u16).range(68..))]
    mtu: Option<u16>,
    /// What runtimes may pass to the plugin; may be given several times.
    #[arg(long = "capability", value_name = "NAME", default_values = ["dns", "ips", "portMappings"],
        value_parser = clap::builder::PossibleValuesParser::new(CAPABILITIES))]
    capabilities: Vec<String>,
    /// Another plugin that is to come after this one, e.g. bandwidth; may be given several times. With portmap, that one gets
    /// portMappings, and this one does not.
    #[arg(long, value_name = "PLUGIN", value_parser = name)]
    chain: Vec<String>,
}

impl Place {
    fn plugin(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }

    fn conflist(&self) -> PathBuf {
        self.conf_dir.join(format!("10-{}.conflist", self.name))
    }

    /// A network in the folder, one of ours or of an administrator, that names the plugin. What cannot be read as JSON is no
    /// network.
    fn other_network(&self) -> anyhow::Result<Option<PathBuf>> {
        let look = || -> io::Result<Option<PathBuf>> {
            let entries = match fs::read_dir(&self.conf_dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                entries => entries?,
            };
            let paths: io::Result<Vec<PathBuf>> =
                entries.map(|entry| entry.map(|entry| entry.path())).collect();
            let mut paths = paths?;
            paths.sort();
            Ok(paths
                .into_iter()
                .find(|path| path.is_file() && needs_plugin(path)))
        };
        look().with_context(|| format!("cannot read {}", self.conf_dir.display()))
    }
}

/// By the names that libcni reads networks from.
fn needs_plugin(path: &Path) -> bool {
    let is_network = path.extension().is_some_and(|extension| {
        ["conflist", "conf", "json"]
            .iter()
            .any(|known| extension == *known)
    });
    let read = || serde_json::from_slice(&fs::read(path).ok()?).ok();
    let network: Value = match is_network {
        true => read().unwrap_or_default(),
        false => return false,
    };
    let is_ours = |plugin: &Value| plugin["type"] == PLUGIN;
    is_ours(&network)
        || network["plugins"]
            .as_array()
            .is_some_and(|all| all.iter().any(is_ours))
}

impl Network {
    fn conflist(&self, socket: &str) -> Value {
        let enabled =
            |names: &[&str]| -> Value { names.iter().map(|&name| (name.to_owned(), json!(true))).collect() };
        let mut capabilities: Vec<&str> = self.capabilities.iter().map(String::as_str).collect();
        if self.chain.iter().any(|plugin| plugin == "portmap") {
            // Each port would be asked for twice.
            capabilities.retain(|name| *name != "portMappings");
        }
        let mut own = json!({ "type": PLUGIN, "capabilities": enabled(&capabilities) });
        if socket != client::DEFAULT_SOCKET {
            own["socket"] = json!(socket);
        }
        if let Some(owner) = &self.owner {
            own["owner"] = json!(owner);
        }
        if let Some(mtu) = self.mtu {
            own["mtu"] = json!(mtu);
        }
        let chained = self.chain.iter().map(|plugin| match plugin.as_str() {
            "portmap" => json!({ "type": plugin, "capabilities": enabled(&["portMappings"]) }),
            "bandwidth" => json!({ "type": plugin, "capabilities": enabled(&["bandwidth"]) }),
            _ => json!({ "type": plugin }),
        });
        let plugins: Vec<Value> = std::iter::once(own).chain(chained).collect();
        let mut conflist = json!({
            "cniVersion": VERSION,
            "name": self.place.name,
            "plugins": plugins,
        });
        // A runtime asks every plugin of a chain in the same version, and Debian's of today end at VERSION.
        if self.chain.is_empty() {
            conflist["cniVersions"] = json!(VERSIONS);
        }
        conflist
    }
}

/// As the daemon takes it (`AttachRequest.owner`).
fn can_own(owner: &str) -> anyhow::Result<()> {
    match owner.len() {
        n if n > OWNER_BYTES => bail!("has {n} bytes, {OWNER_BYTES} is the most"),
        _ if owner.chars().any(char::is_control) => bail!("has a control character"),
        _ => Ok(()),
    }
}

/// Installs both, and says where.
pub(crate) fn install(network: &Network, socket: &Path, output: Output) -> anyhow::Result<String> {
    let socket = std::path::absolute(socket)?;
    // Else every container would be refused for it.
    client::Client::new(&socket)?;
    match &network.owner {
        Some(owner) => can_own(owner).with_context(|| format!("--owner {owner:?}"))?,
        None => {
            let name = &network.place.name;
            can_own(name).with_context(|| format!("--name {name:?}, the owner where there is no --owner"))?;
        }
    }
    let socket = socket
        .to_str()
        .with_context(|| format!("{} cannot stand in JSON: it is not UTF-8", socket.display()))?;
    let from = match &network.plugin {
        Some(plugin) => plugin.clone(),
        None => stage::sibling(PLUGIN).context("--plugin says where it is")?,
    };
    let place = &network.place;
    let (plugin, conflist) = (place.plugin(), place.conflist());
    let mut source = File::open(&from).with_context(|| format!("cannot read {}", from.display()))?;
    if !source.metadata()?.is_file() {
        bail!("{} is not a file", from.display());
    }
    put(&plugin, 0o755, |file| io::copy(&mut source, file).map(drop))?;
    let text = format!("{:#}\n", network.conflist(socket));
    put(&conflist, 0o644, |file| file.write_all(text.as_bytes()))?;
    Ok(match output {
        Output::Table => format!("plugin   {}\nnetwork  {}\n", plugin.display(), conflist.display()),
        Output::Json => format!(
            "{:#}\n",
            json!({ "plugin": shown(&plugin), "network": shown(&conflist) })
        ),
    })
}

/// Takes both away, the network first, and leaves the plugin where another network needs it. What is not there is gone.
pub(crate) fn uninstall(place: &Place, output: Output) -> anyhow::Result<String> {
    let mut removed = Vec::new();
    let mut kept_for = None;
    for path in [place.conflist(), place.plugin()] {
        if path == place.plugin() {
            kept_for = place.other_network()?;
            if kept_for.is_some() {
                break;
            }
        }
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }
    Ok(match output {
        Output::Table => {
            let mut text: String = match removed.is_empty() {
                true => "nothing to remove\n".to_owned(),
                false => removed
                    .iter()
                    .map(|path| format!("removed  {}\n", path.display()))
                    .collect(),
            };
            if let Some(other) = &kept_for {
                let _ = writeln!(text, "the plugin stays, for {}", other.display());
            }
            text
        }
        Output::Json => {
            let removed: Vec<String> = removed.iter().map(|path| shown(path)).collect();
            let kept_for = kept_for.as_deref().map(shown);
            format!("{:#}\n", json!({ "removed": removed, "kept_for": kept_for }))
        }
    })
}

/// As text, whatever its bytes are.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Writes a file whole, or not at all. Its name until then ends as no network's does.
fn put(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> anyhow::Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    let put = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(".workloadnet-")
            .tempfile_in(folder)?;
        write(file.as_file_mut())?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}

/// What CNI takes for a network's name, and a plugin's.
fn name(text: &str) -> Result<String, String> {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    match begins && text.bytes().all(inside) {
        true => Ok(text.to_owned()),
        false => Err(
            "a name has letters, digits, '.', '_' and '-', and begins with a letter or a digit".to_owned(),
        ),
    }
}
