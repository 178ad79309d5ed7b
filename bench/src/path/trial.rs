//! What the daemon's attachments could be instead: each a change of two that it made.

use super::site::{MTU, PREFIXES, Workload, run, said};
use crate::product::Daemon;
use anyhow::{Context as _, Result, ensure};
use stage::Namespace;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A trial that has counters.
pub(crate) struct Trial {
    node: Namespace,
    counters: String,
    /// Compiled.
    _object: TempDir,
}

type Change = fn(&Daemon, &[Workload; 2]) -> Result<()>;

/// Trials that change links and routes.
pub(crate) const OF_LINKS: [(&str, Change); 4] = [
    ("no guard", no_guard),
    ("2 queues", queues),
    ("GRO", gro),
    ("large MTU inside", large_mtu),
];

const FIRST_HOP: [&str; 2] = ["169.254.77.1", "fe80::1"];
/// The largest that a veth takes.
const LARGEST: u32 = 65535;

/// What the check of each packet's source, and what else is asked before connection tracking, costs: a trial only.
fn no_guard(daemon: &Daemon, _pair: &[Workload; 2]) -> Result<()> {
    run(daemon.network(), "nft flush chain inet workloadnet guard")?;
    run(daemon.network(), "nft delete chain inet workloadnet guard").map(drop)
}

/// Two queues each way, as the kernel makes a veth by itself on two CPUs. The number is given at birth: made again by hand.
fn queues(daemon: &Daemon, pair: &[Workload; 2]) -> Result<()> {
    for workload in pair {
        let node = daemon.network();
        let Workload {
            namespace,
            addresses,
            host_end,
        } = workload;
        let host = mac(node, host_end)?;
        let own = mac(namespace, "eth0")?;
        let each = "numtxqueues 2 numrxqueues 2";
        run(node, &format!("ip link delete {host_end}"))?;
        run(
            node,
            &format!(
                "ip link add {host_end} address {host} mtu {MTU} group 8 {each} type veth peer name eth0 \
                 address {own} mtu {MTU} {each} netns {}",
                namespace.path()
            ),
        )?;
        run(node, &format!("ip link set {host_end} addrgenmode none up"))?;
        run(namespace, "ip link set eth0 up")?;
        let lengths = [(0, 32), (128, 128)];
        for ((address, hop), (on_host, alone)) in addresses.iter().zip(FIRST_HOP).zip(lengths) {
            let late = if address.is_ipv6() { "nodad" } else { "scope link" };
            run(
                node,
                &format!("ip address add {hop}/{on_host} dev {host_end} {late}"),
            )?;
            run(node, &format!("ip route add {address}/{alone} dev {host_end}"))?;
            run(
                node,
                &format!("ip neighbour add {address} lladdr {own} dev {host_end} nud permanent"),
            )?;
            let nodad = if address.is_ipv6() { "nodad" } else { "" };
            run(
                namespace,
                &format!("ip address add {address}/{alone} dev eth0 {nodad}"),
            )?;
            run(
                namespace,
                &format!("ip route add {hop}/{alone} dev eth0 src {address}"),
            )?;
            run(
                namespace,
                &format!("ip route add default via {hop} dev eth0 src {address}"),
            )?;
            run(
                namespace,
                &format!("ip neighbour add {hop} lladdr {host} dev eth0 nud permanent"),
            )?;
        }
    }
    Ok(())
}

fn mac(namespace: &Namespace, link: &str) -> Result<String> {
    let said = run(namespace, &format!("ip -o link show {link}"))?;
    let mut words = said.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).map(str::to_owned).context("the link has no MAC")
}

/// Packets of one flow that wait are joined on both ends of each link.
fn gro(daemon: &Daemon, pair: &[Workload; 2]) -> Result<()> {
    for Workload {
        namespace, host_end, ..
    } in pair
    {
        run(daemon.network(), &format!("ethtool -K {host_end} gro on"))?;
        run(namespace, "ethtool -K eth0 gro on")?;
    }
    Ok(())
}

/// Devices of 65535 bytes; what leaves the node is routed with the real MTU, and the node's own prefixes without one.
fn large_mtu(daemon: &Daemon, pair: &[Workload; 2]) -> Result<()> {
    for Workload {
        namespace,
        addresses,
        host_end,
    } in pair
    {
        run(daemon.network(), &format!("ip link set {host_end} mtu {LARGEST}"))?;
        run(namespace, &format!("ip link set eth0 mtu {LARGEST}"))?;
        for ((address, hop), prefix) in addresses.iter().zip(FIRST_HOP).zip(PREFIXES) {
            run(
                namespace,
                &format!("ip route replace default via {hop} dev eth0 src {address} mtu {MTU}"),
            )?;
            run(
                namespace,
                &format!("ip route add {prefix} via {hop} dev eth0 src {address}"),
            )?;
        }
    }
    Ok(())
}

/// The program of `bench/path-ebpf` on both host ends and on the uplink, filled with the two workloads.
///
/// Its pins are in a mount namespace that ends with the loading; the filters and the links they are on keep it.
pub(crate) fn ebpf(daemon: &Daemon, pair: &[Workload; 2]) -> Result<Trial> {
    let object = tempfile::tempdir()?;
    let file = object.path().join("fastpath.o");
    compile(&file)?;
    let node = daemon.network();
    let mut script = format!(
        "set -e\nmount -t bpf bpf /sys/fs/bpf\nP=/sys/fs/bpf/programs M=/sys/fs/bpf/maps\n\
         bpftool prog loadall {} $P type classifier pinmaps $M\n",
        file.display()
    );
    let uplink = index(node, "uplink")?;
    let _ = writeln!(
        script,
        "bpftool map update pinned $M/uplink key hex 00 00 00 00 value hex {}",
        hex(&uplink.to_ne_bytes())
    );
    let mut links = vec![("uplink".to_owned(), "from_uplink")];
    for workload in pair {
        let at = index(node, &workload.host_end)?;
        let host = octets(&mac(node, &workload.host_end)?)?;
        let own = octets(&mac(&workload.namespace, "eth0")?)?;
        let keys = workload.addresses.map(mapped);
        for key in keys {
            let _ = writeln!(
                script,
                "bpftool map update pinned $M/workloads key hex {} value hex {} {} {}",
                hex(&key),
                hex(&at.to_ne_bytes()),
                hex(&host),
                hex(&own)
            );
        }
        let _ = writeln!(
            script,
            "bpftool map update pinned $M/senders key hex {} value hex {} {} {} 00 00",
            hex(&at.to_ne_bytes()),
            hex(&keys[0]),
            hex(&keys[1]),
            hex(&own)
        );
        links.push((workload.host_end.clone(), "from_workload"));
    }
    for (link, program) in links {
        let _ = writeln!(
            script,
            "tc qdisc add dev {link} clsact\n\
             tc filter add dev {link} ingress bpf direct-action object-pinned $P/{program}"
        );
    }
    script.push_str("bpftool -j map show pinned $M/counters\n");
    let output = node.within(|| {
        Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .output()
    })??;
    let shown: serde_json::Value = serde_json::from_str(said("load the program", output)?.trim())?;
    Ok(Trial {
        node: Namespace::open(node.path().as_ref())?,
        counters: shown["id"].to_string(),
        _object: object,
    })
}

fn compile(object: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("path-ebpf/fastpath.c");
    let output = Command::new("clang-14")
        .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror"])
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
        .output()
        .context("start clang-14")?;
    said("compile the program", output).map(drop)
}

fn index(namespace: &Namespace, link: &str) -> Result<u32> {
    let said = run(namespace, &format!("ip -o link show {link}"))?;
    let number = said.split(':').next().context("ip says nothing")?;
    number.trim().parse().context("a link's index")
}

fn octets(mac: &str) -> Result<Vec<u8>> {
    mac.split(':')
        .map(|byte| u8::from_str_radix(byte, 16).context("a MAC"))
        .collect()
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn hex(bytes: &[u8]) -> String {
    let all: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    all.join(" ")
}

impl Trial {
    /// Packets so far: to a workload, to the uplink, to the stack, and with a foreign source.
    pub(crate) fn counted(&self) -> Result<[u64; 4]> {
        let said = run(&self.node, &format!("bpftool -j map dump id {}", self.counters))?;
        let all: Vec<serde_json::Value> = serde_json::from_str(said.trim())?;
        ensure!(all.len() == 4, "{} counters", all.len());
        let mut counted = [0; 4];
        for (entry, count) in all.iter().zip(&mut counted) {
            let cpus = entry["formatted"]["values"]
                .as_array()
                .context("a counter has CPUs")?;
            *count = cpus.iter().filter_map(|cpu| cpu["value"].as_u64()).sum();
        }
        Ok(counted)
    }
}
