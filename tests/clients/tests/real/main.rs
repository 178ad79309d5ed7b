//! Real clients on the daemon's network, as a user installs them: unmodified, with the paths of the documentation.
//!
//! ```text
//!  test --- Host: a node and an outside host (stage) and, on the node, a Room: mounts and processes of its own
//!             |      workloadnetd, containerd, podman, qemu ...: each runs in there
//!             '- Member: a container, pod or guest that a client has started; it runs scripts and serves HTTP
//! ```
//! A room has a private /etc, /var, /run and /opt, and its first process takes all others along when it ends. So nothing of
//! the machine is touched, and a test that is killed leaves nothing running.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod containerd;
mod guest;
mod host;
mod image;
mod member;
mod podman;
mod pods;
mod room;
mod who;
mod with_cri;
mod with_ctr;
mod with_drop_in;
mod with_guest;
mod with_gvisor;
mod with_podman;
