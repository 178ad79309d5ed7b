//! A node: containerd and kubelet, with the images that no registry has.

use crate::cluster::{built, start};
use crate::image::{self, Tar};
use crate::room::Room;
use crate::underlay::Underlay;
use stage::wait::{PATIENCE, eventually};
use std::fs;
use std::path::Path;

/// The image of `packaging/kubernetes`, by the name that the test gives it.
pub(crate) const PRODUCT: &str = "localhost/workloadnet:test";
/// A pod that serves.
pub(crate) const MEMBER: &str = "localhost/member:1";

/// What the kubelet sets for the whole machine: it gets files of the room's own there.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) room: Room,
    pub(crate) addresses: [String; 2],
}

impl Node {
    pub(crate) fn new(underlay: &Underlay, name: &'static str, number: u8, ca: &str) -> Self {
        let mut room = Room::new(&underlay.machine(number));
        room.prefer(&built("cluster"));
        let addresses = [format!("203.0.113.{number}"), format!("2001:db8:113::{number}")];
        let folder = room.folder().to_owned();
        for sysctl in SYSCTLS {
            let (path, own) = (
                format!("/proc/sys/{sysctl}"),
                folder.join(sysctl.replace('/', ".")),
            );
            fs::write(&own, fs::read(&path).unwrap()).unwrap();
            room.run(&["mount", "--bind", own.to_str().unwrap(), &path]);
        }
        // A real file system, which the kubelet can measure.
        fs::create_dir(folder.join("kubelet")).unwrap();
        room.run(&[
            "mkdir",
            "-p",
            "/var/lib/kubelet",
            "/run/netns",
            "/etc/kubernetes/manifests",
        ]);
        let kubelet = folder.join("kubelet");
        room.run(&["mount", "--bind", kubelet.to_str().unwrap(), "/var/lib/kubelet"]);
        // Among themselves, as on a machine with systemd; none of it reaches the test's own mounts.
        room.run(&["mount", "--make-rshared", "/"]);
        room.write("/etc/kubernetes/ca.crt", ca);
        room.write("/etc/kubernetes/kubeconfig", &settings::kubeconfig(name));
        room.write("/etc/kubernetes/kubelet.yaml", &settings::kubelet(room.cgroup()));
        room.write("/etc/containerd/config.toml", settings::CONTAINERD);
        let node = Self {
            name,
            room,
            addresses,
        };
        node.start_containerd();
        start(
            &node.room,
            "kubelet",
            &[
                "kubelet",
                "--config=/etc/kubernetes/kubelet.yaml",
                "--kubeconfig=/etc/kubernetes/kubeconfig",
                &format!("--hostname-override={name}"),
                &format!("--node-ip={}", node.addresses.join(",")),
            ],
        );
        node
    }

    fn start_containerd(&self) {
        start(&self.room, "containerd", &["containerd", "--log-level", "warn"]);
        eventually(
            PATIENCE,
            "containerd serves",
            || self.room.output(&["ctr", "version"]).status.success(),
            |serves| *serves,
        );
        let folder = self.room.folder();
        let images = ["member", "pause", "product"].map(|name| folder.join(format!("{name}.tar")));
        image::write(&images[0], MEMBER);
        idle(&images[1]);
        product(&images[2]);
        for tar in images {
            self.room
                .run(&["ctr", "-n", "k8s.io", "image", "import", tar.to_str().unwrap()]);
        }
    }

    /// Answers of the command line that is shipped, asked on the node.
    pub(crate) fn workloadnet(&self, words: &[&str]) -> serde_json::Value {
        let program = built("dist").join("workloadnet");
        let said = self
            .room
            .run(&[&[program.to_str().unwrap(), "--output", "json"], words].concat());
        serde_json::from_str(&said).unwrap()
    }

    /// SIGKILL to the daemon, which is the only one among the room's processes.
    pub(crate) fn kill_daemon(&self) {
        let found = self.room.run(&["/bin/busybox", "pidof", "workloadnetd"]);
        assert_eq!(found.split_whitespace().count(), 1, "{found}");
        self.room.run(&["kill", "-KILL", found.trim()]);
    }
}

/// What a pod's sandbox runs, which has to serve nothing.
fn idle(path: &Path) {
    let mut layer = Tar::default();
    for folder in ["bin", "etc", "proc", "sys", "dev"] {
        layer.folder(folder);
    }
    layer.file("bin/busybox", 0o755, &fs::read(image::BUSYBOX).unwrap());
    image::save(
        path,
        "localhost/pause:1",
        layer,
        &["/bin/busybox", "sleep", "2147483647"],
    );
}

/// What `packaging/kubernetes/Containerfile` says.
fn product(path: &Path) {
    let mut layer = Tar::default();
    for name in ["workloadnetd", "workloadnet", "workloadnet-cni"] {
        layer.file(name, 0o755, &fs::read(built("dist").join(name)).unwrap());
    }
    image::save(path, PRODUCT, layer, &["/workloadnetd"]);
}
