//! Ports of the node in a request.

use super::{FieldError, error};
use api::workload::PortMapping;
use api::workload::port_mapping;
use model::ports::{HostPort, Ports, Protocol};
use model::record::hex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All of them; what is said twice is said once.
pub(super) fn ports(all: &[PortMapping]) -> Result<Ports, FieldError> {
    let mut ports: Vec<HostPort> = Vec::new();
    for (n, mapping) in all.iter().enumerate() {
        let port = port(mapping, &format!("port_mapping[{n}]"))?;
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let text = ports
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    Ports::new(ports).map_err(|why| error("port_mapping", &text, why))
}

fn port(mapping: &PortMapping, field: &str) -> Result<HostPort, FieldError> {
    let number = |name: &str, value: u32| {
        let number = u16::try_from(value).ok().filter(|number| *number > 0);
        let why = "must be 1 to 65535";
        number.ok_or_else(|| error(&format!("{field}.{name}"), &value.to_string(), why))
    };
    let protocol = match port_mapping::Protocol::try_from(mapping.protocol) {
        Ok(port_mapping::Protocol::Unspecified | port_mapping::Protocol::Tcp) => Protocol::Tcp,
        Ok(port_mapping::Protocol::Udp) => Protocol::Udp,
        Ok(port_mapping::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => {
            let why = "must be 1 (TCP), 2 (UDP) or 3 (SCTP)";
            return Err(error(
                &format!("{field}.protocol"),
                &mapping.protocol.to_string(),
                why,
            ));
        }
    };
    Ok(HostPort {
        protocol,
        port: number("host_port", mapping.host_port)?,
        address: address(&mapping.host_ip, &format!("{field}.host_ip"))?,
        to: number("container_port", mapping.container_port)?,
    })
}

fn address(bytes: &[u8], field: &str) -> Result<Option<IpAddr>, FieldError> {
    let wrong = |why: &str| Err(error(field, &hex(bytes), why));
    if bytes.is_empty() {
        return Ok(None);
    }
    let address = if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        let address = Ipv4Addr::from(octets);
        if address.is_broadcast() || address.is_multicast() {
            return wrong(&format!("{address} is no host's address"));
        }
        IpAddr::V4(address)
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        let address = Ipv6Addr::from(octets);
        if address.to_ipv4_mapped().is_some() {
            return wrong(&format!("{address} is an IPv4 address, which has 4 bytes"));
        }
        if address.is_multicast() {
            return wrong(&format!("{address} is no host's address"));
        }
        if address.is_loopback() {
            return wrong("packets to ::1 stay on the node, and cannot be led to a workload");
        }
        IpAddr::V6(address)
    } else {
        return wrong(&format!("has {} bytes, an address has 4 or 16", bytes.len()));
    };
    Ok(Some(address))
}
