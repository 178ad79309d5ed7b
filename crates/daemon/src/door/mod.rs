//! gRPC on one side, the model's values on the other: async ends here. Strings become types or INVALID_ARGUMENT; an order
//! that was handed to the desk is carried out whether its caller stays or not.

pub mod field;
mod inspection;
pub mod peer;
pub mod refusal;
mod workload;

use crate::desk::Desk;
use api::inspection::inspection_server::InspectionServer;
use api::workload::workload_networking_server::WorkloadNetworkingServer;
use model::datapath::Datapath;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::InterceptorLayer;

/// Serves every service on a listener until `stop` is over.
pub async fn serve<D: Datapath>(
    listener: UnixListener,
    desk: Arc<Desk<D>>,
    allowed: peer::Allowed,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let (ready, mut readiness) = tokio::sync::watch::channel(false);
    desk.on_ready_change(Box::new(move |now| {
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
    let outcome = tonic::transport::Server::builder()
        .layer(InterceptorLayer::new(move |request| allowed.check(request)))
        .add_service(WorkloadNetworkingServer::new(workload::Workloads {
            desk: Arc::clone(&desk),
        }))
        .add_service(InspectionServer::new(inspection::Inspector { desk }))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop)
        .await;
    reporting.abort();
    Ok(outcome?)
}
