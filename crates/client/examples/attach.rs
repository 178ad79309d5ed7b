//! Attaches a network namespace, shows what it got, and takes it off again.
//!
//! `cargo run -p workloadnet-client --example attach -- web-1 /run/netns/web-1`

use client::workload::{AttachRequest, DetachRequest, NetNsAttachment};
use client::{Client, Error};
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let (Some(workload_id), Some(netns_path)) = (args.next(), args.next()) else {
        eprintln!("usage: attach WORKLOAD_ID NETNS_PATH");
        std::process::exit(2);
    };
    let netns = Some(NetNsAttachment {
        netns_path,
        if_name: "eth0".to_owned(),
    });
    // A daemon that is being restarted is waited for.
    let client = Client::connect(client::default_socket()).with_patience(Duration::from_secs(5));
    let answer = client
        .attach(AttachRequest {
            workload_id: workload_id.clone(),
            netns: netns.clone(),
            owner: "example".to_owned(),
            ..AttachRequest::default()
        })
        .await?;
    println!("{} is attached by {}", workload_id, answer.host_link);
    for attachment in client.list(Some("example".to_owned())).await? {
        println!("{:?}", attachment.ip);
    }
    client
        .detach(DetachRequest {
            workload_id,
            netns,
            owner: "example".to_owned(),
        })
        .await
}
