//! Our whole nftables table as a value; prints itself as `nft list table` would.
//!
//! There is no rule per workload: every workload has a host route of its own, so the reverse-path look-up (`fib`) knows
//! which source belongs to which link. Loading the table is one transaction, and costs the same for any number of
//! workloads.

use ipnet::Ipv6Net;
use std::fmt;

/// Name of the table, of family inet.
pub const TABLE: &str = "workloadnet";

/// What the table depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Link group of our links.
    pub group: u32,
    /// Whether packets that leave our links for the world get the node's address.
    pub masquerade: bool,
}

/// One chain of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Where it hangs.
    pub hook: Hook,
    /// Lower runs earlier (enum nf_ip_hook_priorities, linux/netfilter_ipv4.h).
    pub priority: i32,
    /// In order.
    pub rules: Vec<Rule>,
}

/// A hook of the inet family (enum nf_inet_hooks, linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// After routing.
    Postrouting,
}

/// All conditions, then the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All have to hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub verdict: Verdict,
}

/// What a packet is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It came in over a link of the group.
    FromGroup(u32),
    /// It goes out over a link that is not of the group.
    ToOtherGroup(u32),
    /// It is ICMPv6 of this type (RFC 4861, section 4).
    Icmpv6Type(u8),
    /// It is ICMP of this type (RFC 792).
    IcmpType(u8),
    /// Its IPv6 source is inside.
    Source6(Ipv6Net),
    /// Its IPv6 destination is inside.
    Destination6(Ipv6Net),
    /// Routing would not send an answer back over the link that it came in by.
    SourceNotRoutedBack,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This chain lets it pass.
    Accept,
    /// It is gone.
    Drop,
    /// It gets the address of the link that it leaves by.
    Masquerade,
}

/// ICMPv6 router advertisement.
const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 redirect.
const REDIRECT_V6: u8 = 137;
/// ICMP redirect.
const REDIRECT_V4: u8 = 5;

impl Ruleset {
    /// The table's chains.
    pub fn chains(&self) -> Vec<Chain> {
        use Condition as C;
        let from = C::FromGroup(self.group);
        let rule = |conditions: &[Condition], verdict| Rule {
            conditions: conditions.to_vec(),
            verdict,
        };
        let mut chains = vec![Chain {
            name: "guard",
            kind: "filter",
            hook: Hook::Prerouting,
            // raw: before connection tracking, so that a dropped packet leaves no entry.
            priority: -300,
            rules: vec![
                rule(&[from, C::Icmpv6Type(ROUTER_ADVERTISEMENT)], Verdict::Drop),
                rule(&[from, C::Icmpv6Type(REDIRECT_V6)], Verdict::Drop),
                rule(&[from, C::IcmpType(REDIRECT_V4)], Verdict::Drop),
                // Neighbour discovery and multicast listener reports, which never leave the link.
                rule(
                    &[
                        from,
                        C::Source6(net("fe80::/10")),
                        C::Destination6(net("fe80::/10")),
                    ],
                    Verdict::Accept,
                ),
                rule(
                    &[
                        from,
                        C::Source6(net("fe80::/10")),
                        C::Destination6(net("ff02::/16")),
                    ],
                    Verdict::Accept,
                ),
                rule(
                    &[from, C::Source6(net("::/128")), C::Destination6(net("ff02::/16"))],
                    Verdict::Accept,
                ),
                rule(&[from, C::SourceNotRoutedBack], Verdict::Drop),
            ],
        }];
        if self.masquerade {
            chains.push(Chain {
                name: "outbound",
                kind: "nat",
                hook: Hook::Postrouting,
                priority: 100,
                rules: vec![rule(&[from, C::ToOtherGroup(self.group)], Verdict::Masquerade)],
            });
        }
        chains
    }
}

fn net(text: &str) -> Ipv6Net {
    text.parse().expect("written here")
}

/// As nft prints it: a single address without its length.
fn short(net: &Ipv6Net) -> String {
    if net.prefix_len() == 128 {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

impl Chain {
    /// What it is beside its rules, as nft prints it. Every chain lets pass what no rule takes.
    pub fn base(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            let (hook, priority) = match (self.hook, self.priority) {
                (Hook::Prerouting, -300) => ("prerouting", "raw".to_owned()),
                (Hook::Postrouting, 100) => ("postrouting", "srcnat".to_owned()),
                (Hook::Prerouting, n) => ("prerouting", n.to_string()),
                (Hook::Postrouting, n) => ("postrouting", n.to_string()),
            };
            let kind = self.kind;
            write!(f, "type {kind} hook {hook} priority {priority}; policy accept;")
        })
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for (n, chain) in self.chains().iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            writeln!(f, "\tchain {} {{", chain.name)?;
            writeln!(f, "\t\t{}", chain.base())?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.conditions {
            match condition {
                Condition::FromGroup(group) => write!(f, "iifgroup {group} ")?,
                Condition::ToOtherGroup(group) => write!(f, "oifgroup != {group} ")?,
                Condition::Icmpv6Type(ROUTER_ADVERTISEMENT) => write!(f, "icmpv6 type nd-router-advert ")?,
                Condition::Icmpv6Type(REDIRECT_V6) => write!(f, "icmpv6 type nd-redirect ")?,
                Condition::Icmpv6Type(n) => write!(f, "icmpv6 type {n} ")?,
                Condition::IcmpType(REDIRECT_V4) => write!(f, "icmp type redirect ")?,
                Condition::IcmpType(n) => write!(f, "icmp type {n} ")?,
                Condition::Source6(net) => write!(f, "ip6 saddr {} ", short(net))?,
                Condition::Destination6(net) => write!(f, "ip6 daddr {} ", short(net))?,
                Condition::SourceNotRoutedBack => write!(f, "fib saddr . iif oif missing ")?,
            }
        }
        f.write_str(match self.verdict {
            Verdict::Accept => "accept",
            Verdict::Drop => "drop",
            Verdict::Masquerade => "masquerade",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_prints_as_nft_lists_it() {
        let text = Ruleset {
            group: 8,
            masquerade: true,
        }
        .to_string();
        assert_eq!(text, include_str!("../tests/golden/ruleset.nft"));
    }
}
