//! The life of a node: without a network, with one, through deaths of the daemon, to nothing left.

use crate::cluster::{Cluster, LONG};
use crate::node::MEMBER;
use crate::underlay::{OUTSIDE, WHO_PORT};
use stage::wait::eventually;
use std::collections::BTreeSet;
use std::fs;

/// Pods of a node that are made while its daemon is killed.
const MANY: usize = 50;

#[test]
fn a_node_is_ready_with_us_and_its_pods_outlive_every_death_of_the_daemon() {
    let before = machine();
    let cluster = Cluster::new();
    not_ready_without_a_network(&cluster);
    cluster.install();
    eventually(
        LONG,
        "the node is ready",
        || cluster.condition("Ready"),
        |seen| seen.0 == "True",
    );
    traffic(&cluster);
    attached_without_the_api_server(&cluster);
    killed_while_pods_are_made(&cluster);
    replaced_under_traffic(&cluster);
    gone_while_it_is_down(&cluster);
    drop(cluster);
    assert_eq!(machine(), before);
}

fn not_ready_without_a_network(cluster: &Cluster) {
    let seen = eventually(
        LONG,
        "the node says that it has no network",
        || cluster.condition("Ready"),
        |seen| seen.1.contains("NetworkReady=false"),
    );
    assert_eq!(seen.0, "False", "{seen:?}");
}

/// Both families: pod to pod by its own address, and to the outside host by the node's.
fn traffic(cluster: &Cluster) {
    cluster.deploy("pair", 2);
    let pods = cluster.all_ready("pair", 2);
    for (client, server) in [(0, 1), (1, 0)] {
        let (name, own) = &pods[client];
        assert_eq!(own.len(), 2, "{pods:?}");
        for family in [0, 1] {
            let there = &pods[server].1[family];
            let ask = format!("printf 'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n' | timeout 10 nc {there} 80");
            let said = cluster.exec(name, &ask);
            assert!(
                said.contains(&own[family]),
                "{there} sees {}: {said}",
                own[family]
            );
            let ask = format!("timeout 10 nc {} {WHO_PORT} </dev/null", OUTSIDE[family]);
            assert_eq!(cluster.exec(name, &ask).trim(), cluster.node.addresses[family]);
        }
    }
}

/// A pod that the kubelet has from a file comes up while the API server is away, and is told of when it is back.
fn attached_without_the_api_server(cluster: &Cluster) {
    let path = "/etc/kubernetes/manifests/file.json";
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "file", "labels": {"app": "file"}},
        "spec": {
            "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
            "containers": [{"name": "member", "image": MEMBER, "imagePullPolicy": "Never"}],
        },
    });
    expect_attached(cluster, 2);
    cluster.kill_api_server();
    cluster.node.room.write(path, &pod.to_string());
    expect_attached(cluster, 3);
    cluster.start_api_server();
    cluster.all_ready("file", 1);
    fs::remove_file(cluster.node.room.reach(path)).unwrap();
    expect_attached(cluster, 2);
}

fn killed_while_pods_are_made(cluster: &Cluster) {
    cluster.deploy("many", MANY);
    for part in 1..=3 {
        eventually(
            LONG,
            "some are ready",
            || cluster.ready("many").len(),
            |ready| *ready >= part * MANY / 5,
        );
        cluster.node.kill_daemon();
        running(cluster);
    }
    let seen = eventually(
        LONG,
        "the kubelet has counted",
        || daemon(cluster),
        |seen| seen.1 == 3,
    );
    assert_eq!(seen.1, 3, "each kill was one of the daemon's pod");
    let pods = cluster.all_ready("many", MANY);
    let unique: BTreeSet<&String> = pods.iter().flat_map(|(_, addresses)| addresses).collect();
    assert_eq!(unique.len(), 2 * MANY, "{pods:?}");
    // The pair's, too, and none that nobody has.
    expect_attached(cluster, MANY + 2);
}

/// The daemon's pod: who it is, and how often its container was started anew.
fn daemon(cluster: &Cluster) -> (String, u64) {
    let pods = cluster.get(&["-n", "workloadnet", "pods"]);
    let pod = &pods["items"][0];
    let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    (
        pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        restarts.unwrap_or_default(),
    )
}

/// Waits until the kubelet has started the daemon anew and it serves.
fn running(cluster: &Cluster) {
    let program = crate::cluster::built("dist").join("workloadnet");
    eventually(
        LONG,
        "the daemon is ready again",
        || {
            cluster
                .node
                .room
                .output(&[program.to_str().unwrap(), "status"])
                .status
                .success()
        },
        |ready| *ready,
    );
}

#[track_caller]
fn expect_attached(cluster: &Cluster, count: usize) {
    let list = || {
        cluster.node.workloadnet(&["list"])["attachment"]
            .as_array()
            .map(Vec::len)
    };
    eventually(LONG, "so many are attached", list, |seen| *seen == Some(count));
}

/// A rollout, while one pod of the pair pings the other 20 times a second on both families.
fn replaced_under_traffic(cluster: &Cluster) {
    let pods = cluster.all_ready("pair", 2);
    let (client, servers) = (&pods[0].0, &pods[1].1);
    let old = daemon(cluster).0;
    let ping = |server: &String| {
        format!(
            "(ping -i 0.05 -w 600 {server} >/tmp/{}; echo end >>/tmp/done) & echo $! >>/tmp/pids",
            server.replace(':', "_")
        )
    };
    let start: Vec<String> = servers.iter().map(ping).collect();
    cluster.exec(
        client,
        &format!("({}) >/dev/null 2>&1 </dev/null", start.join("; ")),
    );
    cluster.kubectl(&[
        "-n",
        "workloadnet",
        "rollout",
        "restart",
        "daemonset/workloadnetd",
    ]);
    cluster.kubectl(&[
        "-n",
        "workloadnet",
        "rollout",
        "status",
        "daemonset/workloadnetd",
        "--timeout=170s",
    ]);
    running(cluster);
    assert_ne!(daemon(cluster).0, old, "another pod is the daemon");
    // SIGINT is when ping counts.
    cluster.exec(client, "for folder in /proc/[0-9]*; do case $(cat $folder/cmdline) in ping*) kill -INT ${folder#/proc/};; esac; done 2>/dev/null; true");
    for server in servers {
        let path = format!("/tmp/{}", server.replace(':', "_"));
        let said = eventually(
            LONG,
            "ping has counted",
            || cluster.exec(client, &format!("cat {path}")),
            |said| said.contains("packets transmitted"),
        );
        assert!(said.contains(" 0% packet loss"), "{said}");
        let sent = said.matches("seq=").count();
        assert!(sent > 20, "the pings ran across the rollout: {sent}");
    }
}

/// The daemon's pod cannot come back, because its node is not selected; pods go all the same.
fn gone_while_it_is_down(cluster: &Cluster) {
    let select = r#"{"spec":{"template":{"spec":{"nodeSelector":{"nowhere":"nowhere"}}}}}"#;
    let daemonset = ["-n", "workloadnet", "patch", "daemonset", "workloadnetd", "-p"];
    cluster.kubectl(&[&daemonset[..], &[select]].concat());
    let down = || {
        cluster
            .node
            .room
            .output(&["/bin/busybox", "pidof", "workloadnetd"])
            .status
            .success()
    };
    eventually(LONG, "the daemon has ended", down, |runs| !runs);
    cluster.kubectl(&["delete", "deployment", "pair", "many", "--wait=false"]);
    let left = || cluster.get(&["pods"])["items"].as_array().map(Vec::len);
    eventually(LONG, "pods go while the daemon is down", left, |left| {
        *left == Some(0)
    });
    let back = r#"{"spec":{"template":{"spec":{"nodeSelector":{"nowhere":null}}}}}"#;
    cluster.kubectl(&[&daemonset[..], &[back]].concat());
    running(cluster);
    expect_attached(cluster, 0);
    let node = cluster.node.workloadnet(&["node"]);
    let prefixes = node["prefix"].as_array().unwrap();
    assert!(prefixes.iter().all(|prefix| prefix["used"] == 0), "{node:#}");
}

/// What a cluster could leave on the machine: mounts, links, control groups of this process's rooms.
fn machine() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    found.extend(
        fs::read_dir("/sys/class/net")
            .unwrap()
            .map(|link| format!("link {:?}", link.unwrap().file_name())),
    );
    let own = format!("workloadnet-{}-", std::process::id());
    let mut open = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            if entry.file_name().to_string_lossy().starts_with(&own) {
                found.insert(format!("control group {}", entry.path().display()));
            }
            open.push(entry.path());
        }
    }
    found
}
