//! One attachment, made true: see `model::plan` for the order and its reasons.

use super::{EEXIST, ENODEV, IPV6_MTU};
use crate::encode::{self, GETLINK, ifinfo, link_by_index, link_by_name, set_up};
use crate::message::Message;
use crate::netns::Home;
use crate::socket::{Answer, ROUTE, Refused, Socket, dump_of};
use crate::{crash, survey, sysctl};
use model::address::FIRST_HOP_V6;
use model::datapath::{Fault, WireError};
use model::plan::{Op, Plan, Sysctl};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
/// How many interface indexes are tried before the kernel's refusal is believed.
const INDEX_TRIES: u32 = 64;
/// `RTN_LOCAL`.
const LOCAL: u8 = 2;
const LOCAL_ROUTE_LIMIT: Duration = Duration::from_secs(5);
/// A work queue of an idle kernel needs about as long.
const LOCAL_ROUTE_STEP: Duration = Duration::from_micros(30);
/// The index that loopback has in every namespace of today's kernels.
const USUAL_LOOPBACK: u32 = 1;

const IPV6_ON: Sysctl = Sysctl {
    name: "disable_ipv6",
    value: "0",
};

/// What has been done, and has to be undone if the rest fails.
struct Wiring<'a> {
    host: &'a mut Socket,
    inside: Option<Socket>,
    ipv6: bool,
    plan: &'a Plan,
    host_index: u32,
    workload_index: u32,
    /// Loopback's index, where it was down before.
    loopback_was_down: Option<u32>,
}

/// Makes a plan true, or undoes what was done.
pub(super) fn wire(
    home: &Home,
    host: &mut Socket,
    ipv6: bool,
    namespace: &OwnedFd,
    plan: &Plan,
) -> Result<u32, WireError> {
    let (host_index, workload_index) = create(home, host, namespace, plan)?;
    let mut wiring = Wiring {
        host,
        inside: None,
        ipv6: ipv6 && u32::from(plan.link.mtu) >= IPV6_MTU,
        plan,
        host_index,
        workload_index,
        loopback_was_down: None,
    };
    match wiring.finish(home, namespace) {
        Ok(()) => Ok(host_index),
        Err(error) => Err(wiring.undo(error)),
    }
}

/// Makes both ends; returns their indexes, the workload's 0 where the kernel chose it.
fn create(home: &Home, host: &mut Socket, namespace: &OwnedFd, plan: &Plan) -> Result<(u32, u32), WireError> {
    let mut workload_index = plan.link.workload_index;
    let mut tries = 0;
    loop {
        let index = plan.link.host_index + tries;
        let message = encode::create(&plan.link, index, workload_index, namespace.as_fd());
        let fault = match host.batch(std::slice::from_ref(&message)).and_then(Answer::ok) {
            Ok(_) => {
                crash::step();
                return Ok((index, workload_index));
            }
            Err(fault) => fault,
        };
        match fault.errno {
            // One of the two indexes is taken, and the kernel does not say which: first the workload's is left to it.
            EBUSY if workload_index != 0 => workload_index = 0,
            EBUSY if tries < INDEX_TRIES => tries += 1,
            EEXIST if tries < INDEX_TRIES && has_index(host, index)? => tries += 1,
            EEXIST => return Err(taken(home, host, namespace, plan, fault)),
            _ => {
                return Err(WireError::Refused {
                    fault,
                    left: Vec::new(),
                });
            }
        }
    }
}

/// EEXIST also means that the host end's index is a link's already.
fn has_index(host: &mut Socket, index: u32) -> Result<bool, WireError> {
    let answer = host
        .batch(&[link_by_index(index, "the chosen index")])
        .map_err(refused)?;
    Ok(!answer.replies.is_empty())
}

/// EEXIST says that a name is taken, but not whose.
fn taken(home: &Home, host: &mut Socket, namespace: &OwnedFd, plan: &Plan, fault: Fault) -> WireError {
    if matches!(survey::find_link(host, plan.link.host.as_str()), Ok(Some(_))) {
        return WireError::LinkTaken {
            link: plan.link.host.clone(),
        };
    }
    let inside = home.visit(namespace.as_fd(), || {
        survey::find_link(&mut Socket::open(ROUTE)?, plan.link.workload.as_str())
    });
    match inside {
        Ok(Ok(Some(_))) => WireError::InterfaceTaken {
            interface: plan.link.workload.clone(),
        },
        _ => WireError::Refused {
            fault,
            left: Vec::new(),
        },
    }
}

impl Wiring<'_> {
    fn finish(&mut self, home: &Home, namespace: &OwnedFd) -> Result<(), WireError> {
        if self.ipv6 {
            for setting in &self.plan.sysctls {
                sysctl::write(self.plan.link.host.as_str(), setting).map_err(gone_or_refused)?;
                crash::step();
            }
        }
        let socket = home
            .visit(namespace.as_fd(), || Socket::open(ROUTE))
            .and_then(|opened| opened);
        self.inside = Some(socket.map_err(refused)?);
        let name = self.plan.link.workload.as_str();
        self.make_inside(|| {
            // The folder is that of the namespace which the thread is in.
            home.visit(namespace.as_fd(), || sysctl::write(name, &IPV6_ON))
                .and_then(|written| written)
        })?;
        self.make_outside()?;
        // The end that went up first sends through the noop qdisc until linkwatch has run, which this answer means.
        // Without it about a quarter of all workloads lose their first packet for a second.
        let settled = link_by_index(self.workload_index, name);
        send(self.inside(), &[settled])?;
        if let Some(address) = self.plan.record.addresses.v6() {
            answers(
                self.host,
                FIRST_HOP_V6,
                self.host_index,
                self.plan.link.host.as_str(),
            )?;
            let index = self.workload_index;
            answers(self.inside(), address, index, name)?;
        }
        Ok(())
    }

    fn inside(&mut self) -> &mut Socket {
        self.inside
            .as_mut()
            .expect("opened before anything is made inside")
    }

    fn make_inside(&mut self, switch_ipv6_on: impl FnOnce() -> Result<(), Fault>) -> Result<(), WireError> {
        let plan = self.plan;
        let name = plan.link.workload.as_str();
        if self.workload_index == 0 {
            let link = survey::find_link(self.inside(), name).map_err(refused)?;
            self.workload_index = link.map(|link| link.index).ok_or_else(|| vanished(name))?;
        }
        let loopback = self.loopback()?;
        let index = self.workload_index;
        let batch: Vec<_> = plan
            .workload
            .iter()
            .map(|op| encode::op(op, index, name, loopback, self.ipv6))
            .collect();
        let refused = send_ops(self.inside(), &plan.workload, &batch, switch_ipv6_on)?;
        match refused.into_iter().next() {
            None => Ok(()),
            Some(Refused { position, fault }) => Err(match &plan.workload[position] {
                Op::Route { destination, .. } if fault.errno == EEXIST => WireError::InsideTaken {
                    what: format!("a route to {destination}"),
                },
                _ => gone_or_refused(fault),
            }),
        }
    }

    /// Loopback's index; remembers whether it was down.
    fn loopback(&mut self) -> Result<u32, WireError> {
        let usual = self
            .inside()
            .batch(&[link_by_index(USUAL_LOOPBACK, "lo")])
            .map_err(refused)?;
        let mut found = usual
            .replies
            .first()
            .and_then(|payload| survey::loopback(payload));
        if found.is_none() {
            let all = self
                .inside()
                .dump(&dump_of(GETLINK, &ifinfo(0, 0, 0), "ip link show"))
                .map_err(refused)?;
            found = all.iter().find_map(|payload| survey::loopback(payload));
        }
        let (index, up) = found.ok_or_else(|| vanished("lo"))?;
        self.loopback_was_down = (!up).then_some(index);
        Ok(index)
    }

    fn make_outside(&mut self) -> Result<(), WireError> {
        let (plan, index) = (self.plan, self.host_index);
        let name = plan.link.host.as_str();
        let batch: Vec<_> = plan
            .host
            .iter()
            .map(|op| encode::op(op, index, name, 0, self.ipv6))
            .collect();
        let switch_ipv6_on = || sysctl::write(name, &IPV6_ON);
        for Refused { position, fault } in send_ops(self.host, &plan.host, &batch, switch_ipv6_on)? {
            match &plan.host[position] {
                // Another link has the name for people, and keeps it.
                Op::AltName(_) if fault.errno == EEXIST => {}
                Op::Route { destination, .. } if fault.errno == EEXIST => {
                    return Err(WireError::Routed {
                        destination: *destination,
                    });
                }
                _ => return Err(gone_or_refused(fault)),
            }
        }
        Ok(())
    }

    /// Takes everything away again, in reverse, to the end.
    fn undo(mut self, error: WireError) -> WireError {
        let mut left = Vec::new();
        let name = self.plan.link.host.as_str();
        match self
            .host
            .batch(&[encode::delete(self.host_index, name)])
            .and_then(Answer::ok)
        {
            Ok(_) => {}
            Err(fault) if fault.errno == ENODEV => {}
            Err(fault) => left.push(fault),
        }
        if let (Some(inside), Some(index)) = (&mut self.inside, self.loopback_was_down) {
            match inside.batch(&[set_up(index, "lo", false), encode::delete_loopback_address(index)]) {
                // It never went up, or had an address before.
                Ok(answer) => left.extend(
                    answer
                        .refused
                        .into_iter()
                        .filter(|r| r.position == 0)
                        .map(|r| r.fault),
                ),
                Err(fault) => left.push(fault),
            }
        }
        match error {
            WireError::Refused { fault, .. } => WireError::Refused { fault, left },
            other if left.is_empty() => other,
            other => WireError::Refused {
                fault: Fault {
                    tried: "attach".to_owned(),
                    reason: other.to_string(),
                    errno: 0,
                },
                left,
            },
        }
    }
}

/// Waits until the kernel takes packets to one of its own IPv6 addresses.
///
/// NEWADDR is acknowledged before: the address's local route is made by a work queue (`addrconf_dad_start`,
/// net/ipv6/addrconf.c), also without duplicate address detection. Nothing announces it.
pub(super) fn answers(
    socket: &mut Socket,
    address: Ipv6Addr,
    index: u32,
    link: &str,
) -> Result<(), WireError> {
    let request = encode::route_to(address, index);
    let start = Instant::now();
    while start.elapsed() < LOCAL_ROUTE_LIMIT {
        let answer = socket.batch(std::slice::from_ref(&request)).map_err(refused)?;
        if answer.replies.first().and_then(|route| route.get(7)) == Some(&LOCAL) {
            return Ok(());
        }
        // A link that is gone would be waited for in vain.
        socket
            .batch(&[link_by_index(index, link)])
            .and_then(Answer::ok)
            .map_err(gone_or_refused)?;
        std::thread::park_timeout(LOCAL_ROUTE_STEP);
    }
    Err(refused(Fault {
        tried: format!("wait for {address} to be answered"),
        reason: format!("not within {LOCAL_ROUTE_LIMIT:?}"),
        errno: 0,
    }))
}

/// Sends messages of which none may fail.
fn send(socket: &mut Socket, batch: &[Message]) -> Result<(), WireError> {
    match send_all(socket, batch)?.into_iter().next() {
        Some(first) => Err(gone_or_refused(first.fault)),
        None => Ok(()),
    }
}

/// Sends ops together; returns the refusals.
///
/// A link inherits `disable_ipv6` from its namespace's default, and takes no IPv6 address then (EACCES): it is switched on
/// for this link, and what was refused is sent once more. A node or a sandbox where it is on pays nothing for that.
fn send_ops(
    socket: &mut Socket,
    ops: &[Op],
    batch: &[Message],
    switch_ipv6_on: impl FnOnce() -> Result<(), Fault>,
) -> Result<Vec<Refused>, WireError> {
    let mut refusals = send_all(socket, batch)?;
    let off = |refused: &Refused| {
        let address =
            matches!(&ops[refused.position], Op::Address { address, .. } if address.addr().is_ipv6());
        address && refused.fault.errno == EACCES
    };
    if refusals.iter().any(off) {
        switch_ipv6_on().map_err(gone_or_refused)?;
        let positions: Vec<usize> = refusals.iter().map(|refused| refused.position).collect();
        let again: Vec<Message> = positions.iter().map(|&n| batch[n].clone()).collect();
        refusals = send_all(socket, &again)?;
        for refused in &mut refusals {
            refused.position = positions[refused.position];
        }
    }
    Ok(refusals)
}

/// Sends messages together, or in a build with crash points one by one; returns the refusals.
fn send_all(socket: &mut Socket, batch: &[Message]) -> Result<Vec<Refused>, WireError> {
    if !crash::STEPWISE {
        return Ok(socket.batch(batch).map_err(refused)?.refused);
    }
    let mut all = Vec::new();
    for (position, message) in batch.iter().enumerate() {
        let answer = socket.batch(std::slice::from_ref(message)).map_err(refused)?;
        all.extend(
            answer
                .refused
                .into_iter()
                .map(|refused| Refused { position, ..refused }),
        );
        crash::step();
    }
    Ok(all)
}

fn refused(fault: Fault) -> WireError {
    WireError::Refused {
        fault,
        left: Vec::new(),
    }
}

/// A link that is no longer there was taken along by its namespace.
fn gone_or_refused(fault: Fault) -> WireError {
    match fault.errno {
        ENODEV | ENOENT => WireError::Vanished(fault),
        _ => refused(fault),
    }
}

fn vanished(link: &str) -> WireError {
    let tried = link_by_name(link).describes().to_owned();
    WireError::Vanished(Fault {
        tried,
        reason: "no such link".to_owned(),
        errno: ENODEV,
    })
}
