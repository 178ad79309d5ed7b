//! Attach, Detach, Status.

use super::{Orders, field, refusal};
use crate::desk::Done;
use crate::desk::order::{Attachment, Detached, Refusal};
use api::workload::workload_networking_server::WorkloadNetworking;
use api::workload::{
    AttachRequest, AttachResponse, DetachRequest, DetachResponse, NamespaceIdentity, Route, StatusRequest,
    StatusResponse,
};
use model::address::Family;
use model::plan::Op;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

/// No order takes this long; one that does is waiting for a file system that hangs.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Workloads {
    pub(super) orders: Arc<dyn Orders>,
}

#[tonic::async_trait]
impl WorkloadNetworking for Workloads {
    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        let began = Instant::now();
        let deadline = timeout(request.metadata()).and_then(|timeout| began.checked_add(timeout));
        let request = request.into_inner();
        let unsupported = field::unsupported(&request);
        let order = field::attach(request, deadline).map_err(|error| refusal::invalid(&error))?;
        if let Some(field) = unsupported {
            return Err(refusal::unsupported(field));
        }
        let key = order.key.clone();
        match outcome(|done| self.orders.attach(order, done)).await? {
            Ok(attachment) => {
                tracing::info!(%key, ips = %attachment.addresses(), took = ?began.elapsed(), "attached");
                Ok(Response::new(response(&attachment)))
            }
            Err(error) => {
                tracing::warn!(%key, %error, took = ?began.elapsed(), "not attached");
                Err(refusal::refused(&error))
            }
        }
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        let began = Instant::now();
        let order = field::detach(request.into_inner()).map_err(|error| refusal::invalid(&error))?;
        let key = order.key.clone();
        match outcome(|done| self.orders.detach(order, done)).await? {
            Ok(Detached::Done) => tracing::info!(%key, took = ?began.elapsed(), "detached"),
            Ok(Detached::WasAbsent) => tracing::debug!(%key, "nothing to detach"),
            Ok(Detached::IsNewer) => {
                tracing::info!(%key, "not detached: what is attached is another sandbox")
            }
            Err(error) => {
                tracing::warn!(%key, %error, took = ?began.elapsed(), "not detached");
                return Err(refusal::refused(&error));
            }
        }
        Ok(Response::new(DetachResponse {}))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let unready = self.orders.unready();
        match unready.is_empty() {
            true => Ok(Response::new(StatusResponse {})),
            false => Err(refusal::refused(&Refusal::NotReady(unready))),
        }
    }
}

/// Hands an order to the desk and waits for what becomes of it. Who stops waiting does not stop the order.
pub(super) async fn outcome<T: Send + 'static>(
    submit: impl FnOnce(Done<T>),
) -> Result<Result<T, Refusal>, Status> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    submit(Box::new(move |outcome| drop(sender.send(outcome))));
    match tokio::time::timeout(LIMIT, receiver).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(_)) => {
            let text = "the order was lost: a thread of the daemon has ended".to_owned();
            Err(refusal::status(Code::Internal, "LOST", text, &[], None))
        }
        Err(_) => {
            let text = format!("no outcome within {LIMIT:?}; the order goes on");
            Err(refusal::status(
                Code::DeadlineExceeded,
                "DEADLINE",
                text,
                &[],
                None,
            ))
        }
    }
}

/// The header `grpc-timeout`: digits and a unit (gRPC over HTTP/2, "Requests").
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.checked_mul(3600)?)),
        "M" => Some(Duration::from_secs(amount.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn response(attachment: &Attachment) -> AttachResponse {
    let Attachment { record, link, .. } = attachment;
    let routes = model::plan::workload_ops(record)
        .into_iter()
        .filter_map(|op| match op {
            Op::Route {
                destination, gateway, ..
            } => Some(Route {
                destination: bytes(destination.network()),
                prefix_length: destination.prefix_len().into(),
                gateway: gateway.map(bytes).unwrap_or_default(),
            }),
            _ => None,
        });
    AttachResponse {
        ip: record.addresses.iter().map(bytes).collect(),
        host_link: link.host.to_string(),
        host_mac: link.host_mac.0.to_vec(),
        workload_mac: link.workload_mac.0.to_vec(),
        mtu: link.mtu.into(),
        gateway: record
            .addresses
            .iter()
            .map(|a| bytes(Family::of(a).first_hop()))
            .collect(),
        route: routes.collect(),
        namespace: Some(NamespaceIdentity {
            device: record.namespace.device,
            inode: record.namespace.inode,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_and_garbage_is_not() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        for text in [
            "",
            "S",
            "2",
            "-1S",
            "2x",
            "99999999999999999999S",
            "18446744073709551615H",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
