//! A run: rounds of storm and quiet, and what is wrong after each.

use crate::caller::{Caller, Office};
use crate::check::key::{State, Verdict, judge};
use crate::check::steps::steps;
use crate::check::{addresses, honesty};
use crate::daemon::Daemon;
use crate::history::{Blow, History, Life, Reign};
use crate::nemesis;
use crate::plan::{KEYS, Kind, Round, Scope, World, round};
use crate::quiet;
use crate::room::Room;
use crate::steady::Steady;
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a run goes on.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    /// Until so many operations were carried out.
    Operations(usize),
    /// Until so much time has passed.
    Time(Duration),
}

/// What was done, and what was wrong.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Operations that were carried out.
    pub operations: usize,
    /// Their outcomes: yes, no, and unknown.
    pub answers: [usize; 3],
    /// Strikes by kind.
    pub strikes: BTreeMap<Kind, usize>,
    /// Rounds.
    pub rounds: u64,
    /// In words; empty: all is well.
    pub complaints: Vec<String>,
    /// Where everything that is known of a failure was written.
    pub folder: Option<PathBuf>,
}

/// One node and its daemon, for a whole run.
struct Run<'a> {
    scope: &'a Scope,
    office: Arc<Office>,
    callers: Vec<Caller>,
    /// For questions, and for what is seen at last.
    asker: Caller,
    strangers: Vec<String>,
    steady: Option<Steady>,
    /// In which ways each key may be.
    states: Vec<Vec<State>>,
    log_read: u64,
}

/// Runs rounds from a first one on, until the length is reached or something is wrong.
pub fn run(scope: &Scope, first: u64, length: Length, report: &Path) -> Result<Outcome> {
    let began = Instant::now();
    let mut run = Run::new(scope)?;
    let mut outcome = Outcome::default();
    for number in first.. {
        let is_over = match length {
            Length::Operations(limit) => outcome.operations >= limit,
            Length::Time(limit) => began.elapsed() >= limit,
        };
        if is_over || !outcome.complaints.is_empty() {
            break;
        }
        let round = round(scope, &scope.world(), number);
        run.carry_out(&round, &mut outcome, report)?;
    }
    Ok(outcome)
}

/// A node with its daemon, and callers.
fn office(world: World, callers: usize) -> Result<(Arc<Office>, Vec<Caller>)> {
    let room = Arc::new(Room::new()?);
    let daemon = Daemon::new(Arc::clone(&room), world.clone(), stage::sibling("workloadnetd")?)?;
    let plugin = stage::sibling("workloadnet-cni")?;
    let office = Arc::new(Office::new(room, Arc::new(daemon), plugin, world));
    let caller = |number| Caller::new(number, Arc::clone(&office));
    let callers = (0..callers).map(caller).collect::<Result<_>>()?;
    Ok((office, callers))
}

/// A node on which nobody strikes, with a daemon that is ready, and callers.
pub fn calm(callers: usize) -> Result<(Arc<Office>, Vec<Caller>)> {
    let (office, callers) = office(World::calm(), callers)?;
    let asker = Caller::new(usize::MAX, Arc::clone(&office))?;
    let wrong = quiet::settle(&office, &asker)?;
    ensure!(wrong.is_empty(), "the daemon does not come up: {wrong:#?}");
    Ok((office, callers))
}

impl<'a> Run<'a> {
    fn new(scope: &'a Scope) -> Result<Self> {
        let (office, callers) = office(scope.world(), scope.callers)?;
        let strangers = office.room.strangers()?;
        let asker = Caller::new(usize::MAX, Arc::clone(&office))?;
        let mut run = Self {
            scope,
            callers,
            asker,
            strangers,
            steady: None,
            states: vec![vec![State::Absent]; KEYS],
            log_read: 0,
            office,
        };
        let wrong = quiet::settle(&run.office, &run.asker)?;
        if !wrong.is_empty() {
            bail!("the daemon does not come up: {wrong:#?}\n{}", run.log());
        }
        run.steady = Some(Steady::new(&run.office, &run.asker)?);
        run.office.take_calls();
        Ok(run)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.office.daemon.log()).unwrap_or_default()
    }

    fn carry_out(&mut self, round: &Round, outcome: &mut Outcome, report: &Path) -> Result<()> {
        let (blows, mut complaints) = self.storm(round)?;
        complaints.extend(blows.iter().filter_map(|blow| blow.complaint.clone()));
        let mut history = History {
            blows,
            ..History::default()
        };
        complaints.extend(quiet::settle(&self.office, &self.asker)?);
        let quiet_since = self.office.room.now();
        history.calls = self.office.take_calls();
        history.lives = self.office.room.lives().clone();
        history.reigns = self.office.daemon.reigns();
        complaints.extend(self.office.daemon.sudden());
        complaints.extend(self.judge(&history, quiet_since));
        complaints.extend(self.strangers_complaints()?);
        let (panics, read) = quiet::log_complaints(&self.office, self.log_read)?;
        complaints.extend(panics);
        self.log_read = read;
        count(outcome, &history);
        if !complaints.is_empty() {
            outcome.folder = Some(self.write(round, &history, &complaints, report)?);
            outcome.complaints = complaints;
        }
        Ok(())
    }

    /// Callers call, and the nemesis strikes. What it did, and packets that were lost.
    fn storm(&self, round: &Round) -> Result<(Vec<Blow>, Vec<String>)> {
        let are_done = AtomicBool::new(false);
        let (office, callers) = (&self.office, &self.callers);
        let steady = self.steady.as_ref();
        std::thread::scope(|scope| {
            let nemesis = scope.spawn(|| nemesis::strike(office, &round.strikes, &are_done));
            let packets = scope.spawn(|| steady.map(|steady| steady.watch(office, &are_done)));
            let keeper = scope.spawn(|| self.keep(&are_done));
            let working: Vec<_> = callers
                .iter()
                .map(|caller| scope.spawn(|| caller.work(&round.operations)))
                .collect();
            for caller in working {
                caller.join().map_err(|panic| std::panic::resume_unwind(panic))?;
            }
            are_done.store(true, Ordering::Relaxed);
            keeper
                .join()
                .map_err(|panic| std::panic::resume_unwind(panic))??;
            let lost = packets.join().map_err(|panic| std::panic::resume_unwind(panic))?;
            let blows = nemesis
                .join()
                .map_err(|panic| std::panic::resume_unwind(panic))??;
            Ok((blows, lost.unwrap_or_default()))
        })
    }

    /// Tells prefixes to daemons that are new, as a control plane does.
    fn keep(&self, are_done: &AtomicBool) -> Result<()> {
        let mut known: Option<Reign> = None;
        let asker = Caller::new(usize::MAX, Arc::clone(&self.office))?;
        while !stage::wait::within(Duration::from_millis(20), || are_done.load(Ordering::Relaxed)) {
            self.office.daemon.revive()?;
            let reign = self.office.daemon.reigns().last().copied();
            if reign.map(|reign| reign.from) != known.map(|reign| reign.from) {
                // A daemon that dies meanwhile is followed by another one.
                let told = asker.question(async |client| self.office.daemon.tell_again(client).await);
                known = told.is_ok().then_some(reign).flatten();
            }
        }
        Ok(())
    }

    fn judge(&mut self, history: &History, quiet_since: u64) -> Vec<String> {
        let world = &self.office.world;
        let mut complaints = honesty::complaints(history, world);
        let steps = steps(history, quiet_since, &self.states);
        complaints.extend(addresses::complaints(history, &steps, world));
        for (key, steps) in steps.iter().enumerate() {
            match judge(&self.states[key], steps) {
                Verdict::Possible(states) => self.states[key] = states,
                Verdict::TooHard => {
                    complaints.push(format!("key {key}: {} steps are too many to judge", steps.len()));
                }
                Verdict::Impossible(why) => complaints.push(format!("key {key}: {why}")),
            }
        }
        complaints
    }

    fn strangers_complaints(&self) -> Result<Vec<String>> {
        let found = self.office.room.strangers()?;
        let pairs = self.strangers.iter().zip(&found);
        Ok(pairs
            .filter(|(before, after)| before != after)
            .map(|(before, after)| format!("a stranger's: {before}\nbecame: {after}"))
            .collect())
    }

    /// Everything that is known of a round that failed.
    fn write(
        &self,
        round: &Round,
        history: &History,
        complaints: &[String],
        report: &Path,
    ) -> Result<PathBuf> {
        let folder = report.join(format!("seed-{}-round-{}", self.scope.seed, round.number));
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text);
        write("scope.json", serde_json::to_string_pretty(self.scope)?)?;
        write("plan.json", serde_json::to_string_pretty(round)?)?;
        let calls: Vec<String> = history
            .calls
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        write("calls.jsonl", calls.join("\n"))?;
        let rest = History {
            calls: Vec::new(),
            ..history.clone()
        };
        write("blows.json", serde_json::to_string_pretty(&rest)?)?;
        write("complaints.txt", complaints.join("\n\n"))?;
        write("daemon.log", self.log())?;
        write("kernel.txt", self.kernel())?;
        Ok(folder)
    }

    fn kernel(&self) -> String {
        let room = &self.office.room;
        let mut text = String::new();
        for line in [
            "ip -d link show",
            "ip address show",
            "ip -4 route show table all",
            "ip -6 route show table all",
            "ip neighbour show",
            "nft list ruleset",
        ] {
            let said = crate::witness::run(&room.stage.node, line);
            text += &format!(
                "# {line}\n{}\n",
                said.unwrap_or_else(|error| format!("{error:#}"))
            );
        }
        let lives: Vec<Life> = room
            .lives()
            .iter()
            .filter(|life| life.until == u64::MAX)
            .cloned()
            .collect();
        for life in lives {
            let namespace = stage::Namespace::open(&room.path(life.slot));
            let said = namespace.and_then(|namespace| crate::witness::run(&namespace, "ip address show"));
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            text += &format!("# namespace {} (inode {})\n{said}\n", life.slot, life.inode);
        }
        text
    }
}

fn count(outcome: &mut Outcome, history: &History) {
    use crate::history::Answer;
    outcome.rounds += 1;
    outcome.operations += history.calls.len();
    for call in &history.calls {
        let at = match call.answer {
            Answer::Refused(_) | Answer::Strange(_) => 1,
            Answer::Unknown(_) => 2,
            _ => 0,
        };
        outcome.answers[at] += 1;
    }
    for blow in &history.blows {
        *outcome.strikes.entry(blow.strike.kind).or_default() += 1;
    }
}

/// The rounds of a range, for a look at what a seed has in store.
pub fn rounds(scope: &Scope, numbers: Range<u64>) -> Vec<Round> {
    let world = scope.world();
    numbers.map(|number| round(scope, &world, number)).collect()
}
