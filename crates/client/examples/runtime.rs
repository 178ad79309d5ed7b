//! What a runtime of one's own does, in a page: attach a network namespace, look at it, take it off.
//!
//! ```console
//! # ip netns add web
//! # cargo run --package workloadnet-client --example runtime -- web-1 /run/netns/web
//! ```

use client::network::{Network, Options, Removed};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(id), Some(netns)) = (args.next(), args.next()) else {
        return Err("usage: runtime ID NETNS".into());
    };
    let network = Network::new(client::default_socket(), "example")?;
    network.status().await?;

    let options = Options::default().label("started-by", "the example");
    let attached = network.setup(&id, "eth0", &netns, &options).await?;
    for (address, gateway) in &attached.addresses {
        println!("{id} has {address} by way of {gateway}");
    }
    for finding in network.check(&id, "eth0").await? {
        println!("not as it was made: {}", finding.text);
    }
    match network.remove(&id, "eth0", &netns).await? {
        Removed::Done => println!("taken off"),
        Removed::Queued => println!("the daemon takes it off when it starts"),
    }
    Ok(())
}
