//! Links taken away, many for the price of one.
//!
//! The kernel acknowledges a deletion only after an rcu_barrier of about 17 ms, one for each RTM_DELLINK; links that are
//! deleted as a group share it.

use crate::encode::{delete, delete_group, link_by_index, set_group};
use crate::message::Message;
use crate::socket::{Answer, ROUTE, Socket};
use crate::{crash, survey};
use model::datapath::{Fault, Target};
use model::survey::DYING_GROUPS;
use std::sync::atomic::{AtomicU32, Ordering};

const ENODEV: i32 = 19;

/// Deletes links, and returns when the kernel has acknowledged it.
pub(super) fn unwire(next_group: &AtomicU32, targets: &[Target]) -> Vec<Result<(), Fault>> {
    let mut socket = match Socket::open(ROUTE) {
        Ok(socket) => socket,
        Err(fault) => return targets.iter().map(|_| Err(fault.clone())).collect(),
    };
    let mut results = vec![Ok(()); targets.len()];
    let standing = match standing(&mut socket, targets) {
        Ok(standing) => standing,
        Err(fault) => return targets.iter().map(|_| Err(fault.clone())).collect(),
    };
    if standing.len() > 1 {
        let size = DYING_GROUPS.end() - DYING_GROUPS.start() + 1;
        let group = DYING_GROUPS.start() + next_group.fetch_add(1, Ordering::Relaxed) % size;
        let moves: Vec<_> = standing
            .iter()
            .map(|&n| set_group(targets[n].index, targets[n].link.as_str(), group))
            .collect();
        let together = send(&mut socket, &moves).and_then(|()| send(&mut socket, &[delete_group(group)]));
        match together {
            Ok(()) => return results,
            Err(fault) => tracing::debug!(%fault, "links are deleted one by one"),
        }
    }
    for n in standing {
        results[n] = match send(&mut socket, &[delete(targets[n].index, targets[n].link.as_str())]) {
            Err(fault) if fault.errno == ENODEV => Ok(()),
            other => other,
        };
    }
    results
}

/// Which targets are still the links that are meant.
fn standing(socket: &mut Socket, targets: &[Target]) -> Result<Vec<usize>, Fault> {
    let mut standing = Vec::new();
    for (n, target) in targets.iter().enumerate() {
        let reply = socket.batch(&[link_by_index(target.index, target.link.as_str())])?;
        let found = reply
            .replies
            .first()
            .and_then(|payload| survey::parse_link(payload));
        if found.is_some_and(|l| l.name == target.link.as_str() && l.group == target.group) {
            standing.push(n);
        }
    }
    Ok(standing)
}

fn send(socket: &mut Socket, batch: &[Message]) -> Result<(), Fault> {
    if !crash::STEPWISE {
        return socket.batch(batch).and_then(Answer::ok).map(drop);
    }
    for message in batch {
        socket.batch(std::slice::from_ref(message)).and_then(Answer::ok)?;
        crash::step();
    }
    Ok(())
}
