//! A node with an uplink to a fake outside host.
//!
//! The outside host knows no way back to a workload: whoever gets an answer from it has been masqueraded.

use crate::links::{By, Links};
use crate::namespace::Namespace;
use anyhow::Result;
use ipnet::IpNet;
use model::address::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The link's name on both sides.
pub const UPLINK: &str = "uplink0";

/// A network namespace that stands for a machine, and one for everything beyond it.
#[derive(Debug)]
pub struct Node {
    /// Where the daemon lives.
    pub namespace: Namespace,
    /// The host outside.
    pub outside: Namespace,
}

impl Node {
    /// Both, with addresses, and with default routes on the node.
    pub fn create() -> Result<Self> {
        let node = Self {
            namespace: Namespace::create()?,
            outside: Namespace::create()?,
        };
        let mut inner = Links::of(&node.namespace)?;
        let mut outer = Links::of(&node.outside)?;
        inner.add_veth(UPLINK, UPLINK, node.outside.as_fd())?;
        for (links, address) in [
            (&mut inner, Self::address as fn(Family) -> IpAddr),
            (&mut outer, Self::outside),
        ] {
            links.set_up("lo", true)?;
            links.set_up(UPLINK, true)?;
            for family in Family::ALL {
                links.add_address(UPLINK, on_link(address(family)))?;
            }
        }
        for family in Family::ALL {
            inner.add_route(everywhere(family), By::Gateway(Self::outside(family)))?;
        }
        // From here on both ends send (see Links::index).
        inner.index(UPLINK)?;
        outer.index(UPLINK)?;
        Ok(node)
    }

    /// The outside host's address.
    pub fn outside(family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(203, 0, 113, 1).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The node's own address on the uplink.
    pub fn address(family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(203, 0, 113, 2).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2).into(),
        }
    }
}

fn on_link(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).expect("the length fits the family")
}

fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}
