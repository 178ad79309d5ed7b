//! A workload's namespace with a process in it, as runtimes make them.
//!
//! Its path names the process: a descriptor's number is given to the next file at once, and a late request would reach
//! another test's namespace.

use stage::Namespace;
use std::process::{Child, Command, Stdio};

/// A namespace and a process that does nothing but live in it. Ends with this value.
#[derive(Debug)]
pub(crate) struct Sandbox {
    namespace: Namespace,
    holder: Child,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new().unwrap();
        // cat ends by itself when this process does, even by SIGKILL: its input ends then.
        let mut waiting = Command::new("cat");
        waiting.stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = namespace.within(|| waiting.spawn()).unwrap().unwrap();
        Self { namespace, holder }
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }
}

impl std::ops::Deref for Sandbox {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
