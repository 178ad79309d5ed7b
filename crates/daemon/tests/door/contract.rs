//! The reference's contract on the wire: a client that has only the reference's messages, and HTTP/2 as clients speak it.

use crate::played::{Played, V4, V6, open, ourselves};
use crate::raw::{STATUS, call};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::transport::Channel;

fn reference() -> DescriptorPool {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let files = protox::compile(["reference.proto"], [folder]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

#[test]
fn every_field_and_method_of_the_reference_is_ours_on_the_wire() {
    let ours = DescriptorPool::decode(api::DESCRIPTORS).unwrap();
    for message in reference().all_messages() {
        let mine = ours.get_message_by_name(message.full_name()).unwrap();
        for field in message.fields() {
            let other = mine.get_field(field.number()).unwrap();
            assert_eq!(
                (other.name(), other.cardinality(), format!("{:?}", other.kind())),
                (field.name(), field.cardinality(), format!("{:?}", field.kind())),
                "{}",
                field.full_name()
            );
        }
        let added = mine
            .fields()
            .filter(|field| message.get_field(field.number()).is_none());
        assert!(
            added.into_iter().all(|field| field.number() >= 16),
            "{}",
            message.full_name()
        );
    }
    for service in reference().services() {
        let mine = ours.get_service_by_name(service.full_name()).unwrap();
        for method in service.methods() {
            let other = mine
                .methods()
                .find(|other| other.name() == method.name())
                .unwrap();
            assert_eq!(other.input().full_name(), method.input().full_name());
            assert_eq!(other.output().full_name(), method.output().full_name());
        }
    }
}

/// Calls a method of the reference with its own messages.
async fn ask(channel: &Channel, method: &MethodDescriptor, request: &DynamicMessage) -> DynamicMessage {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let answer = call(channel, &path, request.encode_to_vec()).await.unwrap();
    DynamicMessage::decode(method.output(), &*answer).unwrap()
}

#[tokio::test]
async fn a_client_of_the_reference_is_served_by_every_method() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let service = reference().services().next().unwrap();
    for method in service.methods() {
        let mut request = DynamicMessage::new(method.input());
        if let Some(field) = method.input().get_field_by_name("netns") {
            let kind = field.kind();
            let mut netns = DynamicMessage::new(kind.as_message().unwrap().clone());
            netns.set_field_by_name("netns_path", Value::String("/run/netns/a".to_owned()));
            netns.set_field_by_name("if_name", Value::String("eth0".to_owned()));
            request.set_field_by_name("netns", Value::Message(netns));
            request.set_field_by_name("workload_id", Value::String("pod-1".to_owned()));
        }
        let answer = ask(&door.channel, &method, &request).await;
        match method.name() {
            "Attach" => {
                let order = desk.last_attach();
                assert_eq!(
                    (&*order.key.to_string(), &*order.path),
                    ("/pod-1/eth0", "/run/netns/a")
                );
                let ips = answer.get_field_by_name("ip").unwrap();
                let ips: Vec<&[u8]> = ips
                    .as_list()
                    .unwrap()
                    .iter()
                    .map(|ip| &**ip.as_bytes().unwrap())
                    .collect();
                assert_eq!(ips, [&V4.octets()[..], &V6.octets()[..]]);
                // All that the reference does not know is ours, from 16 on.
                assert!(answer.unknown_fields().all(|field| field.number() >= 16));
                assert!(answer.unknown_fields().count() > 0);
            }
            "Detach" => {
                let order = desk.last_detach();
                assert_eq!(order.key.to_string(), "/pod-1/eth0");
                assert_eq!(order.path.as_deref(), Some("/run/netns/a"));
            }
            "Status" => assert_eq!(answer.encode_to_vec(), Vec::<u8>::new()),
            other => panic!("the reference has a method {other}, which this test does not know"),
        }
    }
    assert_eq!(desk.asked(), 3);
}

/// Frame types and error codes (RFC 9113, sections 6 and 7).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, stream]);
    bytes.extend(payload);
    bytes
}

/// A literal header without indexing or compression (RFC 7541, section 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127);
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Asks for Status as a client with this `:authority`, and returns type and payload of the first frame on its stream.
async fn first_frame(socket: &Path, authority: &str) -> (u8, Vec<u8>) {
    let headers = [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", STATUS),
        header(":authority", authority),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ];
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend(frame(SETTINGS, 0, 0, &[]));
    // END_HEADERS; then an empty message with END_STREAM.
    request.extend(frame(HEADERS, 4, 1, &headers.concat()));
    request.extend(frame(DATA, 1, 1, &[0; 5]));
    stream.write_all(&request).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload =
            vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[8] == 1 {
            return (head[3], payload);
        }
    }
}

/// Python's grpcio sends the socket's path, unless `grpc.default_authority` is set (`docs/operating.md`).
#[tokio::test]
async fn a_socket_path_as_authority_is_refused_by_http2_and_localhost_is_served() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let socket = door.folder.path().join("socket");
    assert_eq!(first_frame(&socket, "localhost").await.0, HEADERS);
    assert_eq!(desk.asked(), 1);
    let refused = first_frame(&socket, "/run/workloadnet/workloadnet.sock").await;
    assert_eq!(refused, (RST_STREAM, PROTOCOL_ERROR.to_vec()));
    assert_eq!(desk.asked(), 1);
}
