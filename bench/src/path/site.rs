//! Where the load runs: two workloads and a host beyond the uplink, connected in one of the ways that are compared.

use super::load::Way;
use super::{peers, trial};
use crate::product::{Daemon, attach};
use anyhow::{Context as _, Result, ensure};
use stage::{Namespace, Node, OUTSIDE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// One address of each family, IPv4 first.
pub(crate) type Both = [IpAddr; 2];

/// The prefixes that the daemon has.
pub(crate) const PREFIXES: [&str; 2] = ["10.64.0.0/14", "fd64::/64"];
/// The MTU of what leaves the node.
pub(crate) const MTU: u32 = 1500;
const LIMIT: Duration = Duration::from_secs(10);

/// What a workload speaks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Another workload of the node.
    Workload,
    /// A host beyond the node's uplink, mostly behind masquerade.
    Outside,
}

/// One of the ways that are compared.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    /// What it is a change of, beside which it is judged.
    pub(crate) beside: Option<&'static str>,
    pub(crate) from: Namespace,
    to: Namespace,
    own: Both,
    others: Both,
    outside: Option<Namespace>,
    /// What has to live as long.
    _keep: Keep,
    pub(crate) trial: Option<trial::Trial>,
}

/// What holds a site's network.
pub(crate) enum Keep {
    Nothing,
    Daemon { _daemon: Box<Daemon> },
    Plugin { _node: Namespace, _data: TempDir },
}

/// A workload that is attached.
pub(crate) struct Workload {
    pub(crate) namespace: Namespace,
    pub(crate) addresses: Both,
    /// Name of the host end; not known of other plugins.
    pub(crate) host_end: String,
}

/// The name of plain routing by the daemon's attachments.
pub(crate) const OURS: &str = "workloadnet";
/// The same without masquerade.
pub(crate) const ROUTED: &str = "workloadnet, not masqueraded";
/// The reference.
pub(crate) const LOOPBACK: &str = "loopback";

/// All of them.
pub(crate) fn all(runtime: &Runtime) -> Result<Vec<Site>> {
    let mut all = vec![loopback()?, ours(runtime, OURS, None, true, |_, _| Ok(None))?];
    for plugin in peers::ALL {
        all.push(peers::site(plugin).with_context(|| format!("set up {plugin:?}"))?);
    }
    for (name, change) in trial::OF_LINKS {
        all.push(ours(runtime, name, Some(OURS), true, |daemon, pair| {
            change(daemon, pair).map(|()| None)
        })?);
    }
    all.push(ours(runtime, ROUTED, None, false, |_, _| Ok(None))?);
    let fast = |daemon: &Daemon, pair: &[Workload; 2]| trial::ebpf(daemon, pair).map(Some);
    all.push(ours(runtime, "eBPF fast path", Some(ROUTED), false, fast)?);
    for site in &all {
        site.works()
            .with_context(|| format!("{} does not work", site.name))?;
    }
    Ok(all)
}

fn loopback() -> Result<Site> {
    let from = Namespace::new()?;
    let to = Namespace::open(from.path().as_ref())?;
    run(&from, "ip link set lo up")?;
    let own = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    Ok(Site {
        name: LOOPBACK,
        beside: None,
        from,
        to,
        own,
        others: own,
        outside: None,
        _keep: Keep::Nothing,
        trial: None,
    })
}

/// Two attachments of the daemon, which then ends: its part is done, and what it holds stays.
fn ours(
    runtime: &Runtime,
    name: &'static str,
    beside: Option<&'static str>,
    masquerade: bool,
    change: impl FnOnce(&Daemon, &[Workload; 2]) -> Result<Option<trial::Trial>>,
) -> Result<Site> {
    let mut daemon = Daemon::new()?;
    daemon.set(format!("[network]\nmasquerade = {masquerade}\n"));
    daemon.start(runtime)?;
    let client = daemon.client(runtime)?;
    let one = |id: &str| -> Result<Workload> {
        let namespace = Namespace::new()?;
        let answer = runtime.block_on(client.attach(attach(id, &namespace.path())))?;
        ensure!(answer.mtu == MTU, "an MTU of {}", answer.mtu);
        Ok(Workload {
            namespace,
            addresses: both(&answer.ip)?,
            host_end: answer.host_link,
        })
    };
    let pair = [one("a")?, one("b")?];
    daemon.kill()?;
    if !masquerade {
        for (prefix, node) in PREFIXES.iter().zip(stage::NODE) {
            run(daemon.outside(), &format!("ip route add {prefix} via {node}"))?;
        }
    }
    let trial = change(&daemon, &pair).with_context(|| format!("make {name}"))?;
    let outside = Namespace::open(daemon.outside().path().as_ref())?;
    let [a, b] = pair;
    Ok(Site {
        name,
        beside,
        from: a.namespace,
        to: b.namespace,
        own: a.addresses,
        others: b.addresses,
        outside: Some(outside),
        _keep: Keep::Daemon {
            _daemon: Box::new(daemon),
        },
        trial,
    })
}

fn both(bytes: &[Vec<u8>]) -> Result<Both> {
    let [v4, v6] = bytes else {
        anyhow::bail!("{} addresses", bytes.len());
    };
    let v4: [u8; 4] = v4.as_slice().try_into().context("an IPv4 address")?;
    let v6: [u8; 16] = v6.as_slice().try_into().context("an IPv6 address")?;
    Ok([v4.into(), v6.into()])
}

impl Site {
    /// What a plugin has attached, to a node of its own.
    pub(crate) fn of_plugin(name: &'static str, node: Node, pair: [Workload; 2], data: TempDir) -> Self {
        let [a, b] = pair;
        Self {
            name,
            beside: None,
            from: a.namespace,
            to: b.namespace,
            own: a.addresses,
            others: b.addresses,
            outside: Some(node.outside),
            _keep: Keep::Plugin {
                _node: node.node,
                _data: data,
            },
            trial: None,
        }
    }

    /// The way from the first workload, by family: 0 for IPv4, 1 for IPv6.
    pub(crate) fn way(&self, scope: Scope, family: usize) -> Way<'_> {
        let (to, addresses) = match (scope, &self.outside) {
            (Scope::Outside, Some(outside)) => {
                (outside, OUTSIDE.map(|text| text.parse().expect("an address")))
            }
            _ => (&self.to, self.others),
        };
        Way {
            from: &self.from,
            to,
            address: addresses[family],
        }
    }

    /// Packets go across in both directions. Plugins' IPv6 addresses are checked for duplicates first.
    fn works(&self) -> Result<()> {
        for family in [0, 1] {
            for scope in [Scope::Workload, Scope::Outside] {
                let way = self.way(scope, family);
                ensure!(
                    stage::wait::within(LIMIT, || stage::ping(
                        way.from,
                        way.address,
                        Duration::from_secs(1)
                    )
                    .is_ok()),
                    "no answer from {}",
                    way.address
                );
            }
            stage::ping(&self.to, self.own[family], LIMIT)?;
        }
        // The kernel's ceiling for packets that are larger on the inside (BIG TCP) is the usual 64 KiB everywhere.
        for namespace in [&self.from, &self.to] {
            let links = run(namespace, "ip -d link show")?;
            let words: Vec<&str> = links.split_whitespace().collect();
            for pair in words
                .windows(2)
                .filter(|pair| pair[0].starts_with("gso_max_size"))
            {
                ensure!(
                    pair[1].parse::<u32>()? <= 65536,
                    "BIG TCP is on: {} {}",
                    pair[0],
                    pair[1]
                );
            }
        }
        Ok(())
    }
}

/// A command of words in a namespace; what it says.
pub(crate) fn run(inside: &Namespace, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let program = words.next().context("a command has a program")?;
    let output = inside.within(|| Command::new(program).args(words.collect::<Vec<_>>()).output())?;
    said(command, output.with_context(|| format!("start {program}"))?)
}

pub(crate) fn said(command: &str, output: Output) -> Result<String> {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command}: {}: {out}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(out)
}
