//! Calls with messages as bytes, and fields as bytes (protobuf.dev, "Encoding").

use prost::bytes::{Buf as _, BufMut as _};
use std::time::Duration;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

pub(crate) const ATTACH: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Attach";
pub(crate) const DETACH: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Detach";
pub(crate) const STATUS: &str = "/metropolis.node.core.network.workloads.WorkloadNetworking/Status";
pub(crate) const LIST: &str = "/workloadnet.v1.Inspection/List";
pub(crate) const SET_PREFIXES: &str = "/workloadnet.v1.Inspection/SetPrefixes";
pub(crate) const GET: &str = "/workloadnet.v1.Inspection/Get";
pub(crate) const CHECK: &str = "/workloadnet.v1.Inspection/Check";
pub(crate) const GET_NODE: &str = "/workloadnet.v1.Inspection/GetNode";
pub(crate) const COLLECT_GARBAGE: &str = "/workloadnet.v1.Inspection/CollectGarbage";
pub(crate) const ADOPT: &str = "/workloadnet.v1.Inspection/Adopt";
pub(crate) const METHODS: [&str; 10] = [
    ATTACH,
    DETACH,
    STATUS,
    LIST,
    GET,
    CHECK,
    GET_NODE,
    COLLECT_GARBAGE,
    SET_PREFIXES,
    ADOPT,
];

struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// One call.
pub(crate) async fn call(channel: &Channel, method: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(method).unwrap();
    Ok(grpc.unary(Request::new(message), path, Bytes).await?.into_inner())
}

/// One call whose message never comes.
pub(crate) async fn call_and_send_nothing(
    channel: &Channel,
    method: &str,
    timeout: Duration,
) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(method).unwrap();
    let mut request = Request::new(tokio_stream::pending::<Vec<u8>>());
    request.set_timeout(timeout);
    Ok(grpc.client_streaming(request, path, Bytes).await?.into_inner())
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// A field with a length: a string, bytes, a message.
pub(crate) fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::from(number) << 3 | 2);
    bytes.extend(varint(payload.len() as u64));
    bytes.extend(payload);
    bytes
}

/// A number's field.
pub(crate) fn number(number: u32, value: u64) -> Vec<u8> {
    let mut bytes = varint(u64::from(number) << 3);
    bytes.extend(varint(value));
    bytes
}
