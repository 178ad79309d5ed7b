//! A cluster of five thousand nodes, as one of them sees it: a list of peers that are not there, and the routes to them, which
//! are. Half of the runs have all peers on the node's link, the other half behind a router, so over VXLAN.
//!
//! The daemon says how long it took itself and how many messages it sent (its metrics); when a route is there the kernel is
//! asked. What the daemon has in its list it gets from a file, whose reading and parsing is in the figures from the change on.

use crate::named::Named;
use crate::product::{Daemon, attach, detach};
use crate::samples::{Samples, ms, ratio, table};
use anyhow::{Context as _, Result, ensure};
use kernel::linux::Linux;
use model::datapath::Datapath as _;
use model::routes::Reach;
use stage::Namespace;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How much is measured.
pub(crate) struct Size {
    peers: usize,
    /// Full syncs.
    syncs: usize,
    /// Changes of one peer.
    changes: usize,
    attaches: usize,
}

pub(crate) const FULL: Size = Size {
    peers: 5000,
    syncs: 5,
    changes: 60,
    attaches: 1000,
};
pub(crate) const QUICK: Size = Size {
    peers: 5000,
    syncs: 1,
    changes: 6,
    attaches: 100,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the daemon's metrics; what is measured is not measured by them.
const PACE: Duration = Duration::from_millis(5);

/// Where the peers are.
#[derive(Debug, Clone, Copy)]
enum Way {
    Direct,
    Vxlan,
}

/// What one way costs.
#[derive(Default)]
struct Costs {
    /// From the list's change until the last route: all come, all go.
    came: Samples,
    went: Samples,
    /// The same as the daemon says.
    came_inside: Samples,
    /// Messages for all.
    messages: f64,
    /// From the list's change until the route is another one.
    changed: Samples,
    changed_inside: Samples,
    changed_messages: f64,
    /// From the daemon's start until it has compared all.
    restart: Samples,
    restart_messages: f64,
    restart_steps: f64,
    /// A look at all that the kernel holds, which is found as it should be.
    round: Samples,
    /// KiB without peers, and with them.
    resident: [u64; 2],
    /// Attaches without peers, with all of them standing, and while all peers come and go.
    quiet: Samples,
    standing: Samples,
    busy: Samples,
}

pub(crate) fn run(size: &Size) -> Result<()> {
    let direct = Stand::new(Way::Direct)?.costs(size)?;
    let vxlan = Stand::new(Way::Vxlan)?.costs(size)?;
    println!("{}", report(&direct, &vxlan, size));
    Ok(())
}

struct Stand {
    way: Way,
    runtime: Runtime,
    daemon: Daemon,
    /// In the daemon's namespace.
    witness: Linux,
    ids: usize,
}

impl Stand {
    fn new(way: Way) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut daemon = Daemon::new()?;
        let folder = daemon.folder().to_owned();
        daemon.set(format!(
            "[routes]\nmode = \"auto\"\npeers = {:?}\n[metrics]\nlisten = \"unix:{}\"\n",
            folder.join("peers.toml"),
            folder.join("metrics.sock").display()
        ));
        for command in [
            "ip link add under type veth peer name wire",
            "ip address add 172.20.255.254/16 dev under",
            "ip address add fd20::ffff/64 dev under nodad",
            "ip link set wire up",
            "ip link set under up",
            "ip route add 172.21.0.0/16 via 172.20.255.253 dev under",
            "ip -6 route add fd21::/64 via fd20::fffe dev under",
        ] {
            ip(daemon.network(), command)?;
        }
        let witness = daemon.network().within(|| Linux::open(8))??;
        let stand = Self {
            way,
            runtime,
            daemon,
            witness,
            ids: 0,
        };
        stand.list(&[])?;
        Ok(stand)
    }

    fn costs(mut self, size: &Size) -> Result<Costs> {
        let all: Vec<usize> = (0..size.peers).collect();
        let last = *all.last().context("there are peers")?;
        let mut costs = Costs::default();
        self.daemon.start(&self.runtime)?;
        self.settled(0)?;
        costs.resident[0] = self.daemon.resident()?;
        self.attaches(size.attaches, &mut costs.quiet)?;
        for _ in 0..size.syncs {
            let before = self.told()?;
            let began = Instant::now();
            self.list(&all)?;
            self.wait_for(last, true)?;
            costs.came.push(began.elapsed());
            let after = self.settled(size.peers)?;
            costs.came_inside.push(after.took_since(&before));
            costs.messages = after.messages - before.messages;
            costs.resident[1] = costs.resident[1].max(self.daemon.resident()?);
            let began = Instant::now();
            self.list(&[])?;
            self.wait_for(last, false)?;
            costs.went.push(began.elapsed());
            self.settled(0)?;
        }
        self.list(&all)?;
        self.settled(size.peers)?;
        for n in 0..size.changes {
            // Another one each time goes, and comes back.
            let one = n * 37 % size.peers;
            let others: Vec<usize> = all.iter().copied().filter(|peer| *peer != one).collect();
            for (list, is_there) in [(&others, false), (&all, true)] {
                let before = self.quiet_since()?;
                let began = Instant::now();
                self.list(list)?;
                self.wait_for(one, is_there)?;
                costs.changed.push(began.elapsed());
                let after = self.next_after(&before)?;
                costs.changed_inside.push(after.took_since(&before));
                costs.changed_messages = after.messages - before.messages;
            }
        }
        for _ in 0..size.syncs {
            // A link that is nobody's: all is compared.
            let before = self.quiet_since()?;
            ip(self.daemon.network(), "ip address add 198.18.0.1/32 dev wire")?;
            let after = self.next_after(&before)?;
            costs.round.push(after.took_since(&before));
            ip(self.daemon.network(), "ip address delete 198.18.0.1/32 dev wire")?;
            self.quiet_since()?;
        }
        for _ in 0..size.syncs {
            self.daemon.kill()?;
            let began = Instant::now();
            self.daemon.start(&self.runtime)?;
            let told = self.settled(size.peers)?;
            costs.restart.push(began.elapsed());
            (costs.restart_messages, costs.restart_steps) = (told.messages, told.steps);
        }
        self.quiet_since()?;
        self.attaches(size.attaches, &mut costs.standing)?;
        self.busy(size, &all, &mut costs.busy)?;
        Ok(costs)
    }

    /// Attaches while all peers come and go without a pause.
    fn busy(&mut self, size: &Size, all: &[usize], samples: &mut Samples) -> Result<()> {
        let texts = [text(&[], self.way), text(all, self.way)];
        let (folder, going) = (self.daemon.folder().to_owned(), AtomicBool::new(true));
        std::thread::scope(|scope| {
            let changes = scope.spawn(|| -> Result<usize> {
                let mut turns = 0;
                while going.load(Ordering::Relaxed) {
                    put(&folder, &texts[turns % 2])?;
                    turns += 1;
                    pause(Duration::from_millis(300));
                }
                Ok(turns)
            });
            let outcome = self.attaches(size.attaches, samples);
            going.store(false, Ordering::Relaxed);
            let turns = changes
                .join()
                .map_err(|_| anyhow::anyhow!("who changed the list has panicked"))??;
            ensure!(turns > 1, "nothing changed meanwhile");
            outcome
        })
    }

    fn attaches(&mut self, count: usize, samples: &mut Samples) -> Result<()> {
        let client = self.daemon.client(&self.runtime)?;
        for _ in 0..count.div_ceil(20) {
            let namespaces: Vec<Named> = (0..20).map(|_| Named::new()).collect::<Result<_>>()?;
            let mut ids = Vec::new();
            for namespace in &namespaces {
                self.ids += 1;
                let id = format!("{:0>64x}", self.ids);
                let request = attach(&id, &namespace.path());
                samples.time(|| Ok(self.runtime.block_on(client.attach(request))?))?;
                ids.push(id);
            }
            for id in ids {
                self.runtime.block_on(client.detach(detach(&id)))?;
            }
        }
        Ok(())
    }

    fn list(&self, peers: &[usize]) -> Result<()> {
        put(self.daemon.folder(), &text(peers, self.way))
    }

    /// Waits until packets to a peer's workloads go there, or no longer.
    fn wait_for(&self, peer: usize, is_there: bool) -> Result<()> {
        let addresses = workloads(peer);
        let began = Instant::now();
        loop {
            let reach = self.witness.reach(&addresses)?;
            let routed = reach.iter().filter(|reach| match (self.way, reach) {
                (Way::Direct, Reach::Over { device, .. }) => device == "under",
                // Behind the VXLAN device.
                (Way::Vxlan, Reach::Nowhere(why)) => why.contains("VXLAN"),
                _ => false,
            });
            let expected = if is_there { addresses.len() } else { 0 };
            if routed.count() == expected {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "peer {peer} is not routed as listed: {reach:?}"
            );
        }
    }

    /// Waits until the daemon has compared everything with so many peers, and has made their routes.
    fn settled(&self, peers: usize) -> Result<Told> {
        let began = Instant::now();
        loop {
            let told = self.told()?;
            if told.peers == peers as f64 && told.ways == 2.0 * peers as f64 && told.rounds > 0.0 {
                return Ok(told);
            }
            ensure!(began.elapsed() < PATIENCE, "not all peers are routed: {told:?}");
            pause(PACE);
        }
    }

    /// Waits until nothing was compared for longer than the router's own pace.
    fn quiet_since(&self) -> Result<Told> {
        let (mut told, mut since) = (self.told()?, Instant::now());
        while since.elapsed() < Duration::from_millis(1200) {
            pause(PACE);
            let now = self.told()?;
            if now.rounds != told.rounds {
                since = Instant::now();
            }
            told = now;
        }
        Ok(told)
    }

    /// Waits for the next comparison.
    fn next_after(&self, before: &Told) -> Result<Told> {
        let began = Instant::now();
        loop {
            let told = self.told()?;
            if told.rounds > before.rounds {
                return Ok(told);
            }
            ensure!(began.elapsed() < PATIENCE, "nothing was compared");
            pause(PACE);
        }
    }

    fn told(&self) -> Result<Told> {
        let counts = self.daemon.counts()?;
        let sum = |begin: &str| counts.sum(begin);
        Ok(Told {
            peers: sum("workloadnet_peers "),
            ways: sum("workloadnet_peer_routes{family=\"ipv4\",way=\"direct\"}")
                + sum("workloadnet_peer_routes{family=\"ipv6\",way=\"direct\"}")
                + sum("workloadnet_peer_routes{family=\"ipv4\",way=\"vxlan\"}")
                + sum("workloadnet_peer_routes{family=\"ipv6\",way=\"vxlan\"}"),
            rounds: sum("workloadnet_routing_duration_seconds_count"),
            seconds: sum("workloadnet_routing_duration_seconds_sum"),
            messages: sum("workloadnet_netlink_messages_total"),
            steps: sum("workloadnet_routing_steps_total"),
        })
    }
}

/// What the daemon says of itself.
#[derive(Debug)]
struct Told {
    peers: f64,
    ways: f64,
    rounds: f64,
    seconds: f64,
    messages: f64,
    steps: f64,
}

impl Told {
    fn took_since(&self, before: &Self) -> Duration {
        Duration::from_secs_f64(self.seconds - before.seconds)
    }
}

fn nets(peer: usize) -> [String; 2] {
    let n = peer + 256;
    [
        format!("10.{}.{}.0/24", n / 256, n % 256),
        format!("fd65:{n:x}::/64"),
    ]
}

fn workloads(peer: usize) -> Vec<IpAddr> {
    let n = peer + 256;
    let texts = [format!("10.{}.{}.7", n / 256, n % 256), format!("fd65:{n:x}::7")];
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn text(peers: &[usize], way: Way) -> String {
    if peers.is_empty() {
        return "peer = []\n".to_owned();
    }
    let net = match way {
        Way::Direct => 20,
        Way::Vxlan => 21,
    };
    let mut text = String::new();
    for peer in peers {
        let n = peer + 1;
        let [v4, v6] = nets(*peer);
        // Writing into a String does not fail.
        let _ = write!(
            text,
            "[[peer]]\nname = \"node-{n}.cluster.example\"\naddresses = [\"172.{net}.{}.{}\", \"fd{net}::{n:x}\"]\nprefixes = \
             [{v4:?}, {v6:?}]\n",
            n / 256,
            n % 256
        );
    }
    text
}

/// As those write files who know how.
fn put(folder: &std::path::Path, text: &str) -> Result<()> {
    let beside = folder.join("peers.new");
    std::fs::write(&beside, text).context("write the list of peers")?;
    std::fs::rename(beside, folder.join("peers.toml")).context("replace the list of peers")
}

fn ip(namespace: &Namespace, command: &str) -> Result<()> {
    let words: Vec<&str> = command.split(' ').collect();
    let status = namespace.within(|| Command::new(words[0]).args(&words[1..]).status())??;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a value")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn report(direct: &Costs, vxlan: &Costs, size: &Size) -> String {
    let both = |what: &str, of: &dyn Fn(&Costs) -> String| vec![what.to_owned(), of(direct), of(vxlan)];
    let spread = |samples: &Samples| format!("{} (p99 {})", ms(samples.p50()), ms(samples.percentile(99)));
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let n = size.peers;
    let rows = [
        both(
            &format!("{n} peers come: from the list's change to the last route"),
            &|c| spread(&c.came),
        ),
        both("the daemon's part of it, without reading the list", &|c| {
            spread(&c.came_inside)
        }),
        both("netlink messages for it", &|c| format!("{:.0}", c.messages)),
        both("all of them go", &|c| spread(&c.went)),
        both(
            "one of them goes or comes: from the list's change to the route",
            &|c| spread(&c.changed),
        ),
        both("the daemon's part of it", &|c| spread(&c.changed_inside)),
        both("netlink messages for it", &|c| {
            format!("{:.0}", c.changed_messages)
        }),
        both("a round: all is compared with the kernel", &|c| spread(&c.round)),
        both("kill -9 and a restart, until all is compared", &|c| {
            spread(&c.restart)
        }),
        both("netlink messages for it, and changes", &|c| {
            format!("{:.0}, {:.0}", c.restart_messages, c.restart_steps)
        }),
        both("resident memory without peers", &|c| mib(c.resident[0])),
        both("the most with them", &|c| mib(c.resident[1])),
        both("attach p50 without peers", &|c| spread(&c.quiet)),
        both(&format!("with {n} peers standing"), &|c| spread(&c.standing)),
        both("while all peers come and go without a pause", &|c| {
            spread(&c.busy)
        }),
        both("ratio of the last two", &|c| {
            format!("{:.2}", ratio(c.busy.p50(), c.standing.p50()))
        }),
    ];
    let goal = |what: &str, limit: f64, of: &dyn Fn(&Costs) -> f64| {
        let worst = of(direct).max(of(vxlan));
        let verdict = if worst <= limit { "met" } else { "missed" };
        vec![
            what.to_owned(),
            format!("{limit}"),
            format!("{worst:.2}"),
            verdict.to_owned(),
        ]
    };
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let goals = [
        goal("all peers come, in ms", 2000.0, &|c| millis(c.came.p50())),
        goal("one peer changes, in ms", 10.0, &|c| {
            millis(c.changed_inside.p50())
        }),
    ];
    format!(
        "## {n} peers, both families\n\nMilliseconds.\n\n{}\n{}",
        table(&["what", "direct", "VXLAN"], &rows),
        table(&["goal", "at most", "is", ""], &goals)
    )
}
