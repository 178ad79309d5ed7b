//! Blows to links, and to what belongs to them.

use super::last;
use crate::caller::Office;
use crate::daemon::locked;
use crate::history::Blow;
use crate::plan::KEYS;
use crate::room::{fed, ip, try_ip};
use crate::witness::{self, text};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use stage::wait::PATIENCE;
use std::fmt::Write as _;

/// Changes of a stranger's link, each of which is announced to everybody: more than a socket's buffer holds.
const CHANGES: usize = 12_000;

/// One of the daemon's links with a record, and its key.
fn victim(office: &Office, blow: &Blow) -> Result<Option<(String, usize)>> {
    let links = witness::json(&office.room.stage.node, "ip -j link show group 8")?;
    let mut found = Vec::new();
    for link in &links {
        let alias = text(link, "ifalias");
        let number = alias
            .rsplit('/')
            .next()
            .and_then(|id| id.strip_prefix("workload-")?.parse().ok());
        if let Some(key) = number.filter(|key: &usize| *key < KEYS) {
            found.push((text(link, "ifname"), key));
        }
    }
    let at = usize::try_from(blow.strike.number >> 8)?;
    Ok((!found.is_empty()).then(|| found[at % found.len()].clone()))
}

/// Takes a link away.
pub(super) fn delete(office: &Office, blow: &mut Blow) -> Result<()> {
    if let Some((link, key)) = victim(office, blow)? {
        blow.what = format!("link {link} is deleted");
        blow.cut.push(key);
        try_ip(&office.room.stage.node, &format!("link delete {link}\n"))?;
    }
    Ok(())
}

/// Renames a link, so that it is nobody's any more, and deletes it after a while.
pub(super) fn rename(office: &Office, blow: &mut Blow) -> Result<()> {
    const ELSEWHERE: &str = "renamed";
    if let Some((link, key)) = victim(office, blow)? {
        blow.what = format!("link {link} is renamed, and deleted");
        blow.cut.push(key);
        let node = &office.room.stage.node;
        try_ip(node, &format!("link set {link} name {ELSEWHERE}\n"))?;
        last(blow);
        try_ip(node, &format!("link delete {ELSEWHERE}\n"))?;
    }
    Ok(())
}

/// Takes a link down.
pub(super) fn set_down(office: &Office, blow: &mut Blow) -> Result<()> {
    if let Some((link, _)) = victim(office, blow)? {
        blow.what = format!("link {link} is down");
        try_ip(&office.room.stage.node, &format!("link set {link} down\n"))?;
    }
    Ok(())
}

/// Takes a link's routes, neighbours and addresses away, some of them.
pub(super) fn unroute(office: &Office, blow: &mut Blow) -> Result<()> {
    let Some((link, _)) = victim(office, blow)? else {
        return Ok(());
    };
    let all = [
        format!("-4 route flush dev {link}\n"),
        format!("-6 route flush dev {link}\n"),
        format!("neighbour flush dev {link} nud permanent\n"),
        format!("-4 address flush dev {link}\n"),
        format!("-6 address flush dev {link}\n"),
        format!("link set {link} group 0\n"),
        format!("link set {link} mtu 1290\n"),
        format!("link set {link} alias nobody\n"),
    ];
    let is_regrouped = blow.strike.number & 0x20 != 0;
    for (n, line) in all.iter().enumerate() {
        // What has neither its group nor its record is nobody's any more.
        if blow.strike.number & (1 << n) == 0 || is_regrouped && n == 7 {
            continue;
        }
        // `ip -batch` takes no family.
        let words = format!("ip {}", line.trim());
        drop(witness::run(&office.room.stage.node, &words));
        blow.what += line;
    }
    // What is not in the group, or has no record, when a daemon starts was taken out of its hands: no other strike comes
    // before that is back.
    let is_whole =
        |found: &Value| text(found, "group") == witness::GROUP && text(found, "ifalias") != "nobody";
    let is_back = || {
        let found = witness::json(&office.room.stage.node, &format!("ip -j link show {link}"));
        found.map_or_else(|_| !exists(office, &link), |found| found.iter().all(is_whole))
    };
    if !stage::wait::within(PATIENCE, is_back) {
        blow.complaint = Some(format!("{link} is not put back after {}", blow.what));
    }
    Ok(())
}

fn exists(office: &Office, link: &str) -> bool {
    witness::run(&office.room.stage.node, &format!("ip -j link show {link}")).is_ok()
}

/// A stranger's link has the name of a key's, in nobody's group or in the daemon's.
pub(super) fn put_in_the_way(office: &Office, blow: &mut Blow) -> Result<()> {
    let node = &office.room.stage.node;
    let taken: Vec<String> = witness::json(node, "ip -j link show")?
        .iter()
        .map(|link| text(link, "ifname"))
        .collect();
    let free: Vec<String> = locked(&office.links)
        .keys()
        .filter(|name| !taken.contains(name))
        .cloned()
        .collect();
    let at = usize::try_from(blow.strike.number >> 8)?;
    if free.is_empty() {
        return Ok(());
    }
    let name = &free[at % free.len()];
    let is_ours = blow.strike.number & 1 == 0;
    let group = if is_ours { 8 } else { 0 };
    blow.what = format!("a stranger's link {name} of group {group}");
    // The daemon may have made its own meanwhile.
    if ip(node, &format!("link add {name} group {group} type ifb\n")).is_err() {
        return Ok(());
    }
    // One in our group with our name and no record is half-made to the daemon, and goes.
    let is_named = ip(node, &format!("link property add dev {name} altname instheway\n")).is_ok();
    last(blow);
    if is_ours {
        return try_ip(node, "link delete instheway\n");
    }
    ensure!(is_named, "the stranger's link {name} was taken away");
    ip(node, "link delete instheway\n").with_context(|| format!("the stranger's link {name} was taken away"))
}

/// So much is announced while the daemon is frozen that it has to miss some, and a link ends meanwhile.
pub(super) fn churn(office: &Office, blow: &mut Blow) -> Result<()> {
    let node = &office.room.stage.node;
    office.daemon.signal(Signal::STOP);
    let mut lines = String::from("link add churner type ifb\n");
    for n in 0..CHANGES {
        let _ = writeln!(lines, "link set churner alias {n}");
    }
    let churned = ip(node, &lines);
    let deleted = delete(office, blow);
    let over = try_ip(node, "link delete churner\n");
    office.daemon.signal(Signal::CONT);
    blow.what = format!("{CHANGES} changes while the daemon is frozen; {}", blow.what);
    churned.and(deleted).and(over)
}

/// Takes the table away, or what is in it.
pub(super) fn clear_table(office: &Office, blow: &mut Blow) -> Result<()> {
    let line = match blow.strike.number % 6 {
        0 => "delete table inet workloadnet",
        1 => "flush table inet workloadnet",
        2 => "delete table arp workloadnet",
        3 => "flush map inet workloadnet ports4",
        4 => "flush map inet workloadnet ports6",
        _ => "delete table inet workloadnet\ndelete table arp workloadnet",
    };
    line.clone_into(&mut blow.what);
    // It may be gone already.
    drop(fed(
        &office.room.stage.node,
        &["nft", "-f", "-"],
        &format!("{line}\n"),
    ));
    Ok(())
}
