//! What a caller hears whose deadline comes before the outcome, or who has none.

use crate::played::{Played, attachment, bounded, open, ourselves};
use crate::raw::{ATTACH, METHODS, call_and_send_nothing};
use api::inspection::SetPrefixesRequest;
use api::inspection::inspection_client::InspectionClient;
use api::workload::workload_networking_client::WorkloadNetworkingClient;
use api::workload::{AttachRequest, DetachRequest, NetNsAttachment};
use daemon::door::Bounds;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// Too long for any answer here.
const LONG: Duration = Duration::from_secs(20);

fn netns() -> Option<NetNsAttachment> {
    Some(NetNsAttachment {
        netns_path: "/run/netns/pod-1".to_owned(),
        if_name: "eth0".to_owned(),
    })
}

fn attach() -> AttachRequest {
    AttachRequest {
        workload_id: "pod-1".to_owned(),
        netns: netns(),
        ..AttachRequest::default()
    }
}

fn detach() -> DetachRequest {
    DetachRequest {
        workload_id: "pod-1".to_owned(),
        netns: netns(),
        ..DetachRequest::default()
    }
}

fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// The reason of a deadline that passed at the door. tonic's own timers, at either end, give none.
#[track_caller]
fn reason(status: &Status) -> String {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    status.get_error_details().error_info().unwrap().reason.clone()
}

#[tokio::test]
async fn an_order_that_outlives_the_deadline_goes_on_and_the_caller_is_told() {
    let desk = Played::holding();
    let door = open(&desk, ourselves());
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    for millis in [500, 1000] {
        let timeout = Duration::from_millis(millis);
        let began = Instant::now();
        let status = client.attach(timed(attach(), timeout)).await.unwrap_err();
        assert_eq!(reason(&status), "ORDER_GOES_ON");
        assert!(status.message().contains("the order goes on"), "{status}");
        assert!(began.elapsed() < LONG);
        // It does: its outcome is still wanted.
        desk.answer(|order| Ok(attachment(order)));
        let status = client.detach(timed(detach(), timeout)).await.unwrap_err();
        assert_eq!(reason(&status), "ORDER_GOES_ON");
    }
}

#[tokio::test]
async fn a_list_of_prefixes_that_is_written_slowly_goes_on_and_the_caller_is_told() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let (slow, written) = mpsc::channel();
    desk.writes_until(written);
    let mut client = InspectionClient::new(door.channel.clone());
    let list = SetPrefixesRequest {
        prefix: vec!["10.77.0.0/24".to_owned()],
    };
    let timeout = Duration::from_millis(500);
    let status = client
        .set_prefixes(timed(list.clone(), timeout))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "ORDER_GOES_ON");
    drop(slow);
    assert_eq!(
        client.set_prefixes(list).await.unwrap().into_inner().generation,
        7
    );
}

/// So many are written at once, and no more.
#[tokio::test]
async fn a_list_of_prefixes_whose_turn_does_not_come_in_time_has_not_begun() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let mut client = InspectionClient::new(door.channel.clone());
    let list = SetPrefixesRequest {
        prefix: vec!["10.77.0.0/24".to_owned()],
    };
    let mut slow = Vec::new();
    let before: Vec<_> = (0..4)
        .map(|_| {
            let (ends, written) = mpsc::channel::<()>();
            slow.push(ends);
            desk.writes_until(written);
            let (mut client, list) = (client.clone(), list.clone());
            tokio::spawn(async move { client.set_prefixes(timed(list, LONG)).await.map(drop) })
        })
        .collect();
    while desk.asked() < 4 {
        tokio::task::yield_now().await;
    }
    let status = client
        .set_prefixes(timed(list, Duration::from_secs(2)))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "NOT_BEGUN");
    drop(slow);
    for call in before {
        call.await.unwrap().unwrap();
    }
    assert_eq!(desk.asked(), 4);
}

#[tokio::test]
async fn a_caller_without_a_deadline_is_answered_by_the_doors() {
    let desk = Played::holding();
    let bounds = Bounds {
        answer: Duration::from_millis(50),
        ..Bounds::default()
    };
    let door = bounded(&desk, ourselves(), bounds);
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    let status = client.attach(attach()).await.unwrap_err();
    assert_eq!(reason(&status), "ORDER_GOES_ON");
    let status = client.detach(timed(detach(), LONG)).await.unwrap_err();
    assert_eq!(reason(&status), "ORDER_GOES_ON");
}

#[tokio::test]
async fn a_call_whose_message_does_not_come_in_time_has_not_begun() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    // All at once, with time enough that the door's answer comes before the caller's own timer on a busy machine.
    let timeout = Duration::from_secs(2);
    let calls = METHODS.map(|method| {
        let channel = door.channel.clone();
        tokio::spawn(async move {
            let answer = call_and_send_nothing(&channel, method, timeout).await;
            (method, answer.unwrap_err())
        })
    });
    for call in calls {
        let (method, status) = call.await.unwrap();
        assert_eq!(reason(&status), "NOT_BEGUN", "{method}");
        assert!(status.message().ends_with("nothing was changed"), "{status}");
    }
    assert_eq!(desk.asked(), 0);
    // The door's own bound is for these, too.
    let bounds = Bounds {
        answer: Duration::from_millis(50),
        ..Bounds::default()
    };
    let door = bounded(&desk, ourselves(), bounds);
    let status = call_and_send_nothing(&door.channel, ATTACH, LONG)
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "NOT_BEGUN");
}
