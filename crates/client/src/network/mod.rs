//! A runtime's network: set workloads up and take them off, as `github.com/containerd/go-cni` does for Go, and with the
//! same promise: a teardown does not fail because the daemon is down.
//!
//! ```text
//!  setup  --> settle what waits for the key --> (can the daemon do this?) --> Attach, with patience
//!  remove --> Detach -- not answered --> leave a file --> Detach once more, and take the file away where it is answered
//! ```

mod attached;
mod options;

pub use attached::{Attached, Route};
pub use options::{Bandwidth, Dns, HostPort, Mac, NotAMac, Options, Protocol, octets};

use crate::{Client, Deadlines, Error};
use api::inspection::{CollectGarbageRequest, CollectGarbageResponse, Finding, Key};
use api::workload::{AttachRequest, DetachRequest, NetNsAttachment};
use queue::{Deletion, Queue, Waiting};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::Code;

/// How long a setup waits for a daemon that is not there, or starts, or is overloaded.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries, where the daemon names no time.
const PAUSE: Duration = Duration::from_millis(100);

/// A network of one owner of workload ids.
///
/// ```no_run
/// # async fn example() -> Result<(), client::Error> {
/// use client::network::{Network, Options};
///
/// let network = Network::new(client::default_socket(), "my-runtime")?;
/// let options = Options::default().label("app", "web").address([10, 77, 0, 5].into());
/// let attached = network.setup("web-1", "eth0", "/run/netns/web-1", &options).await?;
/// println!("{:?} by way of {}", attached.addresses, attached.host_link);
/// network.remove("web-1", "eth0", "").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    client: Client,
    queue: Queue,
    owner: String,
    patience: Duration,
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// Nothing of it is left.
    Done,
    /// The daemon is not there. It takes the workload off when it starts, before it serves anybody.
    Queued,
}

impl Network {
    /// On the daemon's socket, of an owner. Nothing is connected yet.
    pub fn new(socket: impl AsRef<Path>, owner: impl Into<String>) -> Result<Self, Error> {
        let socket = socket.as_ref();
        Ok(Self {
            client: Client::new(socket)?,
            queue: Queue::beside(socket),
            owner: owner.into(),
            patience: PATIENCE,
        })
    }

    /// With other deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.client = self.client.with_deadlines(deadlines);
        self
    }

    /// Waits for so long, 5 s unless told otherwise, for a daemon that is not there, or not ready.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The client below, for questions that are no runtime's.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Attaches a workload. The same again gets the same answer. A daemon that cannot do what the options ask for is named
    /// by [`Error::Lacks`], and nothing is attached.
    pub async fn setup(
        &self,
        workload_id: &str,
        if_name: &str,
        netns_path: &str,
        options: &Options,
    ) -> Result<Attached, Error> {
        let began = Instant::now();
        let this = Deletion::new(&self.owner, workload_id, if_name, "");
        if let Some(waiting) = self.waiting(&this)? {
            for request in detaches(&waiting.deletion) {
                self.patiently(began, async |client| client.detach(request.clone()).await)
                    .await?;
            }
            self.queue
                .remove(&waiting)
                .map_err(|source| self.queue_failed(source))?;
        }
        self.handshake(began, &options.needs()).await?;
        let mut request = AttachRequest {
            workload_id: workload_id.to_owned(),
            netns: Some(NetNsAttachment {
                netns_path: netns_path.to_owned(),
                if_name: if_name.to_owned(),
            }),
            owner: self.owner.clone(),
            ..AttachRequest::default()
        };
        options.put_into(&mut request);
        let answer = self
            .patiently(began, |client| {
                let request = request.clone();
                async move { client.attach(request).await }
            })
            .await?;
        if answer.host_link.is_empty() {
            // It knows no owner either, and has dropped it: this takes off what it has attached.
            self.client.detach(detach(&this, "")).await?;
            return Err(Error::Lacks {
                feature: "result".to_owned(),
                value: String::new(),
                version: "unknown".to_owned(),
            });
        }
        Attached::read(&answer, &options.dns)
    }

    /// Takes a workload off. What is not attached is a success, and so is a daemon that is down. `netns_path` may be empty,
    /// or gone; where it names another namespace than the attached one, the live one stays.
    pub async fn remove(&self, workload_id: &str, if_name: &str, netns_path: &str) -> Result<Removed, Error> {
        let began = Instant::now();
        let deletion = Deletion::new(&self.owner, workload_id, if_name, netns_path);
        let why = loop {
            match self.client.detach(detach(&deletion, netns_path)).await {
                Ok(()) => return Ok(Removed::Done),
                Err(error) if self.pause(began, &error).await => {}
                Err(error) if is_no_answer(&error) => break error,
                Err(error) => return Err(error),
            }
        };
        if let Err(source) = self.queue.put(&deletion) {
            return Err(Error::NotQueued {
                folder: self.queue.folder().to_owned(),
                why: Box::new(why),
                source,
            });
        }
        // A daemon that came meanwhile may have looked before the file was there. One that does not answer in time has no
        // second chance: its caller has waited long enough.
        if matches!(why, Error::Deadline(_)) {
            return Ok(Removed::Queued);
        }
        // What waits may be another's by now, or ask for more. Where nothing does, the daemon has carried it out.
        let waiting = match self.queue.find(&deletion) {
            Ok(Some(waiting)) => waiting,
            Ok(None) => return Ok(Removed::Done),
            Err(_) => return Ok(Removed::Queued),
        };
        for request in detaches(&waiting.deletion) {
            if self.client.detach(request).await.is_err() {
                return Ok(Removed::Queued);
            }
        }
        // A file that stays is carried out for nothing, or settled by the next setup.
        let _ = self.queue.remove(&waiting);
        Ok(Removed::Done)
    }

    /// What the kernel holds otherwise than it is to; empty: the workload has all that it was given. Where it is not
    /// attached: an [`Error::Refused`] with the reason `NOT_ATTACHED`.
    pub async fn check(&self, workload_id: &str, if_name: &str) -> Result<Vec<Finding>, Error> {
        let checked = self.client.check(Some(self.key(workload_id, if_name))).await;
        checked.map_err(|error| lacks("result", error))
    }

    /// Whether a setup could succeed now: if not, an [`Error::Refused`] with the reason `NOT_READY`, or
    /// [`Error::Unreachable`]. Ends with the deadline of questions, 2 s unless told otherwise.
    pub async fn status(&self) -> Result<(), Error> {
        self.client.status().await
    }

    /// Takes off everything of this owner that is not among `valid` (workload id and interface name), unless it was
    /// attached since `began`, when the caller began to find out what lives.
    pub async fn collect_garbage<'a>(
        &self,
        valid: impl IntoIterator<Item = (&'a str, &'a str)>,
        began: Instant,
    ) -> Result<CollectGarbageResponse, Error> {
        let valid: Vec<Key> = valid
            .into_iter()
            .map(|(workload_id, if_name)| self.key(workload_id, if_name))
            .collect();
        let request = |sent_unix_ms| CollectGarbageRequest {
            owner: self.owner.clone(),
            valid: valid.clone(),
            // Rounded up: what was attached in the same millisecond is not garbage.
            since_ms: u64::try_from(began.elapsed().as_millis()).map_or(u64::MAX, |ms| ms.saturating_add(1)),
            dry_run: false,
            sent_unix_ms,
        };
        let collected = self
            .patiently(Instant::now(), |client| {
                // Before the age is taken: what is between counts twice rather than not at all.
                let sent = SystemTime::now().duration_since(UNIX_EPOCH);
                let request = request(sent.map_or(0, |sent| u64::try_from(sent.as_millis()).unwrap_or(0)));
                async move { client.collect_garbage(request).await }
            })
            .await;
        collected.map_err(|error| lacks("gc", error))
    }

    /// An older daemon would drop what it does not know. Every one of ours knows owner, MTU, labels and addresses, and
    /// shows by its answer that it is one; for the rest it is asked.
    async fn handshake(&self, began: Instant, needs: &[(&'static str, String)]) -> Result<(), Error> {
        if needs.is_empty() {
            return Ok(());
        }
        let node = self
            .patiently(began, |client| async move { client.node().await })
            .await
            .map_err(|error| lacks(needs[0].0, error))?;
        match needs
            .iter()
            .find(|(need, _)| !node.feature.iter().any(|has| has == need))
        {
            Some((missing, value)) => Err(Error::Lacks {
                feature: (*missing).to_owned(),
                value: value.clone(),
                version: node.version,
            }),
            None => Ok(()),
        }
    }

    /// Asks again, until patience is over, where the daemon is not there, or says that a later try can succeed.
    async fn patiently<T, Asked>(&self, began: Instant, ask: impl Fn(Client) -> Asked) -> Result<T, Error>
    where
        Asked: Future<Output = Result<T, Error>>,
    {
        loop {
            let left = self.patience.saturating_sub(began.elapsed());
            match ask(self.client.clone().with_patience(left)).await {
                Err(error) if self.pause(began, &error).await => {}
                outcome => return outcome,
            }
        }
    }

    /// Waits for as long as the daemon advises; `false` where it does not, or patience is over.
    async fn pause(&self, began: Instant, error: &Error) -> bool {
        let Error::Refused(refused) = error else {
            return false;
        };
        if refused.code != Code::Unavailable {
            return false;
        }
        let pause = refused.retry_after.unwrap_or(PAUSE);
        let fits = began.elapsed() + pause < self.patience;
        if fits {
            tokio::time::sleep(pause).await;
        }
        fits
    }

    fn key(&self, workload_id: &str, if_name: &str) -> Key {
        Key {
            owner: self.owner.clone(),
            workload_id: workload_id.to_owned(),
            if_name: if_name.to_owned(),
        }
    }

    /// The deletion of a key that waits, and would come over what is attached now.
    fn waiting(&self, key: &Deletion) -> Result<Option<Waiting>, Error> {
        match self.queue.find(key) {
            // Where this user may not look, it has left nothing either; what is none of ours asks for nothing.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) if error.raw_os_error().is_none() => Ok(None),
            found => found.map_err(|source| self.queue_failed(source)),
        }
    }

    fn queue_failed(&self, source: std::io::Error) -> Error {
        Error::Queue {
            folder: self.queue.folder().to_owned(),
            source,
        }
    }
}

/// One for each namespace.
fn detaches(deletion: &Deletion) -> impl Iterator<Item = DetachRequest> {
    deletion.netns_paths().map(|path| detach(deletion, path))
}

fn detach(deletion: &Deletion, netns_path: &str) -> DetachRequest {
    DetachRequest {
        workload_id: deletion.workload_id.clone(),
        netns: Some(NetNsAttachment {
            netns_path: netns_path.to_owned(),
            if_name: deletion.if_name.clone(),
        }),
        owner: deletion.owner.clone(),
    }
}

/// Whether nothing is known of what became of a detach, or nothing can have.
fn is_no_answer(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Deadline(_) => true,
        Error::Refused(refused) => matches!(refused.code, Code::Unavailable | Code::DeadlineExceeded),
        _ => false,
    }
}

/// A method that a daemon does not have is a feature that it lacks. Our own refusals have a reason.
fn lacks(feature: &str, error: Error) -> Error {
    match error {
        Error::Refused(refused) if refused.code == Code::Unimplemented && refused.reason.is_empty() => {
            Error::Lacks {
                feature: feature.to_owned(),
                value: String::new(),
                version: "unknown".to_owned(),
            }
        }
        error => error,
    }
}
