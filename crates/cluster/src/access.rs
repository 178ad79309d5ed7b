//! The way to the API server. What it goes by (kubeconfig, token, certificates) is read again after each failure, because
//! all of it is rotated while the daemon lives.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

/// How long a connection may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take to begin, or a page to arrive.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Why nothing came of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// There is nothing to reach the API server by.
    #[error("{0}")]
    NoWay(String),
    /// No connection, or it broke.
    #[error("{0}")]
    Lost(String),
    /// An answer that cannot be read.
    #[error("the API server's answer cannot be read: {0}")]
    Garbled(String),
    /// The server refused.
    #[error("the API server refuses: {text} ({code})")]
    Refused {
        /// HTTP's.
        code: u16,
        /// The server's words.
        text: String,
    },
    /// A list of nothing, where this node is at least.
    #[error("the API server lists no Node at all")]
    Empty,
    /// No answer in time.
    #[error("the API server did not answer within {ANSWER_LIMIT:?}")]
    Silent,
}

impl Fault {
    /// Whether what is asked for may be there no more, so that it has to be listed anew. Everything else is worth another try
    /// as it was: when an API server comes back, not all nodes are to list all nodes.
    pub(crate) fn is_of_the_question(&self) -> bool {
        match self {
            Self::Garbled(_) | Self::Empty => true,
            Self::Refused { code, .. } => !matches!(code, 401 | 403 | 429 | 502 | 503),
            Self::NoWay(_) | Self::Lost(_) | Self::Silent => false,
        }
    }

    /// Whether this is HTTP's code.
    pub(crate) fn is(&self, wanted: u16) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

impl From<kube::Error> for Fault {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                code: status.code,
                text: match status.message.is_empty() {
                    true => status.reason.clone(),
                    false => one_line(&status.message),
                },
            },
            kube::Error::SerdeError(error) => Self::Garbled(error.to_string()),
            kube::Error::FromUtf8(error) => Self::Garbled(error.to_string()),
            kube::Error::Service(error) => Self::Lost(chain(error.as_ref())),
            error => Self::Lost(chain(&error)),
        }
    }
}

/// A proxy's error page is not shown whole.
fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(300)
        .collect()
}

/// An error and what is behind it. Some say what is behind them by themselves.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = source.source();
    }
    one_line(&text)
}

/// The way to the API server.
pub(crate) struct Access {
    kubeconfig: Option<PathBuf>,
    client: RefCell<Option<Client>>,
}

impl Access {
    pub(crate) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self {
            kubeconfig,
            client: RefCell::new(None),
        }
    }

    /// A client, made where there is none.
    pub(crate) async fn client(&self) -> Result<Client, Fault> {
        if let Some(client) = &*self.client.borrow() {
            return Ok(client.clone());
        }
        let config = self.config().await?;
        let client = Client::try_from(config).map_err(|error| Fault::NoWay(chain(&error)))?;
        self.client.replace(Some(client.clone()));
        Ok(client)
    }

    /// The next client is made of what the files say by then.
    pub(crate) fn forget(&self) {
        self.client.replace(None);
    }

    async fn config(&self) -> Result<Config, Fault> {
        let mut config = match &self.kubeconfig {
            None => Config::incluster()
                .map_err(|error| Fault::NoWay(format!("no service account of a pod is there: {error}")))?,
            Some(path) => {
                let no_way = |why: String| Fault::NoWay(format!("{}: {why}", path.display()));
                let file = Kubeconfig::read_from(path).map_err(|error| no_way(error.to_string()))?;
                let names_proxy = names_proxy(&file);
                let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| no_way(error.to_string()))?;
                if !names_proxy {
                    // The client takes HTTPS_PROXY of the environment for it, whatever NO_PROXY says.
                    config.proxy_url = None;
                }
                config
            }
        };
        let auth = &config.auth_info;
        if auth.exec.is_some() || auth.auth_provider.is_some() {
            let text = "the kubeconfig's user has exec or auth-provider, and the daemon starts no program: use a token, \
                        a tokenFile or a client certificate";
            return Err(Fault::NoWay(text.to_owned()));
        }
        config.connect_timeout = Some(CONNECT_LIMIT);
        // Whoever asks has a limit of its own, and a pace.
        config.default_retry = false;
        Ok(config)
    }
}

/// Whether a proxy is asked for, which the client then says that it cannot use.
fn names_proxy(file: &Kubeconfig) -> bool {
    let mut clusters = file.clusters.iter().filter_map(|named| named.cluster.as_ref());
    clusters.any(|cluster| cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty()))
}

/// An answer in time.
pub(crate) async fn in_time<T, E: Into<Fault>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Fault::Silent),
    }
}
