//! The first version's sequence of calls, as a process on a node of its own (`bench/first`, in Go).

use anyhow::{Context as _, Result, ensure};
use client::Client;
use stage::Node;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);

/// Ends with this value.
#[derive(Debug)]
pub(crate) struct First {
    child: Child,
    folder: TempDir,
    /// Where it runs.
    _node: Node,
}

impl First {
    /// Started, and ready.
    pub(crate) fn start(runtime: &Runtime) -> Result<Self> {
        // cargo xtask bench builds it.
        let program: PathBuf = std::env::var_os("WORKLOADNET_FIRST")
            .context("WORKLOADNET_FIRST has to name the first version's sequence")?
            .into();
        let node = Node::new()?;
        let folder = tempfile::tempdir().context("make a folder for the socket")?;
        let mut command = Command::new(&program);
        command
            .arg("-socket")
            .arg(folder.path().join("first.sock"))
            .stdin(Stdio::null());
        let child = node
            .node
            .within(|| command.spawn())?
            .with_context(|| format!("start {}", program.display()))?;
        let first = Self {
            child,
            folder,
            _node: node,
        };
        let client = first.client(runtime)?;
        let began = Instant::now();
        runtime.block_on(async {
            while let Err(error) = client.status().await {
                ensure!(
                    began.elapsed() < PATIENCE,
                    "not ready within {PATIENCE:?}: {error}"
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        })?;
        Ok(first)
    }

    /// A connection of its own.
    pub(crate) fn client(&self, runtime: &Runtime) -> Result<Client> {
        crate::product::client(runtime, &self.folder.path().join("first.sock"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
