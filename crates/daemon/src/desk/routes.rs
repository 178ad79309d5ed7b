//! Routes to other nodes, and those by which the own prefixes are unreachable as such, on a thread of their own: what is told of
//! peers, prefixes and the kernel becomes a plan, and the plan's difference to what the kernel holds becomes steps.
//!
//! A change of the peers is compared with what was made last; whatever else happens, and every round, with what the kernel
//! holds. Nothing is done until somebody has said which peers there are: a restart leaves all as it stands.

use super::order::{Notable, Routes};
use super::{Desk, State, vital};
use crate::sync::{Condvar, Mutex, MutexGuard, instant};
use crate::tally::PutBack;
use ipnet::IpNet;
use model::address::Family;
use model::datapath::{Datapath, Fault};
use model::ipam::Ipam;
use model::peer::Peer;
use model::prefix::Prefix;
use model::routes::{Facts, FoundRoutes, Held, Mode, Own, Planned, Reach, Step, node_address, plan};
use model::ruleset::Ruleset;
use model::spared::Spared;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Touches that come close together are handled together.
const SETTLE: Duration = Duration::from_millis(50);
/// The kernel is asked anew about every peer at most this often, be it that others' routes change all the time.
const PACE: Duration = Duration::from_secs(1);
/// What failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(2);
/// Steps that are logged one by one.
const LOGGED: usize = 8;

/// What the router is to look at.
#[derive(Default)]
pub(super) struct Nudges {
    pending: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Default, Clone, Copy)]
struct Pending {
    peers: bool,
    kernel: bool,
}

impl Nudges {
    pub(super) fn peers_changed(&self) {
        self.nudge(|pending| pending.peers = true);
    }

    pub(super) fn kernel_touched(&self) {
        self.nudge(|pending| pending.kernel = true);
    }

    fn nudge(&self, mark: impl FnOnce(&mut Pending)) {
        mark(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    /// What was told; what concerns the kernel no earlier than at `kernel`, and by itself at `round`.
    fn wait(&self, kernel: Instant, round: Instant) -> Pending {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = instant();
            if round <= now || pending.kernel && kernel <= now {
                pending.kernel = true;
            }
            if pending.peers || pending.kernel && kernel <= now {
                return std::mem::take(&mut *pending);
            }
            let until = if pending.kernel { kernel } else { round };
            let left = until.saturating_duration_since(now);
            pending = self
                .wake
                .wait_timeout(pending, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if pending.kernel && kernel <= instant() && !pending.peers {
                let settled = |_: &mut Pending| true;
                let waited = self.wake.wait_timeout_while(pending, SETTLE, settled);
                pending = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// What the router remembers; all of it could be asked again.
#[derive(Default)]
struct Router {
    reach: HashMap<IpAddr, Reach>,
    /// What the kernel was left with; `None`: that is not known.
    held: Option<Held>,
    /// It may hold something else by now, and has to be asked.
    is_old: bool,
    /// Steps that somebody else undid.
    undone: usize,
    /// What others had when it was asked last.
    others: FoundRoutes,
}

/// What becomes of the rest that is spared.
#[derive(Clone, Copy)]
enum Rest {
    /// It may be needed: nobody has said which peers there are, or packets still go there.
    Stays,
    /// Nothing goes there any more.
    Goes,
}

/// What the router goes by, beside the kernel.
struct Known {
    own: Own,
    /// `None`: nobody has said yet.
    peers: Option<Arc<[Peer]>>,
    /// What becomes of what others spared.
    rest: Rest,
}

impl<D: Datapath> State<D> {
    /// What this node has of the cluster's addresses.
    pub(super) fn own(&self) -> Own {
        let prefixes: Vec<_> = self.ipam.in_use().collect();
        let nodes = prefixes.iter().filter_map(node_address);
        let lent = nodes.filter_map(|address| Some((address, self.ipam.holder(address)?.clone())));
        Own {
            lent: lent.collect(),
            prefixes,
        }
    }
}

impl<D: Datapath> Desk<D> {
    /// Changes what is leased, and tells the router where that changes what the node itself has.
    pub(super) fn lease_otherwise<T>(&self, state: &mut State<D>, change: impl FnOnce(&mut Ipam) -> T) -> T {
        let before = state.own();
        let outcome = change(&mut state.ipam);
        if state.own() != before {
            self.router.peers_changed();
        }
        outcome
    }

    /// The router's thread.
    pub(super) fn route_for_ever(self: Arc<Self>) {
        self.wait_until_recovered();
        let mut router = Router::default();
        let (mut kernel, mut round) = (instant(), instant());
        loop {
            let pending = self.router.wait(kernel, round);
            if pending.kernel {
                (router.is_old, kernel) = (true, instant() + PACE);
                router.reach.clear();
            }
            let began = instant();
            let is_good = self.route(&mut router);
            self.counters.routing_times.took(instant() - began);
            self.counters.routings.ended(*is_good.as_ref().unwrap_or(&false));
            let is_good = match is_good {
                Ok(is_good) => is_good,
                Err(fault) => {
                    tracing::warn!(%fault, "routes are not in place");
                    self.counters.fault(fault.errno);
                    Arc::make_mut(&mut self.state().routes).faults = vec![fault.to_string()];
                    false
                }
            };
            if !is_good {
                router.held = None;
            }
            round = instant() + if is_good { self.settings.round } else { AGAIN };
        }
    }

    /// Makes the kernel hold what follows from what is known; whether it does.
    fn route(&self, router: &mut Router) -> Result<bool, Fault> {
        let known = self.known();
        let Some(peers) = &known.peers else {
            self.spare(&known.own, &[], Rest::Stays);
            return Ok(true);
        };
        let planned = self.planned(router, &known.own, peers)?;
        let undone = std::mem::take(&mut router.undone);
        self.counters.put_back(PutBack::Peers, undone);
        if undone > 0 {
            self.note(Notable::Drift(format!(
                "{undone} of our routes and of what they lead over"
            )));
        }
        // What comes is spared before packets go there, and what goes until none do.
        self.spare(&known.own, &planned.spared, Rest::Stays);
        let held = router.held.get_or_insert_default();
        let steps = held.steps_to(&planned.held);
        let faults = match steps.is_empty() {
            true => Vec::new(),
            false => {
                log(&steps);
                let faults = self.datapath.change_routes(&steps)?;
                self.counters
                    .routing_steps
                    .up_by(steps.len() - faults.len().min(steps.len()));
                faults
            }
        };
        self.spare(&known.own, &planned.spared, known.rest);
        let is_good = faults.is_empty();
        for fault in &faults {
            self.counters.fault(fault.errno);
        }
        for fault in faults.iter().take(LOGGED) {
            tracing::warn!(%fault, "a route is not in place");
        }
        *held = planned.held;
        let routes = Arc::new(Routes {
            mode: self.settings.routes.mode,
            ways: planned.ways,
            warnings: planned.warnings,
            faults: faults.iter().take(LOGGED).map(ToString::to_string).collect(),
            mtu: planned.mtu,
            made: true,
        });
        let mut state = self.state();
        // To forget what is known of thousands takes a while.
        let before = std::mem::replace(&mut state.routes, routes);
        self.tell_readiness(&mut state);
        drop(state);
        drop(before);
        Ok(is_good)
    }

    /// Whether nobody has told yet which other nodes there are, and somebody is to.
    pub(super) fn awaits_peers(&self, state: &State<D>) -> bool {
        state.peers.is_none() && self.settings.peers_are_told
    }

    /// What there is to go by. Where others route, nobody has to say that there are no other nodes.
    fn known(&self) -> Known {
        let state = self.state();
        let peers = match self.settings.routes.mode {
            Mode::None => Some(state.peers.clone().unwrap_or_default()),
            _ => state.peers.clone(),
        };
        Known {
            own: state.own(),
            peers,
            rest: match self.awaits_peers(&state) {
                true => Rest::Stays,
                false => Rest::Goes,
            },
        }
    }

    /// What the kernel is to hold, after asking it what the router does not remember.
    fn planned(&self, router: &mut Router, own: &Own, peers: &[Peer]) -> Result<Planned, Fault> {
        let settings = &self.settings.routes;
        if settings.mode != Mode::None {
            let addresses = peers.iter().flat_map(|peer| peer.addresses.iter().copied());
            let unknown: Vec<IpAddr> = addresses.filter(|a| !router.reach.contains_key(a)).collect();
            let ways = self.datapath.reach(&unknown)?;
            router.reach.extend(unknown.into_iter().zip(ways));
        }
        if router.is_old || router.held.is_none() {
            let mut found = self.datapath.found_routes()?;
            let held = std::mem::take(&mut found.held);
            let was = router.held.as_ref().filter(|was| **was != held);
            router.undone = was.map_or(0, |was| held.steps_to(was).len());
            (router.held, router.is_old) = (Some(held), false);
            router.others = found;
        }
        let facts = Facts {
            own,
            peers,
            reach: &router.reach,
            found: &router.others,
            ipv6: self.datapath.supports(Family::V6),
        };
        Ok(plan(settings, facts))
    }

    /// What an earlier daemon spared is to be in the first table, too: the other nodes are not known yet, and their answers to
    /// what is masqueraded meanwhile would be to this node.
    pub(super) fn resume_spared(&self) -> Result<(), Fault> {
        if !self.settings.masquerade {
            return Ok(());
        }
        let _turn = self.table_turn();
        let found = Spared::new(self.datapath.spared()?);
        let own = self.state().own();
        self.set_spared(found.and(self.of_the_node(&own)));
        Ok(())
    }

    /// Where packets keep their workload's address, whoever else there is.
    fn of_the_node(&self, own: &Own) -> Vec<IpNet> {
        let own = own.prefixes.iter().map(Prefix::net);
        own.chain(self.settings.no_masquerade.iter().copied()).collect()
    }

    /// Spares what is the cluster's, in the table and in what would be published.
    fn spare(&self, own: &Own, others: &[IpNet], rest: Rest) {
        if !self.settings.masquerade {
            return;
        }
        let all = others.iter().copied().chain(self.of_the_node(own));
        let turn = self.table_turn();
        let before = self.ruleset();
        let spared = match rest {
            Rest::Stays => before.spared.and(all),
            Rest::Goes => Spared::new(all),
        };
        if before.spared == spared {
            return;
        }
        let (gone, came) = before.spared.differences(&spared);
        let outcome = self.datapath.spare(&gone, &came);
        self.set_spared(spared);
        drop(turn);
        if let Err(fault) = outcome {
            // Somebody has the table otherwise; the sweeper compares it as a whole.
            tracing::debug!(%fault, "the sets are put in place with the table");
            self.sweeper.ruleset_touched();
        }
    }

    /// The tables as they are to be.
    pub(super) fn ruleset(&self) -> Arc<Ruleset> {
        Arc::clone(&self.ruleset.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_spared(&self, spared: Spared) {
        let mut ruleset = self.ruleset.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut ruleset).spared = spared;
    }

    /// Until it is dropped, nobody else of the desk changes the table.
    pub(super) fn table_turn(&self) -> MutexGuard<'_, ()> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel holds otherwise than the tables are to be.
    pub(super) fn table_drift(&self) -> Result<Vec<String>, Fault> {
        let drift = self.datapath.drift(&self.ruleset())?;
        if drift.is_empty() {
            return Ok(drift);
        }
        // The desk itself may be about to change it: that is no difference.
        let _turn = self.table_turn();
        self.datapath.drift(&self.ruleset())
    }

    /// What the kernel holds otherwise than was planned last, as the commands that would put it back.
    pub(super) fn route_drift(&self) -> Result<Vec<String>, Fault> {
        let known = self.known();
        let Some(peers) = known.peers else {
            return Ok(Vec::new());
        };
        let mut router = Router::default();
        let planned = self.planned(&mut router, &known.own, &peers)?;
        let steps = router.held.unwrap_or_default().steps_to(&planned.held);
        Ok(steps.iter().map(|step| format!("not as made: {step}")).collect())
    }

    /// Starts the router.
    pub(super) fn start_router(self: &Arc<Self>) -> std::io::Result<()> {
        let router = Arc::clone(self);
        vital::spawn("router".to_owned(), move || router.route_for_ever())
    }
}

fn log(steps: &[Step]) {
    tracing::info!(steps = steps.len(), "routes are changed");
    for step in steps.iter().take(LOGGED) {
        tracing::debug!(%step, "changed");
    }
}
