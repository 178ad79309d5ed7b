//! What the desk hears of a request, and what a caller hears of the desk.

use crate::played::{Played, V4, V6, attachment, open, ourselves};
use api::inspection::CollectGarbageRequest;
use api::inspection::inspection_client::InspectionClient;
use api::workload::workload_networking_client::WorkloadNetworkingClient;
use api::workload::{AttachRequest, NetNsAttachment, StatusRequest};
use daemon::desk::order::Refusal;
use model::datapath::{Fault, OpenError, WireError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

fn request() -> AttachRequest {
    AttachRequest {
        workload_id: "pod-1".to_owned(),
        netns: Some(NetNsAttachment {
            netns_path: "/run/netns/pod-1".to_owned(),
            if_name: "eth0".to_owned(),
        }),
        owner: "k8s.io".to_owned(),
        labels: [("pod".to_owned(), "web".to_owned())].into(),
        ..AttachRequest::default()
    }
}

#[tokio::test]
async fn an_attach_is_answered_with_all_that_was_made() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    let answer = client.attach(request()).await.unwrap().into_inner();
    let order = desk.last_attach();
    assert_eq!(order.key.to_string(), "k8s.io/pod-1/eth0");
    assert_eq!(order.path, "/run/netns/pod-1");
    assert_eq!(order.labels["pod"], "web");
    assert_eq!((order.mtu, order.v4, order.v6), (None, None, None));
    assert_eq!(answer.ip, [V4.octets().to_vec(), V6.octets().to_vec()]);
    assert_eq!(answer.host_link, order.key.host_link().as_str());
    assert_eq!(answer.host_mac, [0x02, 0x9c, 0x52, 0xfe, 0x6d, 0x0a]);
    assert_eq!(answer.workload_mac, order.key.workload_mac().0);
    assert_eq!(answer.mtu, 1400);
    assert_eq!(answer.gateway[0], [169, 254, 77, 1]);
    assert_eq!(answer.gateway[1][..2], [0xfe, 0x80]);
    let namespace = answer.namespace.unwrap();
    assert_eq!((namespace.device, namespace.inode), (4, 77));
    // On-link to the first hop and the default one, of either family.
    let lengths: Vec<(usize, u32)> = answer
        .route
        .iter()
        .map(|route| (route.destination.len(), route.prefix_length))
        .collect();
    assert_eq!(lengths, [(4, 32), (4, 0), (16, 128), (16, 0)]);
}

#[tokio::test]
async fn a_callers_deadline_reaches_the_desk() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    let before = Instant::now();
    let mut timed = Request::new(request());
    timed.set_timeout(Duration::from_secs(600));
    client.attach(timed).await.unwrap();
    let deadline = desk.last_attach().deadline.unwrap();
    let allowance = deadline.duration_since(before);
    assert!(
        (Duration::from_secs(600)..Duration::from_secs(660)).contains(&allowance),
        "{allowance:?}"
    );
    client.attach(request()).await.unwrap();
    assert_eq!(desk.last_attach().deadline, None);
}

#[tokio::test]
async fn an_order_outlives_a_caller_who_hangs_up() {
    let desk = Played::holding();
    let door = open(&desk, ourselves());
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    let mut other = client.clone();
    tokio::select! {
        outcome = client.attach(request()) => panic!("answered: {outcome:?}"),
        () = desk.came() => {}
    }
    // The answer arrives here, so the reset of the call before it has arrived, too.
    other.status(StatusRequest {}).await.unwrap();
    desk.answer(|order| Ok(attachment(order)));
    other.status(StatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_with_its_details() {
    let desk = Played::holding();
    let door = open(&desk, ourselves());
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    let (outcome, ()) = tokio::join!(client.attach(request()), async {
        desk.came().await;
        desk.answer(|_| Err(Refusal::Overloaded { waiting: 7 }));
    });
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "7 orders are waiting, which is the most");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
    assert_eq!(details.error_info().unwrap().metadata["waiting"], "7");
    assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
}

/// An answer that was cut short, a dump that was interrupted again and again, a link that carries another group by now.
#[tokio::test]
async fn a_fault_without_an_errno_is_answered_and_ends_nothing() {
    for (errno, code) in [
        (0, Code::Internal),
        (-1, Code::Internal),
        (70_000, Code::Internal),
        (12, Code::Unavailable),
    ] {
        let fault = || Fault {
            tried: "ip link show".to_owned(),
            reason: "the kernel's answer was cut short".to_owned(),
            errno,
        };
        let refusals = [
            Refusal::Kernel(fault()),
            Refusal::from(OpenError::Fault(fault())),
            Refusal::Wire(WireError::Refused {
                fault: fault(),
                left: Vec::new(),
            }),
        ];
        for refusal in refusals {
            let status = daemon::door::refusal::refused(&refusal);
            assert_eq!(status.code(), code, "{errno}");
            assert!(status.message().contains("cut short"), "{status}");
        }
    }
}

#[tokio::test]
async fn a_refusal_about_the_longest_path_still_fits_into_headers() {
    let desk = Played::holding();
    let door = open(&desk, ourselves());
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    for character in ["x", "é", "%", "\u{1b}"] {
        let path = format!("/{}", character.repeat(4094 / character.len()));
        let mut request = request();
        request.netns.as_mut().unwrap().netns_path.clone_from(&path);
        let (outcome, ()) = tokio::join!(client.attach(request), async {
            desk.came().await;
            desk.answer(|order| {
                let path = order.path.clone();
                Err(OpenError::NotFound { path }.into())
            });
        });
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(
            status
                .message()
                .starts_with("netns.netns_path: there is nothing at \"/")
        );
        assert!(status.message().ends_with('…'));
        let details = status.get_error_details();
        let value = &details.error_info().unwrap().metadata["value"];
        assert!(path.starts_with(value.trim_end_matches('…')) && value.len() > 500);
    }
}

#[tokio::test]
async fn status_names_every_unmet_condition() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let mut client = WorkloadNetworkingClient::new(door.channel.clone());
    client.status(StatusRequest {}).await.unwrap();
    desk.set_unready(&["no prefix", "no table"]);
    let status = client.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "not ready: no prefix; no table")
    );
    assert!(status.get_error_details().retry_info().is_some());
}

/// It may have waited in the socket, or for a daemon that starts: what others attached meanwhile is no garbage.
#[tokio::test]
async fn garbage_is_older_than_the_request_that_was_on_its_way() {
    let desk = Played::default();
    let door = open(&desk, ourselves());
    let mut client = InspectionClient::new(door.channel.clone());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    for (sent_unix_ms, least, most) in [
        (0, 7, 7),
        (now - 60_000, 60_007, 120_007),
        // The clock was set back.
        (now + 3_600_000, 7, 7),
        (u64::MAX, 7, 7),
    ] {
        let request = CollectGarbageRequest {
            since_ms: 7,
            sent_unix_ms,
            ..CollectGarbageRequest::default()
        };
        client.collect_garbage(request).await.unwrap();
        let age = desk.last_garbage_age().as_millis();
        assert!((least..=most).contains(&age), "{sent_unix_ms}: {age}");
    }
}
