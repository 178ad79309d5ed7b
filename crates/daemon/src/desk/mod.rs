//! The only owner of leases: orders come in, wait for their key's turn, and are carried out by a few plain threads.
//!
//! ```text
//!  attach ----> turn of the key ---> opener ---> writes, if nobody does ------> answer
//!  detach ----> turn of the key ---> (opener) -> deleters -- kernel announces -> answer
//!  events ----------------------------------------^ (watch thread)
//!  what was touched ---> sweeper: put back, and now and then a full survey
//! ```
//! Attaches are made one at a time, because RTNL is one lock, by whichever thread finds nobody at it; a few threads only wait
//! for deletions, which are taken together, behind the attaches. What the sweeper puts back, routes to other nodes, adoptions and
//! connection tracking have threads and sockets of their own. The state is behind one short lock, which is never held over a system
//! call; who changes the table, or the state file, has a turn of its own.

mod adopt;
mod attach;
mod deletions;
mod detach;
pub mod figures;
mod flows;
mod idle;
mod kept;
pub mod order;
mod ports;
mod replay;
mod routes;
mod sources;
mod standing;
mod sweep;
mod turns;
mod view;
pub(crate) mod vital;

use crate::clock::now;
use crate::source::Kind;
use crate::state_file::{Lost, StateFile};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::tally::Counters;
use ipnet::IpNet;
use model::datapath::{Datapath, Event, Fault, Target};
use model::ipam::Ipam;
use model::key::{HostLink, Key, Owner};
use model::peer::Peer;
use model::ports::Protocol;
use model::prefix::Prefix;
use model::routes as roads;
use model::ruleset::Ruleset;
use model::survey::Uplink;
use order::{AdoptOrder, Adopted, AttachOrder, Attachment, DetachOrder, Detached, Notable, Refusal, Routes};
use queue::Queue;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use turns::{Lanes, Turns};

/// What an MTU is where nobody says: Ethernet's (RFC 894).
const USUAL_MTU: u16 = 1500;
/// The first interface index that we choose; the kernel's own choices begin at 1.
const FIRST_INDEX: u32 = 100_000;
/// The last one; then it begins anew.
const LAST_INDEX: u32 = 1 << 30;
/// A link may get an index as many beyond the planned one, where others have taken those between.
const INDEX_SPAN: u32 = 64;
/// Of the state file.
const UNKEPT: &str = "labels, addresses that are held or cool down, and generations are not kept";
/// How long running orders may take once the daemon is asked to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What the desk goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Link group that marks our links.
    pub group: u32,
    /// Where prefixes come from.
    pub source: Kind,
    /// Prefixes to serve from the start, disjoint; empty where a source is to tell them.
    pub prefixes: Vec<Prefix>,
    /// MTU of every link; `None`: the uplink's.
    pub mtu: Option<u16>,
    /// Whose links have the largest MTU for the node's own prefixes, where none is asked for.
    pub large_mtu_owners: Vec<Owner>,
    /// How long a freed address rests.
    pub cool_down: Duration,
    /// Orders that may wait.
    pub max_queued: usize,
    /// Whether packets for the world get the node's address.
    pub masquerade: bool,
    /// Where packets keep their workload's address, beside the prefixes of this node and of its peers.
    pub no_masquerade: Vec<IpNet>,
    /// How other nodes are routed to.
    pub routes: roads::Settings,
    /// Whether somebody is to tell which other nodes there are.
    pub peers_are_told: bool,
    /// Where labels, addresses that are held or cool down, and what was told of prefixes are kept.
    pub state_file: Option<PathBuf>,
    /// Where clients leave deletions while the daemon is down.
    pub queue: Option<Queue>,
    /// How long opening a namespace may take: somebody's file system may hang.
    pub open_limit: Duration,
    /// What no notification tells of is found after this time.
    pub round: Duration,
}

/// Called with an order's outcome, once.
pub type Done<T> = Box<dyn FnOnce(Result<T, Refusal>) + Send>;

/// The desk of one node.
pub struct Desk<D: Datapath> {
    datapath: D,
    settings: Settings,
    /// As the table is to be; what is spared anew is in it once the kernel was told. Read by anybody at once, and changed by who
    /// has the table's turn.
    ruleset: Mutex<Arc<Ruleset>>,
    /// The turn: who has it changes the table, and what others changed meanwhile would be undone.
    table: Mutex<()>,
    state: Mutex<State<D>>,
    /// Who has it writes the state file: what is written later is not older.
    file: Mutex<()>,
    /// Recovery is over, or an order has ended.
    changed: Condvar,
    lanes: Lanes<D>,
    sweeper: sweep::Nudges,
    router: routes::Nudges,
    cleaner: flows::Cleaner,
    on_notable: OnceLock<Box<dyn Fn(Notable) + Send + Sync>>,
    counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Recovering,
    /// The kernel was read; deletions that were left are carried out.
    Replaying,
    /// They are once more, for those that came since the first look. Detaches are served, and nothing else: who leaves a
    /// deletion asks once more, and is served from here on.
    Closing,
    Serving,
    Stopping,
}

struct State<D: Datapath> {
    phase: Phase,
    turns: Turns<D>,
    ipam: Ipam,
    /// What the state file said, until the kernel has been read.
    state_file: Option<StateFile>,
    /// There was no such file.
    is_missing: bool,
    /// Why the source has told nothing good lately.
    trouble: Option<String>,
    /// When it last told something good.
    told: Option<SystemTime>,
    /// The other nodes; `None`: nobody has said yet.
    peers: Option<Arc<[Peer]>>,
    /// Why nothing good was told of them lately.
    peer_trouble: Option<String>,
    /// How they are routed to.
    routes: Arc<Routes>,
    attachments: BTreeMap<Key, Attachment>,
    /// Addresses of links that are left alone: they cool down when those have gone.
    left_alone: HashSet<IpAddr>,
    by_index: HashMap<u32, Key>,
    by_port: BTreeMap<(Protocol, u16), BTreeSet<Key>>,
    /// Detaches that wait for the kernel's announcement, by interface index.
    leaving: HashMap<u32, (Instant, Done<Detached>)>,
    /// What is being wired.
    wiring: Option<Wiring>,
    /// What ended while a survey is taken, which may still show it.
    ended_in_survey: Option<HashSet<u32>>,
    next_index: u32,
    uplink: Option<Uplink>,
    /// Why the kernel could not be read.
    unread: Option<Fault>,
    /// Why the table is not in place.
    unpublished: Option<Fault>,
    /// Why the state file could not be written.
    unkept: Option<String>,
    /// The newest generation that is in it.
    kept: Option<u64>,
    /// Links that look like ours and cannot be read, and other things worth a look.
    oddities: Vec<String>,
    on_ready: Option<Box<dyn Fn(bool) + Send>>,
    was_ready: bool,
}

/// The link that is being made. It may end, with its namespace, before its attach has.
struct Wiring {
    link: HostLink,
    /// Indexes of links of this name that ended meanwhile.
    ended: Vec<u32>,
}

impl<D: Datapath> Desk<D> {
    /// Starts recovery and serves from then on, until [`Self::stop`].
    pub fn open(datapath: D, settings: Settings) -> std::io::Result<Arc<Self>> {
        let (state_file, is_missing) = match settings.state_file.as_deref().map(StateFile::load) {
            None => (StateFile::default(), false),
            Some(Ok(state_file)) => (state_file, false),
            Some(Err(Lost::Missing)) => (StateFile::default().with_unknown(Some(now())), true),
            Some(Err(Lost::Unusable(why))) => {
                tracing::warn!("{why}");
                (StateFile::default().with_unknown(Some(now())), false)
            }
        };
        let (ipam, trouble) = kept::resumed(&settings, &state_file);
        // What the settings say was told now.
        let told = (!settings.prefixes.is_empty()).then(SystemTime::now);
        let mode = settings.routes.mode;
        let desk = Arc::new(Self {
            ruleset: Mutex::new(Arc::new(Ruleset {
                tunnel: settings.routes.tunnel(),
                ..Ruleset::new(settings.group, settings.masquerade)
            })),
            table: Mutex::new(()),
            datapath,
            settings,
            file: Mutex::new(()),
            state: Mutex::new(State {
                phase: Phase::Recovering,
                turns: Turns::default(),
                ipam,
                state_file: Some(state_file),
                is_missing,
                trouble,
                told,
                peers: None,
                peer_trouble: None,
                routes: Arc::new(Routes {
                    mode,
                    ..Routes::default()
                }),
                attachments: BTreeMap::new(),
                left_alone: HashSet::new(),
                by_index: HashMap::new(),
                by_port: BTreeMap::new(),
                leaving: HashMap::new(),
                wiring: None,
                ended_in_survey: None,
                next_index: FIRST_INDEX,
                uplink: None,
                unread: None,
                unpublished: None,
                unkept: None,
                kept: None,
                oddities: Vec::new(),
                on_ready: None,
                was_ready: false,
            }),
            changed: Condvar::new(),
            lanes: Lanes::default(),
            sweeper: sweep::Nudges::default(),
            router: routes::Nudges::default(),
            cleaner: flows::Cleaner::default(),
            on_notable: OnceLock::new(),
            counters: Counters::default(),
        });
        turns::start(&desk)?;
        let sweeper = Arc::clone(&desk);
        vital::spawn("sweeper".to_owned(), move || sweeper.sweep_for_ever())?;
        desk.start_router()?;
        desk.start_cleaner()?;
        Ok(desk)
    }

    /// Attaches, and tells the outcome when packets flow. Never blocks.
    pub fn attach(self: &Arc<Self>, order: AttachOrder, done: Done<Attachment>) {
        self.submit(turns::Job::Attach(order, Instant::now(), done));
    }

    /// Detaches, and tells the outcome when the kernel has announced the link's end. Never blocks.
    pub fn detach(self: &Arc<Self>, order: DetachOrder, done: Done<Detached>) {
        self.submit(turns::Job::Detach(order, Instant::now(), done));
    }

    /// Takes over what another plugin attached, or gives it back. Never blocks.
    pub fn adopt(self: &Arc<Self>, order: AdoptOrder, done: Done<Adopted>) {
        self.submit(turns::Job::Adopt(order, done));
    }

    /// Calls back whenever readiness changes, and now.
    pub fn on_ready_change(&self, call: Box<dyn Fn(bool) + Send>) {
        let mut state = self.state();
        state.was_ready = self.unmet(&state).is_empty();
        call(state.was_ready);
        state.on_ready = Some(call);
    }

    /// Calls back whenever something is to be known by those who look after the node, under locks: it may not block.
    pub fn on_notable(&self, call: Box<dyn Fn(Notable) + Send + Sync>) {
        drop(self.on_notable.set(call));
    }

    fn note(&self, notable: Notable) {
        if let Some(call) = self.on_notable.get() {
            call(notable);
        }
    }

    /// Returns when the first sweep is over.
    pub fn wait_until_recovered(&self) {
        let state = self.state();
        drop(self.changed.wait_while(state, |state| {
            matches!(state.phase, Phase::Recovering | Phase::Replaying | Phase::Closing)
        }));
    }

    /// Refuses what comes, and returns when what runs has ended. The datapath stays as it is.
    pub fn stop(&self) {
        let mut state = self.state();
        let knows_all = matches!(state.phase, Phase::Replaying | Phase::Closing | Phase::Serving);
        state.phase = Phase::Stopping;
        self.tell_readiness(&mut state);
        let running = |state: &mut State<D>| state.turns.queued() > 0;
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, STOP_LIMIT, running)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            tracing::warn!(orders = state.turns.queued(), limit = ?STOP_LIMIT, "orders still run");
        }
        drop(state);
        // What was not read cannot be written.
        if knows_all {
            self.write_state_file();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_readiness(&self, state: &mut State<D>) {
        let ready = self.unmet(state).is_empty();
        if ready != state.was_ready {
            state.was_ready = ready;
            if let Some(call) = &state.on_ready {
                call(ready);
            }
        }
    }

    /// A link of ours is gone: its addresses cool down, and whoever waits for it is told. Only the first call counts.
    fn ended(self: &Arc<Self>, link: &HostLink, index: u32) {
        let mut state = self.state();
        if let Some(ended) = &mut state.ended_in_survey {
            ended.insert(index);
        }
        let known = state.at(index).filter(|known| known.link.host == *link);
        let Some(attachment) = known.cloned() else {
            if let Some(wiring) = &mut state.wiring
                && wiring.link == *link
            {
                wiring.ended.push(index);
            }
            return;
        };
        let key = attachment.key().clone();
        state.leave(&key);
        self.lease_otherwise(&mut state, |ipam| ipam.free(attachment.addresses(), now()));
        let waiting = state.leaving.remove(&index);
        self.tell_readiness(&mut state);
        drop(state);
        if !attachment.record.asked.ports.is_empty() {
            self.close_forwards(index);
        }
        // Only a link that is given back to the plugin that made it goes without a detach: its pod lives on with its connections.
        let is_given_back = attachment.detaching && waiting.is_none();
        if !is_given_back {
            self.cleaner.ended(&attachment);
        }
        self.sweeper.state_file_is_old();
        match waiting {
            Some((since, done)) => {
                self.counters.detach_unwires.took(since.elapsed());
                self.answer(&key, done, Ok(Detached::Done));
            }
            None => tracing::info!(%key, ips = %attachment.addresses(), "namespace gone, addresses freed"),
        }
    }

    /// What the kernel tells.
    fn on_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::LinkGone { link, index } => self.ended(&link, index),
            Event::LinkTouched { index, .. } | Event::RouteGone { index, .. } => {
                self.sweeper.link_touched(index)
            }
            // What of ours somebody else has is not given out.
            Event::AddressTouched { address } => {
                let is_ours = self.state().ipam.prefixes().any(|p| p.contains(address));
                if is_ours {
                    self.sweeper.all_touched();
                }
            }
            Event::RulesetTouched => self.sweeper.ruleset_touched(),
            Event::UplinkTouched => {
                self.sweeper.uplink_touched();
                self.router.kernel_touched();
            }
            Event::RoutesTouched => self.router.kernel_touched(),
            Event::Lost => {
                self.counters.lost.up();
                tracing::debug!("notifications were lost");
                self.sweeper.all_touched();
                self.router.kernel_touched();
            }
        }
    }

    fn target(attachment: &Attachment) -> Target {
        let link = &attachment.link;
        Target {
            link: link.host,
            index: link.host_index,
            group: link.group,
        }
    }
}

/// Random enough for where next-fit begins.
fn random() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(0_u8));
    half() << 64 | half()
}
