//! A Kubernetes API server that knows Nodes and events, and fails as it is told. Plain HTTP on a loopback port, threads of its
//! own, in the network namespace of whoever starts it.
//!
//! Real of it: versions, lists in pages of one version, watches that stream, bookmarks, 410 for what is too old, tokens,
//! strategic patches of a Node's conditions.

mod http;
mod serve;

use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How often something that nobody signals is looked at.
const TICK: Duration = Duration::from_millis(5);

/// What goes wrong once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The next change that is sent ends in the middle, and so does the connection.
    CutChange,
    /// A line that is no JSON comes before the next change.
    GarbledChange,
    /// The next list is no JSON.
    GarbledList,
    /// The next list is cut in the middle.
    CutList,
    /// The next list of all Nodes is empty.
    EmptyList,
    /// The next page but the first is too old.
    OldPage,
    /// The next request is answered by this code.
    Code(u16),
}

/// The server. Ends with this value.
pub(crate) struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_up: bool,
    is_over: bool,
    /// So many times it was away: who was connected before is not served.
    era: u64,
    connections: Vec<TcpStream>,
    version: u64,
    nodes: BTreeMap<String, Value>,
    changes: Vec<(u64, &'static str, Value)>,
    /// Watches from before it are too old.
    oldest: u64,
    pages: HashMap<String, (Vec<Value>, u64)>,
    token: Option<String>,
    mishaps: VecDeque<Mishap>,
    events: BTreeMap<String, Value>,
    requests: Vec<String>,
}

impl ApiServer {
    /// Listens, and serves.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        shared.state().is_up = true;
        let of_thread = Arc::clone(&shared);
        // The port can be taken again only where it was before, which is where this thread is.
        thread::spawn(move || of_thread.accept(listener, address));
        Self { shared, address }
    }

    /// The way to it, for a file.
    pub(crate) fn kubeconfig(&self, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- {{name: c, cluster: {{server: \"http://{}\"}}}}\n\
             users:\n- {{name: u, user: {user}}}\n\
             contexts:\n- {{name: x, context: {{cluster: c, user: u}}}}\ncurrent-context: x\n",
            self.address
        )
    }

    /// Nobody listens any more, and every connection breaks.
    pub(crate) fn go_away(&self) {
        let mut state = self.shared.state();
        state.is_up = false;
        state.era += 1;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    /// It listens again, and knows what it knew.
    pub(crate) fn come_back(&self) {
        self.shared.state().is_up = true;
        self.shared.changed.notify_all();
    }

    /// Only who shows this token is answered.
    pub(crate) fn require(&self, token: &str) {
        self.shared.state().token = Some(token.to_owned());
    }

    /// This goes wrong when there is an occasion.
    pub(crate) fn fail(&self, mishap: Mishap) {
        self.shared.state().mishaps.push_back(mishap);
    }

    /// Whether all that was to go wrong has.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.state().mishaps.is_empty()
    }

    /// Makes or replaces a Node.
    pub(crate) fn put(&self, node: Value) {
        self.shared.state().put(node);
        self.shared.changed.notify_all();
    }

    /// Deletes a Node.
    pub(crate) fn delete(&self, name: &str) {
        let mut state = self.shared.state();
        let mut node = state.nodes.remove(name).expect("the Node is there");
        state.version += 1;
        let version = state.version;
        node["metadata"]["resourceVersion"] = version.to_string().into();
        state.changes.push((version, "DELETED", node));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// A bookmark for every watch, at a version of its own.
    pub(crate) fn bookmark(&self) {
        let mut state = self.shared.state();
        state.version += 1;
        let version = state.version;
        let object =
            json!({"kind": "Node", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}});
        state.changes.push((version, "BOOKMARK", object));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Forgets all changes: watches from before are too old.
    pub(crate) fn compact(&self) {
        let mut state = self.shared.state();
        state.oldest = state.version;
        state.changes.clear();
    }

    /// A Node as it is.
    pub(crate) fn node(&self, name: &str) -> Option<Value> {
        self.shared.state().nodes.get(name).cloned()
    }

    /// The status of a condition of a Node.
    pub(crate) fn condition(&self, name: &str, kind: &str) -> Option<String> {
        let node = self.node(name)?;
        let all = node["status"]["conditions"].as_array()?;
        let found = all.iter().find(|condition| condition["type"] == kind)?;
        Some(found["status"].as_str()?.to_owned())
    }

    /// All events.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.shared.state().events.values().cloned().collect()
    }

    /// As after an hour.
    pub(crate) fn forget_events(&self) {
        self.shared.state().events.clear();
    }

    /// Every request so far, as `GET /path?query`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// How many lists of all Nodes were begun, and how many watches of all.
    pub(crate) fn asked_for_all(&self) -> (usize, usize) {
        let requests = self.requests();
        let all = requests
            .iter()
            .filter(|r| r.starts_with("GET /api/v1/nodes?") && !r.contains("fieldSelector"));
        let (watches, lists): (Vec<&String>, Vec<&String>) = all.partition(|r| r.contains("watch=true"));
        (
            lists.iter().filter(|r| !r.contains("continue=")).count(),
            watches.len(),
        )
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.go_away();
        self.shared.state().is_over = true;
        self.shared.changed.notify_all();
    }
}

/// A Node as the API server has it, with more than anybody needs.
pub(crate) fn node(name: &str, uid: u32, prefixes: &[&str], addresses: &[&str]) -> Value {
    let addresses = addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}));
    let mut addresses: Vec<Value> = addresses.collect();
    addresses.push(json!({"type": "Hostname", "address": name}));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "uid": uid.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/hostname": name},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:metadata": {}}}],
        },
        "spec": match prefixes {
            [] => json!({}),
            [first, ..] => json!({"podCIDR": first, "podCIDRs": prefixes}),
        },
        "status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "images": [{"names": ["example.org/some/image@sha256:0123456789abcdef"], "sizeBytes": 1_234_567}],
        },
    })
}
