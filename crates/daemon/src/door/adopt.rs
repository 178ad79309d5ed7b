//! Adopt: one order for each candidate, and nothing is taken over where one of them cannot be.

use super::deadline::Call;
use super::inspection::key_of;
use super::workload::outcome;
use super::{Orders, field, refusal};
use crate::desk::order::{AdoptOrder, Adopted, Step};
use api::inspection::{self as inspect, adopt_request::Step as Asked, adoption::State};
use model::key::Key;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) async fn adopt(
    orders: &Arc<dyn Orders>,
    request: Request<inspect::AdoptRequest>,
) -> Result<Response<inspect::AdoptResponse>, Status> {
    let call = Call::of(&request);
    let asked = request.into_inner();
    let partial = asked.partial;
    let step = asked.step();
    let plans = field::adopt(asked).map_err(|error| refusal::invalid(&error))?;
    let plans = match (step, plans.is_empty()) {
        (Asked::Undo | Asked::Commit, true) => {
            let all = orders.list(None).map_err(|error| refusal::refused(&error))?;
            let taken = all.into_iter().filter(|a| a.undoable);
            let step = match step {
                Asked::Undo => Step::Undo,
                _ => Step::Commit,
            };
            taken
                .map(|a| AdoptOrder {
                    key: a.key().clone(),
                    step: step.clone(),
                })
                .collect()
        }
        _ => plans,
    };
    if step == Asked::Take && !partial {
        let looks = plans.iter().cloned().map(only_looked_at).collect();
        let answers = carry_out(orders, &call, looks).await?;
        if answers
            .iter()
            .any(|(_, answer)| matches!(answer, Adopted::Refused(_)))
        {
            return Ok(response(answers));
        }
    }
    let mut answers = carry_out(orders, &call, plans).await?;
    let refused = answers
        .iter()
        .any(|(_, answer)| matches!(answer, Adopted::Refused(_)));
    if step == Asked::Take && !partial && refused {
        // It has changed since it was looked at: all or nothing.
        let taken = answers.iter().filter(|(_, answer)| *answer == Adopted::Taken);
        let undo = taken.map(|(key, _)| AdoptOrder {
            key: key.clone(),
            step: Step::Undo,
        });
        let undone = carry_out(orders, &call, undo.collect()).await?;
        for (key, outcome) in undone {
            if let Some(answer) = answers.iter_mut().find(|(of, _)| *of == key) {
                answer.1 = outcome;
            }
        }
    }
    Ok(response(answers))
}

fn only_looked_at(order: AdoptOrder) -> AdoptOrder {
    let step = match order.step {
        Step::Take { path, addresses } => Step::Check { path, addresses },
        other => other,
    };
    AdoptOrder { step, ..order }
}

async fn carry_out(
    orders: &Arc<dyn Orders>,
    call: &Call,
    plans: Vec<AdoptOrder>,
) -> Result<Vec<(Key, Adopted)>, Status> {
    let mut answers = Vec::new();
    for order in plans {
        let (key, of) = (order.key.clone(), order.key.clone());
        let looks = matches!(order.step, Step::Check { .. });
        let told = move |outcome: &Result<Adopted, _>| match outcome {
            Ok(Adopted::Refused(reasons)) => tracing::info!(key = %of, ?reasons, "not taken over"),
            Ok(_) if looks => {}
            Ok(state) => tracing::info!(key = %of, ?state, "adoption"),
            Err(error) => tracing::warn!(key = %of, %error, "adoption failed"),
        };
        let answer = match outcome(call, told, |done| orders.adopt(order, done)).await? {
            Ok(answer) => answer,
            Err(error @ crate::desk::order::Refusal::Kernel(_)) => Adopted::Refused(vec![error.to_string()]),
            Err(error) => return Err(refusal::refused(&error)),
        };
        answers.push((key, answer));
    }
    Ok(answers)
}

fn response(answers: Vec<(Key, Adopted)>) -> Response<inspect::AdoptResponse> {
    let adoption = answers.into_iter().map(|(key, answer)| {
        let (state, reason) = match answer {
            Adopted::Possible => (State::Possible, Vec::new()),
            Adopted::Taken => (State::Taken, Vec::new()),
            Adopted::Undone => (State::Undone, Vec::new()),
            Adopted::Committed => (State::Committed, Vec::new()),
            Adopted::Refused(reasons) => (State::Refused, reasons),
        };
        inspect::Adoption {
            key: Some(key_of(&key)),
            state: state.into(),
            reason,
        }
    });
    Response::new(inspect::AdoptResponse {
        adoption: adoption.collect(),
    })
}
