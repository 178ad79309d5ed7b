//! `adopt`, with folders as host-local and libcni leave them.

use crate::fake::Fake;
use crate::{code, run, text};
use client::inspection::AdoptRequest;
use client::inspection::adopt_request::Step;
use client::inspection::attachment::Origin;
use migrate::played::{Folders, PTP};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

struct Node {
    fake: Fake,
    folder: TempDir,
    folders: Folders,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("netns"), "").unwrap();
        Self {
            fake: Fake::new(),
            folders: Folders::below(folder.path()).unwrap(),
            folder,
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn reserve(&self, network: &str, address: &str, container: &str) {
        self.folders.reserve(network, address, container).unwrap();
    }

    /// A pod of ptp's.
    fn pod(&self, network: &str, address: &str, container: &str, netns: &str) {
        self.reserve(network, address, container);
        let namespace = self.path(netns);
        self.folders
            .cache(network, address, container, &namespace, &[PTP])
            .unwrap();
    }

    /// Exit code and all that was said.
    fn adopt(&self, args: &[&str]) -> (i32, String) {
        let Folders { networks, results } = &self.folders;
        let mut all = vec!["adopt", "--from", "host-local"];
        all.extend(["--data-dir", networks.to_str().unwrap()]);
        all.extend(["--results-dir", results.to_str().unwrap()]);
        all.extend(args);
        let output = run(self.fake.socket(), &all);
        (
            code(&output),
            text(&output.stdout).to_owned() + text(&output.stderr),
        )
    }

    fn has(&self, below: &str) -> bool {
        self.path(below).exists()
    }
}

fn ids(request: &AdoptRequest) -> Vec<&str> {
    request.key.iter().map(|key| key.workload_id.as_str()).collect()
}

#[test]
fn only_files_of_pods_that_are_surely_dead_are_cleaned() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "dead", "nowhere");
    node.pod("old", "10.1.0.3", "live", "netns");
    node.reserve("old", "10.1.0.4", "torn");
    fs::write(node.path("results/old-torn-eth0"), "{\"kind\":").unwrap();
    let (code, said) = node.adopt(&["--commit"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("nothing to commit") && said.contains("old-torn-eth0: it is not JSON"),
        "{said}"
    );
    let (code, said) = node.adopt(&["--commit", "--clean"]);
    assert_eq!(code, 0, "{said}");
    for words in [
        "cleaned    dead/eth0",
        "left       torn/eth0",
        "no result is cached for it",
        "old-torn-eth0: it is not JSON",
        "iptables -t nat -D POSTROUTING -s 10.1.0.2 ",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!node.has("networks/old/10.1.0.2") && !node.has("results/old-dead-eth0"));
    for file in [
        "networks/old/10.1.0.3",
        "networks/old/10.1.0.4",
        "results/old-live-eth0",
    ] {
        assert!(node.has(file), "{file}");
    }
    assert_eq!(node.fake.adopts_asked(), []);
}

#[test]
fn a_masquerade_rule_is_named_where_it_is() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "c1", "netns");
    node.fake.takes("workloadnet", "c1", "10.1.0.2", Origin::Taken);
    node.fake
        .holds_rule(6, "a6d96fa05fb243a1-f4d01f2ef4b92245, net: old, if: eth0, id: c1");
    let (code, said) = node.adopt(&["--commit"]);
    let want = "committed  c1/eth0 10.1.0.2\nof owner workloadnet\nthe old plugin's masquerade rules are the node's: take them away by\n\
                nft delete rule inet cni_plugins_masquerade masq_checks handle 6\n";
    assert_eq!((code, said.as_str()), (0, want));
}

#[test]
fn nothing_is_cleaned_where_no_results_are() {
    let node = Node::new();
    node.reserve("old", "10.1.0.3", "live");
    node.fake.takes("workloadnet", "live", "10.1.0.3", Origin::Taken);
    fs::remove_dir(node.path("results")).unwrap();
    let (code, said) = node.adopt(&["--commit", "--clean"]);
    assert!(
        code == 1 && said.contains("there is no folder") && said.contains("results"),
        "{said}"
    );
    assert!(node.has("networks/old/10.1.0.3"));
    assert_eq!(node.fake.adopts_asked(), []);
}

#[test]
fn giving_back_and_committing_stay_with_the_owner_and_the_network_that_are_named() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "a", "netns");
    node.pod("other", "10.2.0.2", "b", "netns");
    // The same names as in the other network, and dead.
    node.reserve("other", "10.2.0.9", "a");
    node.fake.takes("workloadnet", "a", "10.1.0.2", Origin::Taken);
    node.fake.takes("workloadnet", "b", "10.2.0.2", Origin::Taken);
    node.fake.takes("k8s.io", "c", "10.3.0.2", Origin::Taken);
    node.fake.takes("k8s.io", "kept", "10.3.0.3", Origin::Committed);

    let (_, said) = node.adopt(&["--undo", "--owner", "k8s.io"]);
    assert_eq!(said, "undone     c/eth0\n");
    let (_, said) = node.adopt(&["--undo", "--network", "old"]);
    assert_eq!(said, "undone     a/eth0\nof owner workloadnet\n");
    let (_, said) = node.adopt(&["--undo"]);
    assert!(said.ends_with("of owner k8s.io, workloadnet\n"), "{said}");
    let asked = node.fake.adopts_asked();
    let keys: Vec<Vec<&str>> = asked.iter().map(ids).collect();
    assert_eq!(keys, [vec!["c"], vec!["a"], vec!["a", "b", "c"]]);
    for args in [&["--undo", "--owner", "nobody"], &["--undo", "--owner", ""]] {
        assert_eq!(node.adopt(args), (0, "nothing to undo\n".to_owned()));
    }
    assert_eq!(
        node.adopt(&["--commit", "--owner", "nobody"]),
        (0, "nothing to commit\n".to_owned())
    );
    assert_eq!(node.fake.adopts_asked(), []);

    let (_, said) = node.adopt(&["--commit", "--network", "other"]);
    assert!(said.starts_with("committed  b/eth0 10.2.0.2\n"), "{said}");
    assert_eq!(ids(&node.fake.adopts_asked()[0]), ["b"]);
    assert!(node.has("networks/old/10.1.0.2") && node.has("networks/other/10.2.0.9"));
    assert!(!node.has("networks/other/10.2.0.2"));
}

#[test]
fn a_pod_that_the_daemon_cannot_read_is_named_and_the_others_go_on() {
    let node = Node::new();
    let long = "x".repeat(129);
    node.pod("old", "10.1.0.2", "a", "netns");
    node.pod("old", "10.1.0.3", &long, "netns");
    for (args, state, step) in [
        (&[][..], "possible", Step::Check),
        (&["--take"], "possible", Step::Check),
        (&["--take", "--partial"], "taken", Step::Take),
    ] {
        let (code, said) = node.adopt(args);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{state:<10} a/eth0")), "{args:?}: {said}");
        assert!(
            said.contains(&format!("refused    {long}/eth0")),
            "{args:?}: {said}"
        );
        assert!(
            said.contains("has 129 bytes, 128 is the most"),
            "{args:?}: {said}"
        );
        assert_eq!(node.fake.adopts_asked().last().unwrap().step(), step);
    }
}

#[test]
fn a_file_that_cannot_be_removed_hides_nothing_of_what_was_done() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "a", "netns");
    node.pod("other", "10.2.0.2", "b", "netns");
    node.fake.takes("workloadnet", "a", "10.1.0.2", Origin::Taken);
    node.fake.takes("workloadnet", "b", "10.2.0.2", Origin::Taken);
    // Which nobody can open as a file.
    let lock = node.path("networks/old/lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let (code, said) = node.adopt(&["--commit"]);
    assert_eq!(code, 1, "{said}");
    for words in [
        "committed  a/eth0",
        "committed  b/eth0",
        "-D POSTROUTING -s 10.1.0.2 ",
        "-D POSTROUTING -s 10.2.0.2 ",
        "networks/old/lock: Is a directory",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(node.has("networks/old/10.1.0.2") && !node.has("networks/other"));
}

#[test]
fn what_a_commit_that_was_killed_has_left_is_removed_by_the_next_one() {
    let node = Node::new();
    node.pod("old", "10.1.0.2", "kept", "netns");
    node.pod("old", "10.1.0.3", "taken", "netns");
    node.pod("old", "10.1.0.4", "dead", "nowhere");
    node.pod("old", "10.1.0.5", "stranger", "netns");
    node.fake
        .takes("workloadnet", "kept", "10.1.0.2", Origin::Committed);
    node.fake.takes("workloadnet", "taken", "10.1.0.3", Origin::Taken);
    // The reservations are gone, the results are not.
    fs::remove_dir_all(node.path("networks/old")).unwrap();
    let (code, said) = node.adopt(&[]);
    assert_eq!((code, said.as_str()), (0, "no pods\n"));
    let (code, said) = node.adopt(&["--commit", "--clean", "--network", "old"]);
    assert_eq!(code, 0, "{said}");
    for words in [
        "committed  kept/eth0 10.1.0.2",
        "committed  taken/eth0 10.1.0.3",
        "cleaned    dead/eth0 10.1.0.4",
        "-D POSTROUTING -s 10.1.0.2 ",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let left: Vec<PathBuf> = fs::read_dir(node.path("results"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, [node.path("results/old-stranger-eth0")]);
}
