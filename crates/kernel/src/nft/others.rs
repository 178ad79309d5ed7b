//! What others have in nftables, which is only read.

use super::{DROP, GETCHAIN, GETRULE, INET, IPV4, IPV6, Nft, get};
use crate::message::{Attributes, Message, flag, text};
use libc::ENOENT;
use model::adopt::MasqueradeRule;
use model::datapath::Fault;
use model::ruleset::{TABLE, TableFamily};

impl Nft {
    /// Base chains of others in forward whose policy is drop, as `ip filter FORWARD`.
    pub(crate) fn forward_drops(&self) -> Result<Vec<String>, Fault> {
        let request = Message::new(GETCHAIN, flag::DUMP, "nft list chains").fixed(&[0; 4]);
        let chains = self.socket().dump(&request)?;
        Ok(chains
            .iter()
            .filter_map(|payload| forward_drop(payload))
            .collect())
    }

    /// Rules of the table that the CNI project's plugins masquerade by (their pkg/ip/ipmasq_nftables_linux.go).
    pub(crate) fn masquerade_rules(&self) -> Result<Vec<MasqueradeRule>, Fault> {
        let request = get(
            TableFamily::Inet,
            GETRULE,
            flag::DUMP,
            "nft list rules of the CNI plugins",
        );
        let request = request.text(1, "cni_plugins_masquerade").text(2, "masq_checks");
        match self.socket().dump(&request) {
            Ok(rules) => Ok(rules.iter().filter_map(|rule| masquerade_rule(rule)).collect()),
            Err(fault) if fault.errno == ENOENT => Ok(Vec::new()),
            Err(fault) => Err(fault),
        }
    }
}

/// Handle and comment of a rule; the comment is the first of its user data (libnftnl's `NFTNL_UDATA_RULE_COMMENT`, a byte of
/// kind, one of length, and text with a NUL).
fn masquerade_rule(payload: &[u8]) -> Option<MasqueradeRule> {
    let rule = Attributes::after(payload, 4);
    let handle = u64::from_be_bytes(rule.value(3)?.try_into().ok()?);
    let [0, length, data @ ..] = rule.value(7)? else {
        return None;
    };
    let comment = text(data.get(..usize::from(*length))?)?.to_owned();
    Some(MasqueradeRule { handle, comment })
}

/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;

fn forward_drop(payload: &[u8]) -> Option<String> {
    let family = match *payload.first()? {
        INET => "inet",
        IPV4 => "ip",
        IPV6 => "ip6",
        _ => return None,
    };
    let chain = Attributes::after(payload, 4);
    let is = |value: Option<&[u8]>, number: u32| value == Some(&number.to_be_bytes()[..]);
    let drops = is(chain.inside(4).value(1), FORWARD) && is(chain.value(5), DROP);
    let (table, name) = (chain.text(1)?, chain.text(3)?);
    (drops && table != TABLE).then(|| format!("{family} {table} {name}"))
}
