//! Our nftables tables over nfnetlink (linux/netfilter/nf_tables.h): put in place as a whole in one transaction, and read
//! back to see what is left of it.

mod expression;
mod forwards;
mod nets;
mod others;
mod sets;

use crate::message::{Attributes, Message, flag};
use crate::socket::{NETFILTER, Socket};
use expression::{ACCEPT, DROP, condition, holds, verdict};
use libc::{EAFNOSUPPORT, ENOENT, EOPNOTSUPP};
use model::datapath::Fault;
use model::forwards::PortForwards;
use model::ruleset::{Chain, Hook, METER_SIZE, Meter, Rule, Ruleset, TABLE, Table, TableFamily};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's type.
pub(crate) const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;
/// Numbers of sets in a transaction, behind the meters'.
const FIRST_SET: u32 = 100;
const FIRST_FORWARD_MAP: u32 = 200;
pub(crate) const NEWGEN: u16 = SUBSYSTEM | 15;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// `NFT_TABLE_F_DORMANT`: the table's chains hang nowhere.
const DORMANT: u8 = 1;

/// `NFPROTO_INET`, `NFPROTO_ARP`.
const INET: u8 = 1;
const ARP: u8 = 3;
/// `NFPROTO_IPV6`, `NFPROTO_IPV4`.
const IPV6: u8 = 10;
const IPV4: u8 = 2;

/// A connection of its own, by whose port our own changes are recognised.
#[derive(Debug)]
pub(crate) struct Nft {
    socket: Mutex<Socket>,
    /// The kernel was seen to have no tables for ARP.
    no_arp: AtomicBool,
    /// Held while the table is changed, so that it never has fewer forwards than are noted. Taken before the socket.
    noted: Mutex<Noted>,
}

/// What the table is to hold.
#[derive(Debug, Default)]
struct Noted {
    forwards: PortForwards,
    /// As it was published, or found in place, last, with what is spared since.
    ruleset: Option<Ruleset>,
    /// What is noted could not be put in place last: the table may hold other forwards.
    is_behind: bool,
}

impl Nft {
    pub(crate) fn open() -> Result<Self, Fault> {
        Ok(Self::over(Socket::open_for_long_batches(NETFILTER)?))
    }

    pub(crate) fn over(socket: Socket) -> Self {
        Self {
            socket: Mutex::new(socket),
            no_arp: AtomicBool::new(false),
            noted: Mutex::default(),
        }
    }

    pub(crate) fn port(&self) -> Result<u32, Fault> {
        self.socket().port()
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces our tables in one transaction.
    pub(crate) fn publish(&self, ruleset: &Ruleset) -> Result<(), Fault> {
        let mut noted = self.noted();
        self.publish_with(ruleset, &noted.forwards)?;
        noted.ruleset = Some(ruleset.clone());
        noted.is_behind = false;
        Ok(())
    }

    fn publish_with(&self, ruleset: &Ruleset, forwards: &PortForwards) -> Result<(), Fault> {
        let mut tables = ruleset.tables();
        tables.retain(|table| self.can(table.family));
        let replaced = self.replace(ruleset, forwards, &tables);
        let lacks_arp = |fault: &Fault| is_lacking(fault) && is_about(TableFamily::Arp, fault);
        if replaced.as_ref().is_err_and(lacks_arp) && self.can(TableFamily::Arp) {
            // Some kernels have no such tables.
            tables.retain(|table| table.family != TableFamily::Arp);
            if self.replace(ruleset, forwards, &tables).is_ok() {
                tracing::warn!("this kernel has no nftables for ARP: requests of workloads are not limited");
                self.no_arp.store(true, Ordering::Relaxed);
                return Ok(());
            }
        }
        replaced.map_err(explained)
    }

    /// Whether the kernel has tables of this family, as far as that was seen.
    fn can(&self, family: TableFamily) -> bool {
        family != TableFamily::Arp || !self.no_arp.load(Ordering::Relaxed)
    }

    fn replace(&self, ruleset: &Ruleset, forwards: &PortForwards, tables: &[Table]) -> Result<(), Fault> {
        let tried = format!("nft replace table inet {TABLE}");
        let mut changes = Vec::new();
        for table in tables {
            let whole = |kind, flags| {
                Message::new(kind, flags, format!("nft replace table {} {TABLE}", table.family))
                    .fixed(&head(table.family))
                    .text(1, TABLE)
            };
            // Made if it is not there, so that it can be deleted: both in the same transaction.
            changes.extend([
                whole(NEWTABLE, flag::CREATE),
                whole(DELTABLE, 0),
                whole(NEWTABLE, flag::CREATE),
            ]);
            for (id, meter) in (1..).zip(&table.meters) {
                changes.push(new_meter(table.family, meter, id));
            }
            for (id, set) in (FIRST_SET..).zip(&table.sets) {
                changes.push(nets::new_set(set, id));
                changes.extend(nets::elements(NEWSETELEM, set, ruleset.spared.of(set.family)));
            }
            let elements = forwards.elements();
            for (id, set) in (FIRST_FORWARD_MAP..).zip(&table.forwards) {
                changes.push(forwards::new_set(set, id));
                changes.extend(forwards::elements(NEWSETELEM, set, &elements));
            }
            changes.extend(table.chains.iter().map(|chain| new_chain(table.family, chain)));
            for chain in &table.chains {
                let rules = chain.rules.iter();
                changes.extend(rules.map(|rule| new_rule(table.family, chain, rule)));
            }
        }
        self.commit(&tried, changes)
    }

    /// Carries out changes in one transaction: all of them, or none.
    fn commit(&self, tried: &str, changes: Vec<Message>) -> Result<(), Fault> {
        let edge = |kind| Message::new(kind, 0, tried).fixed(&[0, 0, 0, 10]);
        // Of which the end is not acknowledged.
        let last = changes.len();
        let batch: Vec<Message> = [edge(BATCH_BEGIN)]
            .into_iter()
            .chain(changes)
            .chain([edge(BATCH_END)])
            .collect();
        let answer = self.socket().batch_with_ack_on(&batch, last)?;
        answer.ok().map(drop)
    }

    /// What the kernel holds otherwise than the ruleset says.
    pub(crate) fn drift(&self, ruleset: &Ruleset) -> Result<Vec<String>, Fault> {
        let mut noted = self.noted();
        let mut drift = Vec::new();
        for table in ruleset.tables() {
            if self.can(table.family) {
                self.drift_of(&table, &mut drift)?;
                self.drift_of_sets(ruleset, &table, &mut drift)?;
                self.drift_of_forwards(&noted.forwards, &table, &mut drift)?;
            }
        }
        if drift.is_empty() {
            // Put in place by an earlier process, and from now on changed by this one.
            noted.ruleset = Some(ruleset.clone());
            noted.is_behind = false;
        }
        Ok(drift)
    }

    fn drift_of(&self, table: &Table, drift: &mut Vec<String>) -> Result<(), Fault> {
        let family = table.family;
        let mut socket = self.socket();
        let Some(dormant) = dormant(&mut socket, family)? else {
            drift.push(format!("nftables table {family} {TABLE} is missing"));
            return Ok(());
        };
        if dormant {
            drift.push(format!("nftables table {family} {TABLE} is dormant"));
        }
        let mut chains = BTreeMap::new();
        for payload in socket.dump(&get(family, GETCHAIN, flag::DUMP, "nft list chains"))? {
            if let Some(chain) = ours(&payload, family, 3).map(str::to_owned) {
                chains.insert(chain, payload);
            }
        }
        let mut rules: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for payload in socket.dump(&get(family, GETRULE, flag::DUMP, "nft list rules").text(1, TABLE))? {
            if let Some(chain) = ours(&payload, family, 2).map(str::to_owned) {
                rules.entry(chain).or_default().push(payload);
            }
        }
        let name = |chain: &str| match family {
            TableFamily::Inet => format!("nftables chain {chain}"),
            TableFamily::Arp => format!("nftables chain {chain} of the table for ARP"),
        };
        for chain in &table.chains {
            match chains.remove(chain.name) {
                Some(found) => {
                    let rules = rules.remove(chain.name).unwrap_or_default();
                    compare_chain(family, chain, &name(chain.name), &found, &rules, drift);
                }
                None => drift.push(format!("{} is missing", name(chain.name))),
            }
        }
        // A chain that an earlier ruleset had, or somebody else's, acts on packets all the same.
        drift.extend(
            chains
                .keys()
                .map(|chain| format!("{} is none of ours", name(chain))),
        );
        Ok(())
    }
}

/// Whether our table sleeps; `None` where there is none.
fn dormant(socket: &mut Socket, family: TableFamily) -> Result<Option<bool>, Fault> {
    let request = get(family, GETTABLE, 0, &format!("nft list table {family} {TABLE}")).text(1, TABLE);
    match socket.batch(&[request])?.ok() {
        Ok(tables) => Ok(Some(tables.iter().any(|payload| {
            let flags = Attributes::after(payload, 4).value(2).unwrap_or_default();
            // In network order: the lowest bits come last.
            flags.last().is_some_and(|flags| flags & DORMANT != 0)
        }))),
        Err(fault) if fault.errno == ENOENT => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn compare_chain(
    family: TableFamily,
    chain: &Chain,
    name: &str,
    found: &[u8],
    rules: &[Vec<u8>],
    drift: &mut Vec<String>,
) {
    if !hangs_as(family, chain, found) {
        drift.push(format!("{name} is not `{}`", chain.base()));
    }
    if rules.len() != chain.rules.len() {
        let (is, should) = (rules.len(), chain.rules.len());
        drift.push(format!("{name} has {is} rules instead of {should}"));
        return;
    }
    for (rule, payload) in chain.rules.iter().zip(rules) {
        if !holds(payload, &new_rule(family, chain, rule)) {
            drift.push(format!("{name}: a rule is not `{rule}`"));
        }
    }
}

/// Whether a chain that was read has the hook, priority, policy and type of the one that would be written.
fn hangs_as(family: TableFamily, chain: &Chain, found: &[u8]) -> bool {
    let written = new_chain(family, chain);
    let of = |payload| {
        let all = Attributes::after(payload, 4);
        let hook = all.inside(4);
        [hook.value(1), hook.value(2), all.value(5), all.value(7)].map(|value| value.map(<[u8]>::to_vec))
    };
    of(found) == of(written.payload())
}

/// The kernel says no more than `No such file or directory` of a kind of chain or expression that it was built without. Our
/// transaction makes every table and chain that it names, so nothing else can be meant.
fn explained(mut fault: Fault) -> Fault {
    if is_lacking(&fault) {
        fault.reason.push_str(
            " (the kernel needs nf_tables with the family inet, which needs IPv6, and its nat, masq, fib and limit)",
        );
    }
    fault
}

fn is_lacking(fault: &Fault) -> bool {
    [ENOENT, EOPNOTSUPP, EAFNOSUPPORT].contains(&fault.errno)
}

/// Whether the message that was refused is one for a table of this family.
fn is_about(family: TableFamily, fault: &Fault) -> bool {
    fault.tried.contains(&format!(" {family} {TABLE}"))
}

fn number(family: TableFamily) -> u8 {
    match family {
        TableFamily::Inet => INET,
        TableFamily::Arp => ARP,
    }
}

/// `struct nfgenmsg`.
fn head(family: TableFamily) -> [u8; 4] {
    [number(family), 0, 0, 0]
}

fn get(family: TableFamily, kind: u16, flags: u16, tried: &str) -> Message {
    Message::new(kind, flags, tried).fixed(&head(family))
}

/// The name in attribute `name` of something of our table.
fn ours(payload: &[u8], family: TableFamily, name: u16) -> Option<&str> {
    let attributes = Attributes::after(payload, 4);
    let of_the_table = payload.first() == Some(&number(family)) && attributes.text(1) == Some(TABLE);
    of_the_table.then(|| attributes.text(name))?
}

/// Whether a message of nfnetlink concerns a table of ours, or something in it: all name their table in attribute 1.
pub(crate) fn concerns_us(payload: &[u8]) -> bool {
    let families = [TableFamily::Inet, TableFamily::Arp];
    families.iter().any(|family| ours(payload, *family, 1).is_some())
}

/// `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`.
const TIMEOUT: u32 = 0x10;
const DYNAMIC: u32 = 0x20;
/// How nft calls the key: `TYPE_IFINDEX` (include/datatype.h of nftables).
const IFACE_INDEX: u32 = 20;

fn new_meter(family: TableFamily, meter: &Meter, id: u32) -> Message {
    let tried = format!("nft add set {family} {TABLE} {}", meter.name);
    Message::new(NEWSET, flag::CREATE, tried)
        .fixed(&head(family))
        .text(1, TABLE)
        .text(2, meter.name)
        .be32(3, TIMEOUT | DYNAMIC)
        .be32(4, IFACE_INDEX)
        .be32(5, 4)
        .nest(9, |description| description.be32(1, METER_SIZE))
        .be32(10, id)
        .bytes(11, &60_000_u64.to_be_bytes())
}

fn new_chain(family: TableFamily, chain: &Chain) -> Message {
    let hook = match chain.hook {
        Hook::Prerouting | Hook::ArpIn => 0,
        Hook::Input => 1,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    Message::new(
        NEWCHAIN,
        flag::CREATE,
        format!("nft add chain {family} {TABLE} {}", chain.name),
    )
    .fixed(&head(family))
    .text(1, TABLE)
    .text(3, chain.name)
    .nest(4, |h| h.be32(1, hook).be32(2, chain.priority.cast_unsigned()))
    .be32(5, ACCEPT)
    .text(7, chain.kind)
}

fn new_rule(family: TableFamily, chain: &Chain, rule: &Rule) -> Message {
    Message::new(
        NEWRULE,
        flag::CREATE | flag::APPEND,
        format!("nft add rule {family} {TABLE} {} {rule}", chain.name),
    )
    .fixed(&head(family))
    .text(1, TABLE)
    .text(2, chain.name)
    .nest(4, |list| {
        let list = rule.conditions.iter().fold(list, condition);
        verdict(list, rule.verdict)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::fault;

    #[test]
    fn a_kernel_that_lacks_something_is_told_what() {
        let lacking = explained(fault("nft add chain inet workloadnet guard", ENOENT, None));
        assert_eq!(
            lacking.to_string(),
            "nft add chain inet workloadnet guard: No such file or directory (the kernel needs nf_tables with the \
             family inet, which needs IPv6, and its nat, masq, fib and limit) (errno 2)"
        );
        let refused = fault("x", 1, None);
        assert_eq!(explained(refused.clone()), refused);
    }

    #[test]
    fn garbage_is_no_table_of_ours() {
        let tables = Ruleset::new(8, true).tables();
        let chain = tables[0]
            .chains
            .iter()
            .find(|chain| chain.name == "guard")
            .unwrap();
        let inet = TableFamily::Inet;
        let written = new_rule(inet, chain, &chain.rules[5]);
        assert!(concerns_us(written.payload()));
        for length in 0..written.payload().len() {
            let cut = &written.payload()[..length];
            let _ = (concerns_us(cut), ours(cut, inet, 2), hangs_as(inet, chain, cut));
            assert!(!holds(cut, &written), "{length}");
        }
    }
}
