//! gRPC on one side, the model's values on the other: async ends here. Strings become types or INVALID_ARGUMENT; an order
//! that was handed over is carried out whether its caller stays or not.
//!
//! ```text
//!  socket -> connections, guests -> peer -> deadline, share -> legible -> workload, inspection -> field -> Orders (the desk)
//!                <----------------------------- refusal <------------------------'
//! ```

mod adopt;
mod aside;
mod connections;
mod deadline;
pub mod field;
mod guests;
mod inspection;
mod legible;
pub mod peer;
pub mod refusal;
mod share;
mod workload;

use crate::desk::order::{
    AdoptOrder, Adopted, AttachOrder, Attachment, DetachOrder, Detached, Finding, Garbage, Node, Refusal,
};
use crate::desk::{Desk, Done};
use crate::source::Kind;
use crate::tally::Answers;
use api::inspection::inspection_server::InspectionServer;
use api::workload::workload_networking_server::WorkloadNetworkingServer;
use connections::Incoming;
use deadline::Terms;
use guests::{Guest, Guests};
use legible::Legible;
use model::adopt::MasqueradeRule;
use model::datapath::Datapath;
use model::key::{Key, Owner};
use model::prefix::Prefix;
use share::Load;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tonic::Request;
use tonic::service::InterceptorLayer;

/// Calls of one connection at once; its client sends more of them when others have ended. Far more than a runtime has, which
/// detaches all it has at once.
const STREAMS: u32 = 1024;
/// Streams of one connection that broke the protocol. tonic sets none unless it is told, and h2 goes by none then
/// (RUSTSEC-2024-0003).
const ERRORS: usize = 1024;

/// Bytes of an attach or a detach; the longest that can be used has some 40,000. Two bytes of a message can become a value of
/// 80, so that one of 4 MB, which is tonic's bound, would take 160 MB.
const WORKLOAD_BYTES: usize = 256 << 10;
/// Bytes of everything else: ten thousand keys, or prefixes, or candidates for an adoption.
const INSPECTION_BYTES: usize = 1 << 20;

/// Who carries orders out: the desk, and in the door's tests somebody who must not be asked.
pub trait Orders: Send + Sync + 'static {
    /// Attaches. Never blocks.
    fn attach(&self, order: AttachOrder, done: Done<Attachment>);
    /// Detaches. Never blocks.
    fn detach(&self, order: DetachOrder, done: Done<Detached>);
    /// Takes over what another plugin attached, or gives it back. Never blocks.
    fn adopt(&self, order: AdoptOrder, done: Done<Adopted>);
    /// The rules by which the CNI project's plugins masquerade in nftables. Blocks.
    fn masquerade_rules(&self) -> Result<Vec<MasqueradeRule>, Refusal>;
    /// Attachments in the order of their keys, of one owner or of all.
    fn list(&self, owner: Option<&Owner>) -> Result<Vec<Attachment>, Refusal>;
    /// One attachment.
    fn get(&self, key: &Key) -> Result<Option<Attachment>, Refusal>;
    /// What an owner has beside what it says that lives, and has had since before a time ago.
    fn garbage(&self, owner: &Owner, valid: &HashSet<Key>, age: Duration) -> Result<Garbage, Refusal>;
    /// What the kernel holds otherwise than it is to; `None` where the key is not attached. Blocks.
    fn check(&self, key: Option<&Key>) -> Result<Option<Vec<Finding>>, Refusal>;
    /// The node.
    fn node(&self) -> Node;
    /// Why an Attach could not succeed, in words; empty: it could.
    fn unready(&self) -> Vec<String>;
    /// Serves these prefixes from now on; the generation. Refused where they come from elsewhere.
    fn set_prefixes(&self, prefixes: &[Prefix]) -> Result<u64, Refusal>;
    /// Calls back whenever readiness changes, and at once.
    fn on_ready_change(&self, call: Box<dyn Fn(bool) + Send>);
}

impl<D: Datapath> Orders for Arc<Desk<D>> {
    fn attach(&self, order: AttachOrder, done: Done<Attachment>) {
        Desk::attach(self, order, done);
    }

    fn detach(&self, order: DetachOrder, done: Done<Detached>) {
        Desk::detach(self, order, done);
    }

    fn adopt(&self, order: AdoptOrder, done: Done<Adopted>) {
        Desk::adopt(self, order, done);
    }

    fn masquerade_rules(&self) -> Result<Vec<MasqueradeRule>, Refusal> {
        Desk::masquerade_rules(self)
    }

    fn list(&self, owner: Option<&Owner>) -> Result<Vec<Attachment>, Refusal> {
        Desk::list(self, owner)
    }

    fn get(&self, key: &Key) -> Result<Option<Attachment>, Refusal> {
        Desk::get(self, key)
    }

    fn garbage(&self, owner: &Owner, valid: &HashSet<Key>, age: Duration) -> Result<Garbage, Refusal> {
        Desk::garbage(self, owner, valid, age)
    }

    fn check(&self, key: Option<&Key>) -> Result<Option<Vec<Finding>>, Refusal> {
        Desk::check(self, key)
    }

    fn node(&self) -> Node {
        Desk::node(self)
    }

    fn unready(&self) -> Vec<String> {
        Desk::unready(self)
    }

    fn set_prefixes(&self, prefixes: &[Prefix]) -> Result<u64, Refusal> {
        match self.source() {
            Kind::Api => {
                let generation = Desk::set_prefixes(self, prefixes).map_err(Refusal::Unservable)?;
                // The next daemon would give another list the same one.
                let unkept =
                    |why| Refusal::NotReady(vec![format!("the prefixes serve, and are not kept: {why}")]);
                self.unkept(generation)
                    .map_or(Ok(generation), |why| Err(unkept(why)))
            }
            source_kind => Err(Refusal::OtherSource { source_kind }),
        }
    }

    fn on_ready_change(&self, call: Box<dyn Fn(bool) + Send>) {
        Desk::on_ready_change(self, call);
    }
}

/// How much the door takes upon itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// A call is answered by then, also where its caller would wait longer. No order takes this long; one that does is
    /// waiting for a file system that hangs.
    pub answer: Duration,
    /// Connections that are open at once; more of them wait.
    pub connections: usize,
    /// Calls that are in hand at once, from their headers to the end of their answers; more of them are refused.
    pub calls: usize,
    /// Bytes of their messages; more of them are refused.
    pub bytes: usize,
    /// A peer that says nothing for so long is asked whether it lives, and has a third of the time to say so.
    pub silence: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            connections: 1024,
            calls: 4096,
            bytes: 64 << 20,
            silence: Duration::from_secs(60),
        }
    }
}

/// Serves every service on a listener until `stop` is over.
pub async fn serve(
    listener: UnixListener,
    orders: impl Orders,
    allowed: peer::Allowed,
    bounds: Bounds,
    answers: Arc<Answers>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let orders: Arc<dyn Orders> = Arc::new(orders);
    let (health, health_service) = tonic_health::server::health_reporter();
    let (ready, mut readiness) = tokio::sync::watch::channel(false);
    orders.on_ready_change(Box::new(move |now| {
        ready.send_replace(now);
    }));
    let reporting = tokio::spawn(async move {
        loop {
            let status = match *readiness.borrow_and_update() {
                true => tonic_health::ServingStatus::Serving,
                false => tonic_health::ServingStatus::NotServing,
            };
            for service in [
                "",
                "metropolis.node.core.network.workloads.WorkloadNetworking",
                "workloadnet.v1.Inspection",
            ] {
                health.set_service_status(service, status).await;
            }
            if readiness.changed().await.is_err() {
                return;
            }
        }
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(api::DESCRIPTORS)
    };
    let guests = Guests::default();
    let terms = Terms {
        limit: bounds.answer,
        load: Load::new(bounds.calls, bounds.bytes, guests.clone()),
        answers: Arc::clone(&answers),
    };
    // Of one call of it, three answers are put together before any is taken: made, on its way, and as bytes.
    let reflected = 3 * api::DESCRIPTORS.len();
    let outcome = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(bounds.silence))
        .http2_keepalive_timeout(Some(bounds.silence / 3))
        .max_concurrent_streams(STREAMS)
        .http2_max_local_error_reset_streams(Some(ERRORS))
        .layer(InterceptorLayer::new(move |request: Request<()>| {
            let request = allowed.check(request)?;
            // Whoever may not speak is idle from the beginning, whatever it says.
            if let Some(guest) = request.extensions().get::<Guest>() {
                guest.asks();
            }
            Ok(request)
        }))
        .add_service(
            terms.of(
                0,
                Legible(
                    WorkloadNetworkingServer::new(workload::Workloads {
                        orders: Arc::clone(&orders),
                        answers,
                    })
                    .max_decoding_message_size(WORKLOAD_BYTES),
                ),
            ),
        )
        .add_service(
            terms.of(
                0,
                Legible(
                    InspectionServer::new(inspection::Inspector::new(orders))
                        .max_decoding_message_size(INSPECTION_BYTES),
                ),
            ),
        )
        .add_service(terms.of(0, health_service))
        .add_service(terms.of(reflected, reflection().build_v1()?))
        .add_service(terms.of(reflected, reflection().build_v1alpha()?))
        .serve_with_incoming_shutdown(Incoming::new(listener, bounds.connections, guests), stop)
        .await;
    reporting.abort();
    Ok(outcome?)
}
