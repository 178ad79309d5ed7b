//! The inspection service: what is attached and how the node is, and the calls for those who look after it: Check,
//! CollectGarbage, Adopt, SetPrefixes.

use super::aside::Aside;
use super::deadline::Call;
use super::field::key_of;
use super::workload::outcome;
use super::{Orders, field, refusal};
use crate::desk::order::{Attachment, DetachOrder, Detached, Finding, Garbage};
use api::inspection::inspection_server::Inspection;
use api::inspection::{self as inspect, attachment, prefix};
use model::address::Family;
use model::key::{IDENTITY_BYTES, OWNER_BYTES, WORKLOAD_ID_BYTES};
use model::ports::HostPort;
use model::routes::{How, Way};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tonic::{Code, Request, Response, Status};

/// What this daemon can do beyond the reference's contract.
const FEATURES: [&str; 10] = [
    "adopt",
    "owner",
    "mtu",
    "labels",
    "requested-ip",
    "requested-mac",
    "port-mapping",
    "result",
    "gc",
    "sources",
];

pub(super) struct Inspector {
    orders: Arc<dyn Orders>,
    /// Looks at the kernel, which anybody may ask for again and again.
    looks: Aside,
    /// The rest, which does not wait behind them.
    rest: Aside,
}

impl Inspector {
    pub(super) fn new(orders: Arc<dyn Orders>) -> Self {
        Self {
            orders,
            looks: Aside::default(),
            rest: Aside::default(),
        }
    }
}

/// For how long a request has been. Where the clock was set meanwhile: not at all, or, which only leaves more alone, for too
/// long.
fn on_its_way(sent_unix_ms: u64) -> Duration {
    let sent = UNIX_EPOCH.checked_add(Duration::from_millis(sent_unix_ms));
    match sent {
        Some(sent) if sent_unix_ms > 0 => sent.elapsed().unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

#[tonic::async_trait]
impl Inspection for Inspector {
    async fn list(
        &self,
        request: Request<inspect::ListRequest>,
    ) -> Result<Response<inspect::ListResponse>, Status> {
        let call = Call::of(&request);
        let owner = request
            .into_inner()
            .owner
            .as_deref()
            .map(field::owner)
            .transpose();
        let owner = owner.map_err(|error| refusal::invalid(&error))?;
        let listed = self.orders.list(owner.as_ref());
        let listed = listed.map_err(|error| refusal::refused(&error))?;
        let attachment = listed.iter().map(attachment_of).collect();
        call.answers(inspect::ListResponse { attachment })
    }

    async fn get(
        &self,
        request: Request<inspect::GetRequest>,
    ) -> Result<Response<inspect::GetResponse>, Status> {
        let key = field::key(request.into_inner().key).map_err(|error| refusal::invalid(&error))?;
        let found = self.orders.get(&key).map_err(|error| refusal::refused(&error))?;
        let found = found.ok_or_else(|| refusal::not_attached(&key))?;
        Ok(Response::new(inspect::GetResponse {
            attachment: Some(attachment_of(&found)),
        }))
    }

    async fn check(
        &self,
        request: Request<inspect::CheckRequest>,
    ) -> Result<Response<inspect::CheckResponse>, Status> {
        let call = Call::of(&request);
        let key = match request.into_inner().key {
            None => None,
            key => Some(field::key(key).map_err(|error| refusal::invalid(&error))?),
        };
        let (orders, of) = (Arc::clone(&self.orders), key.clone());
        let checked = self.looks.done(move || orders.check(of.as_ref())).await;
        let checked = checked.map_err(|error| lost("the check", &error))?;
        match (checked.map_err(|error| refusal::refused(&error))?, key) {
            (Some(findings), _) => {
                let finding = findings.into_iter().map(finding_of).collect();
                call.answers(inspect::CheckResponse { finding })
            }
            (None, Some(key)) => Err(refusal::not_attached(&key)),
            (None, None) => Ok(Response::new(inspect::CheckResponse::default())),
        }
    }

    async fn collect_garbage(
        &self,
        request: Request<inspect::CollectGarbageRequest>,
    ) -> Result<Response<inspect::CollectGarbageResponse>, Status> {
        let call = Call::of(&request);
        let inspect::CollectGarbageRequest {
            owner,
            valid,
            since_ms,
            dry_run,
            sent_unix_ms,
        } = request.into_inner();
        let owner = field::owner(&owner).map_err(|error| refusal::invalid(&error))?;
        let valid = field::valid(&owner, valid).map_err(|error| refusal::invalid(&error))?;
        let age = Duration::from_millis(since_ms).saturating_add(on_its_way(sent_unix_ms));
        let found = self.orders.garbage(&owner, &valid, age);
        let Garbage { keys, before } = found.map_err(|error| refusal::refused(&error))?;
        // There may be many of them, and what follows may take long.
        drop(valid);
        let mut answer = inspect::CollectGarbageResponse::default();
        if dry_run {
            answer.collected = keys.iter().map(key_of).collect();
            return Ok(Response::new(answer));
        }
        // All at once, so that they are taken off together.
        let detaches: Vec<_> = keys
            .into_iter()
            .map(|key| {
                let order = DetachOrder {
                    key: key.clone(),
                    path: None,
                    before: Some(before),
                };
                let (orders, call) = (Arc::clone(&self.orders), call.clone());
                let detach =
                    async move { outcome(&call, |_| || (), |done| orders.detach(order, done)).await };
                (key, tokio::spawn(detach))
            })
            .collect();
        for (key, detach) in detaches {
            let why = match detach.await {
                Ok(Ok(Ok(Detached::Done))) => {
                    tracing::info!(%key, "garbage, detached");
                    answer.collected.push(key_of(&key));
                    continue;
                }
                // Gone by itself meanwhile, or attached anew.
                Ok(Ok(Ok(Detached::WasAbsent | Detached::IsNewer))) => continue,
                Ok(Ok(Err(refusal))) => refusal.to_string(),
                Ok(Err(status)) => status.message().to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(%key, why, "garbage, not detached");
            answer.failed.push(inspect::Finding {
                key: Some(key_of(&key)),
                text: why,
            });
        }
        Ok(Response::new(answer))
    }

    async fn adopt(
        &self,
        request: Request<inspect::AdoptRequest>,
    ) -> Result<Response<inspect::AdoptResponse>, Status> {
        super::adopt::adopt(&self.orders, &self.rest, request).await
    }

    async fn set_prefixes(
        &self,
        request: Request<inspect::SetPrefixesRequest>,
    ) -> Result<Response<inspect::SetPrefixesResponse>, Status> {
        let call = Call::of(&request);
        let prefixes = field::prefixes(&request.into_inner().prefix);
        let prefixes = prefixes.map_err(|error| refusal::invalid(&error))?;
        let orders = Arc::clone(&self.orders);
        // It writes a file, and once begun is carried out though its caller may wait no longer.
        let begins = || call.is_handed_over();
        let set = self
            .rest
            .begun(begins, move || orders.set_prefixes(&prefixes))
            .await;
        let set = set.map_err(|error| lost("SetPrefixes", &error))?;
        let generation = set.map_err(|error| refusal::refused(&error))?;
        Ok(Response::new(inspect::SetPrefixesResponse { generation }))
    }

    async fn get_node(
        &self,
        request: Request<inspect::GetNodeRequest>,
    ) -> Result<Response<inspect::GetNodeResponse>, Status> {
        let call = Call::of(&request);
        let node = self.orders.node();
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let large = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        call.answers(inspect::GetNodeResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            feature: FEATURES.map(str::to_owned).to_vec(),
            prefix: node
                .prefixes
                .iter()
                .map(|p| inspect::Prefix {
                    prefix: p.prefix.to_string(),
                    capacity: large(p.capacity),
                    used: large(p.used),
                    free: large(p.free),
                    cooling: large(p.cooling),
                    state: match p.draining {
                        false => prefix::State::Serving,
                        true => prefix::State::Draining,
                    }
                    .into(),
                    generation: p.generation,
                })
                .collect(),
            source: Some(inspect::Source {
                kind: node.source.kind.to_string(),
                generation: node.source.generation,
                trouble: node.source.trouble.unwrap_or_default(),
            }),
            unready: node.unready,
            limits: Some(inspect::Limits {
                max_queued: small(node.max_queued),
                workload_id_bytes: small(WORKLOAD_ID_BYTES),
                owner_bytes: small(OWNER_BYTES),
                identity_bytes: small(IDENTITY_BYTES),
                labels: small(field::LABELS),
            }),
            attachments: node.attachments as u64,
            mtu: node.mtu.into(),
            mtu_source: node.mtu_source,
            warning: node.warnings,
            routes: node.routes.mode.to_string(),
            peer_route: node.routes.ways.iter().map(way_of).collect(),
        })
    }
}

fn lost(what: &str, error: &tokio::task::JoinError) -> Status {
    let text = format!("{what} ended early: {error}");
    refusal::status(Code::Internal, "LOST", text, &[], None)
}

fn way_of(way: &Way) -> inspect::PeerRoute {
    let mut told = inspect::PeerRoute {
        peer: way.peer.clone(),
        family: way.family.to_string(),
        ..inspect::PeerRoute::default()
    };
    match &way.how {
        Ok(How::Direct { device, via }) => {
            (told.way, told.via) = ("direct".to_owned(), via.to_string());
            told.device.clone_from(device);
        }
        Ok(How::Vxlan { to }) => (told.way, told.via) = ("vxlan".to_owned(), to.to_string()),
        Err(why) => told.fault.clone_from(why),
    }
    told
}

fn finding_of(finding: Finding) -> inspect::Finding {
    inspect::Finding {
        key: finding.key.as_ref().map(key_of),
        text: finding.text,
    }
}

fn attachment_of(attachment: &Attachment) -> inspect::Attachment {
    let Attachment {
        record,
        link,
        labels,
        detaching,
        undoable,
        since: _,
    } = attachment;
    inspect::Attachment {
        key: Some(key_of(&record.key)),
        ip: record.addresses.iter().map(|a| a.to_string()).collect(),
        host_link: link.host.to_string(),
        host_index: link.host_index,
        host_mac: link.host_mac.to_string(),
        workload_mac: link.workload_mac.to_string(),
        mtu: attachment.mtu().into(),
        gateway: record
            .addresses
            .iter()
            .map(|a| record.first_hop(Family::of(a)).to_string())
            .collect(),
        namespace_device: record.namespace.device,
        namespace_inode: record.namespace.inode,
        labels: labels.clone().into_iter().collect(),
        state: match detaching {
            false => attachment::State::Attached,
            true => attachment::State::Detaching,
        }
        .into(),
        origin: match (record.adopted.is_some(), undoable) {
            (false, _) => attachment::Origin::Own,
            (true, true) => attachment::Origin::Taken,
            (true, false) => attachment::Origin::Committed,
        }
        .into(),
        host_port: record.asked.ports.iter().map(host_port).collect(),
    }
}

fn host_port(port: &HostPort) -> inspect::HostPort {
    inspect::HostPort {
        protocol: port.protocol.to_string(),
        port: port.port.into(),
        address: port.address.map(|a| a.to_string()).unwrap_or_default(),
        workload_port: port.to.into(),
    }
}
