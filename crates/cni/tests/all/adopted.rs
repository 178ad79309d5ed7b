//! Adoptions beyond the guide's: a command line that is killed, and several networks at once. The pods are Debian's ptp's.

use crate::migration::{Old, Pod};
use crate::node::Node;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
/// More steps than a call of the command line has.
const MANY: u32 = 80;
/// A step: what reaches the daemon, a file, or whoever reads the answer.
const STEPS: &str = "unlink,unlinkat,rmdir,flock,write,writev,sendto,sendmsg";

/// `workloadnet adopt` with these words, which gets SIGKILL where it begins its n-th step.
fn killed_at(step: u32, node: &Node, old: &Old, words: &[&str]) -> Output {
    let adopt = old.command(node, words);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(["-e", &format!("trace={STEPS}")])
        .args(["-e", &format!("inject={STEPS}:signal=SIGKILL:when={step}")])
        .arg(adopt.get_program())
        .args(adopt.get_args());
    command.output().unwrap()
}

#[track_caller]
fn done(node: &Node, old: &Old, words: &[&str]) -> String {
    let (code, said) = old.adopt(node, words);
    assert_eq!(code, Some(0), "{words:?}: {said}");
    said
}

fn reach_each_other(a: &Pod, b: &Pod) {
    for ip in &b.ips {
        stage::ping(&a.sandbox.namespace, *ip, LIMIT).unwrap();
    }
}

#[test]
fn a_command_line_that_is_killed_at_any_step_of_an_adoption_is_finished_by_the_next_one() {
    let node = Node::started();
    node.without_duplicate_detection();
    let old = Old::new();
    stage::wait::eventually(
        LIMIT,
        "the daemon answers",
        || old.adopt(&node, &[]).0,
        |code| *code == Some(0),
    );
    for step in 1..MANY {
        let ids = [format!("{step}a"), format!("{step}b")];
        let pods = [&ids[0], &ids[1]].map(|id| old.add(&node, "old", id));
        let mut all_over = true;
        for (words, state) in [
            ("--take", "taken"),
            ("--undo", "undone"),
            ("--take", "taken"),
            ("--commit", "committed"),
        ] {
            let output = killed_at(step, &node, &old, &[words]);
            let was_killed = output.status.signal() == Some(9);
            assert!(
                was_killed || output.status.success(),
                "{words} {step}: {output:?}"
            );
            all_over &= !was_killed;
            let files = old.files();
            let has_files = |id: &str| files.iter().any(|file| file == &format!("results/old-{id}-eth0"));
            // Until it is kept for good, the way back is open: the old plugin's files are there.
            let listed = node.origins();
            for id in &ids {
                let is_committed = listed.get(id).is_some_and(|origin| origin == "committed");
                assert!(
                    is_committed || has_files(id),
                    "{words} {step}: {id} {listed:?} {files:?}"
                );
            }
            reach_each_other(&pods[0], &pods[1]);
            // Once more does the rest, and once more again nothing.
            let said = done(&node, &old, &[words]);
            let again = done(&node, &old, &[words]);
            let listed = node.origins();
            for id in &ids {
                let want = (state != "undone").then_some(state);
                let is = listed.get(id).map(String::as_str);
                assert_eq!(is, want, "{words} {step}: {said}{again}");
            }
            reach_each_other(&pods[0], &pods[1]);
        }
        assert_eq!(old.files(), Vec::<String>::new(), "{step}");
        assert_eq!(node.findings(), "", "{step}");
        if all_over {
            return;
        }
    }
    panic!("more than {MANY} steps");
}

#[test]
fn networks_of_one_node_are_taken_over_at_once_or_each_by_itself() {
    let mut node = Node::started();
    node.without_duplicate_detection();
    let old = Old::new();
    old.network("second", "ptp", "10.78.0.0/24", "fd78::/64", "");
    // Two ranges of one family, the first of which is soon full.
    old.network(
        "wide",
        "ptp",
        r#"10.79.0.0/30"},{"subnet":"10.80.0.0/24"#,
        "fd79::/64",
        "",
    );
    let a = old.add(&node, "old", "a");
    let b = old.add(&node, "second", "b");
    let [c, d] = ["c", "d"].map(|id| old.add(&node, "wide", id));
    assert!(c.ips[0].to_string() == "10.79.0.2" && d.ips[0].to_string() == "10.80.0.2");
    stage::wait::eventually(
        LIMIT,
        "the daemon answers",
        || old.adopt(&node, &["--network", "old"]).0,
        |code| *code == Some(0),
    );
    // Without their prefixes none of them is taken over.
    let (code, said) = old.adopt(&node, &["--take"]);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "possible   a/eth0",
        "10.78.0.2 is in none of this node's prefixes",
        "10.80.0.2 is in none of this node's prefixes",
        "nothing was taken over",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(node.origins().is_empty());

    node.crash();
    node.start_with_prefixes(&[
        "10.77.0.0/24",
        "10.78.0.0/24",
        "10.79.0.0/30",
        "10.80.0.0/24",
        "fd77:77:77::/64",
        "fd78::/64",
        "fd79::/64",
    ]);
    stage::wait::eventually(
        LIMIT,
        "all can be taken over",
        || old.adopt(&node, &[]),
        |(code, _)| *code == Some(0),
    );
    done(&node, &old, &["--take"]);
    let of = |ids: &[(&str, &str)]| -> std::collections::BTreeMap<String, String> {
        let pair = |(id, origin): &(&str, &str)| ((*id).to_owned(), (*origin).to_owned());
        ids.iter().map(pair).collect()
    };
    assert_eq!(
        node.origins(),
        of(&[("a", "taken"), ("b", "taken"), ("c", "taken"), ("d", "taken")])
    );
    for (from, to) in [(&a, &b), (&b, &c), (&c, &d), (&d, &a)] {
        reach_each_other(from, to);
    }
    done(&node, &old, &["--undo", "--network", "second"]);
    done(&node, &old, &["--commit", "--network", "wide"]);
    assert_eq!(
        node.origins(),
        of(&[("a", "taken"), ("c", "committed"), ("d", "committed")])
    );
    let files = old.files();
    let has = |name: &str| files.iter().any(|file| file.contains(name));
    assert!(
        has("results/second-b") && has("results/old-a") && !has("results/wide"),
        "{files:?}"
    );
    for (from, to) in [(&a, &b), (&b, &c), (&c, &d), (&d, &a)] {
        reach_each_other(from, to);
    }
    done(&node, &old, &["--take"]);
    done(&node, &old, &["--commit"]);
    assert_eq!(
        node.origins()
            .values()
            .filter(|origin| *origin == "committed")
            .count(),
        4
    );
    assert_eq!(old.files(), Vec::<String>::new());
    assert_eq!(node.findings(), "");
}

#[test]
fn masquerade_rules_that_are_in_nftables_are_taken_away_by_what_is_printed() {
    let node = Node::started();
    node.without_duplicate_detection();
    let old = Old::new();
    let _pod = old.add(&node, "old", "c1");
    // What ptp 1.9.1 makes of this pod where it finds no iptables; Debian's has none of that yet.
    let rule = |of: &str, id: &str| {
        format!(
            "add rule inet cni_plugins_masquerade masq_checks ip saddr 10.77.0.2 masquerade \
             comment \"a6d96fa05fb243a1-{of}, net: old, if: eth0, id: {id}\"\n"
        )
    };
    let made = "add table inet cni_plugins_masquerade\nadd chain inet cni_plugins_masquerade masq_checks\n"
        .to_owned()
        + &rule("f4d01f2ef4b92245", "c1")
        + &rule("0123456789abcdef", "c11");
    let on_the_node = |line: &str| {
        let run = || Command::new("sh").args(["-c", line]).output();
        let output = node.stage.node.within(run).unwrap().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    on_the_node(&format!("nft '{made}'"));
    stage::wait::eventually(
        LIMIT,
        "the daemon answers",
        || old.adopt(&node, &[]).0,
        |code| *code == Some(0),
    );
    done(&node, &old, &["--take"]);
    let said = done(&node, &old, &["--commit"]);
    assert!(!said.contains("iptables"), "{said}");
    let commands: Vec<&str> = said.lines().filter(|line| line.starts_with("nft ")).collect();
    assert_eq!(commands.len(), 1, "{said}");
    on_the_node(commands[0]);
    let left = on_the_node("nft list table inet cni_plugins_masquerade");
    assert!(left.contains("id: c11") && !left.contains("id: c1\""), "{left}");
}
