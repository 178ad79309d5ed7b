//! One attach. They are carried out one at a time, by whichever thread opened a namespace and finds nobody at it.

use super::order::{AttachOrder, Attachment, Notable, Refusal};
use super::turns::Writing;
use super::{Desk, Done, FIRST_INDEX, INDEX_SPAN, LAST_INDEX, State, Wiring, now};
use model::address::{Addresses, Family, IPV6_MTU};
use model::datapath::{Datapath, Fault, Target, WireError};
use model::ipam::{Granted, LeaseError, Wanted};
use model::key::HostLink;
use model::plan::{LARGE_MTU, Plan, PlanSettings, routes_inside};
use model::ports::Ports;
use model::record::{Asked, NamespaceId, PathDigest, Record};
use model::survey::Standing;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// How many addresses that turn out to be others' are passed over in one attach.
const ROUTED_TRIES: usize = 16;

/// Addresses that belong to an attach which has not succeeded yet: dropped, they are as if never given out.
struct Lease<'a, D: Datapath> {
    desk: &'a Desk<D>,
    granted: Option<Granted>,
}

impl<D: Datapath> Lease<'_, D> {
    /// From here on the addresses belong to the link.
    fn keep(mut self) {
        self.granted = None;
    }
}

impl<D: Datapath> Drop for Lease<'_, D> {
    fn drop(&mut self) {
        if let Some(granted) = self.granted.take() {
            let mut state = self.desk.state();
            self.desk.lease_otherwise(&mut state, |ipam| ipam.undo(&granted));
            self.desk.tell_readiness(&mut state);
        }
    }
}

impl<D: Datapath> Desk<D> {
    pub(super) fn carry_out(
        self: &Arc<Self>,
        writing: Writing<D>,
    ) -> (Result<Attachment, Refusal>, Done<Attachment>) {
        let Writing {
            order,
            opened,
            since,
            done,
        } = writing;
        self.counters.attach_waits.took(since.elapsed());
        let outcome = match order.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(Refusal::TooLate),
            _ => opened
                .map_err(Refusal::from)
                .and_then(|(namespace, id)| self.attach_to(&order, &namespace, id)),
        };
        (outcome, done)
    }

    fn attach_to(
        self: &Arc<Self>,
        order: &AttachOrder,
        namespace: &D::Namespace,
        id: NamespaceId,
    ) -> Result<Attachment, Refusal> {
        if let Some(standing) = self.standing(order, id)? {
            return Ok(standing);
        }
        let mut was_cleared = false;
        for _ in 0..ROUTED_TRIES {
            match self.make(order, namespace, id) {
                Err(Refusal::Wire(WireError::LinkTaken { .. })) if !was_cleared => {
                    was_cleared = true;
                    self.clear_the_way(order)?;
                }
                // That one cools down now; another one is tried.
                Err(Refusal::Wire(WireError::Routed { destination }))
                    if !order.asks_for(destination.addr()) =>
                {
                    tracing::warn!(key = %order.key, %destination, "somebody else routes an address of our prefixes");
                }
                other => return other,
            }
        }
        self.make(order, namespace, id)
    }

    /// The attachment of the key, where one lives that is the same; an error where it is another one.
    fn standing(
        self: &Arc<Self>,
        order: &AttachOrder,
        id: NamespaceId,
    ) -> Result<Option<Attachment>, Refusal> {
        let Some(mut attachment) = self.attached(&order.key)? else {
            return Ok(None);
        };
        let index = attachment.link.host_index;
        let found = self.datapath.find_at(&attachment.link.host, index)?;
        // A detach of it has failed half-way: it is deleted to its end, and made anew.
        if let Some(found) = found.as_ref().filter(|found| found.is_dying()) {
            self.take_away(Target::of(attachment.link.host, found))?;
        }
        if found.is_none_or(|found| found.is_dying()) {
            self.ended(&attachment.link.host, index);
            return Ok(None);
        }
        let differences = differences(&attachment, order, id);
        if !differences.is_empty() {
            return Err(Refusal::Different {
                key: Box::new(order.key.clone()),
                differences,
            });
        }
        if attachment.labels != order.labels {
            attachment.labels.clone_from(&order.labels);
            if let Some(standing) = self.state().attachments.get_mut(&order.key) {
                standing.labels.clone_from(&order.labels);
            }
            self.sweeper.state_file_is_old();
        }
        Ok(Some(attachment))
    }

    fn make(
        self: &Arc<Self>,
        order: &AttachOrder,
        namespace: &D::Namespace,
        id: NamespaceId,
    ) -> Result<Attachment, Refusal> {
        let (lease, plan) = self.plan(order, id)?;
        let began = Instant::now();
        let wired = self.datapath.wire(namespace, &plan);
        self.counters.attach_wires.took(began.elapsed());
        let mut state = self.state();
        let ended = state.wiring.take().map(|wiring| wiring.ended).unwrap_or_default();
        let index = match wired {
            Ok(index) => index,
            Err(error) => {
                if let WireError::Refused { fault, .. } = &error {
                    self.counters.fault(fault.errno);
                }
                // Which one it had is not told, and its end may still be announced.
                state.use_up(plan.link.host_index + INDEX_SPAN);
                let is_left = matches!(&error, WireError::Refused { left, .. } if !left.is_empty());
                if is_left || matches!(error, WireError::Routed { .. }) {
                    // The next attach is to get another one.
                    self.lease_otherwise(&mut state, |ipam| ipam.free(plan.record.addresses, now()));
                    self.tell_readiness(&mut state);
                    lease.keep();
                    self.sweeper.state_file_is_old();
                }
                drop(state);
                if is_left {
                    self.sweeper.all_touched();
                }
                return Err(error.into());
            }
        };
        // An index is never used twice, so that the late end of one link is not taken for another's.
        state.use_up(index);
        if ended.contains(&index) {
            drop(state);
            if !plan.forwards.is_empty() {
                self.close_forwards(index);
            }
            let tried = format!("attach {}", order.key);
            let reason = "the link ended as soon as it was made".to_owned();
            return Err(WireError::Vanished(Fault {
                tried,
                reason,
                errno: 0,
            })
            .into());
        }
        let mut attachment = Attachment {
            record: plan.record,
            link: plan.link,
            labels: order.labels.clone(),
            detaching: false,
            undoable: false,
            since: now(),
        };
        attachment.link.host_index = index;
        state.enter(attachment.clone());
        self.tell_readiness(&mut state);
        drop(state);
        lease.keep();
        self.cleaner.came(&attachment);
        self.sweeper.state_file_is_old();
        Ok(attachment)
    }

    /// Decides everything under one short lock.
    fn plan(&self, order: &AttachOrder, id: NamespaceId) -> Result<(Lease<'_, D>, Plan), Refusal> {
        let mut state = self.state();
        if let Some(fault) = &state.unpublished {
            return Err(Refusal::NotReady(vec![format!(
                "the nftables table is not in place: {fault}"
            )]));
        }
        state.are_free(&order.ports)?;
        let granted = self.lease(&mut state, order)?;
        let (mtu, source) = self.mtu(&state, order.mtu);
        let record = self.record(order, id, granted.addresses, mtu);
        let inside = routes_inside(&record, state.ipam.prefixes().map(|prefix| prefix.net()));
        let lease = Lease {
            desk: self,
            granted: Some(granted),
        };
        if let Err(refusal) = is_feasible(order, record.addresses, mtu, &source) {
            // What gives the addresses back takes the lock.
            drop(state);
            return Err(refusal);
        }
        let index = state.begin_wiring(record.key.host_link());
        drop(state);
        let settings = PlanSettings {
            group: self.settings.group,
            mtu,
        };
        let mut plan = Plan::new(record, &settings, index);
        plan.workload.extend(inside);
        Ok((lease, plan))
    }

    fn lease(&self, state: &mut State<D>, order: &AttachOrder) -> Result<Granted, Refusal> {
        let wanted = Wanted {
            v4: order.v4,
            v6: order.v6,
        };
        let granted = match state.ipam.lease(&order.key, wanted, now()) {
            Ok(granted) => granted,
            Err(LeaseError::NoPrefix) => return Err(Refusal::NotReady(vec![self.no_prefix(state)])),
            Err(LeaseError::Exhausted(prefixes)) => {
                self.note(Notable::Exhausted(prefixes.clone()));
                return Err(Refusal::Exhausted(prefixes));
            }
            Err(LeaseError::Held { address, holder }) => {
                return Err(Refusal::Held {
                    address,
                    holder: holder.to_string(),
                });
            }
            Err(LeaseError::Taken { address }) => {
                return Err(Refusal::Held {
                    address,
                    holder: "another link or route of this node".to_owned(),
                });
            }
            Err(LeaseError::NotOurs { address, why }) => return Err(Refusal::NotOurs { address, why }),
        };
        if !granted.warm.is_empty() {
            tracing::warn!(key = %order.key, addresses = ?granted.warm, "no cooled address is left, the oldest is used");
        }
        Ok(granted)
    }

    /// What is written on the link.
    fn record(&self, order: &AttachOrder, namespace: NamespaceId, addresses: Addresses, mtu: u16) -> Record {
        Record {
            key: order.key.clone(),
            addresses,
            namespace,
            path: PathDigest::of(&order.path),
            asked: Asked {
                mtu: order.mtu,
                v4: order.v4.is_some(),
                v6: order.v6.is_some(),
                mac: order.mac,
                ports: order.ports.clone(),
            },
            outward_mtu: self.outward_mtu(order, mtu),
            adopted: None,
        }
    }

    /// Whether the link gets the largest MTU inside the node, and what then is that of everything else.
    fn outward_mtu(&self, order: &AttachOrder, mtu: u16) -> Option<u16> {
        let is_large = order.mtu.is_none()
            && mtu < LARGE_MTU
            && self.settings.large_mtu_owners.contains(order.key.owner());
        is_large.then_some(mtu)
    }

    /// Deletes one link that is no attachment's.
    fn take_away(&self, target: Target) -> Result<(), Fault> {
        self.datapath.unwire(&[target]).into_iter().collect()
    }

    /// A link has the host end's name, and nothing is known of it: what is half-made goes, everything else stays.
    fn clear_the_way(self: &Arc<Self>, order: &AttachOrder) -> Result<(), Refusal> {
        let name = order.key.host_link();
        let Some(found) = self.datapath.find(&name)? else {
            return Ok(());
        };
        let in_the_way = |why: &str| Refusal::InTheWay {
            link: name.to_string(),
            why: why.to_owned(),
        };
        match found.standing(self.settings.group) {
            Standing::HalfMade => {
                self.take_away(Target::of(name, &found))?;
                Ok(())
            }
            Standing::HalfAdopted(..) => Err(in_the_way("it is being taken over")),
            Standing::Foreign | Standing::Regrouped(_) => Err(in_the_way("it is not in our link group")),
            Standing::Unreadable(error) => Err(in_the_way(&error.to_string())),
            Standing::Attached(_) => {
                self.sweeper.all_touched();
                Err(Refusal::NotReady(vec![format!(
                    "the record of the link {name} is about to be read"
                )]))
            }
        }
    }
}

impl<D: Datapath> State<D> {
    /// The interface index that a link is to get, and that it is being made: its end may come before anybody knows of it.
    fn begin_wiring(&mut self, link: HostLink) -> u32 {
        let index = self.next_index;
        self.use_up(index);
        self.wiring = Some(Wiring {
            link,
            ended: Vec::new(),
        });
        index
    }

    /// This interface index, and those before it, are not chosen again.
    pub(super) fn use_up(&mut self, index: u32) {
        if (FIRST_INDEX..LAST_INDEX).contains(&index) {
            self.next_index = self.next_index.max(index + 1);
        }
        if self.next_index >= LAST_INDEX {
            self.next_index = FIRST_INDEX;
        }
    }
}

fn differences(attachment: &Attachment, order: &AttachOrder, id: NamespaceId) -> Vec<String> {
    let mut all = Vec::new();
    let record = &attachment.record;
    if record.namespace != id {
        all.push(format!("namespace {} instead of {id}", record.namespace));
    }
    if record.asked.mtu != order.mtu {
        let asked = order.mtu.map_or("the default".to_owned(), |mtu| mtu.to_string());
        all.push(format!("MTU {} instead of {asked}", attachment.mtu()));
    }
    if record.asked.mac != order.mac {
        let asked = order.mac.map_or("the daemon's".to_owned(), |mac| mac.to_string());
        all.push(format!("MAC {} instead of {asked}", attachment.link.workload_mac));
    }
    if record.asked.ports != order.ports {
        let show = |ports: &Ports| match ports.is_empty() {
            true => "none".to_owned(),
            false => format!("[{ports}]"),
        };
        let (has, wanted) = (show(&record.asked.ports), show(&order.ports));
        all.push(format!("ports {has} instead of {wanted}"));
    }
    for family in Family::ALL {
        let wanted = match family {
            Family::V4 => order.v4.map(IpAddr::V4),
            Family::V6 => order.v6.map(IpAddr::V6),
        };
        let has = record.addresses.of(family);
        if record.asked.address(family) != wanted.is_some() || (wanted.is_some() && wanted != has) {
            let show = |a: Option<IpAddr>, none: &str| a.map_or(none.to_owned(), |a| a.to_string());
            let (has, wanted) = (show(has, "no address"), show(wanted, "any"));
            all.push(format!("{family} address {has} instead of {wanted}"));
        }
    }
    all
}

/// Whether a link of this MTU can have these addresses, and the ports that are asked for lead to one of them.
fn is_feasible(order: &AttachOrder, addresses: Addresses, mtu: u16, source: &str) -> Result<(), Refusal> {
    if let Some(port) = order.ports.astray(addresses) {
        return Err(Refusal::PortAstray { port, addresses });
    }
    if mtu >= IPV6_MTU || addresses.v6().is_none() {
        return Ok(());
    }
    Err(match order.mtu {
        Some(_) => Refusal::MtuTooSmall { mtu },
        None => Refusal::NotReady(vec![format!(
            "the MTU of {mtu} ({source}) is below {IPV6_MTU}, which IPv6 needs"
        )]),
    })
}
