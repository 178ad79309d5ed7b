//! A node: containerd, kubelet and kube-proxy, with the images that no registry has.

use crate::image::{self, Tar};
use crate::room::{Room, Running};
use crate::underlay::{Link, Underlay};
use crate::{LONG, built};
use serde_json::Value;
use stage::Namespace;
use stage::wait::{PATIENCE, eventually};
use std::cell::RefCell;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
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
    pub(crate) link: Link,
    /// IPv4 first.
    pub(crate) ips: [IpAddr; 2],
    pub(crate) network: Namespace,
    pub(crate) room: Room,
    kubelet: RefCell<Option<Running>>,
}

impl Node {
    /// A node on a link, by the last number of its addresses. It trusts an authority.
    pub(crate) fn new(
        underlay: &Underlay,
        name: &'static str,
        (link, number): (Link, u8),
        authority: &str,
    ) -> Self {
        let network = underlay.machine(link, number);
        let mut room = Room::new(&network);
        room.prefer(&built("cluster"));
        furnish(&room);
        room.write("/etc/kubernetes/ca.crt", authority);
        for user in [name, "proxy"] {
            let path = format!("/etc/kubernetes/{user}.kubeconfig");
            room.write(&path, &settings::kubeconfig(user));
        }
        room.write("/etc/kubernetes/kubelet.yaml", &settings::kubelet(room.cgroup()));
        room.write("/etc/kubernetes/proxy.yaml", &settings::proxy(name));
        room.write("/etc/containerd/config.toml", settings::CONTAINERD);
        let node = Self {
            name,
            link,
            ips: link.addresses(number).map(|text| text.parse().unwrap()),
            network,
            room,
            kubelet: RefCell::new(None),
        };
        node.start_containerd();
        node.start_kubelet();
        node.room.start(
            "kube-proxy",
            &["kube-proxy", "--config=/etc/kubernetes/proxy.yaml"],
        );
        node
    }

    fn start_containerd(&self) {
        self.room
            .start("containerd", &["containerd", "--log-level", "warn"]);
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
            fs::remove_file(tar).unwrap();
        }
    }

    fn start_kubelet(&self) {
        let running = self.room.start(
            "kubelet",
            &[
                "kubelet",
                "--config=/etc/kubernetes/kubelet.yaml",
                &format!("--kubeconfig=/etc/kubernetes/{}.kubeconfig", self.name),
                &format!("--hostname-override={}", self.name),
                &format!("--node-ip={},{}", self.ips[0], self.ips[1]),
            ],
        );
        *self.kubelet.borrow_mut() = Some(running);
    }

    /// The kubelet registers its node when it starts, and never again.
    pub(crate) fn restart_kubelet(&self) {
        self.room.kill(self.kubelet.take().unwrap());
        self.start_kubelet();
    }

    /// Answers of the command line that is shipped, asked on the node.
    pub(crate) fn workloadnet(&self, words: &[&str]) -> Value {
        let program = built("dist").join("workloadnet");
        let said = self
            .room
            .run(&[&[program.to_str().unwrap(), "--output", "json"], words].concat());
        serde_json::from_str(&said).unwrap()
    }

    /// Waits until the daemon is there and could attach.
    #[track_caller]
    pub(crate) fn expect_serving(&self) {
        let program = built("dist").join("workloadnet");
        let words = [program.to_str().unwrap(), "status"];
        eventually(
            LONG,
            "the daemon serves",
            || self.room.output(&words).status.success(),
            |serves| *serves,
        );
    }

    /// What is attached, by address: the namespace's inode.
    fn attached(&self) -> Vec<(Vec<String>, u64)> {
        let list = self.workloadnet(&["list"]);
        let all = list["attachment"].as_array().unwrap();
        let texts = |value: &Value| -> Vec<String> {
            let all = value.as_array().unwrap();
            all.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
        };
        all.iter()
            .map(|one| (texts(&one["ip"]), one["namespace"]["inode"].as_u64().unwrap()))
            .collect()
    }

    #[track_caller]
    pub(crate) fn expect_attached(&self, count: usize) {
        eventually(
            LONG,
            &format!("{count} are attached on {}", self.name),
            || self.attached(),
            |all| all.len() == count,
        );
    }

    /// The network of who has an address.
    #[track_caller]
    pub(crate) fn network_of(&self, ip: &str) -> Namespace {
        let all = self.attached();
        let found = all.iter().find(|(ips, _)| ips.iter().any(|one| one == ip));
        let (_, inode) = found.unwrap_or_else(|| panic!("{ip} is not attached: {all:?}"));
        let folder = self.room.reach("/run/netns");
        let mut paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let path = paths.find(|path| fs::metadata(path).is_ok_and(|found| found.ino() == *inode));
        Namespace::open(&path.unwrap()).unwrap()
    }

    /// The number of the daemon's process, if it runs.
    pub(crate) fn daemon(&self) -> Option<String> {
        let output = self.room.output(&["/bin/busybox", "pidof", "workloadnetd"]);
        let said = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| said.trim().to_owned())
    }

    /// SIGKILL to the daemon, which is the only one among the room's processes.
    #[track_caller]
    pub(crate) fn kill_daemon(&self) {
        let found = self.daemon().expect("a daemon runs");
        assert_eq!(found.split_whitespace().count(), 1, "{found}");
        self.room.run(&["kill", "-KILL", &found]);
    }
}

/// What kubelet and containerd want of a machine.
fn furnish(room: &Room) {
    let folder = room.folder();
    for sysctl in SYSCTLS {
        let path = format!("/proc/sys/{sysctl}");
        let own = folder.join(sysctl.replace('/', "."));
        fs::write(&own, fs::read(&path).unwrap()).unwrap();
        room.run(&["mount", "--bind", own.to_str().unwrap(), &path]);
    }
    // A real file system, which the kubelet can measure.
    let kubelet = folder.join("kubelet");
    fs::create_dir(&kubelet).unwrap();
    room.run(&[
        "mkdir",
        "-p",
        "/var/lib/kubelet",
        "/run/netns",
        "/etc/kubernetes/manifests",
    ]);
    room.run(&["mount", "--bind", kubelet.to_str().unwrap(), "/var/lib/kubelet"]);
    // Among themselves, as on a machine with systemd; none of it reaches the test's own mounts.
    room.run(&["mount", "--make-rshared", "/"]);
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
