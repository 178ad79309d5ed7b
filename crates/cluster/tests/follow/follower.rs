//! Who follows a server's Nodes, and what it was told.

use crate::api_server::{ApiServer, node};
use cluster::{Notices, Settings, Told};
use stage::wait::{PATIENCE, eventually};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// What is done beside following the own Node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Follows {
    pub(crate) peers: bool,
    pub(crate) routes: bool,
}

pub(crate) const ROUTES: Follows = Follows {
    peers: true,
    routes: true,
};
pub(crate) const OWN_NODE: Follows = Follows {
    peers: false,
    routes: false,
};

/// Others route; what goes there is not masqueraded.
pub(crate) const SPARES: Follows = Follows {
    peers: true,
    routes: false,
};

/// What is told on a thread of its own, as text.
pub(crate) struct Follower {
    told: Arc<Mutex<Vec<String>>>,
    pub(crate) is_ready: Arc<AtomicBool>,
    /// How often that was asked.
    pub(crate) asked: Arc<AtomicUsize>,
    pub(crate) notices: Notices,
    _stop: tokio::sync::oneshot::Sender<()>,
    pub(crate) folder: TempDir,
}

impl Follower {
    /// As the node `a`.
    pub(crate) fn new(server: &ApiServer) -> Self {
        Self::with(server, "{}", ROUTES)
    }

    pub(crate) fn with(server: &ApiServer, user: &str, follows: Follows) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(folder.path().join("token"), "old").unwrap();
        let user = user.replace("FOLDER", folder.path().to_str().unwrap());
        std::fs::write(&kubeconfig, server.kubeconfig(&user)).unwrap();
        Self::of(folder, Some(kubeconfig), follows)
    }

    pub(crate) fn of(folder: TempDir, kubeconfig: Option<PathBuf>, follows: Follows) -> Self {
        let settings = Settings {
            node: "a".to_owned(),
            kubeconfig,
            peers: follows.peers,
            routes: follows.routes,
        };
        let told = Arc::<Mutex<Vec<String>>>::default();
        let is_ready = Arc::<AtomicBool>::default();
        let (notices, queue) = cluster::notices(Duration::from_millis(100));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (heard, ready) = (Arc::clone(&told), Arc::clone(&is_ready));
        let asked = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let tell = |what| heard.lock().unwrap().push(shown(&what));
            let is_ready = || {
                counted.fetch_add(1, Ordering::Relaxed);
                ready.load(Ordering::Relaxed)
            };
            let follow = cluster::follow(settings, tell, is_ready, queue);
            runtime.block_on(async {
                tokio::select! {
                    () = follow => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            told,
            is_ready,
            asked,
            notices,
            _stop: stop,
            folder,
        }
    }

    /// All of a kind, in their order.
    pub(crate) fn told(&self, kind: &str) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let of_kind = told.iter().filter_map(|text| text.strip_prefix(kind));
        of_kind.map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn expect(&self, kind: &str, last: &str) {
        let look = || self.told(kind).last().cloned().unwrap_or_default();
        eventually(PATIENCE, last, look, |now| now == last);
    }

    #[track_caller]
    pub(crate) fn expect_trouble(&self, words: &str) {
        let look = || self.told("trouble: ").last().cloned().unwrap_or_default();
        eventually(PATIENCE, words, look, |now| now.contains(words));
    }
}

fn shown(told: &Told) -> String {
    match told {
        Told::Prefixes(prefixes) => format!("prefixes: {}", join(prefixes)),
        Told::Trouble(why) => format!("trouble: {why}"),
        Told::Peers(peers) => {
            let one = |p: &model::peer::Peer| format!("{} {}", p.name, join(&p.prefixes));
            format!("peers: {}", peers.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Told::PeerTrouble(why) => format!("peer trouble: {}", why.as_deref().unwrap_or("none")),
    }
}

fn join<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

pub(crate) const PREFIXES: &str = "prefixes: ";
pub(crate) const PEERS: &str = "peers: ";
/// Prefixes of a.
pub(crate) const OF_A: &str = "10.1.0.0/24 fd01::/64";
/// The peers a and b.
pub(crate) const BOTH: &str = "a 10.1.0.0/24 fd01::/64, b 10.2.0.0/24";

pub(crate) fn a() -> serde_json::Value {
    node("a", 1, &["10.1.0.0/24", "fd01::/64"], &["192.0.2.1"])
}

pub(crate) fn b() -> serde_json::Value {
    node("b", 2, &["10.2.0.0/24"], &["192.0.2.2", "2001:db8::2"])
}

/// A server of both, and who was told of them.
pub(crate) fn a_and_b() -> (ApiServer, Follower) {
    let server = ApiServer::start();
    server.put(a());
    server.put(b());
    let follower = Follower::new(&server);
    follower.expect(PREFIXES, OF_A);
    follower.expect(PEERS, BOTH);
    (server, follower)
}

/// Both lists were asked for, and are watched.
#[track_caller]
pub(crate) fn is_watched(server: &ApiServer) {
    let asked = || server.asked_for_all();
    eventually(PATIENCE, "the watch", asked, |asked| *asked == (1, 1));
}
