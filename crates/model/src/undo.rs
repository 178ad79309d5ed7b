//! How a link of another plugin was before it was taken over, as it is written in a second name of the link.

use crate::key::{HostLink, Key};
use crate::op::{FORWARDING_V6, Ipv4Conf, Mark, Op, Sysctl};
use std::fmt::Write as _;

/// Between a claim's name and how the link was.
const UNDO: &str = "_undo_";
/// What our links have of IPv6, in the order of [`Undo::v6`].
pub(crate) const OURS_V6: [Sysctl; 4] = [
    Sysctl::v6("accept_ra", 0),
    Sysctl::v6("autoconf", 0),
    Sysctl::v6("accept_redirects", 0),
    FORWARDING_V6,
];

/// How a link was before it was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undo {
    /// Its link group.
    pub group: u32,
    /// Its settings of IPv4.
    pub v4: Ipv4Conf,
    /// `accept_ra`, `autoconf`, `accept_redirects`, `forwarding` of IPv6; `None`: the link has none.
    pub v6: Option<[i32; 4]>,
}

impl Undo {
    /// The second name that says how a link was.
    pub fn name(&self, claim: &HostLink) -> String {
        let Ipv4Conf {
            forwarding,
            rp_filter,
            accept_redirects,
            send_redirects,
        } = self.v4;
        let v4 = dotted([forwarding, rp_filter, accept_redirects, send_redirects]);
        let mut name = format!("{claim}{UNDO}{}_{v4}", self.group);
        if let Some(v6) = self.v6 {
            // Never fails on a String.
            let _ = write!(name, "_{}", dotted(v6));
        }
        name
    }

    /// From a second name, with the claim that it belongs to.
    pub fn parse(name: &str) -> Option<(HostLink, Self)> {
        let (claim, rest) = name.split_once(UNDO)?;
        let mut parts = rest.split('_');
        let group = parts.next()?.parse().ok()?;
        let [forwarding, rp_filter, accept_redirects, send_redirects] = numbers(parts.next()?)?;
        let undo = Self {
            group,
            v4: Ipv4Conf {
                forwarding,
                rp_filter,
                accept_redirects,
                send_redirects,
            },
            v6: match parts.next() {
                Some(text) => Some(numbers(text)?),
                None => None,
            },
        };
        parts.next().is_none().then_some((HostLink::parse(claim)?, undo))
    }

    /// What makes the link as it was, in order; all of it may have been done already. The last is to forget how it was. `key`
    /// where its name for people may be there.
    pub fn ops(&self, claim: &HostLink, key: Option<&Key>) -> Vec<Op> {
        let mut ops: Vec<Op> = key.and_then(Key::altname).map(Op::DropName).into_iter().collect();
        ops.push(Op::Mark(Mark {
            alias: String::new(),
            group: self.group,
            v4: self.v4,
        }));
        ops.extend(
            self.changed_v6()
                .map(|(ours, was)| Op::Set(Sysctl { value: was, ..ours })),
        );
        ops.extend([Op::DropName(claim.to_string()), Op::DropName(self.name(claim))]);
        ops
    }

    /// Settings of IPv6 that our links have otherwise, and how they were.
    pub(crate) fn changed_v6(&self) -> impl Iterator<Item = (Sysctl, i32)> {
        let pairs = OURS_V6.into_iter().zip(self.v6.into_iter().flatten());
        pairs.filter(|(ours, was)| ours.value != *was)
    }
}

fn dotted(values: [i32; 4]) -> String {
    values.map(|value| value.to_string()).join(".")
}

fn numbers(text: &str) -> Option<[i32; 4]> {
    let all: Option<Vec<i32>> = text.split('.').map(|number| number.parse().ok()).collect();
    all?.try_into().ok()
}
