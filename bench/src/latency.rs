//! One caller: the floor, the kernel room alone, the daemon and the first version's sequence, in turn.

use crate::Size;
use crate::bare::Bare;
use crate::figures::Figures;
use crate::first::First;
use crate::named::Named;
use crate::product::{Daemon, KernelRoom};
use crate::samples::{Samples, Way};
use crate::stand::{Caller, Verb, all_as_new, at_once, id, namespaces, pause, runtime};
use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

const BLOCK: usize = 40;
/// Detaches of a block that are measured, each after a pause; the others go together.
const DETACHES: usize = 20;
const WAYS: usize = 4;

#[derive(Debug, Default)]
struct Ways {
    bare: Way,
    room: Way,
    daemon: Way,
    first: Way,
    status: [Samples; 2],
    awaited: Samples,
}

struct Stand {
    runtime: Runtime,
    bare: Bare,
    room: KernelRoom,
    // Both are asked as long as they live.
    daemon: Caller,
    first: Caller,
    _daemon: Daemon,
    _first: First,
}

/// What one block has attached.
struct Made {
    link: u32,
    target: model::datapath::Target,
    daemon: String,
    first: String,
}

/// In the thread's network namespace, the services in others.
pub(crate) fn measure(size: &Size, figures: &mut Figures) -> Result<()> {
    let mut stand = Stand::new()?;
    let namespaces = namespaces(WAYS * BLOCK)?;
    // What is done for the first time is not what it costs.
    stand.round(&namespaces, &mut Ways::default(), 1)?;
    let mut ways = Ways::default();
    for _ in 0..size.rounds {
        stand.round(&namespaces, &mut ways, DETACHES)?;
        for way in [&mut ways.bare, &mut ways.room, &mut ways.daemon, &mut ways.first] {
            way.end_round();
        }
        for samples in ways.status.iter_mut().chain([&mut ways.awaited]) {
            samples.end_round();
        }
    }
    for (who, way) in [
        ("floor", &ways.bare),
        ("daemon", &ways.daemon),
        ("first", &ways.first),
    ] {
        figures.distribution(format!("attach/{who}"), &way.attach);
        figures.distribution(format!("detach/{who}"), &way.detach);
    }
    figures.times("attach/kernel-room", &ways.room.attach);
    figures.times("detach/floor-acknowledged", &ways.awaited);
    figures.times("status/daemon", &ways.status[0]);
    figures.times("status/first", &ways.status[1]);
    Ok(())
}

impl Stand {
    fn new() -> Result<Self> {
        let runtime = runtime()?;
        let mut daemon = Daemon::new()?;
        daemon.start(&runtime)?;
        let first = First::start(&runtime)?;
        Ok(Self {
            bare: Bare::here()?,
            room: KernelRoom::here()?,
            daemon: Caller::new(daemon.client(&runtime)?),
            first: Caller::new(first.client(&runtime)?),
            runtime,
            _daemon: daemon,
            _first: first,
        })
    }

    fn round(&mut self, namespaces: &[Named], ways: &mut Ways, detaches: usize) -> Result<()> {
        all_as_new(namespaces)?;
        let mut made = Vec::new();
        for (n, four) in namespaces.chunks(WAYS).enumerate() {
            made.push(self.attach(n, four, ways)?);
        }
        for _ in 0..BLOCK {
            for (caller, samples) in [&self.daemon, &self.first].into_iter().zip(&mut ways.status) {
                samples.time(|| self.runtime.block_on(caller.status()))?;
            }
        }
        let rest = made.split_off(detaches.min(made.len()));
        for made in made {
            self.detach(made, ways)?;
        }
        self.clear(rest, ways)
    }

    /// Each way follows each other one equally often.
    fn attach(&mut self, n: usize, four: &[Named], ways: &mut Ways) -> Result<Made> {
        let paths: Vec<_> = four.iter().map(Named::path).collect();
        let (daemon, first) = (id(), id());
        let (mut link, mut target) = (None, None);
        for turn in 0..WAYS {
            match (n + turn) % WAYS {
                0 => link = Some(ways.bare.attach.time(|| self.bare.attach(&paths[0]))?),
                1 => target = Some(ways.room.attach.time(|| self.room.attach(&paths[1]))?),
                2 => {
                    let order = self.daemon.attach(&daemon, &paths[2]);
                    ways.daemon.attach.time(|| self.runtime.block_on(order))?;
                }
                _ => {
                    let order = self.first.attach(&first, &paths[3]);
                    ways.first.attach.time(|| self.runtime.block_on(order))?;
                }
            }
        }
        Ok(Made {
            link: link.context("four turns")?,
            target: target.context("four turns")?,
            daemon,
            first,
        })
    }

    fn detach(&mut self, made: Made, ways: &mut Ways) -> Result<()> {
        let Self { runtime, .. } = self;
        pause(runtime);
        ways.bare.detach.push(self.bare.end(made.link)?);
        self.bare.settle()?;
        pause(runtime);
        ways.daemon
            .detach
            .time(|| runtime.block_on(self.daemon.detach(&made.daemon)))?;
        pause(runtime);
        ways.first
            .detach
            .time(|| runtime.block_on(self.first.detach(&made.first)))?;
        self.room.detach(made.target)
    }

    /// The rest of a block, of which only the acknowledged end of a bare link is measured, and that once.
    fn clear(&mut self, rest: Vec<Made>, ways: &mut Ways) -> Result<()> {
        let work =
            |ids: Vec<&String>| -> Vec<_> { ids.into_iter().map(|id| (id.clone(), String::new())).collect() };
        let daemon = work(rest.iter().map(|made| &made.daemon).collect());
        let first = work(rest.iter().map(|made| &made.first).collect());
        at_once(
            &self.runtime,
            std::slice::from_ref(&self.daemon),
            &daemon,
            Verb::Detach,
        )?;
        at_once(&self.runtime, &vec![self.first.clone(); 8], &first, Verb::Detach)?;
        for (n, made) in rest.into_iter().enumerate() {
            if n % 4 == 0 {
                pause(&self.runtime);
                ways.awaited.time(|| self.bare.detach(made.link))?;
            } else {
                self.bare.detach(made.link)?;
            }
            self.room.detach(made.target)?;
        }
        Ok(())
    }
}
