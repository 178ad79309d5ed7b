//! Datagrams at a steady rate from one pod to another and back, each of them counted.

use crate::pod::Pod;
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two datagrams.
const TICK: Duration = Duration::from_millis(10);
/// How long the last answers are waited for.
const LAST: Duration = Duration::from_secs(5);

pub(crate) struct Stream {
    name: String,
    has_ended: Arc<AtomicBool>,
    client: JoinHandle<(usize, usize)>,
    server: JoinHandle<()>,
}

impl Stream {
    /// Between the addresses of one family: 0 is IPv4.
    pub(crate) fn start(from: &Pod, to: &Pod, family: usize) -> Self {
        let has_ended = Arc::new(AtomicBool::new(false));
        let socket = |pod: &Pod| {
            let bind = || UdpSocket::bind((pod.ips[family], 0)).unwrap();
            let socket = pod.network.within(bind).unwrap();
            socket.set_read_timeout(Some(TICK)).unwrap();
            socket
        };
        let (here, there) = (socket(from), socket(to));
        let server = there.local_addr().unwrap();
        let ended = Arc::clone(&has_ended);
        Self {
            name: format!("{} to {} at {server}", from.name, to.name),
            client: std::thread::spawn(move || ask(&here, server, &ended)),
            server: {
                let ended = Arc::clone(&has_ended);
                std::thread::spawn(move || echo(&there, &ended))
            },
            has_ended,
        }
    }

    /// Between a pod on the first node and those on the two others, of whom one is reached directly and one over VXLAN.
    pub(crate) fn start_all(pods: &[Pod]) -> Vec<Self> {
        let pairs = [(0, 1), (0, 2)];
        pairs
            .into_iter()
            .flat_map(|(from, to)| [0, 1].map(|family| Self::start(&pods[from], &pods[to], family)))
            .collect()
    }

    /// Ends it. Each datagram has to have come back.
    #[track_caller]
    pub(crate) fn expect_nothing_lost(self) {
        self.has_ended.store(true, Ordering::Relaxed);
        let (sent, answered) = self.client.join().unwrap();
        self.server.join().unwrap();
        assert!(sent > 20, "{}: it ran across: {sent}", self.name);
        assert_eq!(answered, sent, "{}: answers, and what was sent", self.name);
        println!("{}: {sent} there and back", self.name);
    }
}

/// How many were sent, and how many answers came.
fn ask(socket: &UdpSocket, server: SocketAddr, ended: &AtomicBool) -> (usize, usize) {
    let mut answered = BTreeSet::new();
    let mut sent: u64 = 0;
    let mut next = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        // One that cannot be sent is one that is not answered.
        let _ = socket.send_to(&sent.to_be_bytes(), server);
        sent += 1;
        next += TICK;
        receive(socket, &mut answered, next);
    }
    let last = Instant::now() + LAST;
    while answered.len() < usize::try_from(sent).unwrap() && Instant::now() < last {
        receive(socket, &mut answered, Instant::now() + TICK);
    }
    (usize::try_from(sent).unwrap(), answered.len())
}

/// Answers that come before a time.
fn receive(socket: &UdpSocket, answered: &mut BTreeSet<[u8; 8]>, until: Instant) {
    let mut number = [0; 8];
    while let Some(left) = until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left)).unwrap();
        if matches!(socket.recv(&mut number), Ok(8)) {
            answered.insert(number);
        }
    }
}

/// Sends everything back, until a while after the end.
fn echo(socket: &UdpSocket, ended: &AtomicBool) {
    let mut number = [0; 8];
    let mut silent = Instant::now();
    while !ended.load(Ordering::Relaxed) || silent.elapsed() < LAST / 5 {
        if let Ok((length, client)) = socket.recv_from(&mut number) {
            silent = Instant::now();
            let _ = socket.send_to(&number[..length], client);
        }
    }
}
