//! The daemons of the kustomize base go, and those of the Helm chart take their place; then the chart goes as well. Pods
//! go on talking throughout.

use crate::LONG;
use crate::cluster::Cluster;
use crate::install::packaging;
use crate::node::{Node, PRODUCT};
use crate::scenes::traffic::expect_traffic;
use crate::stream::Stream;
use stage::wait::eventually;
use std::fs;

const PLUGIN: &str = "/opt/cni/bin/workloadnet-cni";

/// Installed, upgraded to other settings, and uninstalled by Helm itself. Leaves a cluster without a network.
pub(crate) fn comes_and_goes(cluster: &Cluster) {
    let pods = cluster.all_ready("each", cluster.nodes.len());
    let streams = Stream::start_all(&pods);
    cluster.uninstall();
    expect_no_daemon(cluster);
    // As docs/kubernetes.md says: the namespace first.
    let namespace = packaging("kubernetes/namespace.yaml");
    cluster.kubectl(&["apply", "-f", namespace.to_str().unwrap()]);
    helm(cluster, &["install", "workloadnet", &chart(), "--set", &image()]);
    expect_daemons(cluster, "127.0.0.1:4777");
    let settings = fs::read_to_string(packaging("kubernetes/workloadnetd.toml")).unwrap();
    let own = cluster.control.folder().join("workloadnetd.toml");
    fs::write(&own, settings.replace("127.0.0.1:4777", "127.0.0.1:4778")).unwrap();
    let given = format!("config={}", own.display());
    let words = ["upgrade", "workloadnet", &chart(), "--reuse-values", "--set-file"];
    helm(cluster, &[&words[..], &[&given]].concat());
    expect_daemons(cluster, "127.0.0.1:4778");
    for stream in streams {
        stream.expect_nothing_lost();
    }
    expect_traffic(cluster, &pods);
    helm(cluster, &["uninstall", "workloadnet", "--wait"]);
    expect_no_daemon(cluster);
    expect_traffic(cluster, &pods);
    let objects = "daemonsets,configmaps,serviceaccounts,clusterroles,clusterrolebindings";
    let selected = ["get", objects, "--all-namespaces", "-o", "name"];
    assert!(!cluster.kubectl(&selected).contains("workloadnet"));
    for node in &cluster.nodes {
        expect_taken_away(node);
    }
}

fn chart() -> String {
    packaging("helm/workloadnet").to_str().unwrap().to_owned()
}

fn image() -> String {
    let (name, tag) = PRODUCT.rsplit_once(':').unwrap();
    format!("image.repository={name},image.tag={tag}")
}

#[track_caller]
fn helm(cluster: &Cluster, words: &[&str]) {
    let whom = [
        "helm",
        "--kubeconfig=/etc/kubernetes/admin",
        "--namespace=workloadnet",
    ];
    cluster.control.room.run(&[&whom[..], words].concat());
}

/// Waits until no node has a daemon, and each says that it has no network.
#[track_caller]
fn expect_no_daemon(cluster: &Cluster) {
    for node in &cluster.nodes {
        eventually(LONG, "the daemon has ended", || node.daemon(), Option::is_none);
        cluster.expect_without_network(node);
    }
}

/// Waits until each node has a daemon that is asked at an address, and is ready.
#[track_caller]
fn expect_daemons(cluster: &Cluster, listen: &str) {
    let rollout = ["-n", "workloadnet", "rollout", "status", "--timeout=170s"];
    cluster.kubectl(&[&rollout[..], &["daemonset/workloadnetd"]].concat());
    let asked = format!("http://{listen}/readyz");
    for node in &cluster.nodes {
        node.expect_serving();
        cluster.expect_ready(node);
        node.room.run(&["/bin/busybox", "wget", "-q", "-O", "-", &asked]);
    }
}

/// What stays on a node goes by the command that docs/kubernetes.md names.
#[track_caller]
fn expect_taken_away(node: &Node) {
    assert!(node.room.reach(PLUGIN).exists());
    let said = node.workloadnet(&["uninstall-cni"]);
    assert_eq!(said["removed"].as_array().map(Vec::len), Some(2), "{said:#}");
    assert!(!node.room.reach(PLUGIN).exists());
}
