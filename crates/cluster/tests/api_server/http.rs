//! As much of HTTP/1.1 as a client of Kubernetes needs.

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// What is asked for.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) path: String,
    pub(super) token: Option<String>,
    /// The Content-Type.
    pub(super) content: String,
    query: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(super) fn asks(&self, name: &str) -> Option<String> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    }

    pub(super) fn body(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether the field selector lets a Node through.
    pub(super) fn wants(&self, node: &Value) -> bool {
        let Some(selector) = self.asks("fieldSelector") else {
            return true;
        };
        let name = selector.strip_prefix("metadata.name=").unwrap();
        node["metadata"]["name"] == name
    }
}

/// `None`: the connection has ended.
pub(super) fn read(connection: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap().split(' ');
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    connection.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect();
    let token = header("authorization").and_then(|text| Some(text.strip_prefix("Bearer ")?.to_owned()));
    Some(Request {
        method,
        path: path.to_owned(),
        query,
        token,
        content: header("content-type").unwrap_or_default(),
        body,
        target,
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap();
            out.push(u8::from_str_radix(digits, 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}

/// A Status object.
pub(super) fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code})
}

/// An answer that is not streamed.
pub(super) struct Answer {
    code: u16,
    body: String,
    is_cut: bool,
}

impl Answer {
    pub(super) fn json(value: &Value) -> Self {
        Self::text(&value.to_string())
    }

    pub(super) fn text(text: &str) -> Self {
        Self {
            code: 200,
            body: text.to_owned(),
            is_cut: false,
        }
    }

    pub(super) fn cut(value: &Value) -> Self {
        Self {
            is_cut: true,
            ..Self::json(value)
        }
    }

    pub(super) fn status(code: u16, message: &str) -> Self {
        Self {
            code,
            ..Self::json(&status(code, message))
        }
    }

    /// `None`: the connection is of no use any more.
    pub(super) fn send(&self, connection: &mut TcpStream) -> Option<()> {
        let head = format!(
            "HTTP/1.1 {} Some\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.code,
            self.body.len()
        );
        connection.write_all(head.as_bytes()).ok()?;
        if self.is_cut {
            connection
                .write_all(&self.body.as_bytes()[..self.body.len() / 2])
                .ok()?;
            return None;
        }
        connection.write_all(self.body.as_bytes()).ok()
    }
}

pub(super) fn begin_stream(connection: &mut TcpStream) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write_all(head.as_bytes()).ok()
}

pub(super) fn chunk(connection: &mut TcpStream, text: &str) -> Option<()> {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    connection.write_all(chunk.as_bytes()).ok()
}

pub(super) fn end_stream(connection: &mut TcpStream) -> Option<()> {
    connection.write_all(b"0\r\n\r\n").ok()
}
