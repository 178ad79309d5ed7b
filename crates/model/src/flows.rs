//! Connections that the node's connection tracking remembers, and which of them are of the past.
//!
//! An entry outlives what it was made for. Packets that belong to it go where the first one went: to the address of a workload
//! that is gone, and to whoever has it by then; or to the node itself, by a port that leads to a workload by now.

use crate::address::Family;
use crate::ports::{Place, PortForward, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// One entry of connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// IANA's number.
    pub protocol: u8,
    /// Who sent the first packet.
    pub source: IpAddr,
    /// Where it was sent to, before any translation.
    pub destination: IpAddr,
    /// The port there; 0 where the protocol has none.
    pub port: u16,
    /// Who answers: the destination, or where the packet was led instead.
    pub answers: IpAddr,
}

/// What connections are of the past by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Nobody has them any more.
    pub addresses: BTreeSet<IpAddr>,
    /// They lead to a workload by now; of UDP, see [`Past::led`].
    pub places: BTreeSet<Place>,
}

/// Whether a connection is of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is not.
    Lives,
    /// It is, if its destination is an address of the node.
    IsPastIfLocal,
    /// It is.
    IsPast,
}

impl Past {
    /// Whether there is anything to look for.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.places.is_empty()
    }

    /// These lead to a workload from now on. Only UDP is looked for: its packets follow each other for as long as somebody
    /// sends, and a new TCP connection has another port of its sender.
    pub fn led(&mut self, forwards: &[PortForward]) {
        let places = forwards.iter().map(|forward| forward.place);
        self.places
            .extend(places.filter(|place| place.protocol == Protocol::Udp));
    }

    /// Whether a connection is of the past. One that was led elsewhere is of who answers it.
    pub fn fate(&self, flow: &Flow) -> Fate {
        if [flow.source, flow.answers]
            .iter()
            .any(|end| self.addresses.contains(end))
        {
            return Fate::IsPast;
        }
        let place = |address| Place {
            family: Family::of(flow.destination),
            protocol: Protocol::Udp,
            port: flow.port,
            address,
        };
        let is_led = || {
            let mut places = [None, Some(flow.destination)].into_iter().map(place);
            places.any(|place| self.places.contains(&place))
        };
        let is_to_itself = flow.protocol == Protocol::Udp.number() && flow.answers == flow.destination;
        match is_to_itself && is_led() {
            true => Fate::IsPastIfLocal,
            false => Fate::Lives,
        }
    }
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// So many connections.
    pub flows: usize,
    /// There may be more.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(protocol: Protocol, source: &str, destination: &str, answers: &str) -> Flow {
        Flow {
            protocol: protocol.number(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            port: 53,
            answers: answers.parse().unwrap(),
        }
    }

    #[test]
    fn what_is_of_the_past_is_told_from_what_lives() {
        let place = |address: Option<&str>| Place {
            family: Family::V4,
            protocol: Protocol::Udp,
            port: 53,
            address: address.map(|text| text.parse().unwrap()),
        };
        let past = |place: Place| Past {
            addresses: ["10.77.0.5".parse().unwrap()].into(),
            places: [place].into(),
        };
        let (any, one) = (past(place(None)), past(place(Some("192.0.2.1"))));
        use Fate::{IsPast, IsPastIfLocal, Lives};
        use Protocol::{Tcp, Udp};
        for (flow, by_any, by_one) in [
            (
                flow(Tcp, "10.77.0.5", "203.0.113.1", "203.0.113.1"),
                IsPast,
                IsPast,
            ),
            (flow(Tcp, "203.0.113.1", "192.0.2.1", "10.77.0.5"), IsPast, IsPast),
            (flow(Udp, "203.0.113.1", "192.0.2.1", "10.77.0.6"), Lives, Lives),
            (
                flow(Udp, "203.0.113.1", "192.0.2.1", "192.0.2.1"),
                IsPastIfLocal,
                IsPastIfLocal,
            ),
            (
                flow(Udp, "203.0.113.1", "192.0.2.2", "192.0.2.2"),
                IsPastIfLocal,
                Lives,
            ),
            (flow(Tcp, "203.0.113.1", "192.0.2.1", "192.0.2.1"), Lives, Lives),
            (flow(Udp, "fd00::9", "fd00::1", "fd00::1"), Lives, Lives),
        ] {
            assert_eq!((any.fate(&flow), one.fate(&flow)), (by_any, by_one), "{flow:?}");
        }
        assert!(Past::default().is_empty() && !any.is_empty());
    }

    #[test]
    fn nothing_is_looked_for_where_a_port_of_tcp_alone_leads_to_a_workload() {
        let forward = |protocol| PortForward {
            place: Place {
                family: Family::V4,
                protocol,
                port: 53,
                address: None,
            },
            to: ([10, 77, 0, 5].into(), 53),
        };
        let mut past = Past::default();
        past.led(&[forward(Protocol::Tcp), forward(Protocol::Sctp)]);
        assert!(past.is_empty());
        past.led(&[forward(Protocol::Tcp), forward(Protocol::Udp)]);
        assert_eq!(past.places, [forward(Protocol::Udp).place].into());
    }
}
