//! Attach, Detach, Status.

use super::deadline::Call;
use super::{Orders, field, refusal};
use crate::desk::Done;
use crate::desk::order::{Attachment, Detached, Refusal};
use crate::tally::Answers;
use api::workload::workload_networking_server::WorkloadNetworking;
use api::workload::{
    AttachRequest, AttachResponse, DetachRequest, DetachResponse, NamespaceIdentity, Route, StatusRequest,
    StatusResponse,
};
use model::address::{Family, octets};
use model::op::Op;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Request, Response, Status};

pub(super) struct Workloads {
    pub(super) orders: Arc<dyn Orders>,
    pub(super) answers: Arc<Answers>,
}

#[tonic::async_trait]
impl WorkloadNetworking for Workloads {
    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        let (began, call) = (Instant::now(), Call::of(&request));
        let request = request.into_inner();
        let unsupported = field::unsupported(&request);
        let order = field::attach(request, call.deadline).map_err(|error| refusal::invalid(&error))?;
        if let Some(field) = unsupported {
            return Err(refusal::unsupported(field));
        }
        let (key, answers) = (order.key.clone(), Arc::clone(&self.answers));
        let told = move |outcome: &Result<Attachment, Refusal>| {
            let took = began.elapsed();
            match outcome {
                Ok(_) => answers.attaches.done(took),
                Err(error) => answers.attaches.refused(code(error)),
            }
            let outcome = outcome.as_ref().map(Attachment::addresses);
            let outcome = outcome.map_err(Refusal::clone);
            move || match outcome {
                Ok(ips) => tracing::info!(%key, %ips, ?took, "attached"),
                Err(error) => tracing::warn!(%key, %error, ?took, "not attached"),
            }
        };
        match outcome(&call, told, |done| self.orders.attach(order, done)).await? {
            Ok(attachment) => Ok(Response::new(response(&attachment))),
            Err(error) => Err(refusal::refused(&error)),
        }
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        let (began, call) = (Instant::now(), Call::of(&request));
        let order = field::detach(request.into_inner()).map_err(|error| refusal::invalid(&error))?;
        let (key, answers) = (order.key.clone(), Arc::clone(&self.answers));
        let told = move |outcome: &Result<Detached, Refusal>| {
            let took = began.elapsed();
            match outcome {
                Ok(_) => answers.detaches.done(took),
                Err(error) => answers.detaches.refused(code(error)),
            }
            let outcome = outcome.clone();
            move || match outcome {
                Ok(Detached::Done) => tracing::info!(%key, ?took, "detached"),
                Ok(Detached::WasAbsent) => tracing::debug!(%key, "nothing to detach"),
                Ok(Detached::IsNewer) => {
                    tracing::info!(%key, "not detached: what is attached is another sandbox");
                }
                Err(error) => tracing::warn!(%key, %error, ?took, "not detached"),
            }
        };
        match outcome(&call, told, |done| self.orders.detach(order, done)).await? {
            Ok(_) => Ok(Response::new(DetachResponse {})),
            Err(error) => Err(refusal::refused(&error)),
        }
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let unready = self.orders.unready();
        match unready.is_empty() {
            true => Ok(Response::new(StatusResponse {})),
            false => Err(refusal::refused(&Refusal::NotReady(unready))),
        }
    }
}

fn code(refusal: &Refusal) -> usize {
    refusal::refused(refusal).code() as usize
}

/// Hands an order to the desk and waits for what becomes of it. Who stops waiting does not stop the order, and its outcome
/// is told all the same: counted before the caller has it, and logged afterwards, because a line takes its time.
pub(super) async fn outcome<T: Send + 'static, L: FnOnce()>(
    call: &Call,
    told: impl FnOnce(&Result<T, Refusal>) -> L + Send + 'static,
    submit: impl FnOnce(Done<T>),
) -> Result<Result<T, Refusal>, Status> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    call.is_handed_over();
    submit(Box::new(move |outcome| {
        let log = told(&outcome);
        drop(sender.send(outcome));
        log();
    }));
    receiver.await.map_err(|_| lost())
}

/// Nobody is left who could tell what became of an order.
pub(super) fn lost() -> Status {
    let text = "the order was lost: a thread of the daemon has ended".to_owned();
    refusal::status(Code::Internal, "LOST", text, &[], None)
}

fn response(attachment: &Attachment) -> AttachResponse {
    let Attachment { record, link, .. } = attachment;
    let routes = model::plan::workload_ops(record)
        .into_iter()
        .filter_map(|op| match op {
            Op::Route {
                destination, gateway, ..
            } => Some(Route {
                destination: octets(destination.network()),
                prefix_length: destination.prefix_len().into(),
                gateway: gateway.map(octets).unwrap_or_default(),
            }),
            _ => None,
        });
    AttachResponse {
        ip: record.addresses.iter().map(octets).collect(),
        host_link: link.host.to_string(),
        host_mac: link.host_mac.0.to_vec(),
        workload_mac: link.workload_mac.0.to_vec(),
        mtu: attachment.mtu().into(),
        gateway: record
            .addresses
            .iter()
            .map(|a| octets(record.first_hop(Family::of(a))))
            .collect(),
        route: routes.collect(),
        namespace: Some(NamespaceIdentity {
            device: record.namespace.device,
            inode: record.namespace.inode,
        }),
    }
}
