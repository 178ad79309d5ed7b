//! Routes to other nodes, on a thread of their own: what is told of peers, prefixes and the kernel becomes a plan, and the
//! plan's difference to what the kernel holds becomes steps.
//!
//! A change of the peers is compared with what was made last; whatever else happens, and every round, with what the kernel
//! holds. Nothing is done until somebody has said which peers there are: a restart leaves all as it stands.

use super::order::Routes;
use super::{Desk, vital};
use model::address::Family;
use model::datapath::{Datapath, Fault, FoundRoutes};
use model::peer::Peer;
use model::routes::{Held, Mode, Planned, Reach, Step, plan};
use model::ruleset::Ruleset;
use model::spared::Spared;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
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
            let now = Instant::now();
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
            if pending.kernel && kernel <= Instant::now() && !pending.peers {
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
    /// What the kernel was left with; `None`: it has to be asked.
    held: Option<Held>,
    /// What others had when it was asked last.
    others: FoundRoutes,
}

impl<D: Datapath> Desk<D> {
    /// The router's thread.
    pub(super) fn route_for_ever(self: Arc<Self>) {
        self.wait_until_recovered();
        let mut router = Router::default();
        let (mut kernel, mut round) = (Instant::now(), Instant::now());
        loop {
            let pending = self.router.wait(kernel, round);
            if pending.kernel {
                (router.held, kernel) = (None, Instant::now() + PACE);
                router.reach.clear();
            }
            let is_good = match self.route(&mut router) {
                Ok(is_good) => is_good,
                Err(fault) => {
                    tracing::warn!(%fault, "routes to other nodes are not in place");
                    self.state().routes.faults = vec![fault.to_string()];
                    false
                }
            };
            if !is_good {
                router.held = None;
            }
            round = Instant::now() + if is_good { self.settings.round } else { AGAIN };
        }
    }

    /// Makes the kernel hold what follows from what is known; whether it does.
    fn route(&self, router: &mut Router) -> Result<bool, Fault> {
        let (own, peers) = {
            let state = self.state();
            let own: Vec<_> = state
                .ipam
                .usage(super::now())
                .into_iter()
                .map(|u| u.prefix)
                .collect();
            (own, state.peers.clone())
        };
        let is_none = self.settings.routes.mode == Mode::None;
        let Some(peers) = peers.or_else(|| is_none.then(|| Arc::from([]))) else {
            self.spare(&own, &[])?;
            return Ok(true);
        };
        let addresses = || peers.iter().flat_map(|peer| peer.addresses.iter().copied());
        if !is_none {
            let unknown: Vec<IpAddr> = addresses().filter(|a| !router.reach.contains_key(a)).collect();
            let ways = self.datapath.reach(&unknown)?;
            router.reach.extend(unknown.into_iter().zip(ways));
        }
        let ipv6 = self.datapath.supports(Family::V6);
        let mut planned = plan(&self.settings.routes, &own, &peers, &router.reach, ipv6);
        if router.held.is_none() {
            let mut found = self.datapath.found_routes()?;
            router.held = Some(std::mem::take(&mut found.held));
            router.others = found;
        }
        self.mind_others(&mut planned, &router.others);
        // What comes is spared before packets go there, and what goes until none do.
        self.spare(&own, &peers)?;
        let held = router.held.get_or_insert_default();
        let steps = held.steps_to(&planned.held);
        let faults = match steps.is_empty() {
            true => Vec::new(),
            false => {
                log(&steps);
                self.datapath.change_routes(&steps)?
            }
        };
        let is_good = faults.is_empty();
        for fault in faults.iter().take(LOGGED) {
            tracing::warn!(%fault, "a route to another node is not in place");
        }
        *held = planned.held;
        let mut state = self.state();
        state.routes = Routes {
            mode: self.settings.routes.mode,
            ways: planned.ways,
            warnings: planned.warnings,
            faults: faults.iter().take(LOGGED).map(ToString::to_string).collect(),
            mtu: planned.mtu,
        };
        self.tell_readiness(&mut state);
        Ok(is_good)
    }

    /// Others' addresses and routes stay; what hinders ours of them is said.
    fn mind_others(&self, planned: &mut Planned, others: &FoundRoutes) {
        planned.held.addresses.retain(|address| {
            let is_taken = others.other_addresses.contains(address);
            if is_taken {
                let text = format!(
                    "{address}, the node's own address in its prefix, is somebody else's on this node"
                );
                planned.warnings.push(text);
            }
            !is_taken
        });
        let contested = planned
            .held
            .routes
            .keys()
            .filter(|net| others.other_routes.contains(net));
        let text =
            |net| format!("somebody else has a route to {net}, too, which may come before that to its node");
        planned.warnings.extend(contested.map(text));
    }

    /// Spares what is the cluster's, in the table and in what would be published.
    fn spare(&self, own: &[model::prefix::Prefix], peers: &[Peer]) -> Result<(), Fault> {
        if !self.settings.masquerade {
            return Ok(());
        }
        let cluster = own
            .iter()
            .chain(peers.iter().flat_map(|peer| &peer.prefixes))
            .map(|p| p.net());
        let spared = Spared::new(cluster.chain(self.settings.no_masquerade.iter().copied()));
        let before = self.ruleset();
        if before.spared == spared {
            return Ok(());
        }
        let (gone, came) = before.spared.differences(&spared);
        let after = Ruleset {
            spared,
            ..(*before).clone()
        };
        // Held until the kernel has it: who compares the two meanwhile would find a difference that nobody made.
        let mut ruleset = self.ruleset.lock().unwrap_or_else(PoisonError::into_inner);
        *ruleset = Arc::new(after);
        let outcome = self.datapath.spare(&gone, &came);
        drop(ruleset);
        if let Err(fault) = outcome {
            // The table was put in place meanwhile, before or after; the sweeper compares it as a whole.
            tracing::debug!(%fault, "the sets are put in place with the table");
            self.sweeper.ruleset_touched();
        }
        Ok(())
    }

    /// The tables as they are to be.
    pub(super) fn ruleset(&self) -> Arc<Ruleset> {
        Arc::clone(&self.ruleset.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the kernel holds otherwise than the tables are to be.
    pub(super) fn table_drift(&self) -> Result<Vec<String>, Fault> {
        loop {
            let ruleset = self.ruleset();
            let drift = self.datapath.drift(&ruleset)?;
            // What changed meanwhile was compared with what it had been.
            if drift.is_empty() || Arc::ptr_eq(&ruleset, &self.ruleset()) {
                return Ok(drift);
            }
        }
    }

    /// What the kernel holds otherwise than was planned last, as the commands that would put it back.
    pub(super) fn route_drift(&self) -> Result<Vec<String>, Fault> {
        let (own, peers) = {
            let state = self.state();
            let own: Vec<_> = state
                .ipam
                .usage(super::now())
                .into_iter()
                .map(|u| u.prefix)
                .collect();
            (own, state.peers.clone())
        };
        let Some(peers) = peers.filter(|_| self.settings.routes.mode != Mode::None) else {
            return Ok(Vec::new());
        };
        let addresses: Vec<IpAddr> = peers
            .iter()
            .flat_map(|peer| peer.addresses.iter().copied())
            .collect();
        let reach = self.datapath.reach(&addresses)?;
        let reach = addresses.into_iter().zip(reach).collect();
        let mut planned = plan(
            &self.settings.routes,
            &own,
            &peers,
            &reach,
            self.datapath.supports(Family::V6),
        );
        let found = self.datapath.found_routes()?;
        self.mind_others(&mut planned, &found);
        let steps = found.held.steps_to(&planned.held);
        Ok(steps.iter().map(|step| format!("not as made: {step}")).collect())
    }

    /// Starts the router.
    pub(super) fn start_router(self: &Arc<Self>) -> std::io::Result<()> {
        let router = Arc::clone(self);
        vital::spawn("router".to_owned(), move || router.route_for_ever())
    }
}

fn log(steps: &[Step]) {
    tracing::info!(steps = steps.len(), "routes to other nodes are changed");
    for step in steps.iter().take(LOGGED) {
        tracing::debug!(%step, "changed");
    }
}
