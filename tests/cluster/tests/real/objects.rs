//! Objects of the API, as values.

use crate::node::MEMBER;
use serde_json::{Value, json};

/// Where a Service is reached.
pub(crate) const SERVICE_PORT: u16 = 8000;

/// Where a node leads to a pod.
pub(crate) const HOST_PORT: u16 = 8088;

/// Pods that serve: so many on one node.
pub(crate) fn deployment(name: &str, node: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": template(name, &json!({"kubernetes.io/hostname": node})),
        },
    })
}

/// A pod that serves on each node.
pub(crate) fn on_each_node(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, &json!({})),
        },
    })
}

/// The same, each with a port of its node.
pub(crate) fn with_a_host_port(name: &str) -> Value {
    let mut object = on_each_node(name);
    object["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 80, "hostPort": HOST_PORT}]);
    object
}

fn template(name: &str, selector: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
            "automountServiceAccountToken": false, "nodeSelector": selector,
            "containers": [{
                "name": "member", "image": MEMBER, "imagePullPolicy": "Never",
                "readinessProbe": {"httpGet": {"path": "/cgi-bin/who", "port": 80}, "timeoutSeconds": 10},
            }],
        },
    })
}

/// A pod of the kubelet's own, from a file on its node.
pub(crate) fn from_a_file(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
            "containers": [{"name": "member", "image": MEMBER, "imagePullPolicy": "Never"}],
        },
    })
}

/// A Service of the pods of this name, on both families, and on a port of each node.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {
            "type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "selector": {"app": name}, "ports": [{"port": SERVICE_PORT, "targetPort": 80}],
        },
    })
}
