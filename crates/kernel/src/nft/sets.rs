//! What every set of the table `inet` is: made with it, its elements changed in one transaction, and read back whole.

use super::{DELSETELEM, GETSETELEM, NEWSET, Nft, get, head};
use crate::message::{Message, flag};
use libc::ENOENT;
use model::address::Family;
use model::datapath::Fault;
use model::ruleset::{TABLE, TableFamily};
use std::collections::HashSet;
use std::hash::Hash;

/// How nft calls addresses that a key is put together of: `TYPE_IPADDR`, `TYPE_IP6ADDR` (include/datatype.h of nftables).
const IP_ADDRESS: u32 = 7;
const IP6_ADDRESS: u32 = 8;

/// How nft calls an address of a family, and its bytes.
pub(super) fn address(family: Family) -> (u32, u32) {
    match family {
        Family::V4 => (IP_ADDRESS, 4),
        Family::V6 => (IP6_ADDRESS, 16),
    }
}

impl Nft {
    /// The elements of a set, as `read` finds them in each message; `None` where there is no such set.
    pub(super) fn elements_of<E: Eq + Hash>(
        &self,
        set: &str,
        read: impl Fn(&[u8]) -> Vec<E>,
    ) -> Result<Option<HashSet<E>>, Fault> {
        let tried = format!("nft list set inet {TABLE} {set}");
        let request = get(TableFamily::Inet, GETSETELEM, flag::DUMP, &tried)
            .text(1, TABLE)
            .text(2, set);
        match self.socket().dump(&request) {
            Ok(dumped) => Ok(Some(dumped.iter().flat_map(|payload| read(payload)).collect())),
            Err(fault) if fault.errno == ENOENT => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// How a set differs from what it is to hold, whose elements are called `what`.
pub(super) fn difference<E: Eq + Hash>(
    set: &str,
    what: &str,
    wanted: &HashSet<E>,
    found: &HashSet<E>,
) -> Option<String> {
    let missing = wanted.difference(found).count();
    let foreign = found.difference(wanted).count();
    (missing + foreign > 0).then(|| {
        format!("nftables set {set} lacks {missing} {what}, and has {foreign} that are none of ours")
    })
}

/// The beginning of a message that makes a set.
pub(super) fn new_set(set: &str) -> Message {
    let tried = format!("nft add set inet {TABLE} {set}");
    Message::new(NEWSET, flag::CREATE, tried)
        .fixed(&head(TableFamily::Inet))
        .text(1, TABLE)
        .text(2, set)
}

/// The beginning of a message that adds elements, which `what` describes, or takes them away.
pub(super) fn changed(kind: u16, set: &str, what: &str) -> Message {
    let (word, flags) = match kind {
        DELSETELEM => ("delete", 0),
        _ => ("add", flag::CREATE),
    };
    let tried = format!("nft {word} element inet {TABLE} {set} {what}");
    Message::new(kind, flags, tried)
        .fixed(&head(TableFamily::Inet))
        .text(1, TABLE)
        .text(2, set)
}
