//! All or nothing: what the door gives back when an adoption cannot be finished.

use crate::played::{Played, open, ourselves};
use api::inspection::adopt_request::Step as Asked;
use api::inspection::adoption::State;
use api::inspection::inspection_client::InspectionClient;
use api::inspection::{AdoptRequest, Adoption, Candidate, Key};
use daemon::desk::order::{AdoptOrder, Adopted, Refusal, Step};
use std::time::Duration;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

fn take(ids: &[&str]) -> AdoptRequest {
    let candidate = ids.iter().zip(2..).map(|(id, host)| Candidate {
        key: Some(Key {
            owner: "workloadnet".to_owned(),
            workload_id: (*id).to_owned(),
            if_name: "eth0".to_owned(),
        }),
        netns_path: format!("/run/netns/{id}"),
        ip: vec![format!("10.77.0.{host}")],
    });
    AdoptRequest {
        step: Asked::Take.into(),
        candidate: candidate.collect(),
        ..AdoptRequest::default()
    }
}

fn id(order: &AdoptOrder) -> String {
    order.key.workload().as_str().to_owned()
}

/// As `look a`.
fn text(orders: &[AdoptOrder]) -> Vec<String> {
    let verb = |order: &AdoptOrder| match order.step {
        Step::Check { .. } => "look",
        Step::Take { .. } => "take",
        Step::Undo => "undo",
        Step::Commit => "commit",
    };
    orders
        .iter()
        .map(|order| format!("{} {}", verb(order), id(order)))
        .collect()
}

fn states(answer: &[Adoption]) -> Vec<State> {
    answer.iter().map(Adoption::state).collect()
}

fn refused() -> Adopted {
    Adopted::Refused(vec!["it is somebody else's".to_owned()])
}

#[tokio::test]
async fn an_adoption_whose_caller_has_gone_is_done_to_its_end_and_taken_back_where_it_fails() {
    let desk = Played::holding();
    let door = open(&desk, ourselves());
    let mut client = InspectionClient::new(door.channel.clone());
    let mut request = Request::new(take(&["a", "b"]));
    request.set_timeout(Duration::from_secs(1));
    let status = client.adopt(request).await.unwrap_err();
    let reason = status.get_error_details().error_info().unwrap().reason.clone();
    assert_eq!(
        (status.code(), &*reason),
        (Code::DeadlineExceeded, "ORDER_GOES_ON")
    );
    for outcome in [
        Adopted::Possible,
        Adopted::Possible,
        Adopted::Taken,
        refused(),
        Adopted::Undone,
    ] {
        desk.came().await;
        desk.answer_adoption(outcome);
    }
    let all = ["look a", "look b", "take a", "take b", "undo a"];
    assert_eq!(text(&desk.adoptions()), all);
}

#[tokio::test]
async fn an_order_without_an_answer_takes_back_what_came_before_it_and_itself() {
    let desk = Played::default();
    desk.adopts(|order| match (&order.step, &*id(order)) {
        (Step::Check { .. }, _) => Ok(Adopted::Possible),
        (Step::Take { .. }, "b") => Err(Refusal::Overloaded { waiting: 7 }),
        (Step::Take { .. }, _) => Ok(Adopted::Taken),
        // One that cannot be given back hinders no other.
        (_, "a") => Err(Refusal::Overloaded { waiting: 7 }),
        _ => Ok(Adopted::Undone),
    });
    let door = open(&desk, ourselves());
    let mut client = InspectionClient::new(door.channel.clone());
    let status = client.adopt(take(&["a", "b", "c"])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let all = [
        "look a", "look b", "look c", "take a", "take b", "undo a", "undo b",
    ];
    assert_eq!(text(&desk.adoptions()), all);
}

#[tokio::test]
async fn what_an_earlier_call_has_taken_over_stays_so_when_a_later_one_fails() {
    let desk = Played::default();
    desk.adopts(|order| match (&order.step, &*id(order)) {
        (Step::Check { .. } | Step::Take { .. }, "early") | (Step::Take { .. }, "b") => Ok(Adopted::Taken),
        (Step::Check { .. }, _) => Ok(Adopted::Possible),
        (Step::Take { .. }, _) => Ok(refused()),
        _ => Ok(Adopted::Undone),
    });
    let door = open(&desk, ourselves());
    let mut client = InspectionClient::new(door.channel.clone());
    let answer = client
        .adopt(take(&["early", "b", "c"]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        states(&answer.adoption),
        [State::Taken, State::Undone, State::Refused]
    );
    assert_eq!(text(&desk.adoptions())[6..], ["undo b"]);
}
