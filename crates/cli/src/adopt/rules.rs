//! Rules of the node by which the old plugin masqueraded for pods, and how they are taken away.

use client::inspection::MasqueradeRule;
use migrate::{Masquerade, Pod};
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

#[cfg(test)]
mod tests {
    use super::*;
    use migrate::Fate;

    fn pod(n: u8, masquerade: Option<Masquerade>) -> Pod {
        Pod {
            network: "old".to_owned(),
            container: format!("c{n}"),
            if_name: "eth0".to_owned(),
            path: String::new(),
            addresses: vec![IpAddr::from([10, 1, 0, n + 2])],
            masquerade,
            fate: Fate::Gone,
            reservations: Vec::new(),
            result: None,
        }
    }

    #[test]
    fn a_dead_pods_masquerade_rules_are_named_where_they_are() {
        let (iptables, nftables) = (Some(Masquerade::Iptables), Some(Masquerade::Nftables));
        let pods = [pod(0, iptables), pod(1, nftables), pod(2, None), pod(3, iptables)];
        // As ptp 1.9.1 wrote them for c1, which was told to use nftables, and for c3, which found no iptables.
        let rule = |handle, id: &str, hash: &str| MasqueradeRule {
            handle,
            comment: format!("a6d96fa05fb243a1-{hash}, net: old, if: eth0, id: {id}"),
        };
        let found = [
            rule(6, "c1", "f4d01f2ef4b92245"),
            rule(7, "c1", "f4d01f2ef4b92245"),
            rule(8, "c3", "bc61dce671641a4e"),
            rule(9, "somebody", "0123456789abcdef"),
        ];
        let lines = masquerade_rules(pods.iter(), &found);
        assert!(
            lines[1].starts_with("iptables -t nat -D POSTROUTING -s 10.1.0.2 "),
            "{lines:#?}"
        );
        let rest: Vec<&str> = lines[2..].iter().map(String::as_str).collect();
        assert_eq!(
            rest,
            [
                "iptables -t nat -F CNI-7a948d91e348222fee2e1e17",
                "iptables -t nat -X CNI-7a948d91e348222fee2e1e17",
                &format!("{DELETE} handle 6"),
                &format!("{DELETE} handle 7"),
                &format!("{DELETE} handle 8"),
            ]
        );
        // What is gone already is not named; of what may be in iptables nobody knows.
        let lines = masquerade_rules(pods.iter(), &[]);
        let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
        assert_eq!(
            count("10.1.0.3") + count("10.1.0.4") + count("nft "),
            0,
            "{lines:#?}"
        );
        assert_eq!(count("-s 10.1.0.5 "), 1, "{lines:#?}");
    }
}
