//! The bench's stand: the three ways to attach beside the CNI plugins, namespaces to attach, and the experiments.
//!
//! Ways are interleaved in small blocks, so that what else happens on the machine hits all of them alike. Before each
//! block the namespaces are as a runtime makes them: loopback is down.

use crate::bare::{Bare, as_new, indexes};
use crate::cni::{Cni, nothing};
use crate::product::{Daemon, KernelRoom, attach, detach};
use crate::samples::Samples;
use anyhow::{Context as _, Result, ensure};
use client::Client;
use stage::Namespace;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Durations of one way to attach.
#[derive(Debug, Default)]
pub(crate) struct Way {
    pub(crate) attach: Samples,
    pub(crate) detach: Samples,
}

impl Way {
    fn extend(&mut self, other: Self) {
        self.attach.extend(other.attach);
        self.detach.extend(other.detach);
    }
}

/// What one caller sees.
#[derive(Debug, Default)]
pub(crate) struct OneCaller {
    pub(crate) bare: Way,
    pub(crate) room: Way,
    /// Detaches with a pause before each, in which the kernel finishes the one before.
    pub(crate) daemon: Way,
    /// A call that does nothing.
    pub(crate) status: Samples,
    pub(crate) ptp: Way,
    pub(crate) ptp_with_dad: Way,
}

/// What eight callers at once see, and how long all of it took.
#[derive(Debug, Default)]
pub(crate) struct EightCallers {
    pub(crate) daemon: Way,
    pub(crate) daemon_took: [Duration; 2],
    pub(crate) ptp: Way,
    pub(crate) ptp_took: [Duration; 2],
}

/// What it costs to execute a plugin.
#[derive(Debug, Default)]
pub(crate) struct Executed {
    /// A program that does nothing.
    pub(crate) nothing: Samples,
    /// VERSION: ours, ptp.
    pub(crate) version: [Samples; 2],
    pub(crate) ours: Way,
    pub(crate) ptp: Way,
}

/// What a thousand attachments cost.
#[derive(Debug, Default)]
pub(crate) struct Thousand {
    /// Medians of a tenth of the attaches, and how many stood at its beginning: bare, daemon.
    pub(crate) growth: Vec<(usize, Duration, Duration)>,
    /// KiB with none, and with all.
    pub(crate) resident: [u64; 2],
    /// From the start of the process until an Attach could succeed: none and all to recover.
    pub(crate) start: [Samples; 2],
    /// A hundred detaches: bare and awaited one by one, over gRPC one by one, over gRPC at once.
    pub(crate) hundred: [Samples; 3],
    /// Each of those over gRPC one by one.
    pub(crate) each: Samples,
}

/// Everything that is measured, in namespaces of its own.
pub(crate) struct Stand {
    runtime: Runtime,
    bare: Bare,
    room: KernelRoom,
    daemon: Daemon,
    client: Client,
    cni: Cni,
    ids: usize,
}

const CALLERS: usize = 8;
const BLOCK: usize = 40;
/// Executions of each plugin in a block.
const EXECUTED: usize = 10;
/// Twice what the kernel takes for a deletion.
const PAUSE: Duration = Duration::from_millis(50);

impl Stand {
    /// In the thread's network namespace, with the daemon in another one.
    pub(crate) fn here(data: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut daemon = Daemon::new()?;
        daemon.start(&runtime)?;
        Ok(Self {
            bare: Bare::here()?,
            room: KernelRoom::here()?,
            client: daemon.client(&runtime)?,
            runtime,
            daemon,
            cni: Cni::new(data),
            ids: 0,
        })
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        // As long as a container's.
        format!("{:0>64x}", self.ids)
    }

    /// Blocks of attaches and then detaches, all ways in turn.
    pub(crate) fn one_caller(&mut self, blocks: usize, plugins: usize) -> Result<OneCaller> {
        let mut all = OneCaller::default();
        let namespaces = namespaces(3 * BLOCK)?;
        for _ in 0..blocks {
            for namespace in &namespaces {
                as_new(namespace)?;
            }
            let mut made = Vec::new();
            for (n, three) in namespaces.chunks(3).enumerate() {
                let paths: Vec<_> = three.iter().map(Namespace::path).collect();
                let id = self.id();
                let request = attach(&id, &paths[2]);
                let (bare, room) = (&mut self.bare, &mut self.room);
                let (runtime, client) = (&self.runtime, &self.client);
                let (mut link, mut target) = (None, None);
                // Each way follows each other one equally often.
                for turn in 0..3 {
                    match (n + turn) % 3 {
                        0 => link = Some(all.bare.attach.time(|| bare.attach(&paths[0]))?),
                        1 => target = Some(all.room.attach.time(|| room.attach(&paths[1]))?),
                        _ => {
                            all.daemon
                                .attach
                                .time(|| Ok(runtime.block_on(client.attach(request.clone()))?))?;
                        }
                    }
                }
                made.push((link.context("three turns")?, target.context("three turns")?, id));
            }
            let (runtime, client) = (&self.runtime, &self.client);
            for _ in 0..BLOCK {
                all.status.time(|| Ok(runtime.block_on(client.status())?))?;
            }
            for (.., id) in &made {
                self.pause();
                let request = detach(id);
                all.daemon
                    .detach
                    .time(|| Ok(runtime.block_on(client.detach(request))?))?;
            }
            // The kernel still works on the links that it has announced as gone.
            self.pause();
            for (link, target, _) in made {
                all.bare.detach.time(|| self.bare.detach(link))?;
                all.room.detach.time(|| self.room.detach(target))?;
            }
            all.ptp.extend(self.plugins(plugins, Dad::Off)?);
        }
        all.ptp_with_dad = self.plugins(plugins, Dad::AsUsual)?;
        Ok(all)
    }

    fn pause(&self) {
        self.runtime.block_on(async { tokio::time::sleep(PAUSE).await });
    }

    /// Attaches and detaches by plugins, one after the other.
    fn plugins(&mut self, count: usize, dad: Dad) -> Result<Way> {
        let mut way = Way::default();
        let mut made = Vec::new();
        for namespace in namespaces_for_plugins(count, dad)? {
            let (id, path) = (self.id(), namespace.path());
            way.attach.time(|| self.cni.add(&id, &path))?;
            made.push((namespace, id));
        }
        for (namespace, id) in &made {
            way.detach.time(|| self.cni.del(id, &namespace.path()))?;
        }
        Ok(way)
    }

    /// Our plugin beside `ptp`, each executed for every call, in turn.
    pub(crate) fn executed(&mut self, plugin: &Path, blocks: usize) -> Result<Executed> {
        let mut all = Executed::default();
        let ours = Cni::ours(plugin.to_owned(), &self.daemon.socket());
        for _ in 0..blocks {
            let pairs = namespaces_for_plugins(2 * EXECUTED, Dad::Off)?;
            for namespace in &pairs {
                as_new(namespace)?;
            }
            let mut made = Vec::new();
            for pair in pairs.chunks(2) {
                let (id, path) = (self.id(), pair.iter().map(Namespace::path).collect::<Vec<_>>());
                all.nothing.time(nothing)?;
                all.version[0].time(|| ours.version())?;
                all.version[1].time(|| self.cni.version())?;
                all.ours.attach.time(|| ours.add(&id, &path[0]))?;
                all.ptp.attach.time(|| self.cni.add(&id, &path[1]))?;
                made.push((id, path));
            }
            for (id, path) in made {
                all.ours.detach.time(|| ours.del(&id, &path[0]))?;
                all.ptp.detach.time(|| self.cni.del(&id, &path[1]))?;
            }
        }
        Ok(all)
    }

    /// Eight callers at once, each with a connection of its own.
    pub(crate) fn eight_callers(&mut self, blocks: usize, plugins: usize) -> Result<EightCallers> {
        let mut all = EightCallers::default();
        let namespaces = namespaces(CALLERS * BLOCK)?;
        for _ in 0..blocks {
            for namespace in &namespaces {
                as_new(namespace)?;
            }
            let work: Vec<_> = namespaces
                .iter()
                .map(|namespace| (self.id(), namespace.path()))
                .collect();
            for (step, verb) in [Verb::Attach, Verb::Detach].into_iter().enumerate() {
                let began = Instant::now();
                let samples = self.at_once(&work, verb)?;
                all.daemon_took[step] += began.elapsed();
                match verb {
                    Verb::Attach => all.daemon.attach.extend(samples),
                    Verb::Detach => all.daemon.detach.extend(samples),
                }
            }
            self.plugins_at_once(plugins, &mut all)?;
        }
        Ok(all)
    }

    fn at_once(&self, work: &[(String, String)], verb: Verb) -> Result<Samples> {
        let mut callers = Vec::new();
        for part in work.chunks(work.len().div_ceil(CALLERS)) {
            callers.push((self.daemon.client(&self.runtime)?, part.to_vec()));
        }
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (client, part) in callers {
                tasks.spawn(async move {
                    let mut samples = Samples::default();
                    // Connections are made before the clock runs.
                    client.status().await?;
                    for (id, path) in part {
                        let began = Instant::now();
                        match verb {
                            Verb::Attach => drop(client.attach(attach(&id, &path)).await?),
                            Verb::Detach => client.detach(detach(&id)).await?,
                        }
                        samples.push(began.elapsed());
                    }
                    Ok::<_, client::Error>(samples)
                });
            }
            let mut all = Samples::default();
            while let Some(samples) = tasks.join_next().await {
                all.extend(samples??);
            }
            Ok(all)
        })
    }

    fn plugins_at_once(&mut self, count: usize, all: &mut EightCallers) -> Result<()> {
        let namespaces = namespaces_for_plugins(count * CALLERS, Dad::Off)?;
        let work: Vec<_> = namespaces
            .iter()
            .map(|namespace| (self.id(), namespace.path()))
            .collect();
        for (step, verb) in [Verb::Attach, Verb::Detach].into_iter().enumerate() {
            let began = Instant::now();
            let parts = std::thread::scope(|scope| {
                let threads: Vec<_> = work
                    .chunks(count)
                    .map(|part| {
                        let cni = &self.cni;
                        scope.spawn(move || {
                            let mut samples = Samples::default();
                            for (id, path) in part {
                                samples.time(|| match verb {
                                    Verb::Attach => cni.add(id, path),
                                    Verb::Detach => cni.del(id, path),
                                })?;
                            }
                            anyhow::Ok(samples)
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| {
                        thread
                            .join()
                            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    })
                    .collect::<Result<Vec<_>>>()
            })?;
            all.ptp_took[step] += began.elapsed();
            for samples in parts {
                match verb {
                    Verb::Attach => all.ptp.attach.extend(samples),
                    Verb::Detach => all.ptp.detach.extend(samples),
                }
            }
        }
        Ok(())
    }

    /// Grows to `count` attachments, is killed and starts again, and takes them off by the hundred.
    pub(crate) fn thousand(&mut self, count: usize, starts: usize) -> Result<Thousand> {
        let mut all = Thousand::default();
        let pairs = namespaces(2 * count)?;
        for _ in 0..starts {
            all.start[0].push(self.restart()?);
        }
        all.resident[0] = self.daemon.resident()?;
        let mut made = Vec::new();
        for (tenth, pairs) in pairs.chunks(2 * count / 10).enumerate() {
            let (mut bare, mut daemon) = (Samples::default(), Samples::default());
            for pair in pairs.chunks(2) {
                let (id, path) = (self.id(), pair[1].path());
                let link = bare.time(|| self.bare.attach(&pair[0].path()))?;
                let request = attach(&id, &path);
                daemon.time(|| Ok(self.runtime.block_on(self.client.attach(request))?))?;
                made.push((link, id));
            }
            all.growth.push((tenth * count / 10, bare.p50(), daemon.p50()));
        }
        all.resident[1] = self.daemon.resident()?;
        for _ in 0..starts {
            all.start[1].push(self.restart()?);
            let listed = self.runtime.block_on(self.client.list(None))?.len();
            ensure!(listed == count, "{listed} of {count} were recovered");
        }
        for (round, hundred) in made.chunks(100).enumerate() {
            let work: Vec<_> = hundred
                .iter()
                .map(|(_, id)| (id.clone(), String::new()))
                .collect();
            self.pause();
            if round % 2 == 0 {
                all.hundred[0].time(|| hundred.iter().try_for_each(|(link, _)| self.bare.detach(*link)))?;
                let each = &mut all.each;
                all.hundred[1].time(|| self.one_by_one(&work, each))?;
            } else {
                all.hundred[2].time(|| self.together(&work))?;
            }
        }
        for link in indexes("bare")? {
            self.bare.detach(link)?;
        }
        Ok(all)
    }

    fn restart(&mut self) -> Result<Duration> {
        self.daemon.kill()?;
        let took = self.daemon.start(&self.runtime)?;
        // The first call after it would pay for the lost connection.
        self.client = self.daemon.client(&self.runtime)?;
        self.runtime.block_on(self.client.status())?;
        Ok(took)
    }

    fn one_by_one(&self, work: &[(String, String)], each: &mut Samples) -> Result<()> {
        work.iter().try_for_each(|(id, _)| {
            each.time(|| Ok(self.runtime.block_on(self.client.detach(detach(id)))?))
        })
    }

    fn together(&self, work: &[(String, String)]) -> Result<()> {
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (id, _) in work {
                let (client, request) = (self.client.clone(), detach(id));
                tasks.spawn(async move { client.detach(request).await });
            }
            while let Some(result) = tasks.join_next().await {
                result??;
            }
            Ok(())
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Attach,
    Detach,
}

/// Duplicate address detection, for which the plugins wait.
#[derive(Debug, Clone, Copy)]
enum Dad {
    Off,
    AsUsual,
}

fn namespaces(count: usize) -> Result<Vec<Namespace>> {
    (0..count).map(|_| Namespace::new()).collect()
}

fn namespaces_for_plugins(count: usize, dad: Dad) -> Result<Vec<Namespace>> {
    let all = namespaces(count)?;
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
