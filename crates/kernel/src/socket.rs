//! A blocking netlink socket: several messages in one send, one acknowledgement at the end, and every error with the
//! message that it belongs to and the kernel's own words (NLMSGERR_ATTR_MSG, linux/netlink.h).

use crate::fault::{fault, io as io_fault, ours, sys};
use crate::message::{self, Attributes, HEADER, Message, Received, flag, messages, u32_at};
use libc::ENOBUFS;
use mishap::Kind;
use model::datapath::Fault;
use netlink_sys::{Socket as Raw, SocketAddr};
use rustix::fd::BorrowedFd;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `NETLINK_ROUTE`.
pub const ROUTE: isize = 0;
/// `NETLINK_NETFILTER`.
pub const NETFILTER: isize = 12;

/// `MSG_DONTWAIT`.
const DONT_WAIT: i32 = 0x40;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const HAS_MESSAGE: u16 = 0x200;

/// The kernel answers in microseconds; an answer that takes this long was lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel's dumps never have larger datagrams (`netlink_dump`, net/netlink/af_netlink.c).
const DATAGRAM: usize = 64 * 1024;
/// Bytes of a transaction with some hundred thousand elements.
const LONG_BATCH: usize = 16 << 20;
/// How often an interrupted dump is repeated.
const DUMP_TRIES: usize = 20;

/// By every socket of the process.
static SENT: AtomicU64 = AtomicU64::new(0);

/// Messages that were sent to the kernel so far.
pub(crate) fn sent() -> u64 {
    SENT.load(Ordering::Relaxed)
}

/// An open socket, bound to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    raw: Raw,
    sequence: u32,
    buffer: Vec<u8>,
    /// The last answer was not read to its end.
    unread: bool,
    /// Where it is played.
    _kernel: Option<OwnedFd>,
}

/// What the kernel had against one message of a batch.
#[derive(Debug)]
pub struct Refused {
    /// Position of the message in the batch.
    pub position: usize,
    /// Why.
    pub fault: Fault,
}

/// What came back for a batch.
#[derive(Debug, Default)]
pub struct Answer {
    /// In the order of the messages.
    pub refused: Vec<Refused>,
    /// What was asked for.
    pub replies: Vec<Reply>,
}

/// What the kernel told in answer to one message of a batch.
#[derive(Debug)]
pub struct Reply {
    /// Position of the message in the batch.
    pub position: usize,
    /// What stands behind the header.
    pub payload: Vec<u8>,
}

impl Answer {
    /// What was told, or the first refusal as an error.
    pub fn ok(mut self) -> Result<Vec<Vec<u8>>, Fault> {
        match self.refused.is_empty() {
            true => Ok(self.replies.into_iter().map(|reply| reply.payload).collect()),
            false => Err(self.refused.remove(0).fault),
        }
    }
}

impl Socket {
    /// Opens a socket in the thread's network namespace.
    pub fn open(protocol: isize) -> Result<Self, Fault> {
        let tried = "open a netlink socket";
        let open = || {
            mishap::at(Kind::Socket, tried)?;
            let mut raw = Raw::new(protocol)?;
            raw.bind_auto()?;
            raw.connect(&SocketAddr::new(0, 0))?;
            raw.set_cap_ack(true)?;
            raw.set_ext_ack(true)?;
            if protocol == ROUTE {
                raw.set_netlink_get_strict_chk(true)?;
            }
            Ok(raw)
        };
        let raw = open().map_err(|error| io_fault(tried, &error))?;
        let socket = Self {
            raw,
            sequence: 0,
            buffer: Vec::with_capacity(DATAGRAM),
            unread: false,
            _kernel: None,
        };
        set_socket_timeout(socket.fd(), Timeout::Recv, Some(PATIENCE)).map_err(|errno| sys(tried, errno))?;
        Ok(socket)
    }

    /// Over a datagram socket at whose other end somebody plays the kernel, for as long as this is open.
    pub(crate) fn over(raw: Raw, kernel: OwnedFd) -> Self {
        Self {
            raw,
            sequence: 0,
            buffer: Vec::with_capacity(DATAGRAM),
            unread: false,
            _kernel: Some(kernel),
        }
    }

    /// As [`Self::open`]. A batch may have up to 16 MB where root opens it, and else as much as the node lets anybody send
    /// at once (`net.core.wmem_max`).
    pub(crate) fn open_for_long_batches(protocol: isize) -> Result<Self, Fault> {
        let socket = Self::open(protocol)?;
        // A batch that does not fit is refused by itself (EMSGSIZE).
        let _ = set_socket_send_buffer_size_force(socket.fd(), LONG_BATCH);
        Ok(socket)
    }

    /// The descriptor, for poll.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        borrowed(&self.raw)
    }

    /// By which number the kernel knows this socket.
    pub fn port(&self) -> Result<u32, Fault> {
        let mut address = SocketAddr::new(0, 0);
        self.raw
            .get_address(&mut address)
            .map_err(|error| io_fault("ask for a netlink port", &error))?;
        Ok(address.port_number())
    }

    /// Sends messages together and waits until the kernel has been through all of them. The kernel goes on after an
    /// error, so every refusal is told.
    pub fn batch(&mut self, batch: &[Message]) -> Result<Answer, Fault> {
        self.batch_with_ack_on(batch, batch.len().saturating_sub(1))
    }

    /// As [`Self::batch`], where the last message that can be acknowledged is another one than the last.
    pub(crate) fn batch_with_ack_on(&mut self, batch: &[Message], last: usize) -> Result<Answer, Fault> {
        let Some(described) = batch.first() else {
            return Ok(Answer::default());
        };
        let first = self.sequence.wrapping_add(1);
        let mut wire = Vec::with_capacity(batch.len() * 128);
        let mut spoilt = Spoilt::default();
        for (n, message) in batch.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let start = wire.len();
            message.append_to(&mut wire, self.sequence, n == last);
            // What ends a transaction is never refused alone.
            if n <= last {
                spoilt.may_be(n, message, &mut wire[start..]);
            }
        }
        // Without its first message a transaction is nothing.
        if last + 1 < batch.len()
            && let Some(fault) = spoilt.instead(0, described.describes())
        {
            let refused = vec![Refused { position: 0, fault }];
            return Ok(Answer {
                refused,
                ..Answer::default()
            });
        }
        SENT.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.send(&wire, described.describes())?;
        let mut answer = Answer::default();
        loop {
            self.receive(described.describes())?;
            for received in messages(&self.buffer) {
                let position = received.sequence.wrapping_sub(first) as usize;
                // What is left over from a request that was given up belongs to nobody.
                let Some(message) = batch.get(position) else {
                    continue;
                };
                if received.kind != NLMSG_ERROR {
                    let payload = received.payload.to_vec();
                    answer.replies.push(Reply { position, payload });
                    continue;
                }
                if let Some(fault) = refusal(&received, message.describes()) {
                    let fault = spoilt.instead(position, message.describes()).unwrap_or(fault);
                    answer.refused.push(Refused { position, fault });
                }
                // Without its first message a transaction is nothing, and nothing else is answered.
                if position >= last || (position == 0 && last + 1 < batch.len()) {
                    self.unread = false;
                    return Ok(answer);
                }
            }
        }
    }

    /// Everything that a request tells of, once more from the beginning where the kernel says that it changed meanwhile.
    pub fn dump(&mut self, request: &Message) -> Result<Vec<Vec<u8>>, Fault> {
        self.dump_with(request, |payload| Some(payload.to_vec()))
    }

    /// As [`Self::dump`], of which only what `read` makes of each message is kept. It is read afterwards: the longer a dump takes,
    /// the sooner something changes meanwhile.
    pub(crate) fn dump_with<T>(
        &mut self,
        request: &Message,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Fault> {
        // In one piece instead of an allocation for each message.
        let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
        for _ in 0..DUMP_TRIES {
            bytes.clear();
            lengths.clear();
            let is_whole = self.walk(request, &mut |payload| {
                bytes.extend_from_slice(payload);
                lengths.push(payload.len());
            })?;
            if is_whole {
                let mut rest = bytes.as_slice();
                let mut all = Vec::new();
                for length in lengths {
                    let (payload, behind) = rest.split_at(length);
                    all.extend(read(payload));
                    rest = behind;
                }
                return Ok(all);
            }
        }
        Err(Fault {
            tried: request.describes().to_owned(),
            reason: format!("interrupted {DUMP_TRIES} times by changes"),
            errno: 0,
        })
    }

    /// As [`Self::dump`], once, whatever changes meanwhile; nothing of it is kept but what `each` keeps. Whether nothing changed.
    pub(crate) fn walk(&mut self, request: &Message, each: &mut dyn FnMut(&[u8])) -> Result<bool, Fault> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut wire = Vec::new();
        request.append_to(&mut wire, self.sequence, false);
        let mut spoilt = Spoilt::default();
        spoilt.may_be(0, request, &mut wire);
        SENT.fetch_add(1, Ordering::Relaxed);
        self.send(&wire, request.describes())?;
        let mut interrupted = false;
        loop {
            self.receive(request.describes())?;
            for received in messages(&self.buffer) {
                if received.sequence != self.sequence {
                    continue;
                }
                interrupted |= received.flags & DUMP_INTERRUPTED != 0;
                match received.kind {
                    NLMSG_DONE => {
                        self.unread = false;
                        return match given_up(&received, request.describes()) {
                            Some(fault) => Err(fault),
                            None => Ok(!interrupted),
                        };
                    }
                    NLMSG_ERROR => {
                        self.unread = false;
                        return match refusal(&received, request.describes()) {
                            Some(fault) => Err(spoilt.instead(0, request.describes()).unwrap_or(fault)),
                            None => Ok(true),
                        };
                    }
                    _ => each(received.payload),
                }
            }
        }
    }

    /// Sends, once nothing is left of an answer that was given up: until a dump is read to its end the kernel refuses the
    /// next one (EBUSY, `__netlink_dump_start`). The socket stays the same, and with it its namespace and its port.
    fn send(&mut self, wire: &[u8], tried: &str) -> Result<(), Fault> {
        if self.unread {
            loop {
                self.buffer.clear();
                match self.raw.recv(&mut self.buffer, DONT_WAIT) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // What was lost is lost.
                    Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
                    Err(error) => return Err(io_fault(tried, &error)),
                }
            }
        }
        self.unread = true;
        mishap::at(Kind::Send, tried)
            .and_then(|()| self.raw.send(wire, 0))
            .map(drop)
            .map_err(|error| io_fault(tried, &error))
    }

    fn receive(&mut self, tried: &str) -> Result<(), Fault> {
        loop {
            self.buffer.clear();
            let received = mishap::at(Kind::Receive, tried)
                .and_then(|()| self.raw.recv(&mut self.buffer, 0))
                .and_then(|_| mishap::received(Kind::Answer, tried, &mut self.buffer));
            match received {
                Ok(()) if message::is_whole(&self.buffer) => return Ok(()),
                // A dump would be taken for all there is.
                Ok(()) => return Err(ours(tried, "the kernel's answer was cut short".to_owned())),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(io_fault(tried, &error)),
            }
        }
    }
}

/// Messages that tests have the kernel refuse: made into such as it does not know, so that it does nothing of them.
#[derive(Default)]
struct Spoilt(Vec<(usize, i32)>);

impl Spoilt {
    fn may_be(&mut self, position: usize, message: &Message, wire: &mut [u8]) {
        let Err(error) = mishap::at(Kind::Message, message.describes()) else {
            return;
        };
        self.0.push((position, error.raw_os_error().unwrap_or_default()));
        message::spoil(wire);
    }

    /// What is told instead of the kernel's refusal.
    fn instead(&self, position: usize, tried: &str) -> Option<Fault> {
        let (_, errno) = self.0.iter().find(|(spoilt, _)| *spoilt == position)?;
        Some(fault(tried, *errno, None))
    }
}

/// The raw socket's descriptor.
#[expect(unsafe_code, reason = "netlink-sys offers only the raw descriptor")]
pub(crate) fn borrowed(raw: &Raw) -> BorrowedFd<'_> {
    // SAFETY: the socket is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(raw.as_raw_fd()) }
}

/// `None`: an acknowledgement.
fn refusal(received: &Received<'_>, tried: &str) -> Option<Fault> {
    let code = u32_at(received.payload, 0)?.cast_signed();
    if code == 0 {
        return None;
    }
    let original = match received.flags & CAPPED {
        0 => u32_at(received.payload, 4)? as usize,
        _ => HEADER,
    };
    let text = (received.flags & HAS_MESSAGE != 0)
        .then(|| Attributes::after(received.payload, 4 + original.next_multiple_of(4)).text(1))
        .flatten();
    Some(fault(tried, code.saturating_neg(), text))
}

/// A dump that the kernel could not finish ends with the reason, as if it were complete (`netlink_dump_done`,
/// net/netlink/af_netlink.c).
fn given_up(done: &Received<'_>, tried: &str) -> Option<Fault> {
    let code = u32_at(done.payload, 0)?.cast_signed();
    let text = (done.flags & HAS_MESSAGE != 0)
        .then(|| Attributes::after(done.payload, 4).text(1))
        .flatten();
    (code < 0).then(|| fault(tried, code.saturating_neg(), text))
}

/// A request for everything of a kind.
pub(crate) fn dump_of(kind: u16, fixed: &[u8], describes: &str) -> Message {
    Message::new(kind, flag::DUMP, describes).fixed(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{GETLINK, NEWLINK, ifinfo, link};
    use crate::netns;
    use std::os::fd::AsFd as _;

    #[test]
    fn after_a_dump_that_was_given_up_the_next_one_is_answered() {
        let namespace = netns::create().expect("root may make a namespace");
        let test = || {
            let mut socket = Socket::open(ROUTE).expect("everybody may open one");
            // So many that the kernel tells of them in several datagrams.
            let links: Vec<Message> = (0..100)
                .map(|n| {
                    Message::new(NEWLINK, flag::CREATE | flag::EXCL, "make a link")
                        .fixed(&ifinfo(0, 0, 0))
                        .text(link::IFNAME, &format!("link{n}"))
                        .nest(link::LINKINFO, |info| info.text(1, "bridge"))
                })
                .collect();
            socket.batch(&links).and_then(Answer::ok).expect("they are made");
            let request = dump_of(GETLINK, &ifinfo(0, 0, 0), "ip link show");
            for _ in 0..3 {
                let mut wire = Vec::new();
                request.append_to(&mut wire, 0, false);
                socket.send(&wire, "give up").expect("it is sent");
            }
            assert_eq!(socket.dump(&request).map(|all| all.len()), Ok(101));
        };
        netns::within(namespace.as_fd(), test).expect("a namespace can be entered");
    }
}
