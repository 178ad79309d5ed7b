//! A cluster of real parts, each in mounts, processes and a network of its own: etcd, API server, controllers and scheduler
//! in one room; on each node containerd, kubelet and, by the DaemonSet of `packaging/kubernetes`, the daemon.
//!
//! ```text
//!  control --- br0 of the underlay, which is also the outside host --- node
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
#[path = "../../../clients/tests/real/image.rs"]
mod image;
mod life;
mod node;
#[expect(
    dead_code,
    reason = "shared with the tests of single clients, which also end programs"
)]
#[path = "../../../clients/tests/real/room.rs"]
mod room;
mod underlay;
