//! A node with a datapath and no daemon, and workloads on it.

use crate::record::record;
use ipnet::IpNet;
use kernel::linux::Linux;
use model::address::{Addresses, Family};
use model::datapath::Datapath as _;
use model::plan::{LinkPlan, Plan, PlanSettings};
use model::ruleset::Ruleset;
use stage::change::Links;
use stage::tcp::{Conversation, Server};
use stage::{NODE, Namespace, Node, OUTSIDE, ping};
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

pub(crate) const GROUP: u32 = 8;
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// The address of a family in a list of one per family, IPv4 first.
pub(crate) fn of(family: Family, list: [&str; 2]) -> IpAddr {
    list[usize::from(family == Family::V6)].parse().unwrap()
}

/// A node with a datapath, and no daemon.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) linux: Linux,
}

pub(crate) struct Workload {
    pub(crate) namespace: Namespace,
    pub(crate) addresses: Addresses,
    pub(crate) host_link: String,
    pub(crate) plan: LinkPlan,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self::unguarded();
        let ruleset = Ruleset::new(GROUP, true);
        world.on_the_node(|| world.linux.publish(&ruleset).unwrap());
        world
    }

    /// Without our table; forwarding is on.
    pub(crate) fn unguarded() -> Self {
        let node = Node::new().unwrap();
        let linux = node.node.within(|| Linux::open(GROUP)).unwrap().unwrap();
        let world = Self { node, linux };
        world.sysctl("net/ipv4/ip_forward", "1");
        world.sysctl("net/ipv6/conf/all/forwarding", "1");
        world
    }

    pub(crate) fn on_the_node<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.node.node.within(act).unwrap()
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.on_the_node(|| std::fs::write(format!("/proc/sys/{name}"), value).unwrap());
    }

    /// What `ip` says of the node.
    pub(crate) fn ip(&self, line: &str) -> String {
        self.on_the_node(|| {
            let output = Command::new("ip").args(line.split(' ')).output().unwrap();
            assert!(
                output.status.success(),
                "ip {line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        })
    }

    pub(crate) fn attach(&self, id: &str, addresses: &[&str], index: u32) -> Workload {
        self.attach_to(Namespace::new().unwrap(), id, addresses, index)
    }

    pub(crate) fn attach_to(
        &self,
        namespace: Namespace,
        id: &str,
        addresses: &[&str],
        index: u32,
    ) -> Workload {
        let path = namespace.path();
        let addresses = Addresses::from_list(addresses.iter().map(|a| a.parse().unwrap())).unwrap();
        self.on_the_node(|| {
            let (file, identity) = self.linux.open(&path).unwrap();
            let settings = PlanSettings {
                group: GROUP,
                mtu: 1500,
            };
            let record = record(id, addresses, identity, &path, &[]);
            let plan = Plan::new(record, &settings, index);
            self.linux.wire(&file, &plan).unwrap();
            Workload {
                namespace,
                addresses,
                host_link: plan.link.host.to_string(),
                plan: plan.link,
            }
        })
    }

    pub(crate) fn reaches_everything(&self, one: &Workload, other: &Workload) {
        for family in one.families() {
            let address = one.address(family);
            ping(&one.namespace, family.first_hop(), LIMIT).unwrap();
            ping(&self.node.node, address, LIMIT).unwrap();

            let outside = Server::start(&self.node.outside, of(family, OUTSIDE)).unwrap();
            ping(&one.namespace, of(family, OUTSIDE), LIMIT).unwrap();
            let mut talk = Conversation::open(&one.namespace, outside.address(), LIMIT).unwrap();
            assert_eq!(talk.seen_as(), of(family, NODE), "the outside sees the node");
            talk.exchange(100_000).unwrap();

            ping(&one.namespace, other.address(family), LIMIT).unwrap();
            let inside = Server::start(&other.namespace, other.address(family)).unwrap();
            let mut talk = Conversation::open(&one.namespace, inside.address(), LIMIT).unwrap();
            assert_eq!(talk.seen_as(), address, "workloads see each other");
            talk.exchange(100_000).unwrap();
        }
    }
}

impl Workload {
    pub(crate) fn families(&self) -> Vec<Family> {
        self.addresses.iter().map(Family::of).collect()
    }

    pub(crate) fn address(&self, family: Family) -> IpAddr {
        self.addresses.of(family).unwrap()
    }

    /// One more address on the workload's own end.
    pub(crate) fn add_address(&self, address: &str) {
        let address: IpNet = address.parse().unwrap();
        Links::of(&self.namespace)
            .unwrap()
            .add_address("eth0", address)
            .unwrap();
    }
}
