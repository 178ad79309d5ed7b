//! What is usual today: Debian's `ptp` plugin with `host-local`, executed for each attach and detach
//! (<https://www.cni.dev/docs/spec/>).

use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const FOLDER: &str = "/usr/lib/cni";

/// A network of the plugins; its addresses are kept in `data`.
#[derive(Debug, Clone)]
pub(crate) struct Cni {
    configuration: String,
}

impl Cni {
    /// Dual stack. Nothing starts yet.
    pub(crate) fn new(data: &Path) -> Self {
        let configuration = format!(
            r#"{{"cniVersion":"1.0.0","name":"bench","type":"ptp","mtu":1500,"ipam":{{"type":"host-local","dataDir":{data:?},
               "ranges":[[{{"subnet":"10.200.0.0/16"}}],[{{"subnet":"fd20::/64"}}]],
               "routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"::/0"}}]}}}}"#
        );
        Self { configuration }
    }

    /// From a thread on the node.
    pub(crate) fn add(&self, id: &str, path: &str) -> Result<()> {
        self.run("ADD", id, path)
    }

    /// From a thread on the node.
    pub(crate) fn del(&self, id: &str, path: &str) -> Result<()> {
        self.run("DEL", id, path)
    }

    fn run(&self, what: &str, id: &str, path: &str) -> Result<()> {
        let mut plugin = Command::new(format!("{FOLDER}/ptp"))
            .env_clear()
            .env("CNI_COMMAND", what)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", FOLDER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start ptp (Debian's containernetworking-plugins)")?;
        let mut input = plugin.stdin.take().context("its input is piped")?;
        input
            .write_all(self.configuration.as_bytes())
            .context("write its configuration")?;
        drop(input);
        let output = plugin.wait_with_output().context("wait for ptp")?;
        if !output.status.success() {
            let (said, cried) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            bail!("ptp {what}: {}: {said}{cried}", output.status);
        }
        Ok(())
    }
}
