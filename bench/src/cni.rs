//! CNI plugins, executed for each attach and detach (<https://www.cni.dev/docs/spec/>): what is usual today, Debian's `ptp`
//! with `host-local`, and ours.

use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FOLDER: &str = "/usr/lib/cni";

/// A network of a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Cni {
    program: PathBuf,
    configuration: String,
}

impl Cni {
    /// Our plugin, for the daemon on a socket. Nothing starts yet.
    pub(crate) fn ours(program: PathBuf, socket: &Path) -> Self {
        let configuration = format!(
            r#"{{"cniVersion":"1.1.0","name":"bench","type":"workloadnet-cni","socket":{socket:?}}}"#
        );
        Self {
            program,
            configuration,
        }
    }

    /// `ptp`, dual stack; its addresses are kept in `data`. Nothing starts yet.
    pub(crate) fn new(data: &Path) -> Self {
        let configuration = format!(
            r#"{{"cniVersion":"1.0.0","name":"bench","type":"ptp","mtu":1500,"ipam":{{"type":"host-local","dataDir":{data:?},
               "ranges":[[{{"subnet":"10.200.0.0/16"}}],[{{"subnet":"fd20::/64"}}]],
               "routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"::/0"}}]}}}}"#
        );
        Self {
            program: Path::new(FOLDER).join("ptp"),
            configuration,
        }
    }

    /// From a thread on the node.
    pub(crate) fn add(&self, id: &str, path: &str) -> Result<()> {
        self.run("ADD", id, path)
    }

    /// From a thread on the node.
    pub(crate) fn del(&self, id: &str, path: &str) -> Result<()> {
        self.run("DEL", id, path)
    }

    /// Says which versions it speaks: what the program costs by itself.
    pub(crate) fn version(&self) -> Result<()> {
        self.run("VERSION", "", "")
    }

    fn run(&self, what: &str, id: &str, path: &str) -> Result<()> {
        let mut plugin = Command::new(&self.program)
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
            .with_context(|| format!("start {}", self.program.display()))?;
        let mut input = plugin.stdin.take().context("its input is piped")?;
        input
            .write_all(self.configuration.as_bytes())
            .context("write its configuration")?;
        drop(input);
        let output = plugin.wait_with_output().context("wait for the plugin")?;
        if !output.status.success() {
            let (said, cried) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            bail!(
                "{} {what}: {}: {said}{cried}",
                self.program.display(),
                output.status
            );
        }
        Ok(())
    }
}

/// A static program that does nothing, started as a plugin is.
pub(crate) fn nothing() -> Result<()> {
    let status = Command::new("/bin/busybox")
        .arg("true")
        .env_clear()
        .stdin(Stdio::null())
        .status()
        .context("start busybox (Debian's busybox-static)")?;
    if !status.success() {
        bail!("true: {status}");
    }
    Ok(())
}
