//! How many connections, calls and bytes the door takes, who gives way, and for how long it keeps a connection whose peer is
//! silent.

use crate::played::{Played, attachment, bounded, ourselves};
use crate::raw::{ATTACH, STATUS, call};
use api::workload::workload_networking_client::WorkloadNetworkingClient;
use api::workload::{AttachRequest, AttachResponse, DetachRequest, NetNsAttachment, StatusRequest};
use daemon::desk::order::Refusal;
use daemon::door::Bounds;
use daemon::door::peer::Allowed;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

/// Nothing here takes this long.
const LONG: Duration = Duration::from_secs(20);

fn two_seats() -> Bounds {
    Bounds {
        connections: 2,
        ..Bounds::default()
    }
}

fn so_many_calls(calls: usize) -> Bounds {
    Bounds {
        calls,
        ..Bounds::default()
    }
}

fn so_many_bytes(bytes: usize) -> Bounds {
    Bounds {
        bytes,
        ..Bounds::default()
    }
}

fn attach(id: &str) -> AttachRequest {
    AttachRequest {
        workload_id: id.to_owned(),
        netns: Some(NetNsAttachment {
            netns_path: "/run/netns/pod".to_owned(),
            if_name: "eth0".to_owned(),
        }),
        ..AttachRequest::default()
    }
}

/// Begins an attach, and returns when the desk has it.
async fn attaching(
    desk: &Played,
    channel: Channel,
    id: &str,
) -> JoinHandle<Result<Response<AttachResponse>, Status>> {
    let request = attach(id);
    let order = tokio::spawn(async move { WorkloadNetworkingClient::new(channel).attach(request).await });
    desk.came().await;
    order
}

/// The desk answers an order that it has, and its caller hears of it.
async fn ends(desk: &Played, order: JoinHandle<Result<Response<AttachResponse>, Status>>) {
    desk.answer(|order| Ok(attachment(order)));
    order.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_too_many_waits_as_long_as_all_others_wait_for_orders() {
    let desk = Played::holding();
    let door = bounded(&desk, ourselves(), two_seats());
    let (first, second, third) = (door.connection(), door.connection(), door.connection());
    let orders = [
        attaching(&desk, first, "a").await,
        attaching(&desk, second, "b").await,
    ];
    let mut waiting = std::pin::pin!(call(&third, STATUS, Vec::new()));
    tokio::select! {
        _ = &mut waiting => panic!("a third connection is served"),
        // After half of that an idle one would have given way.
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    desk.answer(|order| Ok(attachment(order)));
    tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    desk.answer(|order| Ok(attachment(order)));
    for order in orders {
        order.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn whoever_has_asked_for_nothing_for_the_longest_time_gives_way_to_a_connection_too_many() {
    let desk = Played::default();
    let door = bounded(&desk, ourselves(), two_seats());
    // One that never says a word, and one that asks.
    let mut silent = UnixStream::connect(door.folder.path().join("socket"))
        .await
        .unwrap();
    let (asking, third) = (door.connection(), door.connection());
    call(&asking, STATUS, Vec::new()).await.unwrap();
    tokio::time::timeout(LONG, call(&third, STATUS, Vec::new()))
        .await
        .unwrap()
        .unwrap();
    let mut heard = Vec::new();
    let over = tokio::time::timeout(LONG, silent.read_to_end(&mut heard)).await;
    // What it had not read is lost with it.
    drop(over.unwrap());
    call(&asking, STATUS, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn whoever_may_not_speak_keeps_nobody_out_however_often_it_asks() {
    let desk = Played::default();
    let nobody = Allowed {
        uids: Vec::new(),
        gids: Vec::new(),
    };
    let door = bounded(&desk, nobody, two_seats());
    let (refused, third) = ([door.connection(), door.connection()], door.connection());
    for channel in &refused {
        call(channel, STATUS, Vec::new()).await.unwrap_err();
    }
    let asking = refused.map(|channel| {
        tokio::spawn(async move {
            loop {
                drop(call(&channel, STATUS, Vec::new()).await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    });
    let answer = tokio::time::timeout(LONG, call(&third, STATUS, Vec::new())).await;
    assert_eq!(answer.unwrap().unwrap_err().code(), Code::PermissionDenied);
    asking.iter().for_each(JoinHandle::abort);
}

/// Reason and time to come again of a refusal.
fn overloaded(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(
        (status.code(), &*info.reason),
        (Code::Unavailable, "OVERLOADED"),
        "{status}"
    );
    assert!(details.retry_info().is_some(), "{status}");
    info.metadata["of"].clone()
}

#[tokio::test]
async fn a_call_too_many_is_refused_and_served_when_another_is_over() {
    let desk = Played::holding();
    let door = bounded(&desk, ourselves(), so_many_calls(1));
    let order = attaching(&desk, door.connection(), "a").await;
    let refused = call(&door.channel, STATUS, Vec::new()).await.unwrap_err();
    assert_eq!(overloaded(&refused), "calls");
    ends(&desk, order).await;
    call(&door.channel, STATUS, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn who_has_calls_in_hand_leaves_as_much_room_for_those_who_have_fewer() {
    let desk = Played::holding();
    let door = bounded(&desk, ourselves(), so_many_calls(3));
    let many = door.connection();
    let mut orders = Vec::new();
    for id in ["a", "b"] {
        orders.push(attaching(&desk, many.clone(), id).await);
    }
    // One is left, and it is not for who has two.
    let refused = call(&many, STATUS, Vec::new()).await.unwrap_err();
    assert_eq!(overloaded(&refused), "calls");
    call(&door.channel, STATUS, Vec::new()).await.unwrap();
    // Which of them is answered first is the desk's affair.
    for _ in &orders {
        desk.answer(|order| Ok(attachment(order)));
    }
    for order in orders {
        order.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn who_has_long_messages_in_hand_leaves_as_much_room_for_those_who_have_short_ones() {
    let desk = Played::holding();
    let door = bounded(&desk, ourselves(), so_many_bytes(1000));
    let long = |id: &str| {
        let mut long = attach(id);
        long.labels.insert("a".to_owned(), "b".repeat(250));
        long
    };
    let greedy = WorkloadNetworkingClient::new(door.connection());
    let mut orders = Vec::new();
    for id in ["a", "b"] {
        let (mut greedy, long) = (greedy.clone(), long(id));
        orders.push(tokio::spawn(async move { greedy.attach(long).await }));
        desk.came().await;
    }
    // There would be room for it, and it is not for who has as much already.
    let refused = greedy.clone().attach(long("c")).await.unwrap_err();
    assert_eq!(overloaded(&refused), "bytes of messages");
    let other = WorkloadNetworkingClient::new(door.connection());
    let (mut another, message) = (other.clone(), long("d"));
    orders.push(tokio::spawn(async move { another.attach(message).await }));
    desk.came().await;
    for _ in &orders {
        desk.answer(|order| Ok(attachment(order)));
    }
    for order in orders {
        order.await.unwrap().unwrap();
    }
    // What it had is there again.
    let (mut again, message) = (greedy.clone(), long("e"));
    let order = tokio::spawn(async move { again.attach(message).await });
    desk.came().await;
    ends(&desk, order).await;
}

#[tokio::test]
async fn headers_beyond_what_a_call_may_have_count_as_bytes_of_messages() {
    let desk = Played::default();
    let door = bounded(&desk, ourselves(), so_many_bytes(1000));
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    for (length, refused) in [(1000, false), (6000, true)] {
        let mut request = Request::new(StatusRequest {});
        let long = "x".repeat(length).parse().unwrap();
        request.metadata_mut().insert("long", long);
        let answer = client.status(request).await;
        match refused {
            true => assert_eq!(overloaded(&answer.unwrap_err()), "bytes of messages"),
            false => drop(answer.unwrap()),
        }
    }
}

#[tokio::test]
async fn calls_of_health_and_reflection_are_in_hand_as_all_others() {
    let desk = Played::holding();
    let door = bounded(&desk, ourselves(), so_many_calls(1));
    let order = attaching(&desk, door.connection(), "a").await;
    for method in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let refused = call(&door.channel, method, Vec::new()).await.unwrap_err();
        assert_eq!(overloaded(&refused), "calls", "{method}");
    }
    ends(&desk, order).await;
}

#[tokio::test]
async fn messages_beyond_what_may_be_in_hand_are_refused_and_never_reach_the_desk() {
    let desk = Played::holding();
    let door = bounded(&desk, ourselves(), so_many_bytes(300));
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    let mut long = attach("long");
    long.labels.insert("a".to_owned(), "b".repeat(250));
    let order = attaching(&desk, door.connection(), "a").await;
    let refused = client.attach(long.clone()).await.unwrap_err();
    assert_eq!(overloaded(&refused), "bytes of messages");
    assert_eq!(desk.last_attach().key.workload().as_str(), "a");
    ends(&desk, order).await;
    // What the other one took is there again.
    let order = tokio::spawn(async move { client.attach(long).await });
    desk.came().await;
    ends(&desk, order).await;
}

/// Each attach by the code of its answer, wherever that came from.
#[tokio::test]
async fn an_attach_that_the_door_refuses_is_counted_once_as_those_of_the_desk_are() {
    let desk = Played::holding();
    let bounds = Bounds {
        calls: 2,
        bytes: 300,
        ..Bounds::default()
    };
    let door = bounded(&desk, ourselves(), bounds);
    let counted = |code: Code| door.answers.attaches.codes[code as usize].so_far();
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    let first = attaching(&desk, door.connection(), "a").await;
    let mut long = attach("long");
    long.labels.insert("a".to_owned(), "b".repeat(250));
    assert_eq!(
        overloaded(&client.attach(long).await.unwrap_err()),
        "bytes of messages"
    );
    assert_eq!(counted(Code::Unavailable), 1);
    client.attach(attach("")).await.unwrap_err();
    assert_eq!(counted(Code::InvalidArgument), 1);
    call(&door.channel, ATTACH, vec![0xff; 9]).await.unwrap_err();
    // None of ours, though it has the name.
    let elsewhere = "/workloadnet.v1.Inspection/Attach";
    call(&door.channel, elsewhere, Vec::new()).await.unwrap_err();
    let other = attaching(&desk, door.connection(), "b").await;
    assert_eq!(
        overloaded(&client.attach(attach("c")).await.unwrap_err()),
        "calls"
    );
    assert_eq!(counted(Code::Unavailable), 2);
    // The last one that came.
    desk.answer(|_| Err(Refusal::Overloaded { waiting: 7 }));
    other.await.unwrap().unwrap_err();
    ends(&desk, first).await;
    let all: u64 = door.answers.attaches.codes.iter().map(|code| code.so_far()).sum();
    assert_eq!((counted(Code::Ok), counted(Code::Unavailable), all), (1, 3, 6));
}

#[tokio::test]
async fn an_attach_too_late_to_begin_and_a_detach_that_the_door_refuses_are_counted_once() {
    let desk = Played::holding();
    let door = bounded(&desk, ourselves(), Bounds::default());
    let late = attaching(&desk, door.connection(), "a").await;
    desk.answer(|_| Err(Refusal::TooLate));
    late.await.unwrap().unwrap_err();
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    client.detach(DetachRequest::default()).await.unwrap_err();
    for (calls, code) in [
        (&door.answers.attaches, Code::DeadlineExceeded),
        (&door.answers.detaches, Code::InvalidArgument),
    ] {
        let all: u64 = calls.codes.iter().map(|code| code.so_far()).sum();
        assert_eq!((calls.codes[code as usize].so_far(), all), (1, 1), "{code:?}");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_answer_a_ping_is_let_go() {
    let desk = Played::default();
    let bounds = Bounds {
        silence: Duration::from_millis(90),
        ..Bounds::default()
    };
    let door = bounded(&desk, ourselves(), bounds);
    let mut silent = UnixStream::connect(door.folder.path().join("socket"))
        .await
        .unwrap();
    // The preface and empty settings (RFC 9113, section 3.4), and then nothing more.
    silent
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    silent.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut heard = Vec::new();
    tokio::time::timeout(LONG, silent.read_to_end(&mut heard))
        .await
        .unwrap()
        .unwrap();
    // One that answers stays.
    let channel = door.connection();
    for _ in 0..3 {
        call(&channel, STATUS, Vec::new()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}
