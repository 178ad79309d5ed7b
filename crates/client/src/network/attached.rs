//! An Attach's answer as values.

use super::options::{Dns, Mac};
use crate::Error;
use api::workload::AttachResponse;
use std::fmt;
use std::net::IpAddr;

/// A route inside the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads to.
    pub destination: IpAddr,
    /// Length of the destination's prefix, in bits.
    pub prefix_length: u8,
    /// By way of whom; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
}

impl fmt::Display for Route {
    /// Its destination.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.destination, self.prefix_length)
    }
}

/// What a workload has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its addresses, IPv4 first, each with its gateway.
    pub addresses: Vec<(IpAddr, IpAddr)>,
    /// Name of the link's end on the node.
    pub host_link: String,
    /// MAC of that end.
    pub host_mac: Mac,
    /// MAC of the workload's end.
    pub mac: Mac,
    /// MTU of both, in bytes.
    pub mtu: u32,
    /// The routes inside.
    pub routes: Vec<Route>,
    /// What was asked for.
    pub dns: Dns,
}

impl Attached {
    pub(crate) fn read(answer: &AttachResponse, dns: &Dns) -> Result<Self, Error> {
        let (ips, gateways) = (&answer.ip, &answer.gateway);
        if ips.len() != gateways.len() {
            return Err(Error::Garbled("gateway"));
        }
        let addresses = ips.iter().zip(gateways).map(|(ip, gateway)| {
            Ok((
                address(ip).ok_or(Error::Garbled("ip"))?,
                address(gateway).ok_or(Error::Garbled("gateway"))?,
            ))
        });
        let routes = answer.route.iter().map(|route| {
            let gateway = match &*route.gateway {
                [] => None,
                bytes => Some(address(bytes).ok_or(Error::Garbled("route.gateway"))?),
            };
            Ok(Route {
                destination: address(&route.destination).ok_or(Error::Garbled("route.destination"))?,
                prefix_length: u8::try_from(route.prefix_length)
                    .ok()
                    .ok_or(Error::Garbled("route.prefix_length"))?,
                gateway,
            })
        });
        Ok(Self {
            addresses: addresses.collect::<Result<_, Error>>()?,
            host_link: answer.host_link.clone(),
            host_mac: mac(&answer.host_mac).ok_or(Error::Garbled("host_mac"))?,
            mac: mac(&answer.workload_mac).ok_or(Error::Garbled("workload_mac"))?,
            mtu: answer.mtu,
            routes: routes.collect::<Result<_, Error>>()?,
            dns: dns.clone(),
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes).ok().map(Mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::workload::Route as Wire;

    fn answer() -> AttachResponse {
        AttachResponse {
            ip: vec![vec![10, 77, 0, 5]],
            host_link: "wk0123456789abc".to_owned(),
            host_mac: vec![2; 6],
            workload_mac: vec![4; 6],
            mtu: 1500,
            gateway: vec![vec![169, 254, 77, 1]],
            route: vec![Wire {
                destination: vec![0; 4],
                prefix_length: 0,
                gateway: vec![169, 254, 77, 1],
            }],
            namespace: None,
        }
    }

    #[test]
    fn an_answer_reads_as_values() {
        let attached = Attached::read(&answer(), &Dns::default()).unwrap();
        let gateway: IpAddr = [169, 254, 77, 1].into();
        assert_eq!(attached.addresses, [([10, 77, 0, 5].into(), gateway)]);
        assert_eq!(attached.routes[0].to_string(), "0.0.0.0/0");
        assert_eq!(attached.routes[0].gateway, Some(gateway));
        assert_eq!((attached.host_mac, attached.mac), (Mac([2; 6]), Mac([4; 6])));
    }

    #[test]
    fn a_garbled_answer_is_told_by_its_field() {
        type Spoil = fn(&mut AttachResponse);
        let spoiled: [(&str, Spoil); 6] = [
            ("ip", |answer| answer.ip[0].clear()),
            ("gateway", |answer| answer.gateway[0].push(0)),
            ("gateway", |answer| answer.gateway.clear()),
            ("host_mac", |answer| answer.host_mac.clear()),
            ("route.destination", |answer| answer.route[0].destination.clear()),
            ("route.prefix_length", |answer| {
                answer.route[0].prefix_length = 256
            }),
        ];
        for (field, spoil) in spoiled {
            let mut answer = answer();
            spoil(&mut answer);
            match Attached::read(&answer, &Dns::default()) {
                Err(Error::Garbled(name)) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
