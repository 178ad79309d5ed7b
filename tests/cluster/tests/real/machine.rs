//! What a cluster could leave on the machine that it ran on.

use crate::room::Room;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Mounts, links, routes, rules and tables of the test's own namespaces; control groups of its rooms.
pub(crate) fn look() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = lines("mount", &fs::read_to_string("/proc/self/mounts").unwrap());
    // Somebody else may use ip netns meanwhile. Pods' namespaces are called otherwise.
    found.retain(|line| !line.contains(" /run/netns") || line.contains(" /run/netns/cni-"));
    for command in [
        "ip -o link show",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "nft list ruleset",
    ] {
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
        assert!(output.status.success(), "{command}");
        found.extend(lines(command, &String::from_utf8(output.stdout).unwrap()));
    }
    let own = format!("workloadnet-{}-", std::process::id());
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&own) {
                    found.insert(format!("control group {}", entry.path().display()));
                }
                open.push(entry.path());
            }
        }
    }
    found
}

fn lines(what: &str, text: &str) -> BTreeSet<String> {
    text.lines().map(|line| format!("{what}: {line}")).collect()
}

/// The namespace of a room's processes, as the kernel calls it.
pub(crate) fn namespace_of(room: &Room) -> String {
    room.run(&["readlink", "/proc/self/ns/pid"]).trim().to_owned()
}

/// Which processes are in one of these namespaces.
pub(crate) fn processes_in(namespaces: &[String]) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let link = fs::read_link(entry.path().join("ns/pid"));
        link.is_ok_and(|link| namespaces.iter().any(|one| link.as_os_str() == one.as_str()))
    })
    .map(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        format!("{}: {}", entry.path().display(), line.replace('\0', " "))
    })
    .collect()
}
