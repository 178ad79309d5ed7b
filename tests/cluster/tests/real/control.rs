//! The control plane: etcd, API server, controllers and scheduler in one room, and kubectl.

use crate::room::{Room, Running};
use crate::underlay::{Link, Underlay};
use crate::{LONG, built};
use stage::wait::eventually;
use std::cell::RefCell;
use std::fs;
use std::path::Path;

const SERVICES: &str = "--service-cluster-ip-range=10.96.0.0/16,fd96::/112";
const ADMIN: &str = "--kubeconfig=/etc/kubernetes/admin";
/// The last number of its addresses.
const NUMBER: u8 = 10;

pub(crate) struct Control {
    pub(crate) room: Room,
    api_server: RefCell<Option<Running>>,
    /// The certificate of who has signed the API server's.
    pub(crate) authority: String,
}

impl Control {
    /// Runs, and knows these nodes' tokens.
    pub(crate) fn new(underlay: &Underlay, nodes: &[&str]) -> Self {
        let mut room = Room::new(&underlay.machine(Link::Near, NUMBER));
        room.prefer(&built("cluster"));
        let authority = certificates(&room);
        for part in ["controller", "scheduler", "admin"] {
            room.write(&format!("/etc/kubernetes/{part}"), &settings::kubeconfig(part));
        }
        room.write("/etc/kubernetes/tokens", &settings::tokens(nodes));
        let data = room.folder().join("etcd");
        room.start("etcd", &["server", "--data-dir", data.to_str().unwrap()]);
        let api_server = start_api_server(&room);
        start_controllers(&room);
        Self {
            room,
            api_server: RefCell::new(Some(api_server)),
            authority,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill_api_server(&self) {
        self.room.kill(self.api_server.take().unwrap());
        assert_eq!(self.try_kubectl(&["get", "nodes"]), None);
    }

    pub(crate) fn start_api_server(&self) {
        *self.api_server.borrow_mut() = Some(start_api_server(&self.room));
    }

    pub(crate) fn try_kubectl(&self, words: &[&str]) -> Option<String> {
        let output = self.room.output(&[&["kubectl", ADMIN], words].concat());
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    #[track_caller]
    pub(crate) fn kubectl(&self, words: &[&str]) -> String {
        self.room.run(&[&["kubectl", ADMIN], words].concat())
    }

    /// Applies an object, or a list of them.
    pub(crate) fn apply(&self, object: &serde_json::Value) {
        self.room
            .write("/etc/kubernetes/object.json", &object.to_string());
        self.kubectl(&["apply", "-f", "/etc/kubernetes/object.json"]);
    }

    /// Where the test may put files that kubectl reads, by the same path.
    pub(crate) fn folder(&self) -> &Path {
        self.room.folder()
    }
}

/// A certificate authority, the API server's certificate, and the key that signs accounts. Returns the authority's.
fn certificates(room: &Room) -> String {
    room.write(
        "/etc/kubernetes/names",
        &format!(
            "subjectAltName=IP:{},IP:10.96.0.1,IP:fd96::1,DNS:kubernetes.default.svc",
            settings::SERVER
        ),
    );
    let script = "cd /etc/kubernetes
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2 2>&1
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server 2>&1
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names 2>&1
        openssl genrsa -out accounts.key 2048 2>&1";
    room.run(&["sh", "-ec", script]);
    fs::read_to_string(room.reach("/etc/kubernetes/ca.crt")).unwrap()
}

fn start_controllers(room: &Room) {
    room.start(
        "kube-controller-manager",
        &[
            "kube-controller-manager",
            "--kubeconfig=/etc/kubernetes/controller",
            "--leader-elect=false",
            "--use-service-account-credentials",
            "--service-account-private-key-file=/etc/kubernetes/accounts.key",
            "--root-ca-file=/etc/kubernetes/ca.crt",
            "--allocate-node-cidrs",
            &format!("--cluster-cidr={}", settings::PODS),
            SERVICES,
        ],
    );
    room.start(
        "kube-scheduler",
        &[
            "kube-scheduler",
            "--kubeconfig=/etc/kubernetes/scheduler",
            "--leader-elect=false",
        ],
    );
}

/// Starts it and waits until it is ready.
fn start_api_server(room: &Room) -> Running {
    let mut running = room.start(
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
    eventually(
        LONG,
        "the API server is ready",
        || {
            assert!(!running.has_ended(), "the API server has ended");
            room.output(&["kubectl", ADMIN, "get", "--raw", "/readyz"])
                .status
                .success()
        },
        |ready| *ready,
    );
    running
}
