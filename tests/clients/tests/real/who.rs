//! What a server of the image says at `/cgi-bin/who`: who the client is, and which addresses the server has.

use stage::Namespace;
use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// What the server is asked.
pub(crate) const QUESTION: &str = "GET /cgi-bin/who HTTP/1.0\r\n\r\n";

/// What it said.
#[derive(Debug, Default)]
pub(crate) struct Who {
    /// By which address it sees the client.
    pub(crate) client: Option<IpAddr>,
    /// Which addresses it has, but link-local ones.
    pub(crate) server: BTreeSet<IpAddr>,
}

impl Who {
    /// `None`: it is no such answer.
    pub(crate) fn parse(answer: &str) -> Option<Self> {
        let body = answer
            .split_once("\r\n\r\n")
            .or_else(|| answer.split_once("\n\n"));
        let (client, server) = body.and_then(|(_, body)| body.split_once('\n'))?;
        Some(Self {
            client: address(client),
            server: listed(server).collect(),
        })
    }
}

/// Says something to a server, and returns all that it says.
pub(crate) fn talk(from: &Namespace, to: SocketAddr, question: &str, limit: Duration) -> io::Result<String> {
    let talk = || {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(question.as_bytes())?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    from.within(talk).unwrap()
}

/// The addresses in what `ip -o address` says, but link-local ones.
pub(crate) fn listed(text: &str) -> impl Iterator<Item = IpAddr> {
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
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches(['[', ']']);
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}
