//! A unary call of gRPC over HTTP/2, in and out as bytes: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
//!
//! By hand, because tonic's client is made for everything that gRPC can do, once per method: a program that lives for a
//! millisecond became a third larger by it.

use crate::connection::Connection;
use crate::error::{Failure, Said};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client};
use http::{HeaderMap, Method, Request, Uri, Version};
use std::time::Duration;

/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Sends a message to a method, `/package.Service/Method`, and returns the answer's message.
pub(crate) async fn unary(
    connection: &Connection,
    method: &'static str,
    message: &[u8],
    timeout: Duration,
) -> Result<Bytes, Failure> {
    let sender = connection.ready().await?;
    let answer = exchange(sender, method, message, timeout).await;
    if matches!(answer, Err(Failure::Lost(_))) {
        connection.forget();
    }
    answer
}

async fn exchange(
    mut sender: client::SendRequest<Bytes>,
    method: &'static str,
    message: &[u8],
    timeout: Duration,
) -> Result<Bytes, Failure> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    // The server's HTTP/2 library refuses a socket's path in `:authority`.
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority("localhost")
        .path_and_query(method)
        .build()
        .expect("methods are written as URIs are");
    let headers = request.headers_mut();
    for (name, value) in [("te", "trailers"), ("content-type", "application/grpc")] {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    // For the daemon: an order that has not begun by then is dropped. Eight digits at most.
    let timeout = format!("{}m", timeout.as_millis().min(99_999_999));
    headers.insert(
        "grpc-timeout",
        timeout.parse().expect("digits can be a header's value"),
    );
    let (response, mut body) = sender.send_request(request, false).map_err(Failure::lost)?;
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).map_err(|_| Failure::garbled("the request is too long"))?);
    framed.put_slice(message);
    body.send_data(framed.freeze(), true).map_err(Failure::lost)?;

    let (head, mut body) = response.await.map_err(Failure::lost)?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(Failure::garbled(&format!("HTTP status {}", head.status)));
    }
    // An answer without a message has the status in front.
    if let Some(said) = said(&head.headers) {
        return said.and(Err(Failure::garbled("an answer without a message")));
    }
    let received = read(&mut body).await?;
    let trailers = body.trailers().await.map_err(Failure::lost)?.unwrap_or_default();
    said(&trailers).ok_or_else(|| Failure::garbled("an answer without a status"))??;
    let length = received
        .first_chunk::<PREFIX>()
        .map(|[compressed, length @ ..]| (*compressed, u32::from_be_bytes(*length) as usize));
    match length {
        Some((0, length)) if received.len() == PREFIX + length => Ok(received.slice(PREFIX..)),
        _ => Err(Failure::garbled("an answer that is not one message")),
    }
}

async fn read(body: &mut RecvStream) -> Result<Bytes, Failure> {
    let mut received = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(Failure::lost)?;
        // Of a stream that has ended there is none to give back.
        let _ = body.flow_control().release_capacity(part.len());
        received.extend_from_slice(&part);
    }
    Ok(received.freeze())
}

/// The status in headers, where they have one.
fn said(headers: &HeaderMap) -> Option<Result<(), Failure>> {
    let code = headers.get("grpc-status")?;
    let code = code.to_str().ok().and_then(|code| code.parse().ok());
    if code == Some(0) {
        return Some(Ok(()));
    }
    let text = |name| {
        headers
            .get(name)
            .map(http::HeaderValue::as_bytes)
            .unwrap_or_default()
    };
    Some(Err(Failure::said(Said {
        code: code.unwrap_or(2),
        message: percent_decoded(text("grpc-message")),
        details: from_base64(text("grpc-status-details-bin")).unwrap_or_default(),
    })))
}

/// `%` and two hex digits are a byte; everything else is itself.
fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| after.first_chunk::<2>())
            .flatten()
            .and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?));
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 4648, section 4, with or without padding.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0);
    for c in text.trim_ascii_end().iter().filter(|c| **c != b'=') {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_details_are_decoded() {
        assert_eq!(percent_decoded(b"a%20b %C3%A9%"), "a b é%");
        assert_eq!(percent_decoded(b"%zz%4"), "%zz%4");
        assert_eq!(from_base64(b"aGVsbG8=").unwrap(), b"hello");
        assert_eq!(from_base64(b"aGVsbG8").unwrap(), b"hello");
        assert_eq!(from_base64(b"+/8A").unwrap(), [0xfb, 0xff, 0]);
        assert_eq!(from_base64(b"").unwrap(), b"");
        assert_eq!(from_base64(b"a-b"), None);
    }
}
