//! One attachment, made true: see `model::plan` for the order and its reasons.

use super::batch::{Batch, gone_or_refused, refused, send_all};
use super::{Linux, carrier, no_second_name, rest};
use crate::encode::{
    self, LOCAL, LOOPBACK, UNICAST, UP, link_by_index, link_by_name, route_over, route_to, set_up,
};
use crate::fault::ours;
use crate::message::Message;
use crate::netns::Home;
use crate::socket::{Answer, ROUTE, Refused, Reply, Socket};
use crate::{crash, survey};
use libc::{EADDRNOTAVAIL, EBUSY, EEXIST, ENODEV};
use model::address::{FIRST_HOP_V6, IPV6_MTU};
use model::datapath::{Fault, WireError};
use model::op::{FORWARDING_V6, IPV6_ON, Op};
use model::plan::{Plan, host_net};
use model::survey::FoundLink;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// How many interface indexes are tried before the kernel's refusal is believed.
const INDEX_TRIES: u32 = 64;
/// How often a name that was taken, and is free when it is looked up, is tried again.
const NAME_TRIES: u32 = 8;
const LOCAL_ROUTE_LIMIT: Duration = Duration::from_secs(5);
/// A work queue of an idle kernel needs about as long.
const LOCAL_ROUTE_STEP: Duration = Duration::from_micros(30);

/// What has been done, and has to be undone if the rest fails.
struct Wiring<'a> {
    linux: &'a Linux,
    host: &'a mut Socket,
    inside: Option<Socket>,
    ipv6: bool,
    plan: &'a Plan,
    made: Made,
    loopback: Loopback,
}

/// Both ends, as the kernel made them.
struct Made {
    host: FoundLink,
    /// 0 where the kernel chose it.
    workload_index: u32,
}

/// What is to become of the workload's loopback if the rest fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loopback {
    /// It is as it was.
    AsItWas,
    /// It was down.
    WasDown,
    /// The answer that would tell was lost, and it may have been set up.
    Unknown,
}

/// Makes a plan true, or undoes what was done.
pub(super) fn wire(
    linux: &Linux,
    host: &mut Socket,
    namespace: &OwnedFd,
    plan: &Plan,
) -> Result<u32, WireError> {
    let home = &linux.home;
    let made = create(home, host, namespace, plan)?;
    let index = made.host.index;
    let mut wiring = Wiring {
        linux,
        host,
        inside: None,
        ipv6: linux.ipv6 && plan.link.mtu >= IPV6_MTU,
        plan,
        made,
        loopback: Loopback::AsItWas,
    };
    match wiring
        .finish(home, namespace)
        .and_then(|()| wiring.open_forwards())
    {
        Ok(()) => Ok(index),
        Err(error) => Err(wiring.undo(error)),
    }
}

/// Makes both ends.
///
/// The host end is asked for in the same send: for its settings, and so that the kernel takes note that it has no carrier yet
/// (`linkwatch_sync_dev`). With a carrier by its last note a link counts as ready as soon as it goes up, and all IPv6 routes of the
/// node are walked for it; and once more when the note is taken (`addrconf_notify`, net/ipv6/addrconf.c).
fn create(home: &Home, host: &mut Socket, namespace: &OwnedFd, plan: &Plan) -> Result<Made, WireError> {
    let mut workload_index = plan.link.workload_index;
    let mut tries = 0;
    let mut was_free = 0;
    loop {
        let index = plan.link.host_index + tries;
        let messages = [
            encode::create(&plan.link, index, workload_index, namespace.as_fd()),
            link_by_index(index, plan.link.host.as_str()),
        ];
        let Answer {
            refused: first,
            replies,
        } = host.batch(&messages).map_err(|fault| {
            let left = take_back(host, plan, index).err().into_iter().collect();
            WireError::Refused { fault, left }
        })?;
        let Some(Refused { fault, .. }) = first.into_iter().find(|refused| refused.position == 0) else {
            crash::step();
            let host = as_made(host, plan, index, &replies)?;
            return Ok(Made { host, workload_index });
        };
        match fault.errno {
            // One of the two indexes is taken, and the kernel does not say which: first the workload's is left to it.
            EBUSY if workload_index != 0 => workload_index = 0,
            EBUSY if tries < INDEX_TRIES => tries += 1,
            // It also means that the host end's index is a link's already, which then was told.
            EEXIST if tries < INDEX_TRIES && !replies.is_empty() => tries += 1,
            EEXIST => match taken(home, host, namespace, plan).map_err(refused)? {
                Some(error) => return Err(error),
                // Who had the name is gone meanwhile, as when it is just being detached.
                None if was_free < NAME_TRIES => was_free += 1,
                None => return Err(refused(fault)),
            },
            _ => return Err(refused(fault)),
        }
    }
}

/// The host end that was just made.
fn as_made(host: &mut Socket, plan: &Plan, index: u32, told: &[Reply]) -> Result<FoundLink, WireError> {
    let name = plan.link.host.as_str();
    if let Some(link) = told.iter().find_map(|reply| survey::parse_link(&reply.payload)) {
        return Ok(link);
    }
    let fault = match survey::link_at(host, index, name) {
        Ok(Some(link)) => return Ok(link),
        Ok(None) => return Err(vanished(name)),
        Err(fault) => fault,
    };
    let left = take_back(host, plan, index).err().into_iter().collect();
    Err(WireError::Refused { fault, left })
}

/// Without an answer both ends may be there or not.
fn take_back(host: &mut Socket, plan: &Plan, index: u32) -> Result<(), Fault> {
    let name = plan.link.host.as_str();
    let made = |link: &FoundLink| {
        link.name == name && link.group == plan.link.group && link.alias.is_empty() && !link.up
    };
    if survey::link_at(host, index, name)?.is_some_and(|link| made(&link)) {
        host.batch(&[encode::delete(index, name)])?.ok()?;
    }
    Ok(())
}

/// EEXIST says that a name is taken, but not whose; `None` where both are free by now.
fn taken(
    home: &Home,
    host: &mut Socket,
    namespace: &OwnedFd,
    plan: &Plan,
) -> Result<Option<WireError>, Fault> {
    if survey::find_link(host, plan.link.host.as_str())?.is_some() {
        return Ok(Some(WireError::LinkTaken { link: plan.link.host }));
    }
    let inside = home
        .visit(namespace.as_fd(), || {
            survey::find_link(&mut Socket::open(ROUTE)?, plan.link.workload.as_str())
        })
        .and_then(|found| found)?;
    Ok(inside.map(|_| WireError::InterfaceTaken {
        interface: plan.link.workload.clone(),
    }))
}

impl Wiring<'_> {
    fn finish(&mut self, home: &Home, namespace: &OwnedFd) -> Result<(), WireError> {
        if self.ipv6 {
            let with_v6 = self.plan.record.addresses.v6().is_some();
            let settings = self.plan.sysctls.iter().chain(with_v6.then_some(&FORWARDING_V6));
            for setting in settings.filter(|setting| self.made.host.lacks(setting)) {
                self.linux
                    .sysctls
                    .write(self.plan.link.host.as_str(), setting)
                    .map_err(gone_or_refused)?;
                crash::step();
            }
        }
        let socket = home
            .visit(namespace.as_fd(), || Socket::open(ROUTE))
            .and_then(|opened| opened);
        self.inside = Some(socket.map_err(refused)?);
        let name = self.plan.link.workload.as_str();
        let sysctls = &self.linux.sysctls;
        self.make_inside(|| {
            // The folder is that of the namespace which the thread is in.
            home.visit(namespace.as_fd(), || sysctls.write(name, &IPV6_ON))
                .and_then(|written| written)
        })?;
        self.make_outside()?;
        // The end that went up first sends through the noop qdisc until linkwatch has run. Without this about a quarter of all
        // workloads lose their first packet for a second.
        let index = self.made.workload_index;
        let address = self.plan.record.addresses.v6();
        let mut questions = vec![link_by_index(index, name)];
        questions.extend(address.map(|address| route_over(address, index)));
        let look = send_all(self.inside(), &questions)?;
        if let Some(gone) = look.refused.into_iter().find(|refused| refused.position == 0) {
            return Err(gone_or_refused(gone.fault));
        }
        let told = |position| {
            look.replies
                .iter()
                .filter(move |reply| reply.position == position)
        };
        if told(0).any(|reply| carrier::is_unnoted(&reply.payload)) {
            let inside = self.inside();
            carrier::noted(|| inside.batch(&questions[..1]))
                .and_then(Answer::ok)
                .map_err(gone_or_refused)?;
        }
        let Some(address) = address else {
            return Ok(());
        };
        if !told(1).any(is_local) {
            answers(self.inside(), address, index, name)?;
        }
        let host = self.plan.link.host.as_str();
        answers(self.host, FIRST_HOP_V6, self.made.host.index, host)
    }

    /// Last: who comes by a port of the node finds all of it.
    fn open_forwards(&mut self) -> Result<(), WireError> {
        let forwards = &self.plan.forwards;
        if forwards.is_empty() {
            return Ok(());
        }
        self.linux
            .nft
            .set_forwards(self.made.host.index, forwards)
            .map_err(refused)?;
        crash::step();
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
        if self.made.workload_index == 0 {
            let link = survey::find_link(self.inside(), name).map_err(refused)?;
            self.made.workload_index = link.map(|link| link.index).ok_or_else(|| vanished(name))?;
        }
        let index = self.made.workload_index;
        // How loopback was, so that it can be put back.
        let mut messages = vec![link_by_index(LOOPBACK, "lo")];
        let ops = plan.workload.iter();
        messages.extend(ops.map(|op| message(op, index, name, self.ipv6)));
        let batch = Batch {
            messages,
            first: 1,
            ops: &plan.workload,
        };
        self.loopback = Loopback::Unknown;
        let sent = batch.send(self.inside(), switch_ipv6_on)?;
        if let Some(refused) = sent.unanswered.into_iter().next() {
            return Err(gone_or_refused(refused.fault));
        }
        let loopback = sent.before.first().ok_or_else(|| vanished("lo"))?;
        self.loopback = match survey::flags_of(&loopback.payload) & UP {
            0 => Loopback::WasDown,
            _ => Loopback::AsItWas,
        };
        match sent.refused.into_iter().next() {
            None => Ok(()),
            Some(Refused { position, fault }) => Err(match plan.workload.get(position) {
                Some(Op::Route { destination, .. }) if fault.errno == EEXIST => WireError::InsideTaken {
                    what: format!("a route to {destination}"),
                },
                _ => gone_or_refused(fault),
            }),
        }
    }

    fn make_outside(&mut self) -> Result<(), WireError> {
        let (plan, index) = (self.plan, self.made.host.index);
        let name = plan.link.host.as_str();
        // The kernel goes on after an error, and a record without all of its ports would stand for another attachment.
        let names = plan.host.iter().take_while(|op| matches!(op, Op::PortName(_)));
        let (names, ops) = plan.host.split_at(names.count());
        let to_message = |op: &Op| message(op, index, name, self.ipv6);
        let named: Vec<_> = names.iter().map(to_message).collect();
        let mut messages: Vec<_> = ops.iter().map(to_message).collect();
        if let Some(Refused { position, fault }) = send_all(self.host, &named)?.refused.into_iter().next() {
            return Err(match names.get(position) {
                Some(Op::PortName(name)) if fault.errno == EEXIST => {
                    WireError::NameTaken { name: name.clone() }
                }
                _ => gone_or_refused(fault),
            });
        }
        let addresses: Vec<IpAddr> = plan.record.addresses.iter().collect();
        messages.extend(addresses.iter().map(|address| route_to(*address)));
        let batch = Batch {
            messages,
            first: 0,
            ops,
        };
        let sent = batch.send(self.host, || self.linux.sysctls.write(name, &IPV6_ON))?;
        // That there is no way to an address is an answer, too.
        let unanswered = |refused: &Refused| !survey::is_no_way(refused.fault.errno);
        if let Some(refused) = sent.unanswered.into_iter().find(unanswered) {
            return Err(gone_or_refused(refused.fault));
        }
        for Refused { position, fault } in sent.refused {
            match ops.get(position) {
                Some(Op::AltName(_)) if no_second_name(fault.errno) => {}
                Some(Op::Route { destination, .. }) if fault.errno == EEXIST => {
                    return Err(WireError::Routed {
                        destination: *destination,
                    });
                }
                _ => return Err(gone_or_refused(fault)),
            }
        }
        let way = |n: usize| {
            let reply = sent.after.iter().find(|reply| reply.position == n)?;
            survey::way(&reply.payload)
        };
        // A route of ours is not enough: the address may be the node's own, or routed by somebody else with a better metric.
        for (n, address) in addresses.into_iter().enumerate() {
            if way(n) != Some((UNICAST, index)) {
                // Nor is one that the link took along.
                send(self.host, &[link_by_index(index, name)])?;
                return Err(WireError::Routed {
                    destination: host_net(address),
                });
            }
        }
        Ok(())
    }

    /// Takes everything away again, in reverse, to the end.
    fn undo(mut self, error: WireError) -> WireError {
        let mut left = Vec::new();
        let name = self.plan.link.host.as_str();
        if !self.plan.forwards.is_empty() {
            left.extend(self.linux.nft.set_forwards(self.made.host.index, &[]).err());
        }
        match self
            .host
            .batch(&[encode::delete(self.made.host.index, name)])
            .and_then(Answer::ok)
        {
            Ok(_) => {}
            Err(fault) if fault.errno == ENODEV => {}
            Err(fault) => left.push(fault),
        }
        if let (Some(inside), Loopback::Unknown) = (&mut self.inside, self.loopback)
            && survey::find_link(inside, "lo").map_or(true, |lo| lo.is_some_and(|lo| lo.up))
        {
            // Who else may have set it up needs it.
            let reason = "it stays up, as it is not known whether it was down".to_owned();
            left.push(ours("ip link set lo down", reason));
        }
        if let (Some(inside), Loopback::WasDown) = (&mut self.inside, self.loopback) {
            match inside.batch(&[set_up(LOOPBACK, "lo", false), encode::delete_loopback_address()]) {
                Ok(answer) => left.extend(
                    answer
                        .refused
                        .into_iter()
                        .map(|refused| refused.fault)
                        // It never went up.
                        .filter(|fault| fault.errno != EADDRNOTAVAIL),
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
    let request = route_over(address, index);
    let start = Instant::now();
    loop {
        // Whoever is held up for longer asks once more after that.
        let is_last = start.elapsed() >= LOCAL_ROUTE_LIMIT;
        let answer = socket.batch(std::slice::from_ref(&request)).map_err(refused)?;
        if answer.replies.iter().any(is_local) {
            return Ok(());
        }
        if is_last {
            break;
        }
        // A link that is gone would be waited for in vain.
        socket
            .batch(&[link_by_index(index, link)])
            .and_then(Answer::ok)
            .map_err(gone_or_refused)?;
        rest(LOCAL_ROUTE_STEP);
    }
    Err(refused(Fault {
        tried: format!("wait for {address} to be answered"),
        reason: format!("not within {LOCAL_ROUTE_LIMIT:?}"),
        errno: 0,
    }))
}

/// Of RTM_GETROUTE: the address is this namespace's own.
fn is_local(reply: &Reply) -> bool {
    survey::way(&reply.payload).is_some_and(|(kind, _)| kind == LOCAL)
}

/// Sends messages of which none may fail.
fn send(socket: &mut Socket, batch: &[Message]) -> Result<(), WireError> {
    match send_all(socket, batch)?.refused.into_iter().next() {
        Some(first) => Err(gone_or_refused(first.fault)),
        None => Ok(()),
    }
}

fn message(op: &Op, index: u32, name: &str, ipv6: bool) -> Message {
    encode::op(op, index, name, ipv6).expect("a plan has its settings apart from its ops")
}

fn vanished(link: &str) -> WireError {
    let tried = link_by_name(link).describes().to_owned();
    WireError::Vanished(Fault {
        tried,
        reason: "no such link".to_owned(),
        errno: ENODEV,
    })
}
