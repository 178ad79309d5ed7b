//! The daemon under test: started as a service manager would, and again whenever it has ended.

use crate::history::Reign;
use crate::plan::World;
use crate::room::Room;
use anyhow::{Context as _, Result};
use client::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// For a daemon that is asked to end, before it is made to.
const FAREWELL: Duration = Duration::from_secs(45);

/// The daemon of a room.
#[derive(Debug)]
pub struct Daemon {
    room: Arc<Room>,
    world: World,
    binary: PathBuf,
    child: Mutex<Option<Child>>,
    reigns: Mutex<Vec<Reign>>,
    /// Number of the list of prefixes that was told last.
    told: AtomicUsize,
    /// It may end by itself: a nemesis takes its memory.
    may_end: AtomicBool,
    /// Nobody starts another one but who has ended it.
    is_down: AtomicBool,
    /// Ends that nobody had asked for.
    sudden: Mutex<Vec<String>>,
}

impl Daemon {
    /// Not running yet.
    pub fn new(room: Arc<Room>, world: World, binary: PathBuf) -> Result<Self> {
        let lines = match world.is_told {
            true => "[prefixes]\nsource = \"api\"\n".to_owned(),
            false => String::new(),
        };
        let prefixes = match world.is_told {
            true => String::new(),
            false => format!("prefixes = {:?}\n", world.lists[0]),
        };
        let text = format!(
            "[socket]\npath = {:?}\n[network]\n{prefixes}cool_down_seconds = {}\nstate = {:?}\n{lines}",
            room.socket(),
            world.cool_down,
            room.state()
        );
        std::fs::write(room.folder().join("workloadnetd.toml"), text)?;
        Ok(Self {
            room,
            world,
            binary,
            child: Mutex::default(),
            reigns: Mutex::default(),
            told: AtomicUsize::new(0),
            may_end: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            sudden: Mutex::default(),
        })
    }

    /// Every daemon that there was or is.
    pub fn reigns(&self) -> Vec<Reign> {
        locked(&self.reigns).clone()
    }

    /// Ends that nobody had asked for, since the last look.
    pub fn sudden(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.sudden))
    }

    /// Where its log is.
    pub fn log(&self) -> PathBuf {
        self.room.folder().join("log")
    }

    /// Its process.
    pub fn pid(&self) -> Option<Pid> {
        locked(&self.child).as_ref().map(Pid::from_child)
    }

    /// Whether its end would be nobody's fault.
    pub fn let_end(&self, may: bool) {
        self.may_end.store(may, Ordering::Relaxed);
    }

    /// Which list of prefixes is to serve.
    pub fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }

    /// Another list is to serve.
    pub fn tell(&self, list: usize) {
        self.told.store(list, Ordering::Relaxed);
    }

    /// Starts one where none is running, as a service manager does, unless somebody keeps it down.
    pub fn revive(&self) -> Result<()> {
        if !self.is_down.load(Ordering::Relaxed) {
            self.ensure_running()?;
        }
        Ok(())
    }

    /// Starts one after [`Self::end`].
    pub fn start(&self) -> Result<()> {
        self.ensure_running()?;
        self.is_down.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Starts one where none is running. Where prefixes are told, somebody has to do that afterwards: see [`Self::tell_again`].
    pub fn ensure_running(&self) -> Result<bool> {
        let mut child = locked(&self.child);
        if let Some(running) = child.as_mut() {
            let Some(status) = running.try_wait()? else {
                return Ok(false);
            };
            self.died();
            if !self.may_end.load(Ordering::Relaxed) {
                locked(&self.sudden).push(format!("the daemon ended by itself: {status}"));
            }
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        locked(&self.reigns).push(Reign {
            from: self.room.now(),
            until: u64::MAX,
        });
        *child = Some(self.spawn(log)?);
        Ok(true)
    }

    fn spawn(&self, log: File) -> Result<Child> {
        let mut command = Command::new(&self.binary);
        command
            .arg("--config")
            .arg(self.room.folder().join("workloadnetd.toml"))
            .env("RUST_LOG", "info,daemon=debug,kernel=debug")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.room
            .stage
            .node
            .within(|| command.spawn())?
            .context("start the daemon")
    }

    /// Tells a daemon that does not know it which prefixes serve, where they are told.
    pub async fn tell_again(&self, client: &Client) -> Result<(), client::Error> {
        if self.world.is_told {
            client.set_prefixes(self.world.lists[self.told()].clone()).await?;
        }
        Ok(())
    }

    /// Sends a signal, where one is running.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // One that has ended is still ours to wait for, so its number is nobody else's.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it, and waits until it has ended; how, where one was running.
    pub fn end(&self, signal: Signal) -> Result<Option<ExitStatus>> {
        self.is_down.store(true, Ordering::Relaxed);
        let mut guard = locked(&self.child);
        let Some(child) = guard.as_mut() else {
            return Ok(None);
        };
        let _ = kill_process(Pid::from_child(child), signal);
        let mut status = None;
        let has_ended = stage::wait::within(FAREWELL, || {
            status = child.try_wait().unwrap_or_default();
            status.is_some()
        });
        if !has_ended {
            locked(&self.sudden).push(format!("the daemon did not end within {FAREWELL:?}"));
            child.kill()?;
            status = Some(child.wait()?);
        }
        *guard = None;
        self.died();
        Ok(status)
    }

    fn died(&self) {
        if let Some(reign) = locked(&self.reigns).last_mut() {
            reign.until = reign.until.min(self.room.now());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = locked(&self.child).take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// What a thread that panicked left is looked at all the same.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
