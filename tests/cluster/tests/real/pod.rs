//! A pod as the test reaches it: by sockets in its network, so that neither API server nor kubelet is asked.

use crate::who::{QUESTION, Who, address, talk};
use stage::Namespace;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long one conversation may take, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(10);
/// Where pods serve.
const HTTP: u16 = 80;

pub(crate) struct Pod {
    pub(crate) name: String,
    /// Which of the cluster's nodes it runs on.
    pub(crate) node: usize,
    /// IPv4 first.
    pub(crate) ips: [IpAddr; 2],
    pub(crate) network: Namespace,
}

impl Pod {
    /// Whether it is the one that has answered.
    pub(crate) fn is(&self, who: &Who) -> bool {
        who.server == BTreeSet::from(self.ips)
    }
}

/// Asks a pod's server who there is.
pub(crate) fn ask(from: &Namespace, server: IpAddr) -> io::Result<Who> {
    ask_at(from, SocketAddr::new(server, HTTP))
}

/// The same at a port of a node, or of a Service.
pub(crate) fn ask_at(from: &Namespace, server: SocketAddr) -> io::Result<Who> {
    let said = talk(from, server, QUESTION, LIMIT)?;
    Who::parse(&said).ok_or_else(|| io::Error::other(format!("{server} said {said:?}")))
}

/// By which address the server of the outside host sees somebody.
pub(crate) fn seen_as(from: &Namespace, server: SocketAddr) -> io::Result<Option<IpAddr>> {
    talk(from, server, "", LIMIT).map(|said| address(&said))
}
