//! Pods that Debian's ptp and host-local made, taken over while their packets are counted.

use crate::daemon::{Daemon, attach};
use crate::sandbox::Sandbox;
use crate::witness::run;
use client::inspection::adopt_request::Step;
use client::inspection::adoption::State;
use client::inspection::{AdoptRequest, Adoption, Candidate, Key};
use client::workload::{DetachRequest, NetNsAttachment};
use stage::Namespace;
use stage::tcp::{Conversation, Server};
use stage::wait::{PATIENCE, eventually};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PLUGINS: &str = "/usr/lib/cni";
/// A packet that takes this long is lost.
pub(crate) const LOST: Duration = Duration::from_secs(5);

/// A pod of another plugin.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) sandbox: Sandbox,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_link: String,
}

impl Pod {
    pub(crate) fn made_by(plugin: &str, daemon: &Daemon, id: &str) -> Self {
        Self::made_in(Sandbox::new(), plugin, daemon, id)
    }

    /// One whose addresses nobody looks for duplicates of, which takes seconds.
    pub(crate) fn made_at_once(plugin: &str, daemon: &Daemon, id: &str) -> Self {
        let sandbox = Sandbox::new();
        for namespace in [&sandbox, &daemon.node.node] {
            run(namespace, "sysctl -qw net.ipv6.conf.default.accept_dad=0");
        }
        Self::made_in(sandbox, plugin, daemon, id)
    }

    fn made_in(sandbox: Sandbox, plugin: &str, daemon: &Daemon, id: &str) -> Self {
        let data = daemon.folder().join("networks");
        let configuration = format!(
            r#"{{"cniVersion":"1.0.0","name":"old","type":"{plugin}","bridge":"cni0","isGateway":true,"ipMasq":true,
               "ipam":{{"type":"host-local","dataDir":{data:?},
               "ranges":[[{{"subnet":"10.1.0.0/24"}}],[{{"subnet":"fd01::/64"}}]],
               "routes":[{{"dst":"0.0.0.0/0"}},{{"dst":"::/0"}}]}}}}"#
        );
        let mut command = Command::new(format!("{PLUGINS}/{plugin}"));
        command
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", sandbox.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = daemon.node.node.within(|| command.spawn()).unwrap().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(configuration.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let addresses = result["ips"].as_array().unwrap().iter().map(|ip| {
            let text = ip["address"].as_str().unwrap();
            text.split_once('/').unwrap().0.parse().unwrap()
        });
        // A bridge stands first, its port second.
        let interfaces = result["interfaces"].as_array().unwrap();
        let host = &interfaces[interfaces.len() - 2];
        Self {
            id: id.to_owned(),
            addresses: addresses.collect(),
            host_link: host["name"].as_str().unwrap().to_owned(),
            sandbox,
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key {
            owner: "workloadnet".to_owned(),
            workload_id: self.id.clone(),
            if_name: "eth0".to_owned(),
        }
    }

    pub(crate) fn candidate(&self) -> Candidate {
        Candidate {
            key: Some(self.key()),
            netns_path: self.sandbox.path(),
            ip: self.addresses.iter().map(ToString::to_string).collect(),
        }
    }

    fn detach(&self) -> DetachRequest {
        DetachRequest {
            workload_id: self.id.clone(),
            owner: "workloadnet".to_owned(),
            netns: Some(NetNsAttachment {
                netns_path: self.sandbox.path(),
                if_name: "eth0".to_owned(),
            }),
        }
    }
}

pub(crate) fn node() -> Daemon {
    let mut daemon = Daemon::new();
    daemon.set_prefixes(&["10.1.0.0/24", "fd01::/64"]);
    daemon.start();
    daemon
}

pub(crate) fn adopt(daemon: &Daemon, step: Step, pods: &[&Pod]) -> Vec<Adoption> {
    let mut request = AdoptRequest {
        step: step.into(),
        ..AdoptRequest::default()
    };
    match step {
        Step::Check | Step::Take => request.candidate = pods.iter().map(|pod| pod.candidate()).collect(),
        _ => request.key = pods.iter().map(|pod| pod.key()).collect(),
    }
    daemon
        .caller()
        .talk(async |client| client.adopt(request).await)
        .unwrap()
        .adoption
}

#[track_caller]
pub(crate) fn expect(adoptions: &[Adoption], state: State) {
    assert!(!adoptions.is_empty());
    assert!(adoptions.iter().all(|a| a.state() == state), "{adoptions:#?}");
}

/// Everything that `ip` shows of a link and its namespace's routes, and the settings of the link.
pub(crate) fn picture(daemon: &Daemon, pods: &[&Pod]) -> Vec<String> {
    let node = &daemon.node.node;
    // Duplicate address detection of what the old plugin made.
    eventually(
        PATIENCE,
        "no address is tentative",
        || run(node, "ip address"),
        |text| !text.contains("tentative"),
    );
    // A bridge's timers run.
    let still = |text: String| -> String {
        let lines = text.lines().filter(|line| !line.contains("_timer"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut all: Vec<String> = ["ip -d link", "ip address", "ip route", "ip -6 route"]
        .iter()
        .map(|line| still(run(node, line)))
        .collect();
    for pod in pods {
        for version in ["ipv4", "ipv6"] {
            let folder = format!("/proc/sys/net/{version}/conf/{}", pod.host_link);
            all.push(run(node, &format!("grep -r . {folder} --exclude=stable_secret")));
        }
        all.push(run(&pod.sandbox, "ip -d address"));
        all.push(run(&pod.sandbox, "ip route"));
        all.push(run(&pod.sandbox, "ip -6 route"));
    }
    all
}

/// Numbered datagrams to and fro, one after the other.
struct Stream {
    over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    fn between(a: &Namespace, from: IpAddr, b: &Namespace, to: IpAddr) -> Self {
        let bind = |namespace: &Namespace, address| {
            namespace
                .within(|| UdpSocket::bind((address, 0)))
                .unwrap()
                .unwrap()
        };
        let (client, server) = (bind(a, from), bind(b, to));
        client.connect(server.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(LOST)).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (count, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let echo = {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                let mut buffer = [0; 8];
                while !over.load(Ordering::Relaxed) {
                    if let Ok((length, peer)) = server.recv_from(&mut buffer) {
                        let _ = server.send_to(&buffer[..length], peer);
                    }
                }
            })
        };
        let send = {
            let (over, count, lost) = (Arc::clone(&over), Arc::clone(&count), Arc::clone(&lost));
            std::thread::spawn(move || {
                let mut buffer = [0; 8];
                for number in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let came = client.send(&number.to_be_bytes()).is_ok()
                        && client.recv(&mut buffer).is_ok()
                        && u64::from_be_bytes(buffer) == number;
                    count.fetch_add(1, Ordering::Relaxed);
                    lost.fetch_add(u64::from(!came), Ordering::Relaxed);
                }
            })
        };
        Self {
            over,
            count,
            lost,
            threads: vec![send, echo],
        }
    }

    /// Waits until packets have gone to and fro since this call, none of which was lost.
    #[track_caller]
    fn flows(&self, what: &str) {
        let since = self.count.load(Ordering::Relaxed);
        eventually(
            PATIENCE,
            what,
            || self.count.load(Ordering::Relaxed),
            |now| *now > since + 20,
        );
        assert_eq!(self.lost.load(Ordering::Relaxed), 0, "lost by: {what}");
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Streams of both families between two pods, and from one to the node's uplink, and a TCP connection of each family.
struct Traffic {
    streams: Vec<Stream>,
    talks: Vec<(Server, Conversation)>,
}

impl Traffic {
    fn between(a: &Pod, b: &Pod) -> Self {
        let pairs = a.addresses.iter().zip(&b.addresses);
        // A gateway of IPv6 that another plugin made is tentative for a while.
        for (_, to) in pairs.clone() {
            stage::ping(&a.sandbox, *to, PATIENCE).unwrap();
        }
        Self {
            streams: pairs
                .clone()
                .map(|(from, to)| Stream::between(&a.sandbox, *from, &b.sandbox, *to))
                .collect(),
            talks: pairs
                .map(|(_, to)| {
                    let server = Server::start(&b.sandbox, *to).unwrap();
                    let at: SocketAddr = server.address();
                    let talk = Conversation::open(&a.sandbox, at, LOST).unwrap();
                    (server, talk)
                })
                .collect(),
        }
    }

    #[track_caller]
    fn flows(&mut self, what: &str) {
        self.streams.iter().for_each(|stream| stream.flows(what));
        for (_, talk) in &mut self.talks {
            talk.exchange(10_000)
                .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        }
    }
}

#[test]
fn pods_of_ptp_are_taken_over_and_given_back_without_losing_a_packet() {
    let mut daemon = node();
    let (a, b) = (
        Pod::made_by("ptp", &daemon, "a"),
        Pod::made_by("ptp", &daemon, "b"),
    );
    let both = [&a, &b];
    let mut traffic = Traffic::between(&a, &b);
    let before = picture(&daemon, &both);
    expect(&adopt(&daemon, Step::Check, &both), State::Possible);
    assert_eq!(picture(&daemon, &both), before, "a look changes nothing");
    traffic.flows("a look");

    expect(&adopt(&daemon, Step::Take, &both), State::Taken);
    traffic.flows("taking over");
    daemon.expect_used(2);
    assert_eq!(daemon.caller().findings(), Vec::<String>::new());
    expect(&adopt(&daemon, Step::Take, &both), State::Taken);

    // Nobody else is given what they have, their gateway included.
    let (own, own_pod) = (Sandbox::new(), attach("own", &Sandbox::new()).workload_id);
    let answer = daemon.caller().attach(attach(&own_pod, &own)).unwrap();
    let given = crate::daemon::addresses(&answer.ip);
    assert!(
        given
            .iter()
            .all(|ip| !a.addresses.contains(ip) && !b.addresses.contains(ip)),
        "{given:?}"
    );
    stage::ping(&own, a.addresses[0], PATIENCE).unwrap();
    daemon.caller().detach(crate::daemon::detach(&own_pod)).unwrap();

    daemon.crash();
    traffic.flows("a crash");
    daemon.start();
    traffic.flows("a restart");
    daemon.expect_used(2);
    // What others take away is put back, as the old plugin had it.
    let link = &b.host_link;
    let claim = daemon.caller().list()[1].host_link.clone();
    run(
        &daemon.node.node,
        &format!("ip link property del dev {link} altname {claim}"),
    );
    run(&daemon.node.node, &format!("ip link set {link} alias somebody"));
    eventually(
        PATIENCE,
        "the claim is put back",
        || daemon.caller().findings(),
        Vec::is_empty,
    );
    daemon.expect_used(2);
    traffic.flows("others' changes");

    expect(&adopt(&daemon, Step::Undo, &[]), State::Undone);
    traffic.flows("giving back");
    assert_eq!(picture(&daemon, &both), before, "given back");
    assert!(daemon.caller().list().is_empty());

    expect(&adopt(&daemon, Step::Take, &both), State::Taken);
    expect(&adopt(&daemon, Step::Commit, &[]), State::Committed);
    traffic.flows("committing");
    expect(&adopt(&daemon, Step::Undo, &both), State::Refused);
    daemon.crash();
    daemon.start();
    traffic.flows("a restart after the commit");
    expect(&adopt(&daemon, Step::Take, &both), State::Committed);
    drop(traffic);

    // The runtime's later Detach gives everything back.
    for pod in both {
        daemon.caller().detach(pod.detach()).unwrap();
    }
    daemon.expect_used(0);
    let left = run(&daemon.node.node, "ip link");
    assert!(
        !left.contains(&a.host_link) && !left.contains(&b.host_link),
        "{left}"
    );
}

#[test]
fn the_node_goes_on_tracking_the_connections_of_what_is_given_back() {
    let daemon = node();
    let (pod, own) = (Pod::made_at_once("ptp", &daemon, "a"), Sandbox::new());
    let request = attach("own", &own);
    let answer = daemon.caller().attach(request.clone()).unwrap();
    let freed = crate::daemon::addresses(&answer.ip)[0];
    let lives = pod.addresses[0];
    for (namespace, from) in [(&own, freed), (&pod.sandbox, lives)] {
        let outside = stage::OUTSIDE[0].parse().unwrap();
        stage::packets::udp_send(namespace, from, SocketAddr::new(outside, 9), "on its way").unwrap();
    }
    let tracked = || {
        let read = || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
        let all = daemon.node.node.within(read).unwrap();
        [freed, lives].map(|address| all.contains(&format!("src={address} ")))
    };
    assert_eq!(tracked(), [true, true]);
    expect(&adopt(&daemon, Step::Take, &[&pod]), State::Taken);
    expect(&adopt(&daemon, Step::Undo, &[&pod]), State::Undone);
    daemon
        .caller()
        .detach(crate::daemon::detach(&request.workload_id))
        .unwrap();
    // What came before is forgotten with it, or before.
    eventually(PATIENCE, "what has ended is forgotten", tracked, |tracked| {
        !tracked[0]
    });
    assert_eq!(tracked(), [false, true]);
}

#[test]
fn what_cannot_be_taken_over_is_refused_with_every_reason_and_nothing_is_changed() {
    let mut daemon = Daemon::new();
    daemon.set_prefixes(&["10.1.0.0/24", "fd01::/64"]);
    daemon.start();
    let good = Pod::made_by("ptp", &daemon, "good");
    let bridged = Pod::made_by("bridge", &daemon, "bridged");
    let mut lies = Pod::made_by("ptp", &daemon, "lies");
    lies.addresses[0] = "10.9.0.7".parse().unwrap();
    let before = picture(&daemon, &[&good, &bridged]);
    let answers = adopt(&daemon, Step::Take, &[&good, &bridged, &lies]);
    let text = |n: usize| answers[n].reason.join("; ");
    assert_eq!(answers[0].state(), State::Possible, "{answers:#?}");
    assert!(text(1).contains("is a port of a bridge"), "{answers:#?}");
    assert!(
        text(2).contains("10.9.0.7 is in none of this node's prefixes")
            && text(2).contains("eth0 does not have 10.9.0.7"),
        "{answers:#?}"
    );
    assert_eq!(picture(&daemon, &[&good, &bridged]), before);
    assert!(daemon.caller().list().is_empty());

    let mut gone = good.candidate();
    gone.netns_path = "/run/netns/nowhere".to_owned();
    let request = AdoptRequest {
        step: Step::Check.into(),
        candidate: vec![gone],
        ..AdoptRequest::default()
    };
    let answer = daemon
        .caller()
        .talk(async |client| client.adopt(request).await)
        .unwrap();
    assert!(
        answer.adoption[0].reason[0].contains("there is nothing at"),
        "{answer:?}"
    );
}
