//! The whole of it in a minute: a node, an outside host and three workloads in namespaces of their own, the real daemon
//! with its embedded defaults, and everything checked that is printed.

use crate::render::address_of;
use anyhow::{Context as _, bail, ensure};
use client::{Client, workload};
use stage::{Echo, NODE, Namespace, Node, OUTSIDE, exchange, ping};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(2);
const FIRST_HOPS: [&str; 2] = ["169.254.77.1", "fe80::1"];
const NAMES: [&str; 3] = ["web", "api", "db"];

/// A workload of the demo.
struct Workload {
    name: &'static str,
    namespace: Namespace,
    addresses: Vec<IpAddr>,
}

/// The daemon, which ends with this value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it; an error where anything is not as it should be.
pub(crate) fn run() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        stage::become_root().context("without root, the demo needs user namespaces")?;
    }
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = runtime.block_on(async { Client::new(folder.path().join("workloadnet.sock")) })?;
    let began = Instant::now();

    title(
        "A node with an uplink, an outside host, and three workloads: five network namespaces, nothing of yours touched",
    );
    let node = timed("namespaces and uplink", Node::new)?;
    let mut workloads = Vec::new();
    for name in NAMES {
        workloads.push(Workload {
            name,
            namespace: Namespace::new()?,
            addresses: Vec::new(),
        });
    }
    Echo::start(&node.outside)?;

    title("workloadnetd starts on the node, with its embedded defaults");
    let mut daemon = timed("start until ready", || {
        start(&node, folder.path(), &client, &runtime)
    })?;
    let shown = runtime.block_on(client.node())?;
    for prefix in &shown.prefix {
        println!("    serves {}", prefix.prefix);
    }

    title("Attach: one call each, and packets flow when the answer arrives");
    for workload in &mut workloads {
        let label = format!("attach {}", workload.name);
        let answer = timed(&label, || Ok(runtime.block_on(client.attach(request(workload)))?))?;
        workload.addresses = answer.ip.iter().filter_map(|bytes| address_of(bytes)).collect();
        println!(
            "    {} has {:?} on link {}",
            workload.name, workload.addresses, answer.host_link
        );
        Echo::start(&workload.namespace)?;
    }

    title("Traffic, on IPv4 and IPv6");
    traffic(&node, &workloads)?;
    let made = routes(&node)?;
    ensure!(
        made.len() >= 2 * workloads.len(),
        "not a route for each address: {made:?}"
    );

    title("workloadnet list");
    let mut listed = runtime.block_on(client.list(None))?;
    print!(
        "{}",
        crate::render::list(&listed, None, crate::output::Output::Table)
    );

    title("kill -9: the kernel is the ledger, the datapath outlives the daemon");
    daemon.0.kill()?;
    daemon.0.wait()?;
    let (from, to) = (&workloads[0], &workloads[1]);
    for address in &to.addresses {
        let took = ping(&from.namespace, *address, ANSWER)?;
        step(
            &format!("daemon dead, {} pings {} {address}", from.name, to.name),
            took,
        );
    }
    let daemon = timed("start again until ready", || {
        start(&node, folder.path(), &client, &runtime)
    })?;
    let mut again = runtime.block_on(client.list(None))?;
    // Labels are a comfort, and one that was written in the very moment of the crash may be lost.
    for attachment in listed.iter_mut().chain(&mut again) {
        attachment.labels.clear();
    }
    ensure!(
        again == listed,
        "after the crash the daemon lists {again:?} instead of {listed:?}"
    );
    println!(
        "    all {} attachments are back, with the same addresses",
        again.len()
    );
    let answer = timed("attach web once more", || {
        Ok(runtime.block_on(client.attach(request(&workloads[0])))?)
    })?;
    let same: Vec<IpAddr> = answer.ip.iter().filter_map(|bytes| address_of(bytes)).collect();
    ensure!(same == workloads[0].addresses, "the same attach got {same:?}");
    println!("    the same request got the same answer");
    traffic(&node, &workloads)?;
    let findings = timed("workloadnet check", || Ok(runtime.block_on(client.check(None))?))?;
    ensure!(findings.is_empty(), "check found {findings:?}");

    title("Detach, and nothing is left");
    for workload in &workloads {
        let request = workload::DetachRequest {
            workload_id: workload.name.to_owned(),
            netns: Some(workload::NetNsAttachment {
                netns_path: String::new(),
                if_name: "eth0".to_owned(),
            }),
            owner: "demo".to_owned(),
        };
        timed(&format!("detach {}", workload.name), || {
            Ok(runtime.block_on(client.detach(request))?)
        })?;
    }
    let left = node.node.links("wk")?;
    ensure!(left.is_empty(), "links are left: {left:?}");
    let left = routes(&node)?;
    ensure!(left.is_empty(), "routes are left: {left:?}");
    let listed = runtime.block_on(client.list(None))?;
    ensure!(listed.is_empty(), "still listed: {listed:?}");
    let prefixes = runtime.block_on(client.node())?.prefix;
    ensure!(
        prefixes.iter().all(|prefix| prefix.used == 0),
        "addresses are still in use: {prefixes:?}"
    );
    println!(
        "    no link, no route ({} there were), no lease; the addresses cool down for 150 s",
        made.len()
    );
    drop(daemon);
    println!(
        "\nThat was all of it, in {:.1} s. Next: README.md, `workloadnet --help`.",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn title(text: &str) {
    println!("\n=== {text}");
}

fn step(what: &str, took: Duration) {
    println!("  {:>9.3} ms  {what}", took.as_secs_f64() * 1000.0);
}

fn timed<T>(what: &str, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let began = Instant::now();
    let result = act().with_context(|| what.to_owned())?;
    step(what, began.elapsed());
    Ok(result)
}

fn start(
    node: &Node,
    folder: &Path,
    client: &Client,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<Daemon> {
    let program = stage::sibling("workloadnetd")?;
    let spawn = || {
        Command::new(&program)
            .arg("--socket")
            .arg(folder.join("workloadnet.sock"))
            .arg("--state")
            .arg(folder.join("state.json"))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
    };
    let child = node
        .node
        .within(spawn)?
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut daemon = Daemon(child);
    let began = Instant::now();
    loop {
        let Err(error) = runtime.block_on(client.status()) else {
            return Ok(daemon);
        };
        if let Some(status) = daemon.0.try_wait()? {
            bail!("workloadnetd ended: {status}");
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "not ready within {PATIENCE:?}: {error}"
        );
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    }
}

fn request(workload: &Workload) -> workload::AttachRequest {
    workload::AttachRequest {
        workload_id: workload.name.to_owned(),
        netns: Some(workload::NetNsAttachment {
            netns_path: workload.namespace.path(),
            if_name: "eth0".to_owned(),
        }),
        owner: "demo".to_owned(),
        labels: [("app".to_owned(), workload.name.to_owned())].into(),
        ..workload::AttachRequest::default()
    }
}

fn traffic(node: &Node, workloads: &[Workload]) -> anyhow::Result<()> {
    let (from, to) = (&workloads[0], &workloads[1]);
    for (n, address) in to.addresses.iter().enumerate() {
        let (first_hop, outside): (IpAddr, IpAddr) = (FIRST_HOPS[n].parse()?, OUTSIDE[n].parse()?);
        for (what, target) in [
            ("the first hop", first_hop),
            (to.name, *address),
            ("the outside", outside),
        ] {
            step(
                &format!("{} pings {what} {target}", from.name),
                ping(&from.namespace, target, ANSWER)?,
            );
        }
        step(
            &format!("the node pings {} {address}", to.name),
            ping(&node.node, *address, ANSWER)?,
        );
        let began = Instant::now();
        let seen = exchange(&from.namespace, *address, ANSWER)?;
        ensure!(seen == from.addresses[n], "{} saw {seen}", to.name);
        step(
            &format!("TCP {} to {}: seen as {seen}", from.name, to.name),
            began.elapsed(),
        );
        let began = Instant::now();
        let seen = exchange(&from.namespace, outside, ANSWER)?;
        ensure!(
            seen == NODE[n].parse::<IpAddr>()?,
            "the outside host saw {seen}, not the node"
        );
        step(
            &format!("TCP {} to the outside: seen as the node, {seen}", from.name),
            began.elapsed(),
        );
    }
    Ok(())
}

/// The node's routes of both families over our links, as the kernel lists them (proc(5), net/route and net/ipv6_route).
fn routes(node: &Node) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for file in ["/proc/thread-self/net/route", "/proc/thread-self/net/ipv6_route"] {
        let text = node
            .node
            .within(|| std::fs::read_to_string(file))?
            .with_context(|| format!("read {file}"))?;
        let is_ours = |line: &&str| line.split_whitespace().any(|word| word.starts_with("wk"));
        all.extend(text.lines().filter(is_ours).map(str::to_owned));
    }
    Ok(all)
}
