//! A pod as the test reaches it: by sockets in its network, so that neither API server nor kubelet is asked.

use stage::Namespace;
use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
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

/// What a pod's server says.
#[derive(Debug)]
pub(crate) struct Who {
    /// By which address it sees the client.
    pub(crate) client: Option<IpAddr>,
    /// Which addresses it has, but link-local ones.
    pub(crate) server: BTreeSet<IpAddr>,
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
    let said = talk(from, server, "GET /cgi-bin/who HTTP/1.0\r\n\r\n")?;
    let body = said.split_once("\r\n\r\n").or_else(|| said.split_once("\n\n"));
    let (client, addresses) = body
        .and_then(|(_, body)| body.split_once('\n'))
        .ok_or_else(|| io::Error::other(format!("{server} said {said:?}")))?;
    Ok(Who {
        client: address(client),
        server: listed(addresses).collect(),
    })
}

/// By which address the server of the outside host sees somebody.
pub(crate) fn seen_as(from: &Namespace, server: SocketAddr) -> io::Result<Option<IpAddr>> {
    talk(from, server, "").map(|said| address(&said))
}

fn talk(from: &Namespace, server: SocketAddr, question: &str) -> io::Result<String> {
    let talk = || {
        let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(question.as_bytes())?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    from.within(talk).unwrap()
}

/// The addresses in what `ip -o address` says, but link-local ones.
fn listed(text: &str) -> impl Iterator<Item = IpAddr> {
    let words = |line: &str| -> Option<IpAddr> {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| !word.starts_with("inet"));
        address(words.nth(1)?.split('/').next()?)
    };
    text.lines()
        .filter_map(words)
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
}

/// Busybox writes IPv4 addresses as IPv6 ones that hold them.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches(['[', ']']);
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}
