//! The own Node's condition NetworkUnavailable: False as soon as workloads get addresses and reach each other, and again
//! whenever somebody takes that away. It is never set to True: `docs/decisions/0031`.

use crate::access::{Access, Fault, in_time};
use crate::node::{NETWORK_UNAVAILABLE, Node};
use crate::own::Own;
use crate::pace::Pace;
use jiff::Timestamp;
use kube::core::Request;
use kube::core::params::{Patch, PatchParams};
use serde_json::json;
use std::time::Duration;

/// How often the daemon is asked whether it is ready.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps it for ever.
pub(crate) async fn keep(access: &Access, node: &str, own: &Own, is_ready: impl Fn() -> bool) {
    let mut pace = Pace::default();
    let mut is_said = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let is_missing = own.seen().is_some_and(|seen| !seen.has_network);
        if !is_missing || !is_ready() {
            continue;
        }
        let looks = own.looks();
        match write(access, node).await {
            Ok(()) => {
                tracing::info!(node, "the Node's condition NetworkUnavailable is False");
                own.has_network(looks);
                pace.reset();
                is_said = false;
            }
            Err(fault) => {
                if !is_said {
                    tracing::warn!(node, %fault, "the Node's condition NetworkUnavailable cannot be set to False");
                }
                is_said = true;
                access.forget();
                pace.wait().await;
            }
        }
    }
}

async fn write(access: &Access, node: &str) -> Result<(), Fault> {
    let now = format!("{:.0}", Timestamp::now());
    let condition = json!({
        "type": NETWORK_UNAVAILABLE,
        "status": "False",
        "reason": "WorkloadnetReady",
        "message": "workloads get addresses, and routes to other nodes are in place",
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    });
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let params = PatchParams {
        field_manager: Some("workloadnetd".to_owned()),
        ..PatchParams::default()
    };
    let request = Request::new("/api/v1/nodes").patch_subresource("status", node, &params, &patch);
    let request = request.expect("a patch of JSON is well formed");
    let client = in_time(access.client()).await?;
    in_time(client.request::<Node>(request)).await.map(drop)
}
