//! What else is served: health, and reflection of both versions.

use crate::played::{Played, open, ourselves};
use prost_reflect::DescriptorPool;
use tokio_stream::StreamExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SERVICES: [&str; 2] = [
    "metropolis.node.core.network.workloads.WorkloadNetworking",
    "workloadnet.v1.Inspection",
];

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn health_follows_readiness_for_the_whole_and_for_each_service() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let mut client = HealthClient::new(door.channel.clone());
    for service in ["", SERVICES[0], SERVICES[1]] {
        let mut changes = client.watch(about(service)).await.unwrap().into_inner();
        let mut next = async || changes.next().await.unwrap().unwrap().status();
        assert_eq!(next().await, ServingStatus::Serving, "{service}");
        desk.set_unready(&["no prefix"]);
        assert_eq!(next().await, ServingStatus::NotServing, "{service}");
        desk.set_unready(&[]);
        assert_eq!(next().await, ServingStatus::Serving, "{service}");
    }
}

/// Asks one version of reflection for the services, and for the file of each of ours.
macro_rules! reflected {
    ($version:ident) => {{
        use pb::server_reflection_client::ServerReflectionClient;
        use pb::server_reflection_request::MessageRequest;
        use pb::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::$version as pb;
        let door = open(&Played::default(), ourselves());
        let mut client = ServerReflectionClient::new(door.channel.clone());
        let ask = |question| pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        let mut questions = vec![ask(MessageRequest::ListServices(String::new()))];
        questions.extend(SERVICES.map(|name| ask(MessageRequest::FileContainingSymbol(name.to_owned()))));
        let mut answers = client
            .server_reflection_info(tokio_stream::iter(questions))
            .await
            .unwrap()
            .into_inner();
        let mut next = async || answers.next().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(listed) = next().await else {
            panic!("no services are listed");
        };
        let mut pool = DescriptorPool::new();
        for _ in SERVICES {
            let MessageResponse::FileDescriptorResponse(files) = next().await else {
                panic!("no file is shown");
            };
            for file in files.file_descriptor_proto {
                pool.decode_file_descriptor_proto(&*file).unwrap();
            }
        }
        let listed: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
        (listed, pool)
    }};
}

fn is_ours(listed: &[String], pool: &DescriptorPool) {
    for service in SERVICES {
        assert!(listed.iter().any(|name| name == service), "{listed:?}");
        let shown = pool.get_service_by_name(service).unwrap();
        assert!(shown.methods().count() >= 3, "{service}");
    }
    let request = pool
        .get_message_by_name("metropolis.node.core.network.workloads.AttachRequest")
        .unwrap();
    assert_eq!(request.get_field(19).unwrap().name(), "requested_ip");
}

#[tokio::test]
async fn both_versions_of_reflection_show_both_services() {
    let (listed, pool) = reflected!(v1);
    is_ours(&listed, &pool);
    // Old tools ask this one only.
    let (listed, pool) = reflected!(v1alpha);
    is_ours(&listed, &pool);
}
