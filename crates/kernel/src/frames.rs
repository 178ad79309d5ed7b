//! Frames as they are on a link (packet(7)), made up and looked at: for the stage, where somebody has to be hostile.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use std::io;

/// `ETH_P_ALL`, linux/if_ether.h.
const ALL: u16 = 3;

/// Bytes that may wait to be looked at.
const ROOM: usize = 16 << 20;

/// One link, with all that comes in and goes out there.
#[derive(Debug)]
pub struct Frames(OwnedFd);

impl Frames {
    /// Of a link of the calling thread's namespace.
    pub fn of(link: u32) -> io::Result<Self> {
        let protocol = Protocol::from_raw(u32::from(ALL.to_be()).try_into().expect("not zero"));
        let socket = socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(protocol),
        )?;
        bind(&socket, &Link(link))?;
        set_socket_recv_buffer_size_force(&socket, ROOM)?;
        Ok(Self(socket))
    }

    /// Sends one, from its Ethernet header on.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(&self.0, frame, SendFlags::empty())?;
        Ok(())
    }

    /// One that went by, if there is one.
    pub fn next(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65536];
        match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                buffer.truncate(length);
                Ok(Some(buffer))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// `sockaddr_ll` of all protocols on a link.
struct Link(u32);

// SAFETY: the pointer is that of a `sockaddr_ll`, which lives until `f` returns, with its length.
#[expect(unsafe_code, reason = "rustix has no address of packet sockets")]
unsafe impl SocketAddrArg for Link {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ALL.to_be(),
            sll_ifindex: self.0.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as SocketAddrLen;
        f((&raw const address).cast(), length)
    }
}
