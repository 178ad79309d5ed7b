//! What all parts stand on: fresh namespaces, ids, pauses, and callers of a service, one or several at once.
//!
//! Whose turn it is changes after each call or in small blocks, so that what else happens on the machine hits all alike.
//! Before each block the namespaces are as a runtime makes them: loopback is down.

use crate::bare::as_new;
use crate::named::Named;
use crate::product::{attach, detach};
use crate::samples::{Samples, Way};
use anyhow::Result;
use client::Client;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Twice what the kernel takes for a deletion: it still works on links that it has announced as gone.
const PAUSE: Duration = Duration::from_millis(50);

/// Whom a workload is attached by, over gRPC.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    client: Client,
}

impl Caller {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) async fn attach(&self, id: &str, path: &str) -> Result<()> {
        self.client.attach(attach(id, path)).await?;
        Ok(())
    }

    pub(crate) async fn detach(&self, id: &str) -> Result<()> {
        Ok(self.client.detach(detach(id)).await?)
    }

    pub(crate) async fn status(&self) -> Result<()> {
        Ok(self.client.status().await?)
    }
}

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// As long as a container's, never the same, and as different from each other from the first digit on: the kernel hashes no more of
/// a link's name than its first 16 bytes (`IFNAMSIZ`; `name_hash`, net/core/dev.c), and of second names that begin alike it
/// compares each with each.
pub(crate) fn id() -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let n = MADE.fetch_add(1, Ordering::Relaxed);
    // 2 to the power of 64 by the golden ratio (Knuth, The Art of Computer Programming, volume 3, 6.4).
    let first = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{first:016x}{n:048x}")
}

pub(crate) fn pause(runtime: &Runtime) {
    rest(runtime, PAUSE);
}

pub(crate) fn rest(runtime: &Runtime, time: Duration) {
    runtime.block_on(async { tokio::time::sleep(time).await });
}

pub(crate) fn namespaces(count: usize) -> Result<Vec<Named>> {
    (0..count).map(|_| Named::new()).collect()
}

pub(crate) fn all_as_new(namespaces: &[Named]) -> Result<()> {
    namespaces.iter().try_for_each(|namespace| as_new(namespace))
}

/// Duplicate address detection, for which the plugins wait.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dad {
    Off,
    AsUsual,
}

pub(crate) fn namespaces_for_plugins(count: usize, dad: Dad) -> Result<Vec<Named>> {
    let all = namespaces(count)?;
    all_as_new(&all)?;
    if let Dad::Off = dad {
        for namespace in &all {
            namespace.within(|| {
                for which in ["all", "default"] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0")?;
                }
                std::io::Result::Ok(())
            })??;
        }
    }
    Ok(all)
}

/// One order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verb {
    Attach,
    Detach,
}

/// Carries all of `work` out, an id and a path each, by as many callers as there are; how long each took, and all.
pub(crate) fn at_once(
    runtime: &Runtime,
    callers: &[Caller],
    work: &[(String, String)],
    verb: Verb,
) -> Result<(Samples, Duration)> {
    runtime.block_on(async {
        // Connections are made before the clock runs.
        for caller in callers {
            caller.status().await?;
        }
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for (caller, part) in callers
            .iter()
            .zip(work.chunks(work.len().div_ceil(callers.len())))
        {
            let (caller, part) = (caller.clone(), part.to_vec());
            tasks.spawn(async move {
                let mut samples = Samples::default();
                for (id, path) in part {
                    let began = Instant::now();
                    match verb {
                        Verb::Attach => caller.attach(&id, &path).await?,
                        Verb::Detach => caller.detach(&id).await?,
                    }
                    samples.push(began.elapsed());
                }
                anyhow::Ok(samples)
            });
        }
        let mut all = Samples::default();
        while let Some(samples) = tasks.join_next().await {
            all.extend(samples??);
        }
        Ok((all, began.elapsed()))
    })
}

/// All callers attach and detach without a pause, each in namespaces of its own, for so long; how many cycles there were.
pub(crate) fn churn(
    runtime: &Runtime,
    callers: &[Caller],
    namespaces: &[Named],
    time: Duration,
    way: &mut Way,
) -> Result<(usize, Duration)> {
    let paths: Vec<String> = namespaces.iter().map(Named::path).collect();
    runtime.block_on(async {
        for caller in callers {
            caller.status().await?;
        }
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for (caller, paths) in callers.iter().zip(paths.chunks(paths.len() / callers.len())) {
            let (caller, paths) = (caller.clone(), paths.to_vec());
            tasks.spawn(async move {
                let mut own = Way::default();
                for path in paths.iter().cycle() {
                    if began.elapsed() >= time {
                        break;
                    }
                    let id = id();
                    let start = Instant::now();
                    caller.attach(&id, path).await?;
                    own.attach.push(start.elapsed());
                    let start = Instant::now();
                    caller.detach(&id).await?;
                    own.detach.push(start.elapsed());
                }
                anyhow::Ok(own)
            });
        }
        let mut cycles = 0;
        while let Some(own) = tasks.join_next().await {
            let own = own??;
            cycles += own.detach.len();
            way.attach.extend(own.attach);
            way.detach.extend(own.detach);
        }
        way.end_round();
        Ok((cycles, began.elapsed()))
    })
}
