//! Old plugins that are played: what they leave of pods, for those who try what is made of it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A plugin of a chain, as its configuration.
pub const PTP: &str = r#"{"type":"ptp","ipMasq":true,"ipam":{"type":"host-local"}}"#;

/// The folders of a node.
#[derive(Debug)]
pub struct Folders {
    /// host-local's.
    pub networks: PathBuf,
    /// libcni's.
    pub results: PathBuf,
}

impl Folders {
    /// Makes both, below a folder.
    pub fn below(folder: &Path) -> io::Result<Self> {
        let folders = Self {
            networks: folder.join("networks"),
            results: folder.join("results"),
        };
        fs::create_dir(&folders.networks)?;
        fs::create_dir(&folders.results)?;
        Ok(folders)
    }

    /// Reserves an address for `eth0` of a container; the file.
    pub fn reserve(&self, network: &str, address: &str, container: &str) -> io::Result<PathBuf> {
        let folder = self.networks.join(network);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("lock"), "")?;
        fs::write(folder.join("last_reserved_ip.0"), address)?;
        let file = folder.join(address);
        fs::write(&file, format!("{container}\r\neth0"))?;
        Ok(file)
    }

    /// Caches the result of an ADD of `eth0`, whose namespace is at a path; the file.
    pub fn cache(
        &self,
        network: &str,
        address: &str,
        container: &str,
        namespace: &Path,
        plugins: &[&str],
    ) -> io::Result<PathBuf> {
        let config = format!(r#"{{"name":"{network}","plugins":[{}]}}"#, plugins.join(","));
        let json = json!({
            "kind": "cniCacheV1", "containerId": container, "networkName": network, "ifName": "eth0",
            "config": encoded(config.as_bytes()),
            "result": {
                "interfaces": [{"name": "eth0", "sandbox": namespace}],
                "ips": [{"address": format!("{address}/24")}],
            },
        });
        let file = self.results.join(format!("{network}-{container}-eth0"));
        fs::write(&file, json.to_string())?;
        Ok(file)
    }
}

/// A configuration as libcni has it in a result.
pub fn encoded(config: &[u8]) -> String {
    BASE64_STANDARD.encode(config)
}
