//! A daemon that ends and comes back, while packets go to other nodes.

use super::cluster::{Cluster, LIMIT, listed, talk};
use crate::daemon::Daemon;
use crate::witness::run;
use stage::ping;
use stage::tcp::{Conversation, Server};
use stage::wait::{PATIENCE, eventually};
use std::time::Duration;

/// Ends with this value.
struct Listener(std::process::Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `nft monitor`, which listens already, and the file that it writes to.
fn watch_tables(node: &Daemon) -> (Listener, std::path::PathBuf) {
    let file = node.folder().join("tables");
    let out = std::fs::File::create(&file).unwrap();
    let mut command = std::process::Command::new("nft");
    command.arg("monitor").stdout(out);
    let listener = Listener(node.spawn(command));
    let look = || {
        run(&node.node.node, "nft add table inet witness");
        run(&node.node.node, "nft delete table inet witness");
        std::fs::read_to_string(&file).unwrap()
    };
    eventually(PATIENCE, "nft listens", look, |said| said.contains("witness"));
    (listener, file)
}

#[test]
fn a_daemon_that_is_killed_and_comes_back_changes_no_route_and_loses_no_packet() {
    let mut cluster = Cluster::new("auto", &listed(&[0, 1], &[0, 1, 2]));
    let (from, to) = (cluster.workload(0, "from"), cluster.workload(2, "to"));
    talk(&from, &to);
    let mut told = cluster.nodes[0]
        .node
        .node
        .within(|| {
            std::process::Command::new("ip")
                .args(["monitor", "route", "link", "neigh", "address"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .unwrap();
    let (tables, said) = watch_tables(&cluster.nodes[0]);
    let servers: Vec<Server> = to
        .addresses
        .iter()
        .map(|address| Server::start(&to.inside, *address).unwrap())
        .collect();
    let talking = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut sent = 0;
            while talking.load(std::sync::atomic::Ordering::Relaxed) {
                for (n, address) in to.addresses.iter().enumerate() {
                    ping(&from.inside, *address, Duration::from_millis(500)).unwrap();
                    // A connection of its own each time: one that was not masqueraded goes on so.
                    let talk = Conversation::open(&from.inside, servers[n].address(), LIMIT).unwrap();
                    assert_eq!(talk.seen_as(), from.addresses[n]);
                    sent += 1;
                }
            }
            sent
        });
        for _ in 0..3 {
            cluster.nodes[0].crash();
            cluster.nodes[0].start();
            cluster.settled();
        }
        talking.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(talk.join().unwrap() > 0);
    });
    // With a list that cannot be read the other nodes stay unknown, and all goes on as it was.
    cluster.nodes[0].crash();
    std::fs::write(cluster.nodes[0].folder().join("peers.toml"), "nonsense").unwrap();
    cluster.nodes[0].start();
    eventually(
        PATIENCE,
        "the router has looked",
        || cluster.nodes[0].logged(),
        |log| log.contains("the list of peers is not used"),
    );
    talk(&from, &to);
    assert!(cluster.nodes[0].caller().findings().is_empty());
    drop(tables);
    let said = std::fs::read_to_string(said).unwrap();
    let ours = said.lines().filter(|line| line.contains("workloadnet"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    told.kill().unwrap();
    let told = String::from_utf8(told.wait_with_output().unwrap().stdout).unwrap();
    let ours = told
        .lines()
        .filter(|line| line.contains("proto 77") || line.contains("wkvx8"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
}
