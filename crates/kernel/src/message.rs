//! A netlink message as bytes: header, fixed part, attributes (RFC 3549; linux/netlink.h).
//!
//! Our own, because the datapath needs every byte of a few messages, and nothing of the other thousand.

/// The length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`.
const KIND: u16 = 0x3fff;

/// Flags of `struct nlmsghdr`.
pub(crate) mod flag {
    /// A request.
    pub(crate) const REQUEST: u16 = 1;
    /// The kernel is to answer with an error or its absence.
    pub(crate) const ACK: u16 = 4;
    /// Everything, in several messages.
    pub(crate) const DUMP: u16 = 0x300;
    /// Instead of what is there.
    pub(crate) const REPLACE: u16 = 0x100;
    /// Only if nothing is there.
    pub(crate) const EXCL: u16 = 0x200;
    /// Where nothing is there.
    pub(crate) const CREATE: u16 = 0x400;
    /// Behind what is there.
    pub(crate) const APPEND: u16 = 0x800;
}

/// A message that is being put together.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
    describes: String,
}

impl Message {
    /// A request; `describes` is what an error will say was tried.
    pub fn new(kind: u16, flags: u16, describes: impl Into<String>) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        Self {
            bytes,
            describes: describes.into(),
        }
    }

    /// The fixed part behind the header.
    #[must_use]
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// An attribute of bytes.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("our attributes are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// An attribute of text, with its NUL.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// An attribute of one byte.
    #[must_use]
    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// An attribute of 32 bits in host order.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// An attribute of 32 bits in network order, as nftables has them.
    #[must_use]
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An attribute that holds what `inside` adds.
    #[must_use]
    pub fn nest(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        let mut all = inside(self);
        let length = u16::try_from(all.bytes.len() - start).expect("our attributes are short");
        all.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        all.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        all
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// What an error will say was tried.
    pub(crate) fn describes(&self) -> &str {
        &self.describes
    }

    /// What stands behind the header.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    /// The message on the wire, at the end of `out`.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, sequence: u32, ack: bool) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let length = u32::try_from(self.bytes.len()).expect("our messages are short");
        out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        if ack {
            out[start + 6] |= flag::ACK as u8;
        }
        out[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// A message that was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram; ends at the first that is cut short.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let message = Received {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            payload: &bytes[HEADER..length],
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Whether the last message of a datagram ends with it. What was larger than the buffer is cut short by the kernel, without an
/// error (MSG_TRUNC, recv(2)).
pub(crate) fn is_whole(mut datagram: &[u8]) -> bool {
    while !datagram.is_empty() {
        let length = u32_at(datagram, 0).map_or(0, |length| length as usize);
        if length < HEADER || length > datagram.len() {
            return false;
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// Makes a message one that the kernel does not know, and so refuses: no kind of route netlink or of a netfilter subsystem
/// has this low byte.
pub(crate) fn spoil(message: &mut [u8]) {
    let kind = u16_at(message, 4).unwrap_or_default() | 0xff;
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
}

/// The attributes of a message; ends at the first that is cut short.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Those behind a fixed part of `fixed` bytes.
    pub fn after(payload: &'a [u8], fixed: usize) -> Self {
        Self(payload.get(fixed..).unwrap_or_default())
    }

    /// The first of a kind.
    pub fn value(self, kind: u16) -> Option<&'a [u8]> {
        {
            let mut all = self;
            all.find(|(k, _)| *k == kind).map(|(_, value)| value)
        }
    }

    /// What stands inside the first of a kind.
    pub fn inside(self, kind: u16) -> Self {
        Self(self.value(kind).unwrap_or_default())
    }

    /// The first of a kind, as text without its NUL.
    pub fn text(self, kind: u16) -> Option<&'a str> {
        self.value(kind).and_then(text)
    }

    /// The first of a kind, as 32 bits in host order.
    pub fn u32(self, kind: u16) -> Option<u32> {
        u32_at(self.value(kind)?, 0)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & KIND;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Text without its NUL; `None` where it is not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let message = Message::new(16, flag::CREATE, "x")
            .fixed(&[1, 2, 3, 4])
            .text(3, "eth0")
            .nest(18, |m| m.u8(1, 7).u32(2, 9));
        let mut wire = Vec::new();
        message.append_to(&mut wire, 5, true);
        message.append_to(&mut wire, 6, false);
        let all: Vec<_> = messages(&wire).collect();
        assert_eq!(
            (all[0].kind, all[0].sequence, all[0].flags),
            (16, 5, flag::REQUEST | flag::CREATE | flag::ACK)
        );
        assert_eq!((all[1].sequence, all.len()), (6, 2));
        let attributes = Attributes::after(all[0].payload, 4);
        assert_eq!(attributes.text(3), Some("eth0"));
        assert_eq!(attributes.inside(18).u32(2), Some(9));
    }

    #[test]
    fn a_datagram_that_was_cut_short_is_known() {
        let mut wire = Vec::new();
        for text in ["eth0", "wk0123456789abc"] {
            Message::new(16, 0, "x")
                .text(3, text)
                .append_to(&mut wire, 1, false);
        }
        let first = u32_at(&wire, 0).map(|length| length as usize);
        for length in 0..wire.len() {
            let is_whole = length == 0 || Some(length) == first;
            assert_eq!(super::is_whole(&wire[..length]), is_whole, "{length}");
        }
        assert!(super::is_whole(&wire));
    }

    #[test]
    fn garbage_ends_the_reading() {
        for bytes in [&[][..], &[1; 7], &[255; 64], &[0; 64]] {
            assert_eq!(messages(bytes).count(), 0);
            let _ = Attributes::after(bytes, 0).count();
        }
    }
}
