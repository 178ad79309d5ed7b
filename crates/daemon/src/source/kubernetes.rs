//! The source `kubernetes`: podCIDRs of the own Node, and the other nodes where they are routed to or spared. What the API
//! server is told of the own node goes the other way.
//!
//! A thread of its own, with a runtime of its own: whatever becomes of the API server, the door and the desk do not wait.

use crate::config::{Config, Mode};
use crate::desk::order::Notable;
use crate::desk::{Desk, vital};
use anyhow::{Context as _, bail};
use cluster::{Kind, Notice, Settings, Told};
use model::datapath::Datapath;
use std::env::VarError;
use std::sync::Arc;
use std::time::Duration;

/// By which a pod is told the name of its Node (the downward API's spec.nodeName).
const NODE_NAME: &str = "NODE_NAME";

/// An event that goes on is written this often: etcd has other things to do.
const EVENT_PACE: Duration = Duration::from_secs(60);

/// Whether a Node can have this name (RFC 1123, section 2.1).
pub fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_part = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty() && label.bytes().all(is_part) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The name of the own Node: as it is set, else as the pod is told, else the host's, as the kubelet does it.
fn own_name(set: Option<&str>) -> anyhow::Result<String> {
    let (name, from) = match (set, std::env::var(NODE_NAME)) {
        (Some(name), _) => (name.to_owned(), "kubernetes.node"),
        (None, Ok(name)) => (name, "$NODE_NAME"),
        (None, Err(VarError::NotUnicode(text))) => bail!("$NODE_NAME {text:?}: is no name of a Node"),
        (None, Err(VarError::NotPresent)) => {
            let host = rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .to_lowercase();
            (host.trim().to_owned(), "the host's name")
        }
    };
    match is_name(&name) {
        true => Ok(name),
        false => bail!("{from} {name:?}: is no name of a Node"),
    }
}

/// Tells the desk what Kubernetes says, and Kubernetes what there is to know of the node, from now on.
pub fn follow<D: Datapath>(config: &Config, desk: Arc<Desk<D>>) -> anyhow::Result<()> {
    let settings = Settings {
        node: own_name(config.kubernetes.node.as_deref())?,
        kubeconfig: config.kubernetes.kubeconfig.clone(),
        peers: config.follows_nodes(),
        routes: config.routes.mode != Mode::None,
    };
    tracing::info!(
        node = settings.node,
        peers = settings.peers,
        routes = settings.routes,
        "following Kubernetes"
    );
    let (notices, queue) = cluster::notices(EVENT_PACE);
    let counted = notices.clone();
    desk.counters().count_events_dropped(move || counted.dropped());
    desk.on_notable(Box::new(move |notable| notices.tell(notice(&notable))));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime for the Kubernetes API")?;
    vital::spawn("kubernetes".to_owned(), move || {
        let tell = |told| hear(&desk, told);
        runtime.block_on(cluster::follow(settings, tell, || desk.is_connected(), queue));
    })?;
    Ok(())
}

fn hear<D: Datapath>(desk: &Desk<D>, told: Told) {
    match told {
        Told::Prefixes(prefixes) => {
            if let Err(error) = desk.set_prefixes(&prefixes) {
                desk.source_fails(format!("spec.podCIDRs: {error}"));
            }
        }
        Told::Trouble(why) => desk.source_fails(why),
        Told::Peers(peers) => desk.set_peers(peers),
        Told::PeerTrouble(why) => desk.peers_fail(why),
    }
}

fn notice(notable: &Notable) -> Notice {
    match notable {
        Notable::Exhausted(prefixes) => {
            let all: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
            Notice {
                kind: Kind::Warning,
                reason: "AddressesExhausted",
                action: "Attach",
                note: format!("a pod got no network: no address is left in {}", all.join(", ")),
            }
        }
        Notable::Drift(what) => Notice {
            kind: Kind::Warning,
            reason: "NetworkDrift",
            action: "PutBack",
            note: format!("somebody changed what is workloadnetd's, and it was put back: {what}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_are_subdomains() {
        for good in ["a", "node-1", "ip-10-0-0-1.eu.example.org", "7"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "Node", "a_b", "-a", "a-", "a..b", "a b", &"a".repeat(254)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
