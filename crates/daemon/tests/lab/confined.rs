//! What the running daemon has given up. That it holds, call by call, is tested where it is written (`crates/kernel`).

use crate::daemon::{Daemon, attach, detach};
use crate::sandbox::Sandbox;
use stage::wait::{PATIENCE, eventually};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The values of some lines of each thread's status (proc_pid_status(5)), behind the thread's name.
fn threads(pid: u32, wanted: &[&str]) -> Vec<(String, Vec<String>)> {
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // One that ends meanwhile has nothing to show.
        let Ok(status) = fs::read_to_string(thread.unwrap().path().join("status")) else {
            continue;
        };
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {status}"))
                .trim()
                .to_owned()
        };
        threads.push((value("Name:"), wanted.iter().map(|name| value(name)).collect()));
    }
    threads
}

#[test]
fn every_thread_of_the_daemon_has_given_up_what_it_does_not_need() {
    let mut daemon = Daemon::new();
    daemon.set_rest(format!(
        "[metrics]\nlisten = \"unix:{}/m.sock\"\n",
        daemon.folder().display()
    ));
    daemon.start();
    let sandbox = Sandbox::new();
    daemon.caller().attach(attach("web", &sandbox)).unwrap();
    daemon.caller().findings();

    let lines = [
        "CapEff:",
        "CapPrm:",
        "CapBnd:",
        "CapInh:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp:",
        "Seccomp_filters:",
    ];
    let threads = threads(daemon.pid(), &lines);
    // DAC_READ_SEARCH 2, NET_ADMIN 12, SYS_PTRACE 19, SYS_ADMIN 21 (linux/capability.h).
    let (needed, none) = (
        format!("{:016x}", 1_u64 << 2 | 1 << 12 | 1 << 19 | 1 << 21),
        "0".repeat(16),
    );
    for (name, values) in &threads {
        // Those outside of Landlock may open names, and nothing else.
        let filters = if name == "outside" { "2" } else { "1" };
        let expected = [&*needed, &needed, &needed, &none, &none, "1", "2", filters];
        assert_eq!(values[..], expected, "thread {name}");
    }
    for name in ["workloadnetd", "opener", "sweeper", "outside"] {
        assert!(
            threads.iter().any(|(thread, _)| thread == name),
            "no thread {name}: {threads:?}"
        );
    }
}

/// The file of labels would be written wherever a link leads to, for root may write everywhere.
#[test]
fn what_is_not_the_daemons_is_not_written_whoever_puts_a_link_there() {
    let daemon = Daemon::started();
    let (one, other) = (Sandbox::new(), Sandbox::new());
    let caller = daemon.caller();
    let labelled = |id: &str, sandbox: &Sandbox| {
        let mut request = attach(id, sandbox);
        request.labels.insert("team".to_owned(), id.to_owned());
        request
    };
    caller.attach(labelled("one", &one)).unwrap();
    let state = daemon.state();
    eventually(
        PATIENCE,
        "labels are kept",
        || fs::read_to_string(&state).unwrap_or_default(),
        |text| text.contains("team"),
    );

    let (folder, theirs) = (state.parent().unwrap(), daemon.folder().join("theirs"));
    fs::create_dir(&theirs).unwrap();
    fs::rename(folder, daemon.folder().join("was")).unwrap();
    symlink(&theirs, folder).unwrap();
    caller.attach(labelled("other", &other)).unwrap();
    caller.detach(detach("other")).unwrap();
    eventually(
        PATIENCE,
        "it says so",
        || daemon.logged(),
        |log| log.contains("Permission denied"),
    );
    assert_eq!(names(&theirs), Vec::<String>::new());
    assert!(names(&daemon.folder().join("was")).contains(&"state.json".to_owned()));
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}
