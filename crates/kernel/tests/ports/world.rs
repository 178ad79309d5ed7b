//! A node with a datapath and no daemon, workloads on it, and what asks for their ports.

use crate::record::record;
use kernel::linux::Linux;
use model::address::{Addresses, Family};
use model::datapath::{Datapath as _, Target, WireError};
use model::plan::{LinkPlan, Plan, PlanSettings};
use model::ports::{HostPort, Protocol};
use model::record::Record;
use model::ruleset::Ruleset;
use stage::tcp::Conversation;
use stage::{Namespace, Node};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

pub(crate) const GROUP: u32 = 8;
pub(crate) const RULESET: Ruleset = Ruleset::new(GROUP, true);
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// What is not to come does not come within this time.
pub(crate) const NEVER: Duration = Duration::from_millis(300);
pub(crate) const ONE: [&str; 2] = ["10.77.0.2", "fd77::2"];
pub(crate) const OTHER: [&str; 2] = ["10.77.0.3", "fd77::3"];

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) linux: Linux,
}

pub(crate) struct Workload {
    pub(crate) namespace: Namespace,
    pub(crate) plan: LinkPlan,
    pub(crate) record: Record,
}

pub(crate) fn of(family: Family, list: [&str; 2]) -> IpAddr {
    list[usize::from(family == Family::V6)].parse().unwrap()
}

pub(crate) fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A port of every address of the node.
pub(crate) fn all(protocol: Protocol, port: u16, to: u16) -> HostPort {
    HostPort {
        protocol,
        port,
        address: None,
        to,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let node = Node::new().unwrap();
        let linux = node.node.within(|| Linux::open(GROUP)).unwrap().unwrap();
        node.node.within(|| linux.publish(&RULESET).unwrap()).unwrap();
        Self { node, linux }
    }

    pub(crate) fn on_the_node<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.node.node.within(act).unwrap()
    }

    pub(crate) fn attach(&self, id: &str, addresses: [&str; 2], index: u32, ports: &[HostPort]) -> Workload {
        let namespace = Namespace::new().unwrap();
        self.attach_to(namespace, id, addresses, index, ports)
    }

    pub(crate) fn attach_to(
        &self,
        namespace: Namespace,
        id: &str,
        addresses: [&str; 2],
        index: u32,
        ports: &[HostPort],
    ) -> Workload {
        let (plan, record) = self.wire(&namespace, id, addresses, index, ports).unwrap();
        Workload {
            namespace,
            plan,
            record,
        }
    }

    pub(crate) fn wire(
        &self,
        namespace: &Namespace,
        id: &str,
        addresses: [&str; 2],
        index: u32,
        ports: &[HostPort],
    ) -> Result<(LinkPlan, Record), WireError> {
        let path = namespace.path();
        self.on_the_node(|| {
            let (file, identity) = self.linux.open(&path).unwrap();
            let addresses = Addresses::from_list(addresses.map(|a| a.parse().unwrap())).unwrap();
            let record = record(id, addresses, identity, &path, ports);
            let settings = PlanSettings {
                group: GROUP,
                mtu: 1500,
            };
            let plan = Plan::new(record.clone(), &settings, index);
            self.linux.wire(&file, &plan)?;
            Ok((plan.link, record))
        })
    }

    pub(crate) fn detach(&self, workload: &Workload) {
        let link = &workload.plan;
        let target = Target {
            link: link.host,
            index: link.host_index,
            group: GROUP,
        };
        assert_eq!(self.on_the_node(|| self.linux.unwire(&[target])), [Ok(())]);
    }

    pub(crate) fn drift(&self) -> Vec<String> {
        self.on_the_node(|| self.linux.drift(&RULESET).unwrap())
    }

    pub(crate) fn run(&self, program: &str, line: &str) -> String {
        self.on_the_node(|| {
            let output = Command::new(program).args(line.split(' ')).output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {line}: {complaint}");
            String::from_utf8(output.stdout).unwrap()
        })
    }
}

/// Who the server sees of who comes by this address.
pub(crate) fn seen(from: &Namespace, to: IpAddr, port: u16) -> IpAddr {
    let mut talk = Conversation::open(from, SocketAddr::new(to, port), LIMIT).unwrap();
    talk.exchange(50_000).unwrap();
    talk.seen_as()
}

pub(crate) fn is_refused(from: &Namespace, to: IpAddr, port: u16) {
    let to = SocketAddr::new(to, port);
    let tried = from.within(|| TcpStream::connect_timeout(&to, LIMIT)).unwrap();
    let error = tried.expect_err("nobody listens there").kind();
    assert_eq!(error, std::io::ErrorKind::ConnectionRefused, "{to}");
}
