//! HTTP/2 by hand (RFC 9113), for peers that keep to nothing.

/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Of settings.
const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Streams of one connection that the daemon takes at once.
pub(crate) const STREAMS: u32 = 1024;
/// The longest frame that may be sent without asking.
pub(crate) const LONGEST: usize = 16 << 10;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The preface, settings, each of an identifier and a value, and that those of the daemon are agreed to: its windows hold from
/// then on.
pub(crate) fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (identifier, value) in settings {
        payload.extend(identifier.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &payload));
    bytes.extend(frame(SETTINGS, ACK, 0, &[]));
    bytes
}

/// A length of HPACK with a prefix of so many bits (RFC 7541, section 5.1).
fn length(bits: u32, value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A header that goes into the table of the connection, and can be named by its number there afterwards.
pub(crate) fn remembered(name: &str, value: &str) -> Vec<u8> {
    header(0x40, name, value)
}

/// A header that goes into no table.
pub(crate) fn plain(name: &str, value: &str) -> Vec<u8> {
    header(0, name, value)
}

fn header(first: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![first];
    for text in [name, value] {
        bytes.extend(length(7, text.len()));
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The headers of a call.
pub(crate) fn call(method: &str) -> Vec<u8> {
    [
        // POST and http, of the static table.
        vec![0x83, 0x86],
        plain(":path", method),
        plain(":authority", "localhost"),
        plain("te", "trailers"),
        plain("content-type", "application/grpc"),
    ]
    .concat()
}

/// A message with its header of five bytes.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A call with its whole message.
pub(crate) fn asked(stream: u32, method: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &call(method));
    bytes.extend(frame(DATA, END_STREAM, stream, &message(payload)));
    bytes
}

/// The number of the nth stream that a client opens.
pub(crate) fn nth(n: u32) -> u32 {
    2 * n + 1
}
