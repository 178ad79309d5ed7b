//! Connections that the node tracks (linux/netfilter/nfnetlink_conntrack.h): looked through, and single ones forgotten.

use crate::encode::{AF_INET, AF_INET6, LOCAL, route_to};
use crate::message::{Attributes, Message, flag};
use crate::socket::Socket;
use crate::survey::{ip, way};
use libc::ENOENT;
use model::address::Family;
use model::address::octets;
use model::datapath::Fault;
use model::flows::{Fate, Flow, Forgotten, Past};
use model::ports::Place;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// `NFNL_SUBSYS_CTNETLINK`; `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// `IPCTNL_MSG_CT_GET_STATS`.
const STATISTICS: u16 = 1 << 8 | 5;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`, `CTA_FILTER`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// `CTA_FILTER_F_CTA_IP_SRC`, `CTA_FILTER_F_CTA_PROTO_NUM`, `CTA_FILTER_F_CTA_PROTO_DST_PORT`
/// (net/netfilter/nf_conntrack_netlink.c counts them so).
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = 1 << 5;

/// A look by filter walks over the whole hash, which takes about as long as to tell of so many connections (12 ms with 262,144
/// buckets, Linux 6.18). One look without a filter finds everything.
const WORTH_A_LOOK: usize = 10_000;
/// Connections that are forgotten at once: a few megabytes, and a fraction of a second.
const MOST: usize = 20_000;
/// Of which so many are in one message to the kernel.
const TOGETHER: usize = 256;

/// Forgets connections of the past.
pub(crate) fn forget(
    socket: &mut Socket,
    past: &Past,
    is_local: impl FnMut(IpAddr) -> Result<bool, Fault>,
) -> Result<Forgotten, Fault> {
    let mut doomed = Doomed::new(past, is_local);
    for request in looks(past, tracked(socket)?) {
        socket.walk(&request, &mut |payload| doomed.look(payload))?;
    }
    if let Some(fault) = doomed.fault {
        return Err(fault);
    }
    let mut forgotten = Forgotten {
        more: doomed.more,
        flows: 0,
    };
    for some in doomed.deletions.chunks(TOGETHER) {
        let refused = socket.batch(some)?.refused;
        forgotten.flows += some.len() - refused.len();
        // What ended by itself is gone.
        if let Some(other) = refused.into_iter().find(|r| r.fault.errno != ENOENT) {
            return Err(other.fault);
        }
    }
    Ok(forgotten)
}

/// What a walk finds to be of the past, up to [`MOST`].
struct Doomed<'a, L> {
    past: &'a Past,
    is_local: L,
    /// Asked once for each destination: those that a node passes on for others may be many more than those of the past.
    local: HashMap<IpAddr, bool>,
    seen: HashSet<u32>,
    deletions: Vec<Message>,
    more: bool,
    fault: Option<Fault>,
}

impl<'a, L: FnMut(IpAddr) -> Result<bool, Fault>> Doomed<'a, L> {
    fn new(past: &'a Past, is_local: L) -> Self {
        Self {
            past,
            is_local,
            local: HashMap::new(),
            seen: HashSet::new(),
            deletions: Vec::new(),
            more: false,
            fault: None,
        }
    }

    /// One connection, as the kernel tells of it.
    fn look(&mut self, payload: &[u8]) {
        let Some((flow, id)) = parse(payload) else { return };
        let is_past = match self.past.fate(&flow) {
            Fate::Lives => false,
            Fate::IsPast => true,
            Fate::IsPastIfLocal => self.is_to_the_node(flow.destination),
        };
        if !is_past || !self.seen.insert(id) {
            return;
        }
        match self.deletions.len() == MOST {
            true => self.more = true,
            false => self.deletions.push(deletion(payload, &flow)),
        }
    }

    fn is_to_the_node(&mut self, destination: IpAddr) -> bool {
        if let Some(known) = self.local.get(&destination) {
            return *known;
        }
        match (self.is_local)(destination) {
            Ok(is_local) => {
                self.local.insert(destination, is_local);
                is_local
            }
            Err(fault) => {
                self.fault = Some(fault);
                false
            }
        }
    }
}

/// How many connections are tracked in this namespace: `CTA_STATS_GLOBAL_ENTRIES`.
fn tracked(socket: &mut Socket) -> Result<usize, Fault> {
    let request = Message::new(STATISTICS, 0, "conntrack -C").fixed(&[0; 4]);
    let replies = socket.batch(&[request])?.ok()?;
    let entries = replies.first().and_then(|payload| {
        let value = Attributes::after(payload, 4).value(1)?;
        Some(u32::from_be_bytes(value.try_into().ok()?) as usize)
    });
    Ok(entries.unwrap_or(usize::MAX))
}

/// Requests whose answers hold everything that is looked for. A kernel before 5.8 tells all connections in answer to each.
fn looks(past: &Past, tracked: usize) -> Vec<Message> {
    if tracked == 0 {
        return Vec::new();
    }
    let dump = |family: Option<Family>, what: &str| {
        let number = match family {
            None => 0,
            Some(Family::V4) => AF_INET,
            Some(Family::V6) => AF_INET6,
        };
        Message::new(GET, flag::DUMP, format!("conntrack -L{what}")).fixed(&[number, 0, 0, 0])
    };
    let filter = |message: Message, original: u32, reply: u32| {
        message.nest(FILTER, |flags| flags.u32(1, original).u32(2, reply))
    };
    let by_source = |address: &IpAddr| {
        let of = |tuple: u16, what: &str| {
            dump(Some(Family::V4), &format!(" {what} {address}"))
                .nest(tuple, |t| t.nest(1, |ips| ips.bytes(1, &octets(*address))))
        };
        [
            filter(of(ORIGINAL, "--orig-src"), BY_SOURCE, 0),
            filter(of(REPLY, "--reply-src"), 0, BY_SOURCE),
        ]
    };
    let by_port = |place: &Place| {
        let protocol = place.protocol.number();
        let message = dump(
            Some(place.family),
            &format!(" -p {} --dport {}", place.protocol, place.port),
        )
        .nest(ORIGINAL, |t| {
            t.nest(2, |p| p.u8(1, protocol).bytes(3, &place.port.to_be_bytes()))
        });
        filter(message, BY_PROTOCOL | BY_PORT, 0)
    };
    let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = past.addresses.iter().partition(|a| a.is_ipv4());
    // A look by an address of IPv6 finds all but those of that address (`ctnetlink_filter_match_tuple` takes ipv6_addr_cmp for
    // the opposite, net/netfilter/nf_conntrack_netlink.c of Linux 6.18), so that it finds nothing where it is needed.
    let all_v6 = (!v6.is_empty()).then(|| dump(Some(Family::V6), " -f ipv6"));
    let is_left = |place: &&Place| place.family == Family::V4 || all_v6.is_none();
    let places: Vec<&Place> = past.places.iter().filter(is_left).collect();
    let filtered = 2 * v4.len() + places.len();
    if tracked < filtered.saturating_mul(WORTH_A_LOOK) {
        return vec![dump(None, "")];
    }
    let filtered = v4.into_iter().flat_map(by_source);
    filtered
        .chain(places.into_iter().map(by_port))
        .chain(all_v6.clone())
        .collect()
}

/// A connection and its number, as IPCTNL_MSG_CT_NEW tells of it.
fn parse(payload: &[u8]) -> Option<(Flow, u32)> {
    let all = Attributes::after(payload, 4);
    let (original, reply) = (all.inside(ORIGINAL), all.inside(REPLY));
    let address = |tuple: Attributes<'_>, v4: u16| {
        let ips = tuple.inside(1);
        ip(ips.value(v4).or_else(|| ips.value(v4 + 2))?)
    };
    let protocol = original.inside(2);
    let port = protocol
        .value(3)
        .and_then(|port| Some(u16::from_be_bytes(port.try_into().ok()?)));
    let flow = Flow {
        protocol: *protocol.value(1)?.first()?,
        source: address(original, 1)?,
        destination: address(original, 2)?,
        port: port.unwrap_or_default(),
        answers: address(reply, 1)?,
    };
    Some((flow, all.u32(ID)?))
}

/// Forgets this one, and no other that has come to be the same since.
fn deletion(payload: &[u8], flow: &Flow) -> Message {
    let all = Attributes::after(payload, 4);
    let tried = format!(
        "conntrack -D --orig-src {} --orig-dst {}",
        flow.source, flow.destination
    );
    let mut message = Message::new(DELETE, 0, tried).fixed(&payload[..4]);
    for kind in [ORIGINAL, ID, ZONE] {
        if let Some(value) = all.value(kind) {
            message = match kind {
                ORIGINAL => message.nest(kind, |inside| inside.fixed(value)),
                _ => message.bytes(kind, value),
            };
        }
    }
    message
}

/// Whether an address is the node's.
pub(crate) fn is_local(routes: &mut Socket, address: IpAddr) -> Result<bool, Fault> {
    let answer = routes.batch(&[route_to(address)])?;
    let local = |reply: &crate::socket::Reply| way(&reply.payload).is_some_and(|(kind, _)| kind == LOCAL);
    Ok(answer.replies.iter().any(local))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;
    use crate::message::messages;
    use std::os::fd::AsFd as _;

    #[test]
    fn few_connections_are_looked_through_once_and_many_by_filter() {
        let past = Past {
            addresses: [[10, 77, 0, 5].into(), "fd77::5".parse().unwrap()].into(),
            ..Past::default()
        };
        let told = |tracked: usize| -> Vec<String> {
            let all = looks(&past, tracked);
            all.iter().map(|look| look.describes().to_owned()).collect()
        };
        assert_eq!(told(0), Vec::<String>::new());
        assert_eq!(told(19_999), ["conntrack -L"]);
        assert_eq!(
            told(20_000),
            [
                "conntrack -L --orig-src 10.77.0.5",
                "conntrack -L --reply-src 10.77.0.5",
                "conntrack -L -f ipv6"
            ]
        );
    }

    /// By the kernel itself.
    #[test]
    fn each_look_finds_all_that_it_is_about_and_one_by_filter_nothing_else() {
        const NEW: u16 = 1 << 8;
        let tuple = |message: Message, kind: u16, from: (&str, u16), to: (&str, u16)| {
            let [source, destination] = [from.0, to.0].map(|text| text.parse::<IpAddr>().unwrap());
            let (of_source, of_destination) = if source.is_ipv4() { (1, 2) } else { (3, 4) };
            message.nest(kind, |t| {
                t.nest(1, |ips| {
                    ips.bytes(of_source, &octets(source))
                        .bytes(of_destination, &octets(destination))
                })
                .nest(2, |p| {
                    p.u8(1, 17)
                        .bytes(2, &from.1.to_be_bytes())
                        .bytes(3, &to.1.to_be_bytes())
                })
            })
        };
        // From 1001 on, by the port that it comes from: led elsewhere or not, from who is gone or to him.
        let flow = |n: u16, source: &str, to: (&str, u16), answers: &str| {
            let family = encode::family(source.parse().unwrap());
            let message =
                Message::new(NEW, flag::CREATE | flag::EXCL, "conntrack -I").fixed(&[family, 0, 0, 0]);
            let message = tuple(message, ORIGINAL, (source, n), to);
            // CTA_STATUS (confirmed), CTA_TIMEOUT.
            tuple(message, REPLY, (answers, to.1), (source, n))
                .be32(3, 1 << 3)
                .be32(7, 60)
        };
        let flows = [
            flow(1001, "10.77.0.5", ("192.0.2.9", 80), "192.0.2.9"),
            flow(1002, "192.0.2.9", ("192.0.2.1", 8080), "10.77.0.5"),
            flow(1003, "192.0.2.9", ("192.0.2.1", 53), "192.0.2.1"),
            flow(1004, "10.77.0.6", ("192.0.2.9", 80), "192.0.2.9"),
            flow(1005, "fd77::5", ("fd00::9", 80), "fd00::9"),
            flow(1006, "fd00::9", ("fd00::1", 8080), "fd77::5"),
            flow(1007, "fd00::9", ("fd00::1", 53), "fd00::1"),
        ];
        let place = |family| Place {
            family,
            protocol: model::ports::Protocol::Udp,
            port: 53,
            address: None,
        };
        let of_addresses = Past {
            addresses: [[10, 77, 0, 5].into(), "fd77::5".parse().unwrap()].into(),
            ..Past::default()
        };
        let of_places = Past {
            places: Family::ALL.map(place).into(),
            ..Past::default()
        };
        let node = crate::netns::create().unwrap();
        let found = crate::netns::within(node.as_fd(), || {
            let mut socket = Socket::open(crate::socket::NETFILTER).unwrap();
            socket.batch(&flows).unwrap().ok().unwrap();
            let each = |look: &Message| {
                let mut from = Vec::new();
                let mut tell = |payload: &[u8]| {
                    let port = Attributes::after(payload, 4).inside(ORIGINAL).inside(2).value(2);
                    from.push(u16::from_be_bytes(port.unwrap().try_into().unwrap()));
                };
                socket.walk(look, &mut tell).unwrap();
                from.sort_unstable();
                from
            };
            let all = [looks(&of_addresses, usize::MAX), looks(&of_places, usize::MAX)];
            all.iter().flatten().map(each).collect::<Vec<_>>()
        });
        let wanted: [&[u16]; 5] = [&[1001], &[1002], &[1005, 1006, 1007], &[1003], &[1007]];
        assert_eq!(found.unwrap(), wanted);
    }

    /// UDP from 1.1.1.1 to port 53, as the kernel tells of it.
    fn told(destination: [u8; 4], answers: [u8; 4], id: u32) -> Vec<u8> {
        let tuple = |message: Message, kind: u16, source: [u8; 4], destination: [u8; 4]| {
            message.nest(kind, |t| {
                t.nest(1, |ips| ips.bytes(1, &source).bytes(2, &destination))
                    .nest(2, |p| p.u8(1, 17).bytes(2, &[1, 2]).bytes(3, &[0, 53]))
            })
        };
        let message = Message::new(GET, 0, "x").fixed(&[2, 0, 0, 0]);
        let message = tuple(message, ORIGINAL, [1, 1, 1, 1], destination);
        let message = tuple(message, REPLY, answers, [1, 1, 1, 1]);
        let message = message.bytes(ZONE, &[0, 7]).be32(ID, id);
        let mut wire = Vec::new();
        message.append_to(&mut wire, 1, false);
        messages(&wire).next().unwrap().payload.to_vec()
    }

    #[test]
    fn however_many_go_elsewhere_those_to_the_node_are_found() {
        let past = Past {
            places: [Place {
                family: Family::V4,
                protocol: model::ports::Protocol::Udp,
                port: 53,
                address: None,
            }]
            .into(),
            ..Past::default()
        };
        let (node, resolver) = ([192, 0, 2, 1], [8, 8, 8, 8]);
        let mut asked = 0;
        let mut doomed = Doomed::new(&past, |address| {
            asked += 1;
            Ok(address == IpAddr::from(node))
        });
        let most = u32::try_from(MOST).unwrap();
        (0..=most).for_each(|id| doomed.look(&told(resolver, resolver, id)));
        (0..2).for_each(|_| doomed.look(&told(node, node, most + 1)));
        assert_eq!((doomed.deletions.len(), doomed.more), (1, false));
        (0..most).for_each(|id| doomed.look(&told(node, node, most + 2 + id)));
        assert_eq!((doomed.deletions.len(), doomed.more), (MOST, true));
        assert_eq!(asked, 2, "once for each");
    }

    #[test]
    fn what_is_told_cut_short_is_no_connection() {
        let told = &told([2, 2, 2, 2], [3, 3, 3, 3], 7)[..];
        let (flow, _) = parse(told).unwrap();
        assert_eq!(
            (flow.source, flow.destination, flow.port, flow.answers),
            ([1, 1, 1, 1].into(), [2, 2, 2, 2].into(), 53, [3, 3, 3, 3].into())
        );
        let again = deletion(told, &flow);
        let original = |payload| Attributes::after(payload, 4).value(ORIGINAL).map(<[u8]>::to_vec);
        assert_eq!(original(again.payload()), original(told));
        // And no other one that has come to be the same.
        for (kind, value) in [(ZONE, &[0, 7][..]), (ID, &[0, 0, 0, 7])] {
            assert_eq!(Attributes::after(again.payload(), 4).value(kind), Some(value));
        }
        for length in 0..told.len() {
            assert!(parse(&told[..length]).is_none(), "{length}");
        }
    }
}
