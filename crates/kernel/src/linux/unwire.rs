//! Links taken away, many for the price of one.
//!
//! The kernel acknowledges a deletion only after an rcu_barrier of about 17 ms, one for each RTM_DELLINK; links that are
//! deleted as a group share it.

use super::dying::DyingGroups;
use super::regrouped;
use crate::encode::{delete, delete_group, set_group};
use crate::message::Message;
use crate::socket::{ROUTE, Socket};
use crate::{crash, survey};
use libc::ENODEV;
use model::datapath::{Fault, Target};
use model::survey::DYING_GROUPS;

/// Deletes links, and returns when the kernel has acknowledged it.
pub(super) fn unwire(groups: &DyingGroups, targets: &[Target]) -> Vec<Result<(), Fault>> {
    let mut socket = match Socket::open(ROUTE) {
        Ok(socket) => socket,
        Err(fault) => return targets.iter().map(|_| Err(fault.clone())).collect(),
    };
    let mut results = vec![Ok(()); targets.len()];
    let standing = match standing(&mut socket, targets, &mut results) {
        Ok(standing) => standing,
        Err(fault) => return targets.iter().map(|_| Err(fault.clone())).collect(),
    };
    if standing.len() > 1 {
        let together = groups.in_one(|group| {
            let moves: Vec<_> = standing
                .iter()
                .map(|&n| set_group(targets[n].index, targets[n].link.as_str(), group))
                .collect();
            send(&mut socket, &moves).and_then(|()| send(&mut socket, &[delete_group(group)]))
        });
        match together {
            Some(Ok(())) => return results,
            Some(Err(fault)) => tracing::debug!(%fault, "links are deleted one by one"),
            None => {}
        }
    }
    for n in standing {
        results[n] = send(&mut socket, &[delete(targets[n].index, targets[n].link.as_str())]);
    }
    results
}

/// Which targets are still the links that are meant, and what is to be said of the others.
fn standing(
    socket: &mut Socket,
    targets: &[Target],
    results: &mut [Result<(), Fault>],
) -> Result<Vec<usize>, Fault> {
    let mut standing = Vec::new();
    for (n, target) in targets.iter().enumerate() {
        let found = survey::link_at(socket, target.index, target.link.as_str())?;
        match found.filter(|link| link.host_link().as_ref() == Some(&target.link)) {
            None => {}
            // A deletion that failed leaves a link in the group that was made for it.
            Some(link) if link.group == target.group || DYING_GROUPS.contains(&link.group) => {
                standing.push(n);
            }
            Some(link) => results[n] = Err(regrouped("ip link delete", target, link.group)),
        }
    }
    Ok(standing)
}

/// Sends messages, each of which may find that its link is gone already.
fn send(socket: &mut Socket, batch: &[Message]) -> Result<(), Fault> {
    let together = if crash::is_stepwise() {
        1
    } else {
        batch.len().max(1)
    };
    for messages in batch.chunks(together) {
        let answer = socket.batch(messages)?;
        if let Some(refused) = answer.refused.into_iter().find(|r| r.fault.errno != ENODEV) {
            return Err(refused.fault);
        }
        crash::step();
    }
    Ok(())
}
