//! Orders as tests give them, and the wait for what becomes of them.

use crate::fake::{Fake, Place, World};
use daemon::desk::order::{AttachOrder, Attachment, DetachOrder, Detached, Refusal};
use daemon::desk::{Desk, Done, Settings};
use daemon::sync::mpsc;
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::ports::{HostPort, Ports, Protocol};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A test that waits this long hangs.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn settings() -> Settings {
    Settings {
        group: 8,
        source: daemon::source::Kind::Fixed,
        prefixes: ["10.9.0.0/28", "fd09::/64"]
            .map(|prefix| prefix.parse().unwrap())
            .to_vec(),
        mtu: None,
        large_mtu_owners: Vec::new(),
        peers_are_told: false,
        cool_down: Duration::from_secs(30),
        max_queued: 100,
        masquerade: true,
        no_masquerade: Vec::new(),
        routes: model::routes::Settings::default(),
        state_file: None,
        queue: None,
        open_limit: Duration::from_secs(5),
        round: Duration::from_secs(60),
    }
}

pub(crate) fn open(world: &World) -> Arc<Desk<Fake>> {
    open_with(world, settings())
}

pub(crate) fn open_with(world: &World, settings: Settings) -> Arc<Desk<Fake>> {
    let desk = Desk::open(Fake::on(world), settings).unwrap();
    desk.wait_until_recovered();
    desk
}

/// The state file as a daemon that was killed has left it. The threads of one that a test forgets live on, and write theirs.
pub(crate) fn as_left(file: &Path) -> PathBuf {
    let left = file.with_added_extension("left");
    if file.exists() {
        std::fs::copy(file, &left).unwrap();
    }
    left
}

pub(crate) fn key(id: &str) -> Key {
    let interface = InterfaceName::new("eth0").unwrap();
    Key::new(Owner::default(), WorkloadId::new(id).unwrap(), interface).unwrap()
}

pub(crate) fn order(id: &str, path: &str) -> AttachOrder {
    AttachOrder {
        key: key(id),
        path: path.to_owned(),
        mtu: None,
        v4: None,
        v6: None,
        mac: None,
        ports: Ports::default(),
        labels: BTreeMap::new(),
        deadline: None,
    }
}

/// With ports of all addresses of the node, which lead to port 80.
pub(crate) fn order_with(id: &str, path: &str, ports: &[u16]) -> AttachOrder {
    let port = |port: &u16| HostPort {
        protocol: Protocol::Tcp,
        port: *port,
        address: None,
        to: 80,
    };
    AttachOrder {
        ports: Ports::new(ports.iter().map(port)).unwrap(),
        ..order(id, path)
    }
}

/// An attach that waits in the kernel until [`Place::Wire`] is opened.
pub(crate) fn hanging(world: &World, desk: &Arc<Desk<Fake>>, id: &str, path: &str) -> Given<Attachment> {
    world.close(Place::Wire);
    let given = give(desk, order(id, path));
    world.wait_at(Place::Wire);
    given
}

/// An order whose outcome has not been looked at.
pub(crate) struct Given<T>(mpsc::Receiver<Result<T, Refusal>>);

impl<T: Send + 'static> Given<T> {
    fn new() -> (Self, Done<T>) {
        let (sender, receiver) = mpsc::channel();
        (
            Self(receiver),
            Box::new(move |outcome| drop(sender.send(outcome))),
        )
    }

    #[track_caller]
    pub(crate) fn outcome(&self) -> Result<T, Refusal> {
        self.0.recv_timeout(LIMIT).expect("every order is answered")
    }

    /// What has been answered by now.
    pub(crate) fn by_now(&self) -> Option<Result<T, Refusal>> {
        self.0.try_recv().ok()
    }
}

pub(crate) fn give(desk: &Arc<Desk<Fake>>, order: AttachOrder) -> Given<Attachment> {
    let (given, done) = Given::new();
    desk.attach(order, done);
    given
}

pub(crate) fn give_detach(desk: &Arc<Desk<Fake>>, id: &str, path: Option<&str>) -> Given<Detached> {
    give_detach_order(desk, detach_order(id, path))
}

pub(crate) fn detach_order(id: &str, path: Option<&str>) -> DetachOrder {
    DetachOrder {
        key: key(id),
        path: path.map(str::to_owned),
        before: None,
    }
}

pub(crate) fn give_detach_order(desk: &Arc<Desk<Fake>>, order: DetachOrder) -> Given<Detached> {
    let (given, done) = Given::new();
    desk.detach(order, done);
    given
}

#[track_caller]
pub(crate) fn attach(desk: &Arc<Desk<Fake>>, id: &str, path: &str) -> Result<Attachment, Refusal> {
    give(desk, order(id, path)).outcome()
}

#[track_caller]
pub(crate) fn detach(desk: &Arc<Desk<Fake>>, id: &str, path: Option<&str>) -> Result<Detached, Refusal> {
    give_detach(desk, id, path).outcome()
}

/// How full the pools are, for comparing before and after: used, free, cooling.
pub(crate) fn pools(desk: &Desk<Fake>) -> Vec<(u128, u128, u128)> {
    desk.node()
        .prefixes
        .iter()
        .map(|p| (p.used, p.free, p.cooling))
        .collect()
}

/// Ids of what is attached.
pub(crate) fn listed(desk: &Desk<Fake>) -> Vec<String> {
    let all = desk.list(None).unwrap();
    all.iter()
        .map(|a| a.key().workload().as_str().to_owned())
        .collect()
}
