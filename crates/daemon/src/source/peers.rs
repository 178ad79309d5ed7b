//! The file that lists the other nodes, watched: what can be read of it is told, and what cannot changes nothing.
//!
//! ```toml
//! [[peer]]
//! name = "node-b"
//! addresses = ["192.0.2.2", "2001:db8::2"]
//! prefixes = ["10.77.1.0/24", "fd77:77:78::/64"]
//! ```

use super::watched;
use crate::desk::Desk;
use anyhow::{Context as _, anyhow, bail};
use model::datapath::Datapath;
use model::peer::Peer;
use model::prefix::Prefix;
use serde::Deserialize;
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    peer: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    addresses: Vec<IpAddr>,
    prefixes: Vec<String>,
}

/// The peers that a text lists. An empty text is no list, because a file that is being written is one for a moment; no peers
/// at all is `peer = []`.
pub fn parse(text: &str) -> anyhow::Result<Vec<Peer>> {
    let file: File = toml::from_str(text)?;
    let mut names = HashSet::new();
    let mut addresses = HashSet::new();
    let mut all = Vec::new();
    let mut peers = Vec::new();
    for Entry {
        name,
        addresses: own,
        prefixes,
    } in file.peer
    {
        let prefixes: Vec<Prefix> = prefixes
            .iter()
            .map(|text| {
                text.parse()
                    .with_context(|| format!("peer {name:?}: prefixes {text:?}"))
            })
            .collect::<Result<_, _>>()?;
        let peer = Peer::new(&name, own, prefixes)?;
        if !names.insert(name.clone()) {
            bail!("peer {name:?} is listed twice");
        }
        if let Some(twice) = peer.addresses.iter().find(|address| !addresses.insert(**address)) {
            bail!("peer {name:?}: {twice} is another peer's address, too");
        }
        all.extend(&peer.prefixes);
        peers.push(peer);
    }
    Prefix::disjoint(&all).context("prefixes of two peers")?;
    Ok(peers)
}

/// Tells the desk what the file lists, from now on. What cannot be read is said, and changes nothing.
pub fn follow<D: Datapath>(path: &Path, desk: Arc<Desk<D>>) -> io::Result<()> {
    let shown = path.display().to_string();
    watched::follow(path, "peers file", move |content| {
        let told = content
            .map_err(|why| anyhow!(why.to_owned()))
            .and_then(|text| parse(text).with_context(|| format!("in {shown}")));
        match told {
            Ok(peers) => desk.set_peers(peers),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the list of peers is not used"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[peer]]\nname = \"b\"\naddresses = [\"192.0.2.2\"]\nprefixes = [\"10.77.1.0/24\"]\n";

    #[test]
    fn a_list_is_read_and_no_list_is_not_the_empty_one() {
        assert_eq!(parse(GOOD).unwrap()[0].name, "b");
        assert_eq!(parse("peer = []").unwrap(), []);
        assert!(parse("").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            (GOOD.replace("0/24", "0/33"), "\"10.77.1.0/33\" is not a prefix"),
            (
                GOOD.replace("192.0.2.2", "127.0.0.1"),
                "peer b: 127.0.0.1 is no address of a node",
            ),
            (format!("{GOOD}{GOOD}"), "peer \"b\" is listed twice"),
            (
                format!("{GOOD}{}", GOOD.replace("\"b\"", "\"c\"")),
                "peer \"c\": 192.0.2.2 is another peer's",
            ),
            (
                format!("{GOOD}{}", GOOD.replace("\"b\"", "\"c\"").replace("2.2", "2.3")),
                "10.77.1.0/24 and 10.77.1.0/24 overlap",
            ),
            (GOOD.replace("name", "nam"), "unknown field `nam`"),
        ];
        for (text, expected) in table {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
