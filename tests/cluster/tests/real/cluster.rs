//! The control plane, and what is asked of it.

use crate::node::{MEMBER, Node, PRODUCT};
use crate::room::{Room, Running};
use crate::underlay::Underlay;
use serde_json::Value;
use stage::wait::eventually;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For what a whole cluster has to come round to, on a machine that is busy.
pub(crate) const LONG: Duration = Duration::from_secs(180);

const SERVICES: &str = "--service-cluster-ip-range=10.96.0.0/16,fd96::/112";

pub(crate) struct Cluster {
    pub(crate) node: Node,
    api_server: RefCell<Option<Running>>,
    control: Room,
    _underlay: Underlay,
}

/// A folder of things that cargo xtask makes.
pub(crate) fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().join(name)
}

/// Starts what ends with its room.
pub(crate) fn start(room: &Room, name: &str, words: &[&str]) -> Running {
    room.start(name, words)
}

impl Cluster {
    /// One node, which is not ready: nothing gives it a network.
    pub(crate) fn new() -> Self {
        let underlay = Underlay::new();
        let mut control = Room::new(&underlay.machine(10));
        control.prefer(&built("cluster"));
        let ca = certificates(&control);
        for part in ["controller", "scheduler", "admin"] {
            control.write(&format!("/etc/kubernetes/{part}"), &settings::kubeconfig(part));
        }
        control.write("/etc/kubernetes/tokens", &settings::tokens(&["node1"]));
        let api_server = start_parts(&control);
        let node = Node::new(&underlay, "node1", 21, &ca);
        let cluster = Self {
            node,
            api_server: RefCell::new(Some(api_server)),
            control,
            _underlay: underlay,
        };
        eventually(
            LONG,
            "the node has registered, and its namespace has an account",
            || {
                cluster.try_kubectl(&["get", "node", "node1"]).is_some()
                    && cluster
                        .try_kubectl(&["get", "serviceaccount", "default"])
                        .is_some()
            },
            |there| *there,
        );
        cluster
    }

    fn try_kubectl(&self, words: &[&str]) -> Option<String> {
        let line = [&["kubectl", "--kubeconfig=/etc/kubernetes/admin"], words].concat();
        let output = self.control.output(&line);
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    #[track_caller]
    pub(crate) fn kubectl(&self, words: &[&str]) -> String {
        self.control
            .run(&[&["kubectl", "--kubeconfig=/etc/kubernetes/admin"], words].concat())
    }

    pub(crate) fn get(&self, words: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], words].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Applies `packaging/kubernetes` as it is, but for the image's name.
    pub(crate) fn install(&self) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/kubernetes");
        let base = self.control.folder().join("base");
        fs::create_dir(&base).unwrap();
        for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            if file.is_file() {
                fs::copy(&file, base.join(file.file_name().unwrap())).unwrap();
            }
        }
        let overlay = self.control.folder().join("overlay");
        fs::create_dir(&overlay).unwrap();
        let (name, tag) = PRODUCT.rsplit_once(':').unwrap();
        let text = format!(
            "resources: [../base]\nimages:\n- {{name: workloadnet, newName: {name}, newTag: {tag}}}\n"
        );
        fs::write(overlay.join("kustomization.yaml"), text).unwrap();
        self.kubectl(&["apply", "--validate=strict", "-k", overlay.to_str().unwrap()]);
    }

    /// SIGKILL.
    pub(crate) fn kill_api_server(&self) {
        self.control.kill(self.api_server.take().unwrap());
        assert_eq!(self.try_kubectl(&["get", "nodes"]), None);
    }

    pub(crate) fn start_api_server(&self) {
        *self.api_server.borrow_mut() = Some(start_api_server(&self.control));
    }

    /// The status of a condition of the node.
    pub(crate) fn condition(&self, kind: &str) -> (String, String) {
        let node = self.get(&["node", self.node.name]);
        let all = node["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = all.into_iter().find(|condition| condition["type"] == kind);
        let text = |field| {
            found
                .as_ref()
                .and_then(|condition| condition[field].as_str())
                .unwrap_or_default()
                .to_owned()
        };
        (text("status"), text("message"))
    }

    /// A deployment of pods that serve.
    pub(crate) fn deploy(&self, name: &str, replicas: usize) {
        let path = format!("/etc/kubernetes/{name}.json");
        let object = serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {
                    "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "member", "image": MEMBER, "imagePullPolicy": "Never",
                        "readinessProbe": {"httpGet": {"path": "/cgi-bin/who", "port": 80}, "timeoutSeconds": 10}}],
                }},
            },
        });
        self.control.write(&path, &object.to_string());
        self.kubectl(&["apply", "-f", &path]);
    }

    /// Pods of a deployment that are ready: name and addresses.
    pub(crate) fn ready(&self, name: &str) -> Vec<(String, Vec<String>)> {
        let list = self.get(&["pods", "-l", &format!("app={name}")]);
        let is_ready = |pod: &&Value| {
            let all = pod["status"]["conditions"].as_array();
            all.is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == "Ready" && one["status"] == "True")
            })
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let addresses = |pod: &Value| {
            let all = pod["status"]["podIPs"].as_array();
            all.into_iter().flatten().map(|one| text(&one["ip"])).collect()
        };
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .filter(is_ready)
            .map(|pod| (text(&pod["metadata"]["name"]), addresses(pod)))
            .collect()
    }

    /// Waits until a deployment has so many ready pods, and no other.
    #[track_caller]
    pub(crate) fn all_ready(&self, name: &str, count: usize) -> Vec<(String, Vec<String>)> {
        eventually(
            LONG,
            "all pods are ready",
            || self.ready(name),
            |ready| ready.len() == count,
        )
    }

    /// Runs a script in a pod.
    pub(crate) fn exec(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }
}

/// A certificate authority, the API server's certificate, and the key that signs accounts. Returns the authority's.
fn certificates(control: &Room) -> String {
    control.write(
        "/etc/kubernetes/names",
        &format!(
            "subjectAltName=IP:{},IP:10.96.0.1,DNS:kubernetes.default.svc",
            settings::SERVER
        ),
    );
    let script = "cd /etc/kubernetes
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2 2>&1
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server 2>&1
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names 2>&1
        openssl genrsa -out accounts.key 2048 2>&1";
    control.run(&["sh", "-ec", script]);
    fs::read_to_string(control.reach("/etc/kubernetes/ca.crt")).unwrap()
}

fn start_parts(control: &Room) -> Running {
    let data = control.folder().join("etcd");
    start(control, "etcd", &["server", "--data-dir", data.to_str().unwrap()]);
    let api_server = start_api_server(control);
    start(
        control,
        "kube-controller-manager",
        &[
            "kube-controller-manager",
            "--kubeconfig=/etc/kubernetes/controller",
            "--leader-elect=false",
            "--use-service-account-credentials",
            "--service-account-private-key-file=/etc/kubernetes/accounts.key",
            "--root-ca-file=/etc/kubernetes/ca.crt",
            "--allocate-node-cidrs",
            "--cluster-cidr=10.244.0.0/16,fd44::/48",
            SERVICES,
        ],
    );
    start(
        control,
        "kube-scheduler",
        &[
            "kube-scheduler",
            "--kubeconfig=/etc/kubernetes/scheduler",
            "--leader-elect=false",
        ],
    );
    api_server
}

/// Starts it and waits until it is ready.
fn start_api_server(control: &Room) -> Running {
    let mut running = start(
        control,
        "kube-apiserver",
        &[
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            &format!("--advertise-address={}", settings::SERVER),
            "--tls-cert-file=/etc/kubernetes/server.crt",
            "--tls-private-key-file=/etc/kubernetes/server.key",
            "--token-auth-file=/etc/kubernetes/tokens",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            SERVICES,
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=/etc/kubernetes/accounts.key",
            "--service-account-signing-key-file=/etc/kubernetes/accounts.key",
            "--kubelet-preferred-address-types=InternalIP",
        ],
    );
    let ready = [
        "kubectl",
        "--kubeconfig=/etc/kubernetes/admin",
        "get",
        "--raw",
        "/readyz",
    ];
    eventually(
        LONG,
        "the API server is ready",
        || {
            assert!(!running.has_ended(), "the API server has ended");
            control.output(&ready).status.success()
        },
        |ready| *ready,
    );
    running
}
