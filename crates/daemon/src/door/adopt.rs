//! Adopt: one order for each candidate, and nothing is taken over where one of them cannot be.

use super::aside::Aside;
use super::deadline::Call;
use super::field::key_of;
use super::workload::{lost, outcome};
use super::{Orders, field, refusal};
use crate::desk::order::{AdoptOrder, Adopted, Attachment, Refusal, Step};
use api::inspection::{self as inspect, adopt_request::Step as Asked, adoption::State};
use model::adopt::MasqueradeRule;
use model::key::Key;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

pub(super) async fn adopt(
    orders: &Arc<dyn Orders>,
    aside: &Aside,
    request: Request<inspect::AdoptRequest>,
) -> Result<Response<inspect::AdoptResponse>, Status> {
    let call = Call::of(&request);
    let asked = request.into_inner();
    let all_or_none = asked.step() == Asked::Take && !asked.partial;
    let tells_rules = matches!(asked.step(), Asked::Check | Asked::Commit);
    let plans = plans(orders, asked)?;
    let of_work = Arc::clone(orders);
    let work = async move {
        match all_or_none {
            true => take_all(&of_work, &call, &plans).await,
            false => {
                let mut answers = Vec::new();
                carry_out(&of_work, &call, &plans, &mut answers).await?;
                Ok(answers)
            }
        }
    };
    // It is done to its end, the way back included, whether the caller stays or not.
    let answers = match tokio::spawn(work.in_current_span()).await {
        Ok(answers) => answers?,
        Err(_) => return Err(lost()),
    };
    let rules = match tells_rules {
        true => masquerade_rules(orders, aside).await,
        false => Vec::new(),
    };
    Ok(response(answers, rules))
}

/// As they are now; what was done is answered all the same where they cannot be read.
async fn masquerade_rules(orders: &Arc<dyn Orders>, aside: &Aside) -> Vec<inspect::MasqueradeRule> {
    let orders = Arc::clone(orders);
    let rules = match aside.done(move || orders.masquerade_rules()).await {
        Ok(Ok(rules)) => rules,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the CNI plugins' masquerade rules cannot be read");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    let shown = |rule: MasqueradeRule| inspect::MasqueradeRule {
        handle: rule.handle,
        comment: rule.comment,
    };
    rules.into_iter().map(shown).collect()
}

fn plans(orders: &Arc<dyn Orders>, asked: inspect::AdoptRequest) -> Result<Vec<AdoptOrder>, Status> {
    let step = match asked.step() {
        Asked::Undo => Some(Step::Undo),
        Asked::Commit => Some(Step::Commit),
        _ => None,
    };
    let plans = field::adopt(asked).map_err(|error| refusal::invalid(&error))?;
    let Some(step) = step.filter(|_| plans.is_empty()) else {
        return Ok(plans);
    };
    let all = orders.list(None).map_err(|error| refusal::refused(&error))?;
    let taken = all.into_iter().filter(|a| a.undoable);
    let order = |of: Attachment| AdoptOrder {
        key: of.key().clone(),
        step: step.clone(),
    };
    Ok(taken.map(order).collect())
}

/// Takes over all, or none. What an earlier call had taken is as it was in either case.
async fn take_all(
    orders: &Arc<dyn Orders>,
    call: &Call,
    plans: &[AdoptOrder],
) -> Result<Vec<(Key, Adopted)>, Status> {
    let looks: Vec<AdoptOrder> = plans.iter().cloned().map(only_looked_at).collect();
    let mut found = Vec::new();
    carry_out(orders, call, &looks, &mut found).await?;
    if is_any_refused(&found) {
        return Ok(found);
    }
    let mut answers = Vec::new();
    let carried_out = carry_out(orders, call, plans, &mut answers).await;
    if carried_out.is_ok() && !is_any_refused(&answers) {
        return Ok(answers);
    }
    // It has changed since it was looked at. Of the order that failed nobody knows how far it came.
    let tried = plans
        .iter()
        .zip(&found)
        .take(answers.len() + usize::from(carried_out.is_err()));
    for (n, (order, (key, was))) in tried.enumerate() {
        let is_refused = matches!(answers.get(n), Some((_, Adopted::Refused(_))));
        if *was != Adopted::Possible || is_refused {
            continue;
        }
        let undo = AdoptOrder {
            key: order.key.clone(),
            step: Step::Undo,
        };
        let mut undone = Vec::new();
        // What cannot be given back stays taken over, and the others are given back all the same.
        if carry_out(orders, call, &[undo], &mut undone).await.is_err() {
            tracing::warn!(%key, "is taken over, though others of the call are not");
        }
        if let (Some(answer), Some((_, Adopted::Undone))) = (answers.get_mut(n), undone.pop()) {
            answer.1 = Adopted::Undone;
        }
    }
    carried_out.map(|()| answers)
}

fn is_any_refused(answers: &[(Key, Adopted)]) -> bool {
    answers
        .iter()
        .any(|(_, answer)| matches!(answer, Adopted::Refused(_)))
}

fn only_looked_at(order: AdoptOrder) -> AdoptOrder {
    let step = match order.step {
        Step::Take { path, addresses } => Step::Check { path, addresses },
        other => other,
    };
    AdoptOrder { step, ..order }
}

/// One after the other, up to the first that gets no answer; `answers` has those before it.
async fn carry_out(
    orders: &Arc<dyn Orders>,
    call: &Call,
    plans: &[AdoptOrder],
    answers: &mut Vec<(Key, Adopted)>,
) -> Result<(), Status> {
    for order in plans.iter().cloned() {
        let (key, of) = (order.key.clone(), order.key.clone());
        let looks = matches!(order.step, Step::Check { .. });
        let told = move |outcome: &Result<Adopted, Refusal>| {
            let outcome = outcome.clone();
            move || match outcome {
                Ok(Adopted::Refused(reasons)) => tracing::info!(key = %of, ?reasons, "not taken over"),
                Ok(_) if looks => {}
                Ok(state) => tracing::info!(key = %of, ?state, "adoption"),
                Err(error) => tracing::warn!(key = %of, %error, "adoption failed"),
            }
        };
        let answer = match outcome(call, told, |done| orders.adopt(order, done)).await? {
            Ok(answer) => answer,
            Err(error @ Refusal::Kernel(_)) => Adopted::Refused(vec![error.to_string()]),
            Err(error) => return Err(refusal::refused(&error)),
        };
        answers.push((key, answer));
    }
    Ok(())
}

fn response(
    answers: Vec<(Key, Adopted)>,
    masquerade_rule: Vec<inspect::MasqueradeRule>,
) -> Response<inspect::AdoptResponse> {
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
        masquerade_rule,
    })
}
