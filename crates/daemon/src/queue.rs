//! Deletions that clients left while the daemon was down (`crates/queue`): orders for the desk, and what becomes of the files.
//! Nothing here fails: what cannot be read is told and put aside, and holds nobody up.

use crate::desk::order::DetachOrder;
use ::queue::{Deletion, Queue, Waiting};
use model::ipam::Moment;
use model::key::{InterfaceName, Key, KeyError, Owner, WorkloadId};
use std::io::ErrorKind;
use std::time::Duration;

/// A deletion that waits, as orders.
#[derive(Debug)]
pub struct Left {
    /// Of what.
    pub key: Key,
    /// For the desk: one for each namespace.
    pub orders: Vec<DetachOrder>,
    waiting: Waiting,
}

/// What was found to wait.
#[derive(Debug)]
pub struct Looked {
    /// In the order of the files' names.
    pub left: Vec<Left>,
    /// Nothing else waits.
    pub is_all: bool,
}

/// All that waits. It concerns only what was attached before a moment, which was before the look.
pub fn look(queue: &Queue, before: Moment) -> Looked {
    let found = match queue.look() {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(folder = %queue.folder().display(), %error, "deletions that may wait cannot be read");
            return Looked {
                left: Vec::new(),
                is_all: false,
            };
        }
    };
    for (file, error) in &found.failed {
        tracing::warn!(folder = %queue.folder().display(), file, %error, "a deletion cannot be read for now");
    }
    let mut unusable = Unusable {
        queue,
        is_all: found.failed.is_empty(),
        is_locked: false,
    };
    for (name, error) in found.unreadable {
        unusable.put_aside(&name, &error.to_string());
    }
    let mut left = Vec::new();
    for waiting in found.waiting {
        match orders(&waiting.deletion, before) {
            Ok((key, orders)) => left.push(Left { key, orders, waiting }),
            Err(error) => unusable.put_aside(&waiting.deletion.file_name(), &error.to_string()),
        }
    }
    let is_all = unusable.is_all;
    Looked { left, is_all }
}

/// It was carried out, and is not to be again; whether its file is gone.
pub fn settle(queue: &Queue, left: &Left) -> bool {
    let removed = queue.remove(&left.waiting);
    if let Err(error) = &removed {
        tracing::warn!(key = %left.key, %error, "a deletion was carried out and its file stays");
    }
    removed.is_ok()
}

/// What a file asks for.
pub fn orders(deletion: &Deletion, before: Moment) -> Result<(Key, Vec<DetachOrder>), KeyError> {
    let key = Key::new(
        Owner::new(&deletion.owner)?,
        WorkloadId::new(&deletion.workload_id)?,
        InterfaceName::new(&deletion.if_name)?,
    )?;
    let order = |path: &str| DetachOrder {
        key: key.clone(),
        path: (!path.is_empty()).then(|| path.to_owned()),
        before: Some(before),
    };
    let orders = deletion.netns_paths().map(order).collect();
    Ok((key, orders))
}

/// Files that cannot be used, which are put aside.
struct Unusable<'a> {
    queue: &'a Queue,
    /// None of them has to be looked at again.
    is_all: bool,
    /// Somebody keeps the folder to himself, who is waited for once in a look.
    is_locked: bool,
}

impl Unusable<'_> {
    fn put_aside(&mut self, name: &str, why: &str) {
        if self.is_locked {
            return;
        }
        let file = self.queue.folder().join(name);
        let can_be_used = |deletion: &Deletion| orders(deletion, Moment(Duration::ZERO)).is_ok();
        match self.queue.put_aside(name, can_be_used) {
            Ok(Some(aside)) => {
                tracing::warn!(file = %file.display(), aside = %aside.display(), why, "a deletion cannot be read");
            }
            Ok(None) => {
                self.is_all = false;
                tracing::info!(file = %file.display(), "a deletion has taken the place of what cannot be read");
            }
            Err(error) => {
                (self.is_all, self.is_locked) = (false, error.kind() == ErrorKind::WouldBlock);
                tracing::warn!(file = %file.display(), why, %error, "a deletion cannot be read, and stays");
            }
        }
    }
}
