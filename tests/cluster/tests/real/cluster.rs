//! The cluster, and what is asked of it.

use crate::LONG;
use crate::control::Control;
use crate::node::Node;
use crate::pod::Pod;
use crate::room::Room;
use crate::underlay::{Link, Underlay};
use serde_json::Value;
use stage::wait::eventually;

/// Names, links, and last numbers of addresses.
const NODES: [(&str, Link, u8); 3] = [
    ("node-a", Link::Near, 21),
    ("node-b", Link::Near, 22),
    ("node-c", Link::Far, 23),
];

/// The order is that in which they end.
pub(crate) struct Cluster {
    /// Two that share a link, and one behind the router.
    pub(crate) nodes: Vec<Node>,
    pub(crate) control: Control,
    pub(crate) underlay: Underlay,
}

impl Cluster {
    /// Nodes that are not ready: nothing gives them a network.
    pub(crate) fn new() -> Self {
        let underlay = Underlay::new();
        let control = Control::new(&underlay, &NODES.map(|(name, ..)| name));
        let start = |(name, link, number)| Node::new(&underlay, name, (link, number), &control.authority);
        let cluster = Self {
            nodes: NODES.into_iter().map(start).collect(),
            control,
            underlay,
        };
        for node in &cluster.nodes {
            cluster.expect_prefixes(node);
        }
        eventually(
            LONG,
            "the namespace has an account",
            || cluster.control.try_kubectl(&["get", "serviceaccount", "default"]),
            Option::is_some,
        );
        cluster
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = &Room> {
        let nodes = self.nodes.iter().map(|node| &node.room);
        nodes.chain([&self.control.room])
    }

    #[track_caller]
    pub(crate) fn kubectl(&self, words: &[&str]) -> String {
        self.control.kubectl(words)
    }

    pub(crate) fn get(&self, words: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], words].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// What Kubernetes gave to a node.
    pub(crate) fn prefixes(&self, node: &Node) -> Vec<String> {
        let words = ["get", "node", node.name, "-o", "jsonpath={.spec.podCIDRs[*]}"];
        let said = self.control.try_kubectl(&words).unwrap_or_default();
        said.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until it has given some, of both families.
    #[track_caller]
    pub(crate) fn expect_prefixes(&self, node: &Node) -> Vec<String> {
        let what = format!("{} has registered, and has prefixes", node.name);
        eventually(LONG, &what, || self.prefixes(node), |given| given.len() == 2)
    }

    /// Status and message of a condition of a node; empty where there is none.
    pub(crate) fn condition(&self, node: &Node, kind: &str) -> (String, String) {
        let node = self.get(&["node", node.name]);
        let all = node["status"]["conditions"].as_array();
        let found = all.and_then(|all| all.iter().find(|condition| condition["type"] == kind));
        let text = |field| found.and_then(|condition| condition[field].as_str());
        let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
        (owned(text("status")), owned(text("message")))
    }

    /// Waits until the node is not ready, for want of a network.
    #[track_caller]
    pub(crate) fn expect_without_network(&self, node: &Node) {
        eventually(
            LONG,
            &format!("{} says that it has no network", node.name),
            || self.condition(node, "Ready"),
            |seen| seen.0 == "False" && seen.1.contains("NetworkReady=false"),
        );
    }

    #[track_caller]
    pub(crate) fn expect_ready(&self, node: &Node) {
        eventually(
            LONG,
            &format!("{} is ready", node.name),
            || self.condition(node, "Ready"),
            |seen| seen.0 == "True",
        );
    }

    /// The daemon's pod of each node, in their order: who it is, and how often its container was started anew.
    pub(crate) fn daemons(&self) -> Vec<(String, usize)> {
        let list = self.get(&["-n", "workloadnet", "pods"]);
        let pods = list["items"].as_array().unwrap();
        let on = |node: &Node| {
            let found = pods.iter().find(|pod| pod["spec"]["nodeName"] == node.name);
            let pod = found.unwrap_or_else(|| panic!("no daemon's pod is on {}: {list:#}", node.name));
            let count = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
            (
                pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
                usize::try_from(count.unwrap_or_default()).unwrap(),
            )
        };
        self.nodes.iter().map(on).collect()
    }

    /// Pods with a label that are ready: name, node, addresses.
    fn ready(&self, app: &str) -> Vec<(String, usize, Vec<String>)> {
        let list = self.get(&["pods", "-l", &format!("app={app}")]);
        let is_ready = |pod: &&Value| {
            let all = pod["status"]["conditions"].as_array();
            all.is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == "Ready" && one["status"] == "True")
            })
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ips = |pod: &Value| {
            let all = pod["status"]["podIPs"].as_array();
            all.into_iter().flatten().map(|one| text(&one["ip"])).collect()
        };
        let place = |pod: &Value| {
            let is_it = |node: &Node| pod["spec"]["nodeName"] == node.name;
            self.nodes.iter().position(is_it).unwrap()
        };
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .filter(is_ready)
            .map(|pod| (text(&pod["metadata"]["name"]), place(pod), ips(pod)))
            .collect()
    }

    /// How many of them are ready.
    pub(crate) fn count_ready(&self, app: &str) -> usize {
        self.ready(app).len()
    }

    /// Waits until so many pods with a label are ready, and no other is; in the order of their nodes.
    #[track_caller]
    pub(crate) fn all_ready(&self, app: &str, count: usize) -> Vec<Pod> {
        let mut found = eventually(
            LONG,
            &format!("{count} pods of {app} are ready"),
            || self.ready(app),
            |ready| ready.len() == count,
        );
        found.sort_by_key(|(_, node, _)| *node);
        found
            .into_iter()
            .map(|(name, node, ips)| Pod {
                name,
                node,
                network: self.nodes[node].network_of(&ips[0]),
                ips: <[String; 2]>::try_from(ips)
                    .expect("one address of each family")
                    .map(|ip| ip.parse().unwrap()),
            })
            .collect()
    }
}
