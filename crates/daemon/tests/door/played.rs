//! A desk that is played: it remembers what it was asked, and answers at once or when it is told to.

use daemon::desk::Done;
use daemon::desk::order::{
    AdoptOrder, Adopted, AttachOrder, Attachment, DetachOrder, Detached, Finding, Garbage, Node, Refusal,
    Routes, SourceState,
};
use daemon::door::{Bounds, Orders, peer::Allowed};
use daemon::source::Kind;
use daemon::tally::Answers;
use model::address::Addresses;
use model::adopt::MasqueradeRule;
use model::ipam::Moment;
use model::key::{Key, Owner};
use model::plan::{Plan, PlanSettings};
use model::record::{Asked, NamespaceId, PathDigest, Record};
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};

pub(crate) const V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 5);
pub(crate) const V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 5);

/// A test that waits this long hangs.
const LIMIT: Duration = Duration::from_secs(20);

type ReadyCall = Box<dyn Fn(bool) + Send>;
type AdoptCall = Box<dyn Fn(&AdoptOrder) -> Result<Adopted, Refusal> + Send>;

/// Shared by the test and the door.
#[derive(Clone, Default)]
pub(crate) struct Played(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: AtomicUsize,
    holds: bool,
    attaches: Mutex<Vec<(AttachOrder, Option<Done<Attachment>>)>>,
    detaches: Mutex<Vec<(DetachOrder, Option<Done<Detached>>)>>,
    adopts: Mutex<Vec<(AdoptOrder, Option<Done<Adopted>>)>>,
    adopted: Mutex<Option<AdoptCall>>,
    garbage_ages: Mutex<Vec<Duration>>,
    unready: Mutex<Vec<String>>,
    ready_call: Mutex<Option<ReadyCall>>,
    written: Mutex<Vec<mpsc::Receiver<()>>>,
    came: Notify,
}

impl Played {
    /// Keeps attaches and adoptions until they are answered, and detaches for ever.
    pub(crate) fn holding() -> Self {
        Self(Arc::new(Inner {
            holds: true,
            ..Inner::default()
        }))
    }

    /// How often it was asked for anything.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Returns when an attach or an adoption has come.
    pub(crate) async fn came(&self) {
        let came = tokio::time::timeout(LIMIT, self.0.came.notified()).await;
        came.expect("an order reaches the desk");
    }

    /// The attach that came last.
    pub(crate) fn last_attach(&self) -> AttachOrder {
        self.0.attaches.lock().unwrap().last().unwrap().0.clone()
    }

    pub(crate) fn last_detach(&self) -> DetachOrder {
        self.0.detaches.lock().unwrap().last().unwrap().0.clone()
    }

    /// How old garbage has to be, as the desk was asked last.
    pub(crate) fn last_garbage_age(&self) -> Duration {
        *self.0.garbage_ages.lock().unwrap().last().unwrap()
    }

    /// Ends the attach that came last.
    pub(crate) fn answer(&self, outcome: impl FnOnce(&AttachOrder) -> Result<Attachment, Refusal>) {
        let (order, done) = self.0.attaches.lock().unwrap().pop().unwrap();
        done.unwrap()(outcome(&order));
    }

    /// Answers adoptions so.
    pub(crate) fn adopts(&self, call: impl Fn(&AdoptOrder) -> Result<Adopted, Refusal> + Send + 'static) {
        *self.0.adopted.lock().unwrap() = Some(Box::new(call));
    }

    /// Ends the adoption that came last.
    pub(crate) fn answer_adoption(&self, outcome: Adopted) {
        let done = self.0.adopts.lock().unwrap().last_mut().unwrap().1.take();
        done.unwrap()(Ok(outcome));
    }

    /// Every adoption that was ordered.
    pub(crate) fn adoptions(&self) -> Vec<AdoptOrder> {
        let adopts = self.0.adopts.lock().unwrap();
        adopts.iter().map(|(order, _)| order.clone()).collect()
    }

    /// One more list of prefixes is written only once the other end of this is gone.
    pub(crate) fn writes_until(&self, written: mpsc::Receiver<()>) {
        self.0.written.lock().unwrap().push(written);
    }

    pub(crate) fn set_unready(&self, unmet: &[&str]) {
        *self.0.unready.lock().unwrap() = unmet.iter().map(|&text| text.to_owned()).collect();
        let call = self.0.ready_call.lock().unwrap();
        call.as_ref().unwrap()(unmet.is_empty());
    }

    fn is_asked(&self) {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a desk would answer.
pub(crate) fn attachment(order: &AttachOrder) -> Attachment {
    let record = Record {
        key: order.key.clone(),
        addresses: Addresses::new(Some(order.v4.unwrap_or(V4)), Some(order.v6.unwrap_or(V6))).unwrap(),
        namespace: NamespaceId { device: 4, inode: 77 },
        path: PathDigest::of(&order.path),
        asked: Asked::default(),
        outward_mtu: None,
        adopted: None,
    };
    let settings = PlanSettings { group: 8, mtu: 1400 };
    let plan = Plan::new(record, &settings, 100_000);
    Attachment {
        record: plan.record,
        link: plan.link,
        labels: order.labels.clone(),
        detaching: false,
        undoable: false,
        since: Moment(Duration::ZERO),
    }
}

impl Orders for Played {
    fn attach(&self, order: AttachOrder, done: Done<Attachment>) {
        self.is_asked();
        let kept = if self.0.holds {
            Some(done)
        } else {
            done(Ok(attachment(&order)));
            None
        };
        self.0.attaches.lock().unwrap().push((order, kept));
        self.0.came.notify_one();
    }

    fn detach(&self, order: DetachOrder, done: Done<Detached>) {
        self.is_asked();
        let kept = if self.0.holds {
            Some(done)
        } else {
            done(Ok(Detached::WasAbsent));
            None
        };
        self.0.detaches.lock().unwrap().push((order, kept));
    }

    fn adopt(&self, order: AdoptOrder, done: Done<Adopted>) {
        self.is_asked();
        let kept = if self.0.holds {
            Some(done)
        } else {
            let call = self.0.adopted.lock().unwrap();
            let outcome = call.as_ref().map_or(Ok(Adopted::Possible), |call| call(&order));
            done(outcome);
            None
        };
        self.0.adopts.lock().unwrap().push((order, kept));
        self.0.came.notify_one();
    }

    fn masquerade_rules(&self) -> Result<Vec<MasqueradeRule>, Refusal> {
        self.is_asked();
        Ok(Vec::new())
    }

    fn list(&self, _: Option<&Owner>) -> Result<Vec<Attachment>, Refusal> {
        self.is_asked();
        Ok(Vec::new())
    }

    fn get(&self, _: &Key) -> Result<Option<Attachment>, Refusal> {
        self.is_asked();
        Ok(None)
    }

    fn garbage(&self, _: &Owner, _: &HashSet<Key>, age: Duration) -> Result<Garbage, Refusal> {
        self.is_asked();
        self.0.garbage_ages.lock().unwrap().push(age);
        Ok(Garbage {
            keys: Vec::new(),
            before: Moment(Duration::ZERO),
        })
    }

    fn check(&self, key: Option<&Key>) -> Result<Option<Vec<Finding>>, Refusal> {
        self.is_asked();
        Ok(key.is_none().then(Vec::new))
    }

    fn node(&self) -> Node {
        self.is_asked();
        Node {
            source: SourceState {
                kind: Kind::Api,
                generation: 0,
                trouble: None,
            },
            prefixes: Vec::new(),
            unready: self.0.unready.lock().unwrap().clone(),
            warnings: Vec::new(),
            attachments: 0,
            mtu: 1400,
            mtu_source: "settings".to_owned(),
            max_queued: 1,
            routes: Routes::default().into(),
        }
    }

    fn unready(&self) -> Vec<String> {
        self.is_asked();
        self.0.unready.lock().unwrap().clone()
    }

    fn set_prefixes(&self, _: &[model::prefix::Prefix]) -> Result<u64, Refusal> {
        self.is_asked();
        let written = self.0.written.lock().unwrap().pop();
        if let Some(written) = written {
            // It ends with the other end.
            let _ = written.recv();
        }
        Ok(7)
    }

    fn on_ready_change(&self, call: ReadyCall) {
        call(true);
        *self.0.ready_call.lock().unwrap() = Some(call);
    }
}

impl Door {
    /// Another connection.
    pub(crate) fn connection(&self) -> Channel {
        let socket = self.folder.path().join("socket");
        Endpoint::try_from(format!("unix:{}", socket.display()))
            .unwrap()
            .connect_lazy()
    }
}

/// A door that is open for as long as the runtime lives.
pub(crate) struct Door {
    pub(crate) channel: Channel,
    pub(crate) answers: Arc<Answers>,
    pub(crate) folder: TempDir,
}

/// Everybody who may run the tests.
pub(crate) fn ourselves() -> Allowed {
    Allowed {
        uids: vec![rustix::process::geteuid().as_raw()],
        gids: Vec::new(),
    }
}

/// Opens a door in front of a desk. Has to be called inside a runtime.
pub(crate) fn open(desk: &Played, allowed: Allowed) -> Door {
    bounded(desk, allowed, Bounds::default())
}

/// Opens one that takes less upon itself than usual.
pub(crate) fn bounded(desk: &Played, allowed: Allowed, bounds: Bounds) -> Door {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let answers = Arc::new(Answers::default());
    tokio::spawn(daemon::door::serve(
        listener,
        desk.clone(),
        allowed,
        bounds,
        Arc::clone(&answers),
        std::future::pending(),
    ));
    let endpoint = Endpoint::try_from(format!("unix:{}", path.display())).unwrap();
    Door {
        channel: endpoint.connect_lazy(),
        answers,
        folder,
    }
}
