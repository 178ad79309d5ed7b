//! Where packets go without the node's address: addresses of the cluster, which know the way back.

use crate::address::Family;
use ipnet::IpNet;
use std::cmp::Ordering;
use std::collections::HashSet;

/// Prefixes in their order, IPv4's first, none inside another: what an interval set of nftables can hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spared(Vec<IpNet>);

impl Spared {
    /// Nothing.
    pub const NONE: Self = Self(Vec::new());

    /// Of any prefixes, in any order, be it that some overlap.
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let mut nets: Vec<IpNet> = nets.into_iter().map(|net| net.trunc()).collect();
        // A wider one comes right before what it holds.
        nets.sort_unstable_by_key(order);
        nets.dedup_by(|next, before| before.contains(&*next));
        Self(nets)
    }

    /// These, and others.
    pub fn and(&self, nets: impl IntoIterator<Item = IpNet>) -> Self {
        Self::new(self.0.iter().copied().chain(nets))
    }

    /// Those of a family.
    pub fn of(&self, family: Family) -> &[IpNet] {
        let split = self.0.partition_point(|net| net.addr().is_ipv4());
        match family {
            Family::V4 => &self.0[..split],
            Family::V6 => &self.0[split..],
        }
    }

    /// Without some, and with others.
    pub fn changed(&self, gone: &[IpNet], came: &[IpNet]) -> Self {
        let gone: HashSet<&IpNet> = gone.iter().collect();
        let kept = self.0.iter().filter(|net| !gone.contains(net));
        Self::new(kept.chain(came).copied())
    }

    /// What is only in this one, and what is only in the other one.
    pub fn differences(&self, other: &Self) -> (Vec<IpNet>, Vec<IpNet>) {
        // Both are in their order.
        let only = |one: &Self, other: &Self| {
            let mut rest = other.0.as_slice();
            let is_missing = |net: &&IpNet| {
                while let Some((first, behind)) = rest.split_first() {
                    match order(first).cmp(&order(net)) {
                        Ordering::Less => rest = behind,
                        Ordering::Equal => return false,
                        Ordering::Greater => return true,
                    }
                }
                true
            };
            one.0.iter().filter(is_missing).copied().collect()
        };
        (only(self, other), only(other, self))
    }
}

/// Families apart, then by first address, then the wider one first.
fn order(net: &IpNet) -> (bool, u128, u8) {
    let first = match net {
        IpNet::V4(net) => u32::from(net.network()).into(),
        IpNet::V6(net) => net.network().into(),
    };
    (net.addr().is_ipv6(), first, net.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (0_u32..64, 26_u8..=32)
            .prop_map(|(n, length)| (std::net::Ipv4Addr::from(0x0a00_0000 + n), length));
        let v6 = (0_u128..64, 122_u8..=128)
            .prop_map(|(n, length)| (std::net::Ipv6Addr::from((0xfd_u128 << 120) + n), length));
        prop_oneof![
            v4.prop_map(|(a, l)| IpNet::new(a.into(), l).unwrap()),
            v6.prop_map(|(a, l)| IpNet::new(a.into(), l).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn the_same_addresses_are_spared_and_no_prefix_is_inside_another(nets in prop::collection::vec(net(), 0..20)) {
            let spared = Spared::new(nets.clone());
            let all: Vec<IpNet> = Family::ALL.iter().flat_map(|f| spared.of(*f)).copied().collect();
            prop_assert_eq!(&all, &spared.0);
            for (n, one) in all.iter().enumerate() {
                prop_assert!(nets.iter().any(|net| net.trunc() == *one));
                prop_assert!(all.iter().enumerate().all(|(m, other)| n == m || !other.contains(one)));
            }
            prop_assert!(nets.iter().all(|net| all.iter().any(|one| one.contains(net))));
        }

        #[test]
        fn the_differences_lead_from_one_to_the_other(a in prop::collection::vec(net(), 0..20), b in prop::collection::vec(net(), 0..20)) {
            let (a, b) = (Spared::new(a), Spared::new(b));
            let (gone, came) = a.differences(&b);
            prop_assert_eq!(a.changed(&gone, &came), b);
        }
    }
}
