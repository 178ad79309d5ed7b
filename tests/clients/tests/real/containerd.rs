//! containerd, and what `ctr` starts on it.

use crate::host::{Host, documented};
use crate::image;
use crate::member::{Member, own_addresses, said, with_errors};
use crate::room::Running;
use stage::wait::{PATIENCE, eventually};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A registry's host has to be in its name: without one it would become docker.io's.
pub(crate) const IMAGE: &str = "localhost/member:1";
/// What is not about the network.
const CONFIG: &str = include_str!("config.toml");

/// Debian's containerd, with the plugin.
pub(crate) fn start(host: &Host) -> Running {
    start_with(host, documented("toml"))
}

/// One with go/cni, which has no folder to watch.
pub(crate) fn start_without_plugin(host: &Host) -> Running {
    start_with(
        host,
        "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"\"\n",
    )
}

/// Starts it, waits until it serves, and gives it the image.
fn start_with(host: &Host, network: &str) -> Running {
    let room = &host.room;
    let config = format!("{CONFIG}\n{network}");
    room.write("/etc/containerd/config.toml", &config);
    let running = room.start("containerd", &["containerd", "--log-level", "warn"]);
    eventually(
        PATIENCE,
        "containerd serves",
        || room.output(&["ctr", "version"]).status.success(),
        |serves| *serves,
    );
    let tar = room.folder().join("member.tar");
    image::write(&tar, IMAGE);
    for namespace in ["default", "k8s.io"] {
        let tar = tar.to_str().unwrap();
        room.run(&["ctr", "--namespace", namespace, "image", "import", tar]);
    }
    running
}

/// A container or a sandbox, by its id.
pub(crate) struct Container<'a> {
    host: &'a Host,
    namespace: &'static str,
    pub(crate) id: String,
    addresses: Vec<IpAddr>,
}

impl<'a> Container<'a> {
    /// One that is there.
    pub(crate) fn new(host: &'a Host, namespace: &'static str, id: &str, addresses: Vec<IpAddr>) -> Self {
        Self {
            host,
            namespace,
            id: id.to_owned(),
            addresses,
        }
    }
}

impl Member for Container<'_> {
    fn run(&self, script: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
        let line = [
            "ctr",
            "--namespace",
            self.namespace,
            "task",
            "exec",
            "--exec-id",
            &number,
        ];
        let output = self
            .host
            .room
            .output(&[&line, &[&self.id as &str, "sh", "-c", &with_errors(script)][..]].concat());
        said(&output)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.clone()
    }
}

/// What `ctr run --cni --rm` has started. `ctr` itself waits for the container's end, and then takes its network off.
pub(crate) struct CtrRun<'a> {
    pub(crate) container: Container<'a>,
    ctr: Running,
}

/// Runs a container until it serves. Its addresses are those that it has: `ctr` tells none.
pub(crate) fn ctr_run<'a>(host: &'a Host, id: &str, options: &[&str]) -> CtrRun<'a> {
    let cgroup = format!("/{}/{id}", host.room.cgroup());
    let line = ["ctr", "run", "--cni", "--rm", "--cgroup", &cgroup];
    let mut ctr = host
        .room
        .start(&format!("ctr-{id}"), &[&line, options, &[IMAGE, id]].concat());
    let mut container = Container::new(host, "default", id, Vec::new());
    container.addresses = eventually(
        PATIENCE,
        "the container has addresses",
        || {
            assert!(!ctr.has_ended(), "ctr has ended");
            own_addresses(&container)
        },
        |addresses| addresses.len() == 2,
    );
    // Its program runs from here on, and may not listen yet.
    eventually(
        PATIENCE,
        "the container serves",
        || container.run("nc 127.0.0.1 80 </dev/null && echo it does; true"),
        |said| said.contains("it does"),
    );
    CtrRun { container, ctr }
}

impl CtrRun<'_> {
    /// By which id the daemon knows it.
    pub(crate) fn workload(&self) -> String {
        format!("default-{}", self.container.id)
    }

    /// Ends the container, and waits until `ctr` has taken everything away.
    #[track_caller]
    pub(crate) fn end(mut self) {
        let Container { host, id, .. } = &self.container;
        host.room.run(&["ctr", "task", "kill", "--signal", "SIGKILL", id]);
        eventually(PATIENCE, "ctr ends", || self.ctr.has_ended(), |ended| *ended);
        let left = host.room.run(&["ctr", "container", "list", "--quiet"]);
        assert!(!left.lines().any(|line| line == id), "{id} is left");
    }
}
