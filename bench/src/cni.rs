//! Programs that are executed for each attach and detach: CNI plugins (<https://www.cni.dev/docs/spec/>), Debian's and ours,
//! netavark, which podman executes, and one that does nothing.

use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FOLDER: &str = "/usr/lib/cni";
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// Address families that a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    Both,
}

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

    /// `ptp` or `bridge`, with `host-local`, whose addresses are kept in `data`. `net` tells networks apart. Nothing starts yet.
    pub(crate) fn usual(kind: &str, families: Families, data: &Path, net: u8) -> Self {
        let (ranges, routes) = match families {
            Families::V4 => (
                format!(r#"[{{"subnet":"10.{net}.0.0/16"}}]"#),
                r#"{"dst":"0.0.0.0/0"}"#,
            ),
            Families::Both => (
                format!(r#"[{{"subnet":"10.{net}.0.0/16"}}],[{{"subnet":"fd{net}::/64"}}]"#),
                r#"{"dst":"0.0.0.0/0"},{"dst":"::/0"}"#,
            ),
        };
        let more = match kind {
            "bridge" => format!(r#""bridge":"bench{net}","isGateway":true,"#),
            _ => String::new(),
        };
        let configuration = format!(
            r#"{{"cniVersion":"1.0.0","name":"bench{net}","type":"{kind}",{more}"mtu":1500,
               "ipam":{{"type":"host-local","dataDir":{data:?},"ranges":[{ranges}],"routes":[{routes}]}}}}"#
        );
        Self {
            program: Path::new(FOLDER).join(kind),
            configuration,
        }
    }

    /// From a thread on the node.
    pub(crate) fn add(&self, id: &str, path: &str) -> Result<()> {
        run(&mut self.command("ADD", id, path), &self.configuration)
    }

    /// From a thread on the node.
    pub(crate) fn del(&self, id: &str, path: &str) -> Result<()> {
        run(&mut self.command("DEL", id, path), &self.configuration)
    }

    /// Says which versions it speaks: what the program costs by itself.
    pub(crate) fn version(&self) -> Result<()> {
        run(&mut self.command("VERSION", "", ""), &self.configuration)
    }

    /// An ADD under another program, which is followed by the plugin's path.
    pub(crate) fn add_under(&self, outer: &mut Command, id: &str, path: &str) -> Result<()> {
        outer.arg(&self.program);
        run(environment(outer, "ADD", id, path), &self.configuration)
    }

    /// A DEL under another program.
    pub(crate) fn del_under(&self, outer: &mut Command, id: &str, path: &str) -> Result<()> {
        outer.arg(&self.program);
        run(environment(outer, "DEL", id, path), &self.configuration)
    }

    fn command(&self, what: &str, id: &str, path: &str) -> Command {
        let mut plugin = Command::new(&self.program);
        environment(&mut plugin, what, id, path);
        plugin
    }
}

fn environment<'a>(plugin: &'a mut Command, what: &str, id: &str, path: &str) -> &'a mut Command {
    plugin
        .env_clear()
        .env("CNI_COMMAND", what)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", path)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", FOLDER)
}

/// A bridge of netavark, with its firewall as Debian has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Netavark {
    families: Families,
}

impl Netavark {
    pub(crate) fn new(families: Families) -> Self {
        Self { families }
    }

    /// Attaches the namespace at `path`; `n` tells containers apart. From a thread on the node.
    pub(crate) fn setup(self, n: usize, path: &str) -> Result<()> {
        run(Command::new(NETAVARK).args(["setup", path]), &self.asks(n))
    }

    /// From a thread on the node.
    pub(crate) fn teardown(self, n: usize, path: &str) -> Result<()> {
        run(Command::new(NETAVARK).args(["teardown", path]), &self.asks(n))
    }

    /// A setup under another program, which is followed by netavark's path.
    pub(crate) fn setup_under(self, outer: &mut Command, n: usize, path: &str) -> Result<()> {
        run(outer.args([NETAVARK, "setup", path]), &self.asks(n))
    }

    /// A teardown under another program.
    pub(crate) fn teardown_under(self, outer: &mut Command, n: usize, path: &str) -> Result<()> {
        run(outer.args([NETAVARK, "teardown", path]), &self.asks(n))
    }

    fn asks(self, n: usize) -> String {
        // Beside each other, because both networks may be up at once.
        let (net, is_both) = match self.families {
            Families::V4 => (111, false),
            Families::Both => (112, true),
        };
        let (high, low) = (n / 200, n % 200 + 2);
        let mut addresses = format!(r#""10.{net}.{high}.{low}""#);
        let mut subnets = format!(r#"{{"subnet":"10.{net}.0.0/16","gateway":"10.{net}.0.1"}}"#);
        if is_both {
            addresses.push_str(&format!(r#","fd{net:x}::{high:x}:{low:x}""#));
            subnets.push_str(&format!(
                r#",{{"subnet":"fd{net:x}::/64","gateway":"fd{net:x}::1"}}"#
            ));
        }
        format!(
            r#"{{"container_id":"{n:0>64x}","container_name":"bench{n}",
               "networks":{{"bench{net}":{{"static_ips":[{addresses}],"interface_name":"eth0"}}}},
               "network_info":{{"bench{net}":{{"name":"bench{net}","id":"{net:0>64x}","driver":"bridge",
               "network_interface":"podman{net}","subnets":[{subnets}],"ipv6_enabled":{is_both},
               "internal":false,"dns_enabled":false,"ipam_options":{{"driver":"host-local"}}}}}}}}"#
        )
    }
}

fn run(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    stdin
        .write_all(input.as_bytes())
        .context("write its configuration")?;
    drop(stdin);
    let output = child.wait_with_output().context("wait for a program")?;
    if !output.status.success() {
        let (said, cried) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        bail!("{command:?}: {}: {said}{cried}", output.status);
    }
    Ok(())
}

/// A static program that does nothing, started as a plugin is.
pub(crate) fn nothing() -> Result<()> {
    run(Command::new("/bin/busybox").arg("true").env_clear(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_are_asked_is_json_with_the_families_that_were_wanted() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        for (families, count) in [(Families::V4, 1), (Families::Both, 2)] {
            for kind in ["ptp", "bridge"] {
                let cni = Cni::usual(kind, families, Path::new("/data"), 20);
                let ranges = &json(&cni.configuration)["ipam"]["ranges"];
                assert_eq!(ranges.as_array().unwrap().len(), count, "{kind}");
            }
            let asked = json(&Netavark::new(families).asks(399));
            let (network, info) = match families {
                Families::V4 => (&asked["networks"]["bench111"], &asked["network_info"]["bench111"]),
                Families::Both => (&asked["networks"]["bench112"], &asked["network_info"]["bench112"]),
            };
            assert_eq!(network["static_ips"].as_array().unwrap().len(), count);
            assert_eq!(info["subnets"].as_array().unwrap().len(), count);
            for address in network["static_ips"].as_array().unwrap() {
                assert!(address.as_str().unwrap().parse::<std::net::IpAddr>().is_ok());
            }
        }
    }
}
