//! A kernel that is played: what it answers and what it tells are bytes that somebody else chose, for those who try what may
//! come (`fuzz`). The readers are the product's, and nothing is written anywhere.

use crate::conntrack;
use crate::encode::AF_INET;
use crate::fault::sys;
use crate::message::{Attributes, Message, messages};
use crate::nft::Nft;
use crate::socket::{ROUTE, Socket};
use crate::watch::Watch;
use crate::{routes, survey};
use model::address::Family;
use model::datapath::{Event, Fault};
use model::flows::Past;
use model::key::HostLink;
use model::ports::{Place, Protocol};
use model::ruleset::Ruleset;
use netlink_sys::Socket as Raw;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use std::net::IpAddr;
use std::os::fd::{FromRawFd as _, IntoRawFd as _};
use std::sync::mpsc;

/// Whoever holds a link group.
const GROUP: u32 = 8;

/// What the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Everything of ours, and what is beside it.
    Survey,
    /// One link, and what belongs to it.
    Link,
    /// The device of the default route.
    Uplink,
    /// What router advertisements have made.
    Advertised,
    /// How peers are reached.
    Reach,
    /// Routes to other nodes.
    Routes,
    /// How our tables differ from what they are to be.
    Drift,
    /// What is spared from masquerading.
    Spared,
    /// By what the CNI project's plugins masquerade.
    Masquerade,
    /// What keeps packets from being forwarded.
    ForwardDrops,
    /// Which connections are of the past, and whether they are gone.
    Flows,
    /// A batch of three messages.
    Batch,
}

impl Question {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Survey,
        Self::Link,
        Self::Uplink,
        Self::Advertised,
        Self::Reach,
        Self::Routes,
        Self::Drift,
        Self::Spared,
        Self::Masquerade,
        Self::ForwardDrops,
        Self::Flows,
        Self::Batch,
    ];
}

/// Asks a kernel that answers with these datagrams, each to whichever message it names, and then no more. How many things were
/// read.
pub fn ask(question: Question, datagrams: &[&[u8]]) -> Result<usize, Fault> {
    let mut socket = answering(datagrams)?;
    match question {
        Question::Survey => survey::survey(&mut socket, GROUP)
            .map(|(survey, dying)| survey.links.len() + survey.nets.len() + survey.taken.len() + dying.len()),
        Question::Link => {
            let name = HostLink::parse("wk0123456789abc").expect("it has the form of one");
            survey::find(&mut socket, &name).map(|found| found.map_or(0, |link| link.routes.len() + 1))
        }
        Question::Uplink => survey::uplink(&mut socket).map(|uplink| uplink.iter().count()),
        Question::Advertised => survey::advertised(&mut socket).map(|names| names.len()),
        Question::Reach => routes::reach(&mut socket, &addresses()).map(|reached| reached.len()),
        Question::Routes => routes::found(&mut socket).map(|found| {
            let held = &found.held;
            held.routes.len() + held.neighbours.len() + held.forwarding.len() + found.other_routes.len()
        }),
        Question::Drift => Nft::over(socket)
            .drift(&Ruleset::new(GROUP, true))
            .map(|drift| drift.len()),
        Question::Spared => Nft::over(socket).spared().map(|nets| nets.len()),
        Question::Masquerade => Nft::over(socket).masquerade_rules().map(|rules| rules.len()),
        Question::ForwardDrops => Nft::over(socket).forward_drops().map(|chains| chains.len()),
        Question::Flows => conntrack::forget(&mut socket, &past(), |address| Ok(address.is_ipv4()))
            .map(|forgotten| forgotten.flows),
        Question::Batch => {
            let batch: Vec<Message> = (0..3)
                .map(|n| Message::new(16, 0, format!("message {n}")))
                .collect();
            socket
                .batch(&batch)
                .map(|answer| answer.replies.len() + answer.refused.len())
        }
    }
}

fn addresses() -> [IpAddr; 2] {
    [
        [192, 0, 2, 2].into(),
        [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2].into(),
    ]
}

fn past() -> Past {
    let place = |family| Place {
        family,
        protocol: Protocol::Udp,
        port: 53,
        address: None,
    };
    Past {
        addresses: addresses().into(),
        places: Family::ALL.map(place).into(),
    }
}

pub(crate) fn answering(datagrams: &[&[u8]]) -> Result<Socket, Fault> {
    let tried = "play a kernel";
    let (ours, kernel) = socketpair(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|errno| sys(tried, errno))?;
    for datagram in datagrams {
        // As many as find room.
        let _ = send(&kernel, datagram, SendFlags::empty());
    }
    Ok(Socket::over(raw(ours), kernel))
}

#[expect(unsafe_code, reason = "netlink-sys takes only a raw descriptor")]
fn raw(fd: std::os::fd::OwnedFd) -> Raw {
    // SAFETY: the descriptor is open, and nobody else has it.
    unsafe { Raw::from_raw_fd(fd.into_raw_fd()) }
}

/// Somebody who listens to a kernel.
pub struct Ears {
    watch: Watch,
    events: mpsc::Receiver<Event>,
}

impl Ears {
    /// That have heard nothing yet.
    pub fn new() -> Result<Self, Fault> {
        let (sender, events) = mpsc::channel();
        let sink = Box::new(move |event| drop(sender.send(event)));
        let watch = Watch::deaf(Socket::open(ROUTE)?, sink);
        Ok(Self { watch, events })
    }

    /// What follows from a datagram of each group.
    pub fn hear(&mut self, datagram: &[u8]) -> Vec<Event> {
        for message in messages(datagram) {
            self.watch.on_route(&message);
            self.watch.on_nftables(&message);
        }
        self.events.try_iter().collect()
    }

    /// Forgets all that was heard.
    pub fn forget(&mut self) {
        self.watch.forget_all();
    }
}

/// Attributes as they would be written again, nested ones flat: what is read of them is read of these.
pub fn rewritten(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let all: Vec<(u16, &[u8])> = Attributes::after(bytes, 0).collect();
    let message = all.iter().fold(
        Message::new(0, 0, "written again").fixed(&[AF_INET, 0, 0, 0]),
        |message, (kind, value)| message.bytes(*kind, value),
    );
    let again = Attributes::after(message.payload(), 4);
    again.map(|(kind, value)| (kind, value.to_vec())).collect()
}

/// Attributes as they are read.
pub fn read(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let all = Attributes::after(bytes, 0);
    all.map(|(kind, value)| (kind, value.to_vec())).collect()
}
