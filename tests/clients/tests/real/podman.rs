//! Debian's podman, run by root, with CNI networks.

use crate::host::Host;
use crate::image;
use crate::member::{Member, own_addresses, said, with_errors};
use stage::wait::{PATIENCE, eventually};
use std::net::IpAddr;
use std::process::Output;

const IMAGE: &str = "localhost/member:1";
const CONFIG: &str = include_str!("containers.conf");

/// Sets podman up and gives it the image.
pub(crate) fn set_up(host: &Host) {
    let room = &host.room;
    room.write("/etc/containers/containers.conf", CONFIG);
    room.write(
        "/etc/containers/policy.json",
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    );
    let tar = room.folder().join("podman.tar");
    image::write(&tar, IMAGE);
    room.run(&["podman", "load", "--quiet", "--input", tar.to_str().unwrap()]);
}

/// A container, by its name.
pub(crate) struct PodmanContainer<'a> {
    host: &'a Host,
    name: String,
    /// By which the daemon knows it.
    pub(crate) id: String,
}

/// `podman run`.
pub(crate) fn podman_run<'a>(host: &'a Host, name: &str, network: &str) -> PodmanContainer<'a> {
    podman_run_with(host, name, network, &[])
}

/// `podman run` with more options.
pub(crate) fn podman_run_with<'a>(
    host: &'a Host,
    name: &str,
    network: &str,
    options: &[&str],
) -> PodmanContainer<'a> {
    let output = try_podman_run(host, name, network, options);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "podman run: {errors}");
    let container = PodmanContainer {
        host,
        name: name.to_owned(),
        id: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
    };
    eventually(
        PATIENCE,
        "the container has addresses",
        || own_addresses(&container),
        |all| all.len() == 2,
    );
    container
}

/// `podman run`, whatever comes of it.
fn try_podman_run(host: &Host, name: &str, network: &str, options: &[&str]) -> Output {
    let cgroup = format!("/{}", host.room.cgroup());
    let line = [
        "podman",
        "run",
        "--detach",
        "--name",
        name,
        "--cgroup-parent",
        &cgroup,
    ];
    let rest = ["--network", network, IMAGE];
    host.room.output(&[&line[..], options, &rest].concat())
}

impl PodmanContainer<'_> {
    /// What `podman inspect` says of it, by a Go template.
    pub(crate) fn inspect(&self, template: &str) -> String {
        let said = self
            .host
            .room
            .run(&["podman", "inspect", "--format", template, &self.name]);
        said.trim().to_owned()
    }

    pub(crate) fn remove(&self) {
        self.host
            .room
            .run(&["podman", "rm", "--force", "--time", "0", &self.name]);
    }
}

impl Member for PodmanContainer<'_> {
    fn run(&self, script: &str) -> String {
        let output = self
            .host
            .room
            .output(&["podman", "exec", &self.name, "sh", "-c", &with_errors(script)]);
        said(&output)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
        let said = self.inspect(template);
        said.split_whitespace()
            .map(|text| text.parse().unwrap())
            .collect()
    }
}
