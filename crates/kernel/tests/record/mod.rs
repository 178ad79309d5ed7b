//! What a daemon would write to a link, for workloads that ask for no more than ports.

use model::address::Addresses;
use model::key::{InterfaceName, Key, Owner, WorkloadId};
use model::ports::{HostPort, Ports};
use model::record::{Asked, NamespaceId, PathDigest, Record};

/// Of the interface eth0, and of nobody in particular.
pub(crate) fn key(id: &str) -> Key {
    let interface = InterfaceName::new("eth0").unwrap();
    Key::new(Owner::default(), WorkloadId::new(id).unwrap(), interface).unwrap()
}

/// Of a namespace, which was named by a path.
pub(crate) fn record(
    id: &str,
    addresses: Addresses,
    namespace: NamespaceId,
    path: &str,
    ports: &[HostPort],
) -> Record {
    Record {
        key: key(id),
        addresses,
        namespace,
        path: PathDigest::of(path),
        asked: Asked {
            ports: Ports::new(ports.iter().copied()).unwrap(),
            ..Asked::default()
        },
        outward_mtu: None,
        adopted: None,
    }
}
