//! Pods, as Kubernetes' kubelet makes them: by the interface that container runtimes offer it.

use crate::containerd::Container;
use crate::host::Host;
use cri::runtime::runtime_service_client::RuntimeServiceClient;
use cri::runtime::{
    DnsConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusRequest,
    PortMapping, RemovePodSandboxRequest, RunPodSandboxRequest, StopPodSandboxRequest,
};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// Longer than the runtime itself waits for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// Where containerd serves.
pub(crate) const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// A kubelet's connection to a runtime.
pub(crate) struct Pods<'a> {
    host: &'a Host,
    runtime: Runtime,
    client: RuntimeServiceClient<Channel>,
}

impl<'a> Pods<'a> {
    pub(crate) fn of(host: &'a Host, socket: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let endpoint = Endpoint::from_shared(format!("unix:{}", host.room.reach(socket).display()))
            .unwrap()
            .timeout(LIMIT);
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self {
            host,
            runtime,
            client: RuntimeServiceClient::new(channel),
        }
    }

    /// Runs a sandbox; its id.
    #[track_caller]
    pub(crate) fn run(&self, name: &str, uid: &str, attempt: u32) -> String {
        self.run_with(name, uid, attempt, &[]).unwrap()
    }

    /// As [`Self::run`], with ports of the node that lead to ports of the pod.
    pub(crate) fn run_with(
        &self,
        name: &str,
        uid: &str,
        attempt: u32,
        ports: &[(i32, i32)],
    ) -> Result<String, tonic::Status> {
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.to_owned(),
                namespace: "tests".to_owned(),
                attempt,
            }),
            hostname: name.to_owned(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".to_owned()],
                searches: vec!["tests.svc.cluster.local".to_owned()],
                options: vec!["ndots:5".to_owned()],
            }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.host.room.cgroup()),
                ..LinuxPodSandboxConfig::default()
            }),
            port_mappings: ports
                .iter()
                .map(|(host_port, container_port)| PortMapping {
                    host_port: *host_port,
                    container_port: *container_port,
                    ..PortMapping::default()
                })
                .collect(),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let answer = self
            .runtime
            .block_on(self.client.clone().run_pod_sandbox(request));
        Ok(answer?.into_inner().pod_sandbox_id)
    }

    /// A running sandbox as a member, with the addresses that the runtime reports.
    pub(crate) fn member(&self, sandbox: &str) -> Container<'a> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.to_owned(),
            verbose: false,
        };
        let answer = self
            .runtime
            .block_on(self.client.clone().pod_sandbox_status(request));
        let network = answer.unwrap().into_inner().status.unwrap().network.unwrap();
        let others = network.additional_ips.into_iter().map(|other| other.ip);
        let addresses: Vec<IpAddr> = std::iter::once(network.ip)
            .chain(others)
            .map(|text| text.parse().unwrap())
            .collect();
        Container::new(self.host, "k8s.io", sandbox, addresses)
    }

    /// Path of a running sandbox's network namespace.
    pub(crate) fn network_namespace(&self, sandbox: &str) -> String {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.to_owned(),
            verbose: true,
        };
        let answer = self
            .runtime
            .block_on(self.client.clone().pod_sandbox_status(request));
        let info: Value = serde_json::from_str(&answer.unwrap().into_inner().info["info"]).unwrap();
        let all = info["runtimeSpec"]["linux"]["namespaces"].as_array().unwrap();
        let network = all.iter().find(|one| one["type"] == "network").unwrap();
        network["path"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn stop(&self, sandbox: &str) {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: sandbox.to_owned(),
        };
        let answer = self
            .runtime
            .block_on(self.client.clone().stop_pod_sandbox(request));
        answer.unwrap();
    }

    #[track_caller]
    pub(crate) fn remove(&self, sandbox: &str) {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.to_owned(),
        };
        let answer = self
            .runtime
            .block_on(self.client.clone().remove_pod_sandbox(request));
        answer.unwrap();
    }
}
