//! What a workload is to have beside a link: as runtimes know it, and as the contract says it.

use api::workload::{self, AttachRequest, port_mapping};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is not six pairs of hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a MAC is six pairs of hex digits with colons or dashes between them")]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut mac = [0; 6];
        let mut pairs = text.split([':', '-']);
        for byte in &mut mac {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(NotAMac)?;
            // A sign would be taken for a digit.
            let is_hex = pair.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(pair, 16)
                .ok()
                .filter(|_| is_hex)
                .ok_or(NotAMac)?;
        }
        match pairs.next() {
            Some(_) => Err(NotAMac),
            None => Ok(Self(mac)),
        }
    }
}

/// Transport protocol of a host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the node that leads to one of the workload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// On the node.
    pub host_port: u16,
    /// In the workload.
    pub container_port: u16,
    /// Of both.
    pub protocol: Protocol,
    /// The node's address; `None`: all of them.
    pub host_ip: Option<IpAddr>,
}

impl fmt::Display for HostPort {
    /// As in `podman run --publish`: `192.0.2.1:8080:80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}:{}/{protocol}", self.host_port, self.container_port)
    }
}

/// Limits of the link, in bits per second and bits; 0: none. Ingress is towards the workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Towards the workload, bits per second.
    pub ingress_rate: u64,
    /// Bits.
    pub ingress_burst: u64,
    /// Out of the workload, bits per second.
    pub egress_rate: u64,
    /// Bits.
    pub egress_burst: u64,
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ingress_rate,
            egress_rate,
            ..
        } = self;
        write!(f, "{ingress_rate} bit/s in, {egress_rate} bit/s out")
    }
}

/// How the workload is to resolve names. The daemon writes no file of a workload: what is given comes back with the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// The local domain; empty: none.
    pub domain: String,
    /// Domains that short names are looked for in.
    pub search: Vec<String>,
    /// As in resolv.conf(5).
    pub options: Vec<String>,
}

/// What a workload is to have beside a link. What the daemon cannot do, it refuses by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub(crate) mtu: u32,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) bandwidth: Option<Bandwidth>,
    pub(crate) aliases: Vec<String>,
    pub(crate) dns: Dns,
}

impl Options {
    /// MTU of the link, in bytes; without it, the daemon's setting.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// A label for people. One given again with the same key replaces the first.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.labels.retain(|(other, _)| *other != key);
        self.labels.push((key, value.into()));
        self
    }

    /// An address to have, once per family; the same one given again changes nothing.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        self
    }

    /// MAC of the workload's end.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// A port of the node that leads to the workload.
    #[must_use]
    pub fn host_port(mut self, port: HostPort) -> Self {
        self.host_ports.push(port);
        self
    }

    /// Limits of the link. Nothing but zeros asks for nothing.
    #[must_use]
    pub fn bandwidth(mut self, bandwidth: Bandwidth) -> Self {
        self.bandwidth = Some(bandwidth).filter(|b| *b != Bandwidth::default());
        self
    }

    /// A further name of the workload for a name service.
    #[must_use]
    pub fn alias(mut self, name: impl Into<String>) -> Self {
        self.aliases.push(name.into());
        self
    }

    /// How the workload is to resolve names.
    #[must_use]
    pub fn dns(mut self, dns: Dns) -> Self {
        self.dns = dns;
        self
    }

    /// The workload's cgroup, which runtimes tell. It asks for nothing: the daemon has no use for it.
    #[must_use]
    pub fn cgroup_path(self, _: impl AsRef<str>) -> Self {
        self
    }

    /// What a daemon has to be able to do for all of this, beyond what every one of ours can: its features' names, and the
    /// values that are asked for.
    pub(crate) fn needs(&self) -> Vec<(&'static str, String)> {
        let ports: Vec<String> = self.host_ports.iter().map(ToString::to_string).collect();
        let needs = [
            ("requested-mac", self.mac.map(|mac| mac.to_string())),
            ("port-mapping", Some(ports.join(", "))),
            ("bandwidth", self.bandwidth.map(|bandwidth| bandwidth.to_string())),
            ("alias", Some(self.aliases.join(", "))),
        ];
        needs
            .into_iter()
            .filter_map(|(feature, value)| Some((feature, value.filter(|value| !value.is_empty())?)))
            .collect()
    }

    pub(crate) fn put_into(&self, request: &mut AttachRequest) {
        request.mtu = self.mtu;
        request.labels = self.labels.iter().cloned().collect();
        request.requested_ip = self.addresses.iter().map(octets).collect();
        request.requested_mac = self.mac.map(|mac| mac.0.to_vec()).unwrap_or_default();
        request.port_mapping = self.host_ports.iter().map(mapping).collect();
        request.bandwidth = self.bandwidth.map(|b| workload::Bandwidth {
            ingress_rate: b.ingress_rate,
            ingress_burst: b.ingress_burst,
            egress_rate: b.egress_rate,
            egress_burst: b.egress_burst,
        });
        request.alias.clone_from(&self.aliases);
    }
}

fn mapping(port: &HostPort) -> workload::PortMapping {
    let protocol = match port.protocol {
        Protocol::Tcp => port_mapping::Protocol::Tcp,
        Protocol::Udp => port_mapping::Protocol::Udp,
        Protocol::Sctp => port_mapping::Protocol::Sctp,
    };
    workload::PortMapping {
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        protocol: protocol.into(),
        host_ip: port.host_ip.as_ref().map(octets).unwrap_or_default(),
    }
}

/// An address as the contract has it: 4 or 16 bytes in network order.
pub fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_reads_back_and_nothing_else_is_one() {
        let mac = Mac([2, 0, 0xab, 0, 0, 0x77]);
        assert_eq!("02:00:ab:00:00:77".parse(), Ok(mac));
        assert_eq!("02-00-AB-00-00-77".parse(), Ok(mac));
        assert_eq!(mac.to_string(), "02:00:ab:00:00:77");
        for text in [
            "",
            "02:00:ab:00:00",
            "02:00:ab:00:00:77:00",
            "2:0:ab:0:0:77",
            "02:00:ag:00:00:77",
            "+2:00:ab:00:00:77",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text}");
        }
    }

    #[test]
    fn options_ask_for_what_they_say_and_no_more() {
        let nothing = Options::default()
            .cgroup_path("/kubepods/pod-1")
            .bandwidth(Bandwidth::default());
        assert_eq!(nothing, Options::default());
        assert!(nothing.needs().is_empty());
        let v6: IpAddr = "fd77::5".parse().unwrap();
        let all = Options::default()
            .label("app", "old")
            .label("app", "web")
            .address(v6)
            .address(v6)
            .mac(Mac([2; 6]))
            .bandwidth(Bandwidth {
                egress_rate: 1,
                ..Bandwidth::default()
            });
        assert_eq!(
            all.needs().iter().map(|need| need.0).collect::<Vec<_>>(),
            ["requested-mac", "bandwidth"]
        );
        let mut request = AttachRequest::default();
        all.put_into(&mut request);
        assert_eq!(request.labels, [("app".to_owned(), "web".to_owned())].into());
        assert_eq!(request.requested_ip.len(), 1);
        assert_eq!(request.requested_mac, [2; 6]);
    }
}
