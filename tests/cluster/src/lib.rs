//! The settings of a cluster's parts, as text.

/// Where the API server listens, on both families' underlay.
pub const SERVER: &str = "203.0.113.10";
/// What the nodes' prefixes are taken from.
pub const PODS: &str = "10.244.0.0/16,fd44::/48";

/// By which a part speaks to the API server.
pub fn kubeconfig(token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- {{name: c, cluster: {{server: \"https://{SERVER}:6443\", certificate-authority: /etc/kubernetes/ca.crt}}}}
users:
- {{name: u, user: {{token: {token}}}}}
contexts:
- {{name: x, context: {{cluster: c, user: u}}}}
current-context: x
"
    )
}

/// A kubelet that needs neither systemd, nor cgroup v2, nor CAP_SYS_RESOURCE, never evicts, and does not let a container
/// wait long that has ended.
pub fn kubelet(cgroup: &str) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
cgroupsPerQOS: false
enforceNodeAllocatable: []
oomScoreAdj: 0
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
resolvConf: \"\"
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
nodeStatusUpdateFrequency: 2s
syncFrequency: 5s
staticPodPath: /etc/kubernetes/manifests
fileCheckFrequency: 1s
evictionHard: {{memory.available: \"0%\", nodefs.available: \"0%\", nodefs.inodesFree: \"0%\", imagefs.available: \"0%\", imagefs.inodesFree: \"0%\"}}
imageGCHighThresholdPercent: 100
crashLoopBackOff: {{maxContainerRestartPeriod: 2s}}
"
    )
}

/// A kube-proxy that leaves alone what the machine's namespaces share.
pub fn proxy(node: &str) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: /etc/kubernetes/proxy.kubeconfig}}
hostnameOverride: {node}
clusterCIDR: {PODS}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
oomScoreAdj: 0
"
    )
}

/// containerd without any patch of ours.
pub const CONTAINERD: &str = r#"version = 3
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
max_conf_num = 1
use_internal_loopback = true
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/pause:1"
"#;

/// Who may speak to the API server, by token: name, number, groups.
pub fn tokens(nodes: &[&str]) -> String {
    let mut lines = String::from(
        "admin,admin,1,\"system:masters\"\ncontroller,system:kube-controller-manager,2\nscheduler,system:kube-scheduler,3\nproxy,system:kube-proxy,4\n",
    );
    for (number, node) in (10..).zip(nodes) {
        lines += &format!("{node},system:node:{node},{number},\"system:nodes\"\n");
    }
    lines
}
