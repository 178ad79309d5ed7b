//! Links of the stage, which are nobody's but the stage's.

use anyhow::Context as _;
use kernel::socket::{ROUTE, Socket};
use kernel::{Attributes, Message};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
/// `NLM_F_CREATE | NLM_F_EXCL`, `NLM_F_DUMP`.
const CREATE: u16 = 0x600;
const DUMP: u16 = 0x300;
const IFNAME: u16 = 3;
/// `IFA_F_NODAD`.
const NODAD: u32 = 2;

fn send(messages: &[Message]) -> anyhow::Result<()> {
    Socket::open(ROUTE)?.batch(messages)?.ok()?;
    Ok(())
}

fn links() -> anyhow::Result<Vec<(u32, String)>> {
    let all = Socket::open(ROUTE)?.dump(&Message::new(GETLINK, DUMP, "ip link show").fixed(&[0; 16]))?;
    Ok(all
        .iter()
        .filter_map(|payload| {
            let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
            Some((index, Attributes::after(payload, 16).text(IFNAME)?.to_owned()))
        })
        .collect())
}

pub(crate) fn names() -> anyhow::Result<Vec<String>> {
    Ok(links()?.into_iter().map(|(_, name)| name).collect())
}

fn index(link: &str) -> anyhow::Result<u32> {
    let found = links()?.into_iter().find(|(_, name)| name == link);
    Ok(found.with_context(|| format!("there is no link {link}"))?.0)
}

/// A veth from the thread's namespace into another one.
pub(crate) fn connect(here: &str, namespace: BorrowedFd<'_>, there: &str) -> anyhow::Result<()> {
    let message = Message::new(
        NEWLINK,
        CREATE,
        format!("ip link add {here} type veth peer {there}"),
    )
    .fixed(&[0; 16])
    .text(IFNAME, here)
    .nest(18, |info| {
        info.text(1, "veth").nest(2, |data| {
            data.nest(1, |peer| {
                peer.fixed(&[0; 16])
                    .text(IFNAME, there)
                    .u32(28, namespace.as_raw_fd().cast_unsigned())
            })
        })
    });
    send(&[message])
}

/// Loopback and a link up, with /24 and /64 addresses.
pub(crate) fn configure(link: &str, addresses: &[&str]) -> anyhow::Result<()> {
    let index = index(link)?;
    let mut messages: Vec<Message> = [("lo", 1), (link, index)]
        .map(|(name, index)| {
            let mut head = [0; 16];
            head[4..8].copy_from_slice(&index.to_ne_bytes());
            head[8] = 1;
            head[12] = 1;
            Message::new(NEWLINK, 0, format!("ip link set {name} up")).fixed(&head)
        })
        .to_vec();
    for text in addresses {
        let (family, bytes) = octets(text)?;
        let length = if family == 2 { 24 } else { 64 };
        let mut head = [family, length, 0, 0, 0, 0, 0, 0];
        head[4..8].copy_from_slice(&index.to_ne_bytes());
        let message = Message::new(
            NEWADDR,
            CREATE,
            format!("ip address add {text}/{length} dev {link}"),
        );
        messages.push(
            message
                .fixed(&head)
                .bytes(2, &bytes)
                .bytes(1, &bytes)
                .u32(8, NODAD),
        );
    }
    send(&messages)
}

/// Default routes over a link.
pub(crate) fn default_routes(link: &str, gateways: &[&str]) -> anyhow::Result<()> {
    let index = index(link)?;
    let mut messages = Vec::new();
    for text in gateways {
        let (family, bytes) = octets(text)?;
        let message = Message::new(
            NEWROUTE,
            CREATE,
            format!("ip route add default via {text} dev {link}"),
        );
        messages.push(
            message
                .fixed(&[family, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0])
                .bytes(5, &bytes)
                .u32(4, index),
        );
    }
    send(&messages)
}

fn octets(text: &str) -> anyhow::Result<(u8, Vec<u8>)> {
    Ok(match text.parse()? {
        IpAddr::V4(a) => (2, a.octets().to_vec()),
        IpAddr::V6(a) => (10, a.octets().to_vec()),
    })
}
