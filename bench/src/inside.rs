//! What attach and detach are made of: system calls, netlink messages; and whether the first packets get through.

use crate::Size;
use crate::bare::Bare;
use crate::cni::{Cni, Families, Netavark};
use crate::figures::Figures;
use crate::first::First;
use crate::named::Named;
use crate::plugins::plugin;
use crate::product::Daemon;
use crate::samples::Samples;
use crate::stand::{
    Caller, Dad, Verb, all_as_new, at_once, id, namespaces, namespaces_for_plugins, pause, runtime,
};
use crate::strace::{self, Counts};
use anyhow::{Context as _, Result};
use stage::pinger::Pinger;
use stage::{Node, OUTSIDE};
use std::net::IpAddr;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Calls that are counted.
const COUNTED: usize = 20;
/// Who has to be asked for (ARP, neighbour discovery) is asked again after 1 s.
const LOST: Duration = Duration::from_millis(500);

/// In the thread's network namespace.
pub(crate) fn measure(size: &Size, figures: &mut Figures) -> Result<()> {
    let runtime = runtime()?;
    let mut daemon = Daemon::new()?.with_counts();
    daemon.start(&runtime)?;
    first_packets(&runtime, &daemon, size.packets, figures)?;
    let caller = Caller::new(daemon.client(&runtime)?);
    let counts = service(&runtime, daemon.pid()?, &caller)?;
    tell("daemon", COUNTED, &counts, figures);
    for (verb, messages) in ["attach", "detach"]
        .into_iter()
        .zip(messages(&runtime, &daemon, &caller)?)
    {
        figures.value(format!("messages/{verb}/daemon"), "messages", messages);
    }
    let first = First::start(&runtime)?;
    let caller = Caller::new(first.client(&runtime)?);
    let counts = service(&runtime, first.pid(), &caller)?;
    tell("first", COUNTED, &counts, figures);
    tell("floor", COUNTED, &floor()?, figures);
    programs(&daemon, figures)
}

/// Attaches, and then detaches, of one caller.
fn service(runtime: &Runtime, pid: u32, caller: &Caller) -> Result<[Counts; 2]> {
    let namespaces = namespaces(COUNTED)?;
    all_as_new(&namespaces)?;
    let work: Vec<_> = namespaces
        .iter()
        .map(|namespace| (id(), namespace.path()))
        .collect();
    let callers = [caller.clone()];
    // The connection is there before anything is counted.
    runtime.block_on(caller.status())?;
    let count = |verb| strace::of_process(pid, || at_once(runtime, &callers, &work, verb).map(drop));
    Ok([count(Verb::Attach)?, count(Verb::Detach)?])
}

/// Netlink messages of an attach and a detach, as the daemon counts them: under strace, which makes it slow, it asks oftener
/// whether the kernel has made an address's local route.
fn messages(runtime: &Runtime, daemon: &Daemon, caller: &Caller) -> Result<[f64; 2]> {
    let namespaces = namespaces(COUNTED)?;
    all_as_new(&namespaces)?;
    let sent = || Ok::<_, anyhow::Error>(daemon.counts()?.sum("workloadnet_netlink_messages_total"));
    let mut told = [0.0; 2];
    for namespace in &namespaces {
        let (id, path) = (id(), namespace.path());
        let before = sent()?;
        runtime.block_on(caller.attach(&id, &path))?;
        let between = sent()?;
        runtime.block_on(caller.detach(&id))?;
        pause(runtime);
        told[0] += between - before;
        told[1] += sent()? - between;
    }
    Ok(told.map(|sum| sum / COUNTED as f64))
}

fn floor() -> Result<[Counts; 2]> {
    let mut bare = Bare::here()?;
    let namespaces = namespaces(COUNTED)?;
    all_as_new(&namespaces)?;
    let paths: Vec<_> = namespaces.iter().map(Named::path).collect();
    let mut links = Vec::with_capacity(COUNTED);
    let attach = strace::of_own(|| {
        for path in &paths {
            links.push(bare.attach(path)?);
        }
        Ok(())
    })?;
    let detach = strace::of_own(|| links.iter().try_for_each(|link| bare.detach(*link)))?;
    Ok([attach, detach])
}

/// One of each; what they execute themselves is counted, too.
fn programs(daemon: &Daemon, figures: &mut Figures) -> Result<()> {
    let data = tempfile::tempdir_in("/dev/shm").context("make a folder in memory for host-local")?;
    for (name, cni) in [
        ("plugin", Cni::ours(plugin()?, &daemon.socket())),
        ("ptp46", Cni::usual("ptp", Families::Both, data.path(), 25)),
        ("bridge46", Cni::usual("bridge", Families::Both, data.path(), 26)),
    ] {
        let both = namespaces_for_plugins(2, Dad::Off)?;
        let [warm, id] = [id(), id()];
        cni.add(&warm, &both[0].path())?;
        let path = both[1].path();
        let attach = strace::of_program(|strace| cni.add_under(strace, &id, &path))?;
        let detach = strace::of_program(|strace| cni.del_under(strace, &id, &path))?;
        cni.del(&warm, &both[0].path())?;
        tell(name, 1, &[attach, detach], figures);
    }
    let (netavark, node) = (Netavark::new(Families::Both), Node::new()?);
    let both = namespaces(2)?;
    let paths = [both[0].path(), both[1].path()];
    let counts = node.node.within(|| {
        netavark.setup(0, &paths[0])?;
        let attach = strace::of_program(|strace| netavark.setup_under(strace, 1, &paths[1]))?;
        let detach = strace::of_program(|strace| netavark.teardown_under(strace, 1, &paths[1]))?;
        netavark.teardown(0, &paths[0])?;
        anyhow::Ok([attach, detach])
    })??;
    tell("netavark46", 1, &counts, figures);
    Ok(())
}

fn tell(who: &str, of: usize, counts: &[Counts; 2], figures: &mut Figures) {
    for (verb, counts) in ["attach", "detach"].into_iter().zip(counts) {
        let each = |count: usize| count as f64 / of as f64;
        figures.value(format!("calls/{verb}/{who}"), "calls", each(counts.total()));
        figures.value(
            format!("messages/{verb}/{who}"),
            "messages",
            each(counts.messages),
        );
        // Of a process that lives, each call by its name.
        if matches!(who, "daemon" | "floor" | "first") {
            for (name, count) in &counts.calls {
                figures.value(format!("call/{verb}/{who}/{name}"), "calls", each(*count));
            }
        }
    }
}

/// Whether an echo request to a host beyond the node's uplink, sent right after the answer, is answered: of both families,
/// in turn the first.
fn first_packets(runtime: &Runtime, daemon: &Daemon, count: usize, figures: &mut Figures) -> Result<()> {
    let caller = Caller::new(daemon.client(runtime)?);
    let outside: Vec<IpAddr> = OUTSIDE
        .iter()
        .map(|address| address.parse())
        .collect::<Result<_, _>>()?;
    let (mut lost, mut echoes) = (0, Samples::default());
    for n in 0..count {
        let namespace = Named::new()?;
        let mut order = outside.clone();
        order.rotate_left(n % 2);
        let pingers = order
            .iter()
            .map(|address| Ok((*address, Pinger::open(&namespace, *address)?)));
        let pingers = pingers.collect::<Result<Vec<_>>>()?;
        let (id, path) = (id(), namespace.path());
        runtime.block_on(caller.attach(&id, &path))?;
        for (address, pinger) in pingers {
            match pinger.aim(address, None)?.ping(LOST) {
                Ok(took) => echoes.push(took),
                Err(_) => lost += 1,
            }
        }
        runtime.block_on(caller.detach(&id))?;
    }
    figures.value("first-packets/lost", "packets", f64::from(lost));
    figures.value("first-packets/attaches", "attaches", count as f64);
    figures.times("first-packets/echo", &echoes);
    Ok(())
}
