//! The load: sockets in two namespaces, and threads that use them, pinned to CPUs.
//!
//! ```text
//!  one core    one thread has both ends, pinned: what it takes is the way's cost, and nothing waits for a wake-up
//!  two cores   the one end's threads on one CPU, the other end's on another, as between two programs
//! ```
//! CPU time is the threads' own by their clocks, and that of the kernel's ksoftirqd. A veth's packets are received in the
//! sender's context, and without `CONFIG_IRQ_TIME_ACCOUNTING` that is in the thread's clock.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use stage::Namespace;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Who speaks to whom.
pub(crate) struct Way<'a> {
    pub(crate) from: &'a Namespace,
    pub(crate) to: &'a Namespace,
    pub(crate) address: IpAddr,
}

/// TCP without delays, and UDP without segmentation offload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One byte there, one byte back.
    RoundTrip,
    /// As much as goes.
    Bulk,
    /// TCP: connect, accept, a byte there, a byte back, close.
    Connect,
}

/// On how many cores, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cores {
    One,
    Two { flows: usize },
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    pub(crate) protocol: Protocol,
    pub(crate) kind: Kind,
    pub(crate) cores: Cores,
}

/// What a test tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unit {
    Micros,
    GbitPerSecond,
    GbitPerCpuSecond,
    KiloPacketsPerSecond,
    KiloPacketsPerCpuSecond,
    LostPercent,
}

/// How long each test runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) round_trips: Duration,
    pub(crate) bulk: Duration,
    /// How many connections, at most; each leaves one that waits for its end.
    pub(crate) connections: usize,
}

type Figures = Vec<(Unit, f64)>;

/// The CPUs of the two ends. All of a lone thread's work is on the second one.
const CLIENT: usize = 0;
const SERVER: usize = 1;
const LIMIT: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 << 10;
/// Datagrams that fill a packet of 1500 bytes.
const DATAGRAM: [usize; 2] = [1472, 1452];
/// Datagrams that a socket's buffer surely holds.
const BURST: usize = 32;
/// After it a receiver of datagrams looks whether all is over.
const PACE: Duration = Duration::from_millis(10);

impl Test {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for cores in [Cores::One, Cores::Two { flows: 1 }, Cores::Two { flows: 8 }] {
            for kind in [Kind::RoundTrip, Kind::Bulk] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    all.push(Self {
                        protocol,
                        kind,
                        cores,
                    });
                }
            }
        }
        all.push(Self {
            protocol: Protocol::Tcp,
            kind: Kind::Connect,
            cores: Cores::One,
        });
        all
    }

    /// Does it.
    pub(crate) fn run(self, way: &Way<'_>, times: &Times) -> Result<Figures> {
        let ran = match (self.cores, self.kind, self.protocol) {
            (Cores::One, Kind::RoundTrip, Protocol::Tcp) => lone_round_trips(&mut tcp(way)?, times),
            (Cores::One, Kind::RoundTrip, Protocol::Udp) => lone_round_trips(&mut udp(way)?, times),
            (Cores::One, Kind::Bulk, Protocol::Tcp) => lone_stream(tcp(way)?, times),
            (Cores::One, Kind::Bulk, Protocol::Udp) => lone_datagrams(udp(way)?, way, times),
            (_, Kind::Connect, _) => connections(way, times),
            (Cores::Two { flows }, Kind::RoundTrip, Protocol::Tcp) => {
                round_trips(many(flows, || tcp(way))?, times)
            }
            (Cores::Two { flows }, Kind::RoundTrip, Protocol::Udp) => {
                round_trips(many(flows, || udp(way))?, times)
            }
            (Cores::Two { flows }, Kind::Bulk, Protocol::Tcp) => streams(many(flows, || tcp(way))?, times),
            (Cores::Two { flows }, Kind::Bulk, Protocol::Udp) => {
                datagrams(many(flows, || udp(way))?, way, times)
            }
        };
        ran.with_context(|| format!("{self:?} to {}", way.address))
    }
}

/// Two ends that are connected.
type Ends<S> = (S, S);

/// What carries single bytes.
trait Carrier: Send {
    fn say(&mut self) -> std::io::Result<()>;
    fn hear(&mut self) -> std::io::Result<bool>;
}

impl Carrier for TcpStream {
    fn say(&mut self) -> std::io::Result<()> {
        self.write_all(b"x")
    }

    fn hear(&mut self) -> std::io::Result<bool> {
        Ok(self.read(&mut [0; 16])? > 0)
    }
}

impl Carrier for UdpSocket {
    fn say(&mut self) -> std::io::Result<()> {
        self.send(b"x").map(drop)
    }

    fn hear(&mut self) -> std::io::Result<bool> {
        self.recv(&mut [0; 16]).map(|_| true)
    }
}

fn many<T>(flows: usize, make: impl Fn() -> Result<T>) -> Result<Vec<T>> {
    (0..flows).map(|_| make()).collect()
}

fn tcp(way: &Way<'_>) -> Result<Ends<TcpStream>> {
    let listener = way
        .to
        .within(|| TcpListener::bind((way.address, 0)))?
        .context("listen")?;
    let target = listener.local_addr()?;
    let client = way
        .from
        .within(|| TcpStream::connect_timeout(&target, LIMIT))?
        .context("connect")?;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(LIMIT))?;
        end.set_write_timeout(Some(LIMIT))?;
    }
    Ok((client, server))
}

/// The server learns who its client is as servers do, by a datagram of it.
fn udp(way: &Way<'_>) -> Result<Ends<UdpSocket>> {
    let any = SocketAddr::new(
        match way.address {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        },
        0,
    );
    let server = way
        .to
        .within(|| UdpSocket::bind((way.address, 0)))?
        .context("bind")?;
    let client = way.from.within(|| UdpSocket::bind(any))?.context("bind")?;
    client.connect(server.local_addr()?)?;
    client.send(b"hello")?;
    server.set_read_timeout(Some(LIMIT))?;
    client.set_read_timeout(Some(LIMIT))?;
    let (_, peer) = server.recv_from(&mut [0; 16]).context("wait for a client")?;
    server.connect(peer)?;
    Ok((client, server))
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context("pin a thread")
}

/// A thread of its own on a CPU, ended when this returns.
fn pinned<T: Send>(cpu: usize, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin(cpu)?;
            act()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// CPU time of the calling thread.
fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// CPU time of the kernel's threads that receive packets when too many came at once.
fn softirq_cpu() -> Duration {
    let nanos = ksoftirqds().into_iter().filter_map(|process| {
        let text = fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn ksoftirqds() -> Vec<u32> {
    // The kernel makes its threads first, so theirs are small numbers.
    let is_one = |process: &u32| {
        fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    };
    (2..200).filter(is_one).collect()
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

fn median(mut all: Vec<Duration>) -> Result<f64> {
    all.sort_unstable();
    let middle = all.get(all.len() / 2).context("nothing came back")?;
    Ok(micros(*middle))
}

fn lone_round_trips<C: Carrier>((client, server): &mut Ends<C>, times: &Times) -> Result<Figures> {
    let all = pinned(SERVER, || {
        let end = Instant::now() + times.round_trips;
        let mut all = Vec::new();
        let mut now = Instant::now();
        while now < end {
            client.say()?;
            server.hear()?;
            server.say()?;
            client.hear()?;
            let after = Instant::now();
            all.push(after - now);
            now = after;
        }
        Ok(all)
    })?;
    Ok(vec![(Unit::Micros, median(all)?)])
}

fn lone_stream((mut client, mut server): Ends<TcpStream>, times: &Times) -> Result<Figures> {
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    let (bytes, took) = pinned(SERVER, || {
        let (chunk, mut buffer) = (vec![7; CHUNK], vec![0; CHUNK]);
        let (mut bytes, began, end) = (0, own_cpu(), Instant::now() + times.bulk);
        while Instant::now() < end {
            match client.write(&chunk) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
            loop {
                match server.read(&mut buffer) {
                    Ok(0) => bail!("the stream has ended"),
                    Ok(read) => bytes += read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok((bytes, own_cpu() - began))
    })?;
    Ok(vec![(Unit::GbitPerCpuSecond, gbit(bytes) / took.as_secs_f64())])
}

fn gbit(bytes: usize) -> f64 {
    bytes as f64 * 8.0 / 1e9
}

fn datagram(way: &Way<'_>) -> Vec<u8> {
    vec![7; DATAGRAM[usize::from(way.address.is_ipv6())]]
}

fn lone_datagrams((client, server): Ends<UdpSocket>, way: &Way<'_>, times: &Times) -> Result<Figures> {
    let datagram = datagram(way);
    let (packets, took) = pinned(SERVER, || {
        let (mut packets, mut buffer) = (0, [0; 2048]);
        let (began, end) = (own_cpu(), Instant::now() + times.bulk);
        while Instant::now() < end {
            for _ in 0..BURST {
                client.send(&datagram)?;
            }
            for _ in 0..BURST {
                server.recv(&mut buffer).context("a datagram was lost")?;
            }
            packets += BURST;
        }
        Ok((packets, own_cpu() - began))
    })?;
    let rate = packets as f64 / 1e3 / took.as_secs_f64();
    Ok(vec![(Unit::KiloPacketsPerCpuSecond, rate)])
}

fn connections(way: &Way<'_>, times: &Times) -> Result<Figures> {
    // Another port each time: what waits for its end is in nobody's way.
    let listener = way
        .to
        .within(|| TcpListener::bind((way.address, 0)))?
        .context("listen")?;
    let target = listener.local_addr()?;
    let one = || -> Result<()> {
        let mut client = TcpStream::connect(target).context("connect")?;
        let (mut server, _) = listener.accept()?;
        client.say()?;
        server.hear()?;
        server.say()?;
        ensure!(client.hear()?, "the connection has ended");
        Ok(())
    };
    let all = way.from.within(|| -> Result<_> {
        pin(SERVER)?;
        let end = Instant::now() + times.bulk;
        let mut all = Vec::new();
        while Instant::now() < end && all.len() < times.connections {
            let began = Instant::now();
            one()?;
            all.push(began.elapsed());
        }
        Ok(all)
    })??;
    Ok(vec![(Unit::Micros, median(all)?)])
}

fn round_trips<C: Carrier + 'static>(flows: Vec<Ends<C>>, times: &Times) -> Result<Figures> {
    let over = AtomicBool::new(false);
    let over = &over;
    let all = std::thread::scope(|scope| -> Result<_> {
        let mut clients = Vec::new();
        let mut servers = Vec::new();
        for (mut client, mut server) in flows {
            servers.push(scope.spawn(move || -> Result<()> {
                pin(SERVER)?;
                // Its client ends with a last byte when all is over.
                while server.hear()? && !over.load(Ordering::Relaxed) {
                    server.say()?;
                }
                Ok(())
            }));
            clients.push(scope.spawn(move || -> Result<_> {
                pin(CLIENT)?;
                let end = Instant::now() + times.round_trips;
                let mut all = Vec::new();
                let mut now = Instant::now();
                while now < end {
                    client.say()?;
                    client.hear()?;
                    let after = Instant::now();
                    all.push(after - now);
                    now = after;
                }
                Ok((all, client))
            }));
        }
        let mut all = Vec::new();
        let mut ends = Vec::new();
        for client in clients {
            let (times, client) = joined(client)?;
            all.extend(times);
            ends.push(client);
        }
        over.store(true, Ordering::Relaxed);
        for mut client in ends {
            client.say()?;
        }
        for server in servers {
            joined(server)?;
        }
        Ok(all)
    })?;
    Ok(vec![(Unit::Micros, median(all)?)])
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn streams(flows: Vec<Ends<TcpStream>>, times: &Times) -> Result<Figures> {
    let softirq = softirq_cpu();
    let began = Instant::now();
    let (bytes, cpu) = std::thread::scope(|scope| -> Result<_> {
        let mut senders = Vec::new();
        let mut receivers = Vec::new();
        for (mut client, mut server) in flows {
            receivers.push(scope.spawn(move || -> Result<_> {
                pin(SERVER)?;
                let mut buffer = vec![0; CHUNK];
                let mut bytes = 0;
                loop {
                    match server.read(&mut buffer)? {
                        0 => return Ok((bytes, own_cpu())),
                        read => bytes += read,
                    }
                }
            }));
            senders.push(scope.spawn(move || -> Result<_> {
                pin(CLIENT)?;
                let chunk = vec![7; CHUNK];
                let end = Instant::now() + times.bulk;
                while Instant::now() < end {
                    client.write_all(&chunk)?;
                }
                // The end of the stream is what the receiver waits for.
                drop(client);
                Ok(own_cpu())
            }));
        }
        let mut total = (0, Duration::ZERO);
        for sender in senders {
            total.1 += joined(sender)?;
        }
        for receiver in receivers {
            let (bytes, cpu) = joined(receiver)?;
            total.0 += bytes;
            total.1 += cpu;
        }
        Ok(total)
    })?;
    let took = began.elapsed();
    let cpu = cpu + (softirq_cpu() - softirq);
    Ok(vec![
        (Unit::GbitPerSecond, gbit(bytes) / took.as_secs_f64()),
        (Unit::GbitPerCpuSecond, gbit(bytes) / cpu.as_secs_f64()),
    ])
}

fn datagrams(flows: Vec<Ends<UdpSocket>>, way: &Way<'_>, times: &Times) -> Result<Figures> {
    let datagram = &datagram(way);
    let softirq = softirq_cpu();
    let over = AtomicBool::new(false);
    let over = &over;
    let (sent, received, cpu) = std::thread::scope(|scope| -> Result<_> {
        let mut senders = Vec::new();
        let mut receivers = Vec::new();
        for (client, server) in flows {
            server.set_read_timeout(Some(PACE))?;
            receivers.push(scope.spawn(move || -> Result<_> {
                pin(SERVER)?;
                let mut buffer = [0; 2048];
                let mut packets = 0_u64;
                loop {
                    match server.recv(&mut buffer) {
                        Ok(_) => packets += 1,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            if over.load(Ordering::Relaxed) {
                                return Ok((packets, own_cpu()));
                            }
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }));
            senders.push(scope.spawn(move || -> Result<_> {
                pin(CLIENT)?;
                let mut packets = 0_u64;
                let end = Instant::now() + times.bulk;
                while Instant::now() < end {
                    client.send(datagram)?;
                    packets += 1;
                }
                Ok((packets, own_cpu()))
            }));
        }
        let mut total = (0, 0, Duration::ZERO);
        for sender in senders {
            let (packets, cpu) = joined(sender)?;
            total.0 += packets;
            total.2 += cpu;
        }
        over.store(true, Ordering::Relaxed);
        for receiver in receivers {
            let (packets, cpu) = joined(receiver)?;
            total.1 += packets;
            total.2 += cpu;
        }
        Ok(total)
    })?;
    let cpu = cpu + (softirq_cpu() - softirq);
    let thousands = received as f64 / 1e3;
    Ok(vec![
        (Unit::KiloPacketsPerSecond, thousands / times.bulk.as_secs_f64()),
        (Unit::KiloPacketsPerCpuSecond, thousands / cpu.as_secs_f64()),
        (
            Unit::LostPercent,
            100.0 * (1.0 - received as f64 / (sent as f64).max(1.0)),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_measures_something_in_both_families() {
        let stage = stage::Node::new().unwrap();
        let times = Times {
            round_trips: Duration::from_millis(5),
            bulk: Duration::from_millis(5),
            connections: 5,
        };
        for address in stage::OUTSIDE {
            let way = Way {
                from: &stage.node,
                to: &stage.outside,
                address: address.parse().unwrap(),
            };
            for test in Test::all() {
                let told = test.run(&way, &times).unwrap();
                let nothing = told
                    .iter()
                    .find(|(unit, value)| *value <= 0.0 && *unit != Unit::LostPercent);
                assert_eq!(nothing, None, "{test:?}");
            }
        }
    }
}
