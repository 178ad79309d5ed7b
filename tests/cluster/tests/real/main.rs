//! A cluster of real parts, each in mounts, processes and a network of its own: etcd, API server, controllers and scheduler
//! in one room; on each of three nodes containerd, kubelet, kube-proxy and, by the DaemonSet of `packaging/kubernetes`, the
//! daemon. Two nodes share a link, the third is behind a router (`underlay`).
//!
//! ```text
//!  life --> scenes --> cluster --> control, node, install --> room
//!   |          |          '------> underlay
//!   |          '-----> objects; pod, who, stream: what the scenes look at
//!   '--> machine: that nothing is left
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod control;
#[path = "../../../clients/tests/real/image.rs"]
mod image;
mod install;
mod life;
mod machine;
mod node;
mod objects;
mod pod;
#[expect(
    dead_code,
    reason = "shared with the tests of single clients, which also end programs"
)]
#[path = "../../../clients/tests/real/room.rs"]
mod room;
mod scenes;
mod stream;
mod underlay;
#[path = "../../../clients/tests/real/who.rs"]
mod who;

use std::path::PathBuf;
use std::time::Duration;

/// For what a whole cluster has to come round to, on a machine that is busy.
const LONG: Duration = Duration::from_secs(180);

/// A folder of things that cargo xtask makes.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().join(name)
}
