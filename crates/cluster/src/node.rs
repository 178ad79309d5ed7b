//! A Node, of which only what the daemon goes by is read and kept: with all that it says, thousands of them would not fit.

use model::peer::Peer;
use model::prefix::Prefix;
use serde::Deserialize;
use std::net::IpAddr;

/// By which a route controller says that it has made the node's routes, and the scheduler keeps pods away until then.
pub(crate) const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Node {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) spec: Spec,
    #[serde(default)]
    pub(crate) status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) resource_version: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// A page of Nodes.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) metadata: PageMetadata,
    pub(crate) items: Vec<Node>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMetadata {
    #[serde(default)]
    pub(crate) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(crate) token: String,
}

impl Node {
    /// What its workloads' addresses come from. None at all is none yet: a controller gives them some time after the Node is
    /// there.
    pub(crate) fn prefixes(&self) -> Result<Vec<Prefix>, String> {
        let listed = self.spec.pod_cidrs.as_deref().unwrap_or_default();
        let all: Vec<(String, &String)> = match listed {
            [] => self
                .spec
                .pod_cidr
                .iter()
                .filter(|text| !text.is_empty())
                .map(|text| ("spec.podCIDR".to_owned(), text))
                .collect(),
            listed => listed
                .iter()
                .enumerate()
                .map(|(n, text)| (format!("spec.podCIDRs[{n}]"), text))
                .collect(),
        };
        all.into_iter()
            .map(|(field, text)| text.parse().map_err(|error| format!("{field}: {error}")))
            .collect()
    }

    /// The status of [`NETWORK_UNAVAILABLE`]: `True`, `False`, `Unknown`.
    pub(crate) fn network_unavailable(&self) -> Option<&str> {
        let all = self.status.conditions.as_deref().unwrap_or_default();
        let mut found = all
            .iter()
            .filter(|condition| condition.kind == NETWORK_UNAVAILABLE);
        found.next().map(|condition| condition.status.as_str())
    }

    /// As the others see it. What cannot be used of it is left out, with the reason: the other nodes are not to suffer.
    pub(crate) fn peer(&self) -> (Option<Peer>, Vec<String>) {
        let name = &self.metadata.name;
        let mut left_out = Vec::new();
        let mut addresses: Vec<IpAddr> = Vec::new();
        let internal = self.status.addresses.iter().flatten();
        for listed in internal.filter(|address| address.kind == "InternalIP") {
            match listed.address.parse() {
                Ok(address) if addresses.contains(&address) => {}
                // What is wrong with an address is known where a peer is made.
                Ok(address) => match Peer::new(name, vec![address], Vec::new()) {
                    Ok(_) => addresses.push(address),
                    Err(error) => left_out.push(error.to_string()),
                },
                Err(_) => left_out.push(format!("peer {name}: {:?} is no address", listed.address)),
            }
        }
        let peer = self
            .prefixes()
            .map_err(|why| format!("peer {name}: {why}"))
            .and_then(|prefixes| Peer::new(name, addresses, prefixes).map_err(|error| error.to_string()));
        match peer {
            Ok(peer) => (Some(peer), left_out),
            Err(why) => {
                left_out.push(why);
                (None, left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn pod_cidrs_come_before_the_single_one_and_none_is_no_mistake() {
        let both = r#"{"metadata":{"name":"a"},"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24","fd01::/64"]}}"#;
        assert_eq!(node(both).prefixes().unwrap().len(), 2);
        let single = r#"{"metadata":{"name":"a"},"spec":{"podCIDR":"10.1.0.7/24","podCIDRs":null}}"#;
        assert_eq!(node(single).prefixes().unwrap()[0].to_string(), "10.1.0.0/24");
        for none in [
            r#"{"metadata":{"name":"a"}}"#,
            r#"{"metadata":{},"spec":{"podCIDR":""}}"#,
        ] {
            assert_eq!(node(none).prefixes(), Ok(Vec::new()));
        }
        let wrong = r#"{"metadata":{"name":"a"},"spec":{"podCIDRs":["10.1.0.0/24","10.2.0.0"]}}"#;
        let why = node(wrong).prefixes().unwrap_err();
        assert!(
            why.starts_with("spec.podCIDRs[1]: \"10.2.0.0\" is not a prefix"),
            "{why}"
        );
    }

    #[test]
    fn a_peer_has_the_internal_addresses_that_can_be_used() {
        let text = r#"{"metadata":{"name":"a"},"spec":{"podCIDRs":["10.1.0.0/24"]},"status":{"addresses":[
            {"type":"InternalIP","address":"192.0.2.1"},{"type":"InternalIP","address":"192.0.2.1"},
            {"type":"InternalIP","address":"127.0.0.1"},{"type":"InternalIP","address":"nonsense"},
            {"type":"ExternalIP","address":"198.51.100.1"},{"type":"InternalIP","address":"2001:db8::1"}]}}"#;
        let (peer, left_out) = node(text).peer();
        let peer = peer.unwrap();
        assert_eq!(peer.addresses.len(), 2, "{peer:?}");
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        let wrong = r#"{"metadata":{"name":"a"},"spec":{"podCIDRs":["10.1.0.0/24","10.1.0.0/25"]}}"#;
        let (peer, left_out) = node(wrong).peer();
        assert_eq!(peer, None);
        assert!(left_out[0].contains("overlap"), "{left_out:?}");
    }
}
