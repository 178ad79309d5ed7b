//! Two workloads that nobody touches: packets go between them all the time, whatever becomes of the daemon.

use crate::caller::{Caller, INTERFACE, Office};
use crate::plan::SLOTS;
use anyhow::{Context as _, Result};
use client::workload::{AttachRequest, NetNsAttachment};
use stage::Namespace;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Their owner.
pub const OWNER: &str = "steady";
/// From here on namespaces are theirs, and never end.
pub const FIRST_SLOT: usize = SLOTS - 2;
/// How long a packet may take, there and back.
const PING: Duration = Duration::from_secs(5);
/// Between two packets.
const PAUSE: Duration = Duration::from_millis(50);

/// The two.
#[derive(Debug)]
pub struct Steady {
    from: Namespace,
    /// The other one's addresses.
    to: Vec<IpAddr>,
}

impl Steady {
    /// Attaches them.
    pub fn new(office: &Office, caller: &Caller) -> Result<Self> {
        let mut to = Vec::new();
        for slot in [FIRST_SLOT, FIRST_SLOT + 1] {
            let request = AttachRequest {
                workload_id: format!("steady-{slot}"),
                owner: OWNER.to_owned(),
                netns: Some(NetNsAttachment {
                    netns_path: office.room.path(slot).display().to_string(),
                    if_name: INTERFACE.to_owned(),
                }),
                ..AttachRequest::default()
            };
            let answer = caller.question(async |client| client.attach(request.clone()).await);
            to = answer
                .context("attach a steady workload")?
                .ip
                .iter()
                .filter_map(|ip| crate::caller::address_of(ip))
                .collect();
        }
        Ok(Self {
            from: Namespace::open(&office.room.path(FIRST_SLOT))?,
            to,
        })
    }

    /// Sends packets until it is over; those that were not answered, in words.
    pub fn watch(&self, office: &Office, is_over: &AtomicBool) -> Vec<String> {
        let mut lost = Vec::new();
        while !stage::wait::within(PAUSE, || is_over.load(Ordering::Relaxed)) {
            for to in &self.to {
                let begin = office.room.now();
                if let Err(error) = stage::ping(&self.from, *to, PING) {
                    lost.push(format!("between two that nobody touched, at {begin}: {error:#}"));
                }
            }
        }
        lost
    }
}
