//! An API server that is played: its answers are bytes that somebody else chose, for those who try what may come (`fuzz`). The
//! readers are the product's.

use crate::Told;
use crate::access::Fault;
use crate::node::{Node, Page};
use crate::own::{Own, Teller};
use crate::peers::{Known, keep};
use crate::watch::{Change, advance, change_of};
use kube::core::watch::WatchEvent;
use model::peer::Peer;
use std::cell::RefCell;

/// What is known of all nodes after a page of them and the lines of a watch, up to the first that cannot be read, and why not.
pub fn peers(page: &[u8], lines: &[&[u8]]) -> (Vec<Peer>, Result<(), String>) {
    let mut known = Known::of("node");
    let outcome = each(page, lines, |change| {
        known.on(change.map(keep));
    });
    (known.peers(), outcome)
}

/// What is told of the own node after the same.
pub fn own(page: &[u8], lines: &[&[u8]]) -> Vec<Told> {
    let told = RefCell::new(Vec::new());
    let (own, tell) = (Own::default(), |what| told.borrow_mut().push(what));
    let mut teller = Teller::new("node", &tell, &own);
    if let Err(why) = each(page, lines, |change| teller.on(change)) {
        teller.on(Change::Lost(Fault::Garbled(why)));
    }
    told.into_inner()
}

fn each(page: &[u8], lines: &[&[u8]], mut tell: impl FnMut(Change<Node>)) -> Result<(), String> {
    let said = |fault: Fault| fault.to_string();
    let page: Page = serde_json::from_slice(page).map_err(|error| error.to_string())?;
    let mut version = String::new();
    advance(&mut version, page.metadata.resource_version).map_err(said)?;
    tell(Change::All(page.items));
    for line in lines {
        let event: WatchEvent<Node> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if let Some(change) = change_of(event, &mut version).map_err(said)? {
            tell(change);
        }
    }
    Ok(())
}
