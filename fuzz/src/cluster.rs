//! What an API server answers.

use crate::{is_bounded, pieces};
use cluster::Told;
use cluster::played;
use model::peer::Peer;

/// Lines: a page of Nodes, then what a watch tells.
pub(crate) fn cluster(bytes: &[u8]) {
    let lines = pieces(bytes, b'\n');
    let (page, lines) = lines
        .split_first()
        .map_or((&[][..], &[][..]), |(page, lines)| (*page, lines));
    let (peers, outcome) = played::peers(page, lines);
    if let Err(why) = outcome {
        is_bounded(&why, bytes);
    }
    for peer in &peers {
        let again = Peer::new(&peer.name, peer.addresses.clone(), peer.prefixes.clone());
        let again = again.map(|again| Peer {
            is_self: peer.name == "node",
            ..again
        });
        assert_eq!(again.as_ref(), Ok(peer), "what is told of a node can be used");
    }
    for told in played::own(page, lines) {
        match told {
            Told::Prefixes(prefixes) => assert!(!prefixes.is_empty(), "nothing is no prefixes"),
            Told::Trouble(why) => is_bounded(&why, bytes),
            other => panic!("this is not of the own node: {other:?}"),
        }
    }
}
