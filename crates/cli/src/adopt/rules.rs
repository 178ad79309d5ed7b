//! Rules of the node by which the old plugin masqueraded for pods, and how they are taken away.

use super::chain::Masquerade;
use super::files::Pod;
use client::inspection::MasqueradeRule;
use sha2::{Digest as _, Sha512};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Takes away a rule by which the plugins masquerade in nftables (their pkg/ip/ipmasq_nftables_linux.go).
const DELETE: &str = "nft delete rule inet cni_plugins_masquerade masq_checks";

/// How the masquerade rules of pods are taken away, in commands; empty where they have none. `found` are those that nftables
/// has: ptp uses it where it is told to or finds no iptables, and writes nowhere which of both it was.
pub(crate) fn masquerade_rules<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    found: &[MasqueradeRule],
) -> Vec<String> {
    let mut lines = Vec::new();
    for pod in pods {
        let Some(masquerade) = pod.masquerade else {
            continue;
        };
        let begin = instance(pod);
        let of: Vec<&MasqueradeRule> = found
            .iter()
            .filter(|rule| rule.comment.starts_with(&begin))
            .collect();
        match (of.is_empty(), masquerade) {
            (true, Masquerade::Iptables) => lines.extend(commands(pod)),
            // Nobody's are there.
            (true, Masquerade::Nftables) => {}
            (false, _) => lines.extend(of.iter().map(|rule| format!("{DELETE} handle {}", rule.handle))),
        }
    }
    if !lines.is_empty() {
        let head = "the old plugin's masquerade rules are the node's: take them away by";
        lines.insert(0, head.to_owned());
    }
    lines
}

/// How the comments of a pod's rules in nftables begin (`hashForInstance` of the plugins).
fn instance(pod: &Pod) -> String {
    let of_pod = format!("{}:{}", pod.if_name, pod.container);
    format!("{}-{},", hash(&pod.network, 8), hash(&of_pod, 8))
}

/// The first bytes of a SHA-512 sum, in hex.
fn hash(text: &str, bytes: usize) -> String {
    let digest = Sha512::digest(text);
    digest.iter().take(bytes).fold(String::new(), |mut hex, byte| {
        // Never fails on a String.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// How ptp names the chain of a pod and marks its rules (`utils.FormatChainName` of the plugins): the program that made
/// them takes them away, whichever of its two kernel interfaces it uses.
fn commands(pod: &Pod) -> Vec<String> {
    let chain = format!("CNI-{}", hash(&format!("{}{}", pod.network, pod.container), 12));
    let comment = format!("name: \"{}\" id: \"{}\"", pod.network, pod.container).replace('\'', "'\\''");
    let mut commands = Vec::new();
    for (program, is_v4) in [("iptables", true), ("ip6tables", false)] {
        let of: Vec<&IpAddr> = pod.addresses.iter().filter(|a| a.is_ipv4() == is_v4).collect();
        for address in &of {
            commands.push(format!(
                "{program} -t nat -D POSTROUTING -s {address} -m comment --comment '{comment}' -j {chain}"
            ));
        }
        if !of.is_empty() {
            commands.push(format!("{program} -t nat -F {chain}"));
            commands.push(format!("{program} -t nat -X {chain}"));
        }
    }
    commands
}
