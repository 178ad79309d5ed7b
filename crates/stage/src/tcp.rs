//! TCP between namespaces: a server that first tells who its peer is, and then says everything back.

use crate::Namespace;
use anyhow::{Context as _, Result, ensure};
use rustix::net::{Shutdown, shutdown};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server in a namespace. Ends with this value.
#[derive(Debug)]
pub struct Server {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on an address of the namespace, on a port that is free.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let listener = namespace
            .within(|| TcpListener::bind((address, 0)))?
            .with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);
        let accepting = Arc::clone(&listener);
        let thread = std::thread::Builder::new()
            .name("tcp server".to_owned())
            .spawn(move || {
                // Dropping the server shuts the listener down, and accept fails.
                while let Ok((stream, peer)) = accepting.accept() {
                    // A conversation that cannot be served is seen by its client.
                    let _ = std::thread::Builder::new().spawn(move || serve(stream, peer));
                }
            })?;
        Ok(Self {
            listener,
            address,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = shutdown(&*self.listener, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    writeln!(stream, "{}", peer.ip())?;
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// A connection to a [`Server`].
#[derive(Debug)]
pub struct Conversation {
    stream: BufReader<TcpStream>,
    seen_as: IpAddr,
}

impl Conversation {
    /// Connects from a namespace. `limit` is also how long each answer may take.
    pub fn open(from: &Namespace, to: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = from
            .within(|| TcpStream::connect_timeout(&to, limit))?
            .with_context(|| format!("connect to {to}"))?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream
            .read_line(&mut line)
            .with_context(|| format!("read from {to}"))?;
        let seen_as = line
            .trim()
            .parse()
            .with_context(|| format!("{line:?} is not an address"))?;
        Ok(Self { stream, seen_as })
    }

    /// Who the server sees, which is somebody else where addresses are translated on the way.
    pub fn seen_as(&self) -> IpAddr {
        self.seen_as
    }

    /// Sends that many bytes and gets them back; returns how long it took.
    pub fn exchange(&mut self, bytes: usize) -> Result<Duration> {
        let sent: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
        let start = Instant::now();
        let mut writer = self.stream.get_ref().try_clone()?;
        let mut received = vec![0; bytes];
        std::thread::scope(|scope| -> Result<()> {
            let writing = scope.spawn(|| writer.write_all(&sent));
            self.stream
                .read_exact(&mut received)
                .context("read what was sent")?;
            writing
                .join()
                .map_err(|panic| std::panic::resume_unwind(panic))?
                .context("send")
        })?;
        ensure!(received == sent, "what came back is not what was sent");
        Ok(start.elapsed())
    }
}
