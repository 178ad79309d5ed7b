//! A veth that somebody else made, seen from both of its ends.

use crate::encode::{self, link, link_by_name, link_elsewhere};
use crate::message::Attributes;
use crate::netns::Home;
use crate::socket::{Answer, ROUTE, Socket};
use crate::survey;
use ipnet::IpNet;
use libc::{EINVAL, ENODEV};
use model::adopt::{Pair, Seen};
use model::datapath::Fault;
use model::key::InterfaceName;
use model::survey::FoundLink;
use std::os::fd::{AsFd as _, OwnedFd};

/// `IFLA_INFO_KIND`.
const KIND: u16 = 1;

/// One end, with what tells where the other one is.
struct End {
    found: FoundLink,
    kind: String,
    peer: Option<u32>,
    /// The id that this end's namespace has for the other end's; `None` where both are in one.
    peer_namespace: Option<u32>,
}

impl End {
    fn parse(payload: &[u8]) -> Option<Self> {
        let attributes = Attributes::after(payload, 16);
        let info = attributes.inside(link::LINKINFO);
        Some(Self {
            found: survey::parse_link(payload)?,
            kind: info.text(KIND).unwrap_or_default().to_owned(),
            peer: attributes.u32(link::LINK),
            peer_namespace: attributes.u32(link::LINK_NETNSID),
        })
    }
}

/// What a link inside a namespace is, and its other end.
pub(super) fn look(
    home: &Home,
    host: &mut Socket,
    namespace: &OwnedFd,
    interface: &InterfaceName,
) -> Result<Seen, Fault> {
    let mut inside = home.visit(namespace.as_fd(), || Socket::open(ROUTE))??;
    let Some(workload) = end(&mut inside, link_by_name(interface.as_str()))? else {
        return Ok(Seen::NoLink);
    };
    if workload.kind != "veth" {
        let kind = match workload.kind.is_empty() {
            true => "link without a kind".to_owned(),
            false => workload.kind,
        };
        return Ok(Seen::NotVeth { kind });
    }
    let Some(index) = workload.peer else {
        return Ok(Seen::Elsewhere);
    };
    let name = format!("the link {index}, the other end of {interface}");
    let Some(here) = end(host, encode::link_by_index(index, &name))? else {
        return Ok(Seen::Elsewhere);
    };
    // Indexes are each namespace's own, so the other end has to lead back to this one.
    let back = match (here.kind.as_str(), here.peer, here.peer_namespace) {
        ("veth", Some(peer), Some(id)) => end(host, link_elsewhere(id, peer))?,
        _ => None,
    };
    let same = |back: &End| {
        let (back, inside) = (&back.found, &workload.found);
        (back.index, &back.name, back.mac) == (inside.index, &inside.name, inside.mac)
    };
    if !back.is_some_and(|back| same(&back)) {
        return Ok(Seen::Elsewhere);
    }
    let Some(found) = survey::whole(host, here.found)? else {
        return Ok(Seen::NoLink);
    };
    let addresses = survey::addresses(&mut inside, workload.found.index)?;
    let addresses: Vec<IpNet> = addresses.into_iter().map(|address| address.net).collect();
    Ok(Seen::Pair(Box::new(Pair {
        host: found,
        workload_mac: workload.found.mac,
        inside: addresses,
    })))
}

fn end(socket: &mut Socket, request: crate::message::Message) -> Result<Option<End>, Fault> {
    match socket.batch(&[request]).and_then(Answer::ok) {
        Ok(replies) => Ok(replies.first().and_then(|payload| End::parse(payload))),
        // EINVAL: a namespace of that id is not there any more.
        Err(fault) if matches!(fault.errno, ENODEV | EINVAL) => Ok(None),
        Err(fault) => Err(fault),
    }
}
