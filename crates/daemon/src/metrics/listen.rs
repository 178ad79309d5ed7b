//! Where the metrics are: an address and a port, or a socket of the file system.

use crate::socket;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// As the settings say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// `127.0.0.1:4777`, `[::1]:4777`.
    Tcp(SocketAddr),
    /// `unix:/run/workloadnet/metrics.sock`.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "metrics.listen {text:?}: must be an address and a port such as \"127.0.0.1:4777\", or \"unix:\" and an \
                 absolute path"
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return match path.is_absolute() {
                true => Ok(Self::Unix(path.to_owned())),
                false => Err(wrong()),
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| wrong())?;
        match address.port() {
            0 => Err(format!("metrics.listen {text:?}: the port must be 1 to 65535")),
            _ => Ok(Self::Tcp(address)),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What listens there.
#[derive(Debug)]
pub enum Listener {
    /// An address and a port.
    Tcp(TcpListener),
    /// A socket of the file system.
    Unix(UnixListener),
}

/// One connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// Listens. A socket of the file system gets owner and group as the daemon's own does; as `socket::bind` has to be called
/// before there are other threads.
pub async fn listen(at: &Listen, owner: Option<u32>, group: Option<u32>) -> anyhow::Result<Listener> {
    let listener = match at {
        Listen::Tcp(address) => TcpListener::bind(address)
            .await
            .map(Listener::Tcp)
            .map_err(anyhow::Error::from),
        Listen::Unix(path) => socket::bind(path, owner, group).await.and_then(|bound| {
            bound.set_nonblocking(true)?;
            Ok(Listener::Unix(UnixListener::from_std(bound)?))
        }),
    };
    listener.with_context(|| format!("metrics.listen \"{at}\""))
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Pin<Box<dyn Stream>>> {
        Ok(match self {
            Self::Tcp(listener) => Box::pin(listener.accept().await?.0),
            Self::Unix(listener) => Box::pin(listener.accept().await?.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_with_a_port_or_an_absolute_path() {
        for text in ["127.0.0.1:4777", "[::1]:4777", "0.0.0.0:1", "unix:/run/a.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "4777",
            ":4777",
            "localhost:4777",
            "127.0.0.1",
            "unix:a.sock",
            "/run/a.sock",
        ] {
            let why = text.parse::<Listen>().unwrap_err();
            assert!(
                why.starts_with(&format!("metrics.listen {text:?}: must be an address and a port")),
                "{why}"
            );
        }
        let why = "127.0.0.1:0".parse::<Listen>().unwrap_err();
        assert!(why.ends_with("the port must be 1 to 65535"), "{why}");
    }
}
