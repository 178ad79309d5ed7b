//! After the storm: the daemon runs, everything has had its time, and what the daemon says is what the kernel holds.

use crate::caller::{Caller, INTERFACE, Office};
use crate::history::Answer;
use crate::plan::{Act, Operation};
use crate::witness::{self, GROUP, Seen};
use anyhow::{Context as _, Result};
use client::inspection::{Attachment, GetNodeResponse};
use ipnet::IpNet;
use rustix::process::Signal;
use stage::Namespace;
use stage::wait::within;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long it may take until everything is as it is to be: two processors, and a round of the daemon's takes a minute.
const CALM: Duration = Duration::from_secs(90);
/// How long deletions that were left may wait before another start of the daemon carries them out.
const QUEUED: Duration = Duration::from_secs(3);
/// How long a packet may take.
const PING: Duration = Duration::from_secs(5);
/// Descriptors that a daemon without callers may have open.
const DESCRIPTORS: usize = 200;

/// Waits until the node is as the daemon says that it is. What is wrong after all patience is returned. The last call of the
/// history is a list of all that is attached.
pub fn settle(office: &Office, caller: &Caller) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    within(CALM, || {
        wrong = match look(office, caller) {
            Ok(found) => found,
            Err(error) => vec![format!("{error:#}")],
        };
        wrong.is_empty()
    });
    let list = Operation::patient(Act::List);
    if !matches!(caller.call(usize::MAX, &list), Answer::Listed(_)) {
        wrong.push("the daemon does not tell what is attached".to_owned());
    }
    Ok(wrong)
}

/// One look at everything.
fn look(office: &Office, caller: &Caller) -> Result<Vec<String>> {
    let room = &office.room;
    let mut wrong = Vec::new();
    room.reopen()?;
    if office.daemon.ensure_running()? || office.world.is_told {
        caller.question(async |client| office.daemon.tell_again(client).await)?;
    }
    if !within(QUEUED, || is_queue_empty(office)) {
        office.daemon.end(Signal::TERM)?;
        wrong.push("deletions wait".to_owned());
        return Ok(wrong);
    }
    let status = caller.question(async |client| client.status().await);
    if let Err(error) = &status
        && !error.to_string().contains("address is left")
    {
        wrong.push(format!("not ready: {error}"));
        return Ok(wrong);
    }
    let findings = caller.question(async |client| client.check(None).await)?;
    wrong.extend(
        findings
            .into_iter()
            .map(|finding| format!("the daemon's check: {}", finding.text)),
    );
    let all = caller.question(async |client| client.list(None).await)?;
    let node = caller.question(async |client| client.node().await)?;
    let seen = Seen::of(&room.stage.node)?;
    wrong.extend(links(&all, &seen));
    wrong.extend(paths(&all, &seen));
    wrong.extend(ports(&all, &seen));
    wrong.extend(pool(&all, &node));
    wrong.extend(namespaces(office, &all)?);
    wrong.extend(process(office)?);
    if wrong.is_empty() {
        wrong.extend(traffic(office, &all)?);
    }
    Ok(wrong)
}

fn is_queue_empty(office: &Office) -> bool {
    let entries = std::fs::read_dir(office.room.queue());
    let names = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    !names
        .into_iter()
        .any(|name| !name.to_string_lossy().starts_with('.'))
}

/// Every attachment has its link, and there is none without.
fn links(all: &[Attachment], seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    for one in all {
        let link = seen.links.iter().find(|link| link.name == one.host_link);
        match link {
            None => wrong.push(format!("{:?} has no link {}", one.key, one.host_link)),
            Some(link) => {
                if link.group != GROUP || !link.is_up || link.index != u64::from(one.host_index) {
                    wrong.push(format!("the link of {:?} is {link:?}", one.key));
                }
                if link.alias.is_empty() {
                    wrong.push(format!("{} has no record", link.name));
                }
            }
        }
    }
    for link in &seen.links {
        let is_ours = link.is_named_as_ours() && link.group == GROUP || link.is_dying();
        if is_ours && !all.iter().any(|one| one.host_link == link.name) {
            wrong.push(format!("nobody lives behind {link:?}"));
        }
    }
    wrong
}

/// Every address has its route and its neighbour, and there are no others.
fn paths(all: &[Attachment], seen: &Seen) -> Vec<String> {
    let mut expected = BTreeSet::new();
    for one in all {
        for address in addresses(one) {
            expected.insert((address, one.host_link.clone()));
        }
    }
    let routes: Vec<(IpAddr, String)> = seen
        .routes
        .iter()
        .filter_map(|(to, link)| Some((to.split('/').next()?.parse().ok()?, link.clone())))
        .collect();
    let mut wrong = Vec::new();
    for (what, found) in [("route", &routes), ("neighbour", &seen.neighbours)] {
        let mut left: BTreeSet<_> = expected.clone();
        for one in found {
            if !left.remove(one) {
                wrong.push(format!("{what} that nobody needs: {one:?}"));
            }
        }
        wrong.extend(
            left.into_iter()
                .map(|one| format!("{what} that is missing: {one:?}")),
        );
    }
    wrong
}

/// Every port leads to who has it, and no other one anywhere.
fn ports(all: &[Attachment], seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    if !seen.has_table {
        wrong.push("the table is not there".to_owned());
    }
    let mut expected = 0;
    for one in all {
        for port in &one.host_port {
            for address in addresses(one) {
                expected += 1;
                let leads = |element: &&String| {
                    element.contains(&format!("{}", port.port)) && element.contains(&format!("\"{address}\""))
                };
                if !seen.ports.iter().any(|element| leads(&element)) {
                    wrong.push(format!("port {} does not lead to {address}", port.port));
                }
            }
        }
    }
    if seen.ports.len() != expected {
        wrong.push(format!(
            "{expected} ways of ports are to be, and there are {:?}",
            seen.ports
        ));
    }
    wrong
}

fn pool(all: &[Attachment], node: &GetNodeResponse) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut holders: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for address in all.iter().flat_map(addresses) {
        *holders.entry(address).or_default() += 1;
    }
    wrong.extend(
        holders
            .iter()
            .filter(|(_, held)| **held > 1)
            .map(|(address, _)| format!("two have {address}")),
    );
    for prefix in &node.prefix {
        let Ok(net) = prefix.prefix.parse::<IpNet>() else {
            wrong.push(format!("{} is no prefix", prefix.prefix));
            continue;
        };
        let used = holders.keys().filter(|address| net.contains(*address)).count() as u64;
        if used != prefix.used {
            wrong.push(format!(
                "{used} addresses of {net} are used, and the daemon says {}",
                prefix.used
            ));
        }
        // What drains gives out nothing; a full 2^64 is not counted.
        let sum = prefix
            .used
            .saturating_add(prefix.free)
            .saturating_add(prefix.cooling);
        if prefix.state == 1 && prefix.capacity < u64::MAX && sum != prefix.capacity {
            wrong.push(format!("{net} has not {} addresses: {prefix:?}", prefix.capacity));
        }
    }
    if node.attachments != all.len() as u64 {
        wrong.push(format!(
            "{} are attached, and the daemon counts {}",
            all.len(),
            node.attachments
        ));
    }
    wrong
}

/// Every namespace has what is attached to it, and what is a stranger's, and nothing else.
fn namespaces(office: &Office, all: &[Attachment]) -> Result<Vec<String>> {
    let room = &office.room;
    let mut wrong = Vec::new();
    let mut owners: BTreeMap<u64, Vec<&Attachment>> = BTreeMap::new();
    for one in all {
        owners.entry(one.namespace_inode).or_default().push(one);
    }
    for (number, slot) in room.living() {
        let inode = room.lives()[number].inode;
        let namespace = Namespace::open(&room.path(slot))?;
        let found = witness::inside(&namespace).with_context(|| format!("look into namespace {slot}"))?;
        let found: Vec<_> = found
            .into_iter()
            .filter(|(name, _)| !is_strangers(name))
            .collect();
        let expected: Vec<_> = owners
            .remove(&inode)
            .unwrap_or_default()
            .into_iter()
            .map(|one| (INTERFACE.to_owned(), addresses(one).collect::<BTreeSet<IpAddr>>()))
            .collect();
        if found != expected {
            wrong.push(format!("namespace {slot} has {found:?} instead of {expected:?}"));
        }
    }
    for one in owners.into_values().flatten() {
        wrong.push(format!("{:?} is attached to a namespace that is gone", one.key));
    }
    Ok(wrong)
}

/// The kernel makes a link of its own in each namespace where the tunnel's module is.
fn is_strangers(name: &str) -> bool {
    name == "stranger1" || name.starts_with("ifb")
}

fn process(office: &Office) -> Result<Vec<String>> {
    let Some(pid) = office.daemon.pid() else {
        return Ok(vec!["no daemon".to_owned()]);
    };
    let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))?.count();
    match open {
        0..DESCRIPTORS => Ok(vec![]),
        open => Ok(vec![format!("the daemon has {open} files open")]),
    }
}

/// Every workload reaches the world and another workload, in both families.
fn traffic(office: &Office, all: &[Attachment]) -> Result<Vec<String>> {
    let room = &office.room;
    let living = room.living();
    let mut spaces = Vec::new();
    for one in all {
        let inode = |number: usize| room.lives()[number].inode;
        let slot = living
            .iter()
            .find(|(number, _)| inode(*number) == one.namespace_inode);
        let (_, slot) = slot.context("it was there a moment ago")?;
        spaces.push(Namespace::open(&room.path(*slot))?);
    }
    let mut wrong = Vec::new();
    for (n, one) in all.iter().enumerate() {
        let next = &all[(n + 1) % all.len()];
        for own in addresses(one) {
            let is_of_family = |address: &IpAddr| address.is_ipv4() == own.is_ipv4();
            let outside = stage::OUTSIDE
                .iter()
                .filter_map(|text| text.parse().ok())
                .find(is_of_family);
            let targets = outside.into_iter().chain(addresses(next).filter(is_of_family));
            for to in targets {
                if let Err(error) = stage::ping(&spaces[n], to, PING) {
                    wrong.push(format!("{own} of {:?} does not reach {to}: {error:#}", one.key));
                }
            }
        }
        if wrong.len() > 5 {
            break;
        }
    }
    Ok(wrong)
}

fn addresses(one: &Attachment) -> impl Iterator<Item = IpAddr> + '_ {
    one.ip.iter().filter_map(|text| text.parse().ok())
}

/// Panics and what else may not be in a log.
pub fn log_complaints(office: &Office, from: u64) -> Result<(Vec<String>, u64)> {
    let text = std::fs::read(office.daemon.log())?;
    let fresh = text.get(usize::try_from(from)?..).unwrap_or_default();
    let fresh = String::from_utf8_lossy(fresh);
    // std's own words where a thread begins without memory for its second stack, which a limit of addresses brings about.
    let is_for_want_of_memory = |line: &str| line.contains("/sys/pal/unix/stack_overflow.rs:");
    let complaints = fresh
        .lines()
        .filter(|line| line.contains("panicked") && !is_for_want_of_memory(line));
    Ok((complaints.map(str::to_owned).collect(), text.len() as u64))
}
