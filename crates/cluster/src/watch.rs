//! Nodes, listed once and then watched, for ever.
//!
//! ```text
//!      .--------- too old, or no longer to be understood -----.
//!      v                                                      |
//!   list, in pages --> whole --> watch at its version --------+
//!      |                          ^   | ends, breaks          |
//!      '-- fails: later, anew     '---' later, where it was --'
//! ```
//! Each list and each change has a version (resourceVersion); a watch goes on from the last one that was seen, so an API
//! server that comes back sends only what has changed. A list is told when all of it is there.

use crate::access::{Access, Fault, in_time};
use crate::node::{Node, Page, PageMetadata};
use crate::pace::{Pace, below};
use futures_util::StreamExt as _;
use kube::core::Request;
use kube::core::params::{ListParams, WatchParams};
use kube::core::watch::WatchEvent;
use std::pin::pin;
use std::time::{Duration, Instant};

const NODES: &str = "/api/v1/nodes";
/// Nodes of a page. One has some 10 kB, which are in memory while a page is read.
const PAGE: u32 = 100;
/// Seconds after which the server ends a watch, at least, and less than twice as many: connections spread over its replicas anew,
/// and those of all nodes not in one moment.
const WATCH: u32 = 300;
/// Bookmarks come about each minute. After so long a silence the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(150);
/// A watch that ends sooner was none: whatever ended it is not asked again at once.
const SHORT: Duration = Duration::from_secs(1);

/// What has changed. `T` is what is kept of a Node.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// These are all.
    All(Vec<T>),
    /// This one is new, or otherwise than before.
    Put(T),
    /// This one is gone.
    Gone(T),
    /// The API server answers.
    Reached,
    /// It does not; what was told stays.
    Lost(Fault),
}

impl<T> Change<T> {
    /// The same of what is made of each.
    pub(crate) fn map<U>(self, make: impl Fn(T) -> U) -> Change<U> {
        match self {
            Self::All(all) => Change::All(all.into_iter().map(make).collect()),
            Self::Put(one) => Change::Put(make(one)),
            Self::Gone(one) => Change::Gone(make(one)),
            Self::Reached => Change::Reached,
            Self::Lost(fault) => Change::Lost(fault),
        }
    }
}

/// Follows all Nodes, or those of a field selector, of each of which `keep` makes what is told.
pub(crate) async fn follow<T>(
    access: &Access,
    fields: Option<&str>,
    keep: impl Fn(Node) -> T,
    mut tell: impl FnMut(Change<T>),
) {
    let mut pace = Pace::default();
    let mut version: Option<String> = None;
    loop {
        let begin = Instant::now();
        let (mut is_reached, mut is_told) = (false, false);
        let outcome = match &mut version {
            None => match list(access, fields, &keep).await {
                Ok((nodes, at)) => {
                    tell(Change::All(nodes));
                    version = Some(at);
                    continue;
                }
                Err(fault) => Err(fault),
            },
            Some(version) => {
                watch(access, fields, version, &keep, &mut |change| {
                    is_told |= is_reached;
                    is_reached = true;
                    tell(change);
                })
                .await
            }
        };
        let is_long = begin.elapsed() >= SHORT;
        if is_reached && is_long || is_told && !is_listed_next(&outcome) {
            pace.reset();
        }
        match outcome {
            Ok(()) if is_long => continue,
            Ok(()) => {}
            Err(fault) => {
                tracing::debug!(%fault, "the Kubernetes API");
                let is_old = fault.is(410) && version.is_some();
                if is_old || fault.is_of_the_question() {
                    version = None;
                }
                if !is_old {
                    access.forget();
                    tell(Change::Lost(fault));
                }
            }
        }
        pace.wait().await;
    }
}

/// Whether a list follows. However much was told before: all Nodes are not listed twice a second.
fn is_listed_next(outcome: &Result<(), Fault>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|fault| fault.is(410) || fault.is_of_the_question())
}

/// All of them, and the version.
async fn list<T>(
    access: &Access,
    fields: Option<&str>,
    keep: impl Fn(Node) -> T,
) -> Result<(Vec<T>, String), Fault> {
    let client = in_time(access.client()).await?;
    let mut nodes = Vec::new();
    let mut params = ListParams {
        field_selector: fields.map(str::to_owned),
        limit: Some(PAGE),
        ..ListParams::default()
    };
    loop {
        let request = Request::new(NODES).list(&params);
        let request = request.expect("a list in pages and of no version is well formed");
        let text = in_time(client.request_text(request)).await?;
        let page: Page = serde_json::from_str(&text).map_err(|error| Fault::Garbled(error.to_string()))?;
        nodes.extend(page.items.into_iter().map(&keep));
        let PageMetadata {
            resource_version,
            token,
        } = page.metadata;
        if token.is_empty() {
            let mut version = String::new();
            advance(&mut version, resource_version)?;
            if nodes.is_empty() && fields.is_none() {
                return Err(Fault::Empty);
            }
            return Ok((nodes, version));
        }
        params.continue_token = Some(token);
    }
}

/// Tells what changes until the watch ends. `version` is what was seen last.
async fn watch<T>(
    access: &Access,
    fields: Option<&str>,
    version: &mut String,
    keep: impl Fn(Node) -> T,
    tell: &mut impl FnMut(Change<T>),
) -> Result<(), Fault> {
    let client = in_time(access.client()).await?;
    let params = WatchParams {
        field_selector: fields.map(str::to_owned),
        timeout: Some(WATCH + below(WATCH)),
        ..WatchParams::default()
    };
    let request = Request::new(NODES).watch(&params, version);
    let request = request.expect("a watch is well formed");
    let mut events = pin!(in_time(client.request_events::<Node>(request)).await?);
    tell(Change::Reached);
    loop {
        let Ok(event) = tokio::time::timeout(SILENCE, events.next()).await else {
            return Ok(());
        };
        let Some(event) = event.transpose()? else {
            return Ok(());
        };
        if let Some(change) = change_of(event, version)? {
            tell(change.map(&keep));
        }
    }
}

/// One event of a watch; `None`: only the version is another one.
pub(crate) fn change_of(
    event: WatchEvent<Node>,
    version: &mut String,
) -> Result<Option<Change<Node>>, Fault> {
    Ok(match event {
        WatchEvent::Added(node) | WatchEvent::Modified(node) => {
            advance(version, node.metadata.resource_version.clone())?;
            Some(Change::Put(node))
        }
        WatchEvent::Deleted(node) => {
            advance(version, node.metadata.resource_version.clone())?;
            Some(Change::Gone(node))
        }
        WatchEvent::Bookmark(bookmark) => {
            advance(version, bookmark.metadata.resource_version)?;
            None
        }
        WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
    })
}

/// A watch at no version would be one from some moment on, and what was before it would be missed.
pub(crate) fn advance(version: &mut String, seen: String) -> Result<(), Fault> {
    if seen.is_empty() {
        return Err(Fault::Garbled("no resourceVersion".to_owned()));
    }
    *version = seen;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_cheap_to_ask_again_is_asked_again_soon() {
        let refused = |code| Fault::Refused {
            code,
            text: String::new(),
        };
        for cheap in [
            Ok(()),
            Err(Fault::Silent),
            Err(Fault::Lost(String::new())),
            Err(refused(503)),
        ] {
            assert!(!is_listed_next(&cheap), "{cheap:?}");
        }
        for costly in [Fault::Garbled(String::new()), refused(410), refused(500)] {
            assert!(is_listed_next(&Err(costly)));
        }
    }
}
