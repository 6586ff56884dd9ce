//! Actions on alerts and tests of destinations. Each action leaves one line in the log and one
//! entry in the store's journal.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Deserialize;

use super::{
    Answer, Api, NoBody, Params, Shared,
    alerts::{UNROUTED, severity, state},
    operator::{Operator, log, note},
    route,
};
use crate::{
    code_defender::risk_level::RiskLevel,
    ids::DestinationName,
    ops::{
        NoTest, Problem,
        view::{Attempt, Changed, Reference, TestReport},
    },
    store::{Action, DeliveryView, Selection, State as DeliveryState},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Where {
    destination: Option<String>,
}

/// Handles `POST /alerts/{id}/retry`.
pub(super) async fn retry(
    State(api): Shared,
    operator: Operator,
    Path(id): Path<String>,
    Params(query): Params<Where>,
    _: NoBody,
) -> Answer<Changed> {
    act_on_one(&api, &operator, Action::Retry, &id, query).await
}

/// Handles `POST /alerts/{id}/cancel`.
pub(super) async fn cancel(
    State(api): Shared,
    operator: Operator,
    Path(id): Path<String>,
    Params(query): Params<Where>,
    _: NoBody,
) -> Answer<Changed> {
    act_on_one(&api, &operator, Action::Cancel, &id, query).await
}

async fn act_on_one(
    api: &Api,
    operator: &Operator,
    action: Action,
    id: &str,
    query: Where,
) -> Answer<Changed> {
    let alert = api.alert(id).await?;
    let meant = query.destination.as_deref();
    // An alert without deliveries has nothing to try again. To retry it is to route it again.
    if action == Action::Retry && alert.deliveries.is_empty() {
        let only = match meant {
            Some(name) => Some(api.configured_one(name)?),
            None => None,
        };
        return route::one(api, operator, &alert, only.as_ref()).await;
    }
    let alert = alert.id;
    let destination = meant.map(parsed).transpose()?;
    // Before the change, which wakes the worker: a probe must be allowed by then.
    if action == Action::Retry {
        api.control().probe_now(destination.as_ref());
    }
    let selection = Selection { alert: Some(alert), destination, state: None };
    let suffix = meant.map(|name| format!(" at {name}")).unwrap_or_default();
    let deed = operator.deed(verb(action), format!("alert {id}{suffix}"));
    let changes = api.ground.store.act(selection, action, Some(deed.clone())).await?;
    log(&deed, changes.changed);
    // Read again, since a refusal must name the states as they are now.
    let mut after = api.alert(id).await?.deliveries;
    after.retain(|one| meant.is_none_or(|name| name == one.destination.as_str()));
    match (after.as_slice(), meant) {
        ([], Some(name)) => {
            Err(Problem::not_found(format!("alert {id} has no delivery to `{name}`")))
        }
        ([], None) => Err(Problem::conflict(format!(
            "alert {id} is unrouted: no destination wanted it, so there is nothing to {}",
            verb(action)
        ))),
        (after, _) => {
            if changes.changed == 0 {
                refuse_in_vain(action, after)?;
            }
            Ok(Json(Changed::new(&changes)))
        }
    }
}

/// Checks an action that did not change any delivery.
///
/// # Errors
/// Returns a conflict unless another operator has already done what was asked for.
fn refuse_in_vain(action: Action, deliveries: &[DeliveryView]) -> Result<(), Problem> {
    let list = |wanted: DeliveryState| {
        let names = deliveries.iter().filter(|one| one.state == wanted);
        let names: Vec<&str> = names.map(|one| one.destination.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let under_way =
        deliveries.iter().any(|one| one.state.is_waiting() || one.state == DeliveryState::Leased);
    let refusal = match action {
        // The delivery is on its way, perhaps by another operator's retry, which is what was asked
        // for.
        Action::Retry if under_way => None,
        Action::Retry => list(DeliveryState::Delivered)
            .map(|names| format!("already delivered to {names}: there is nothing to retry")),
        Action::Cancel => list(DeliveryState::Leased)
            .map(|names| {
                format!(
                    "an attempt at {names} is under way: cancel when it has ended, if it failed"
                )
            })
            .or_else(|| {
                list(DeliveryState::Delivered)
                    .map(|names| format!("already delivered to {names}: it cannot be taken back"))
            }),
    };
    refusal.map_or(Ok(()), |detail| Err(Problem::conflict(detail)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Required, so that leaving it out never means every delivery.
    state: String,
    destination: Option<String>,
}

/// Handles `POST /alerts/retry?state=dead|cancelled|pending|refused|unrouted[&destination=]`.
pub(super) async fn retry_all(
    State(api): Shared,
    operator: Operator,
    Params(which): Params<Which>,
    _: NoBody,
) -> Answer<Changed> {
    act_on_all(&api, &operator, Action::Retry, which).await
}

/// Handles `POST /alerts/cancel?state=dead|pending|refused[&destination=]`.
pub(super) async fn cancel_all(
    State(api): Shared,
    operator: Operator,
    Params(which): Params<Which>,
    _: NoBody,
) -> Answer<Changed> {
    act_on_all(&api, &operator, Action::Cancel, which).await
}

async fn act_on_all(
    api: &Api,
    operator: &Operator,
    action: Action,
    which: Which,
) -> Answer<Changed> {
    if action == Action::Retry && which.state == UNROUTED {
        let only = match &which.destination {
            Some(name) => Some(api.configured_one(name)?),
            None => None,
        };
        return route::all(api, operator, only.as_ref()).await;
    }
    if which.state == UNROUTED {
        return Err(Problem::bad_request("an unrouted alert waits for nothing: retry it instead"));
    }
    let wanted = state(&which.state)?;
    let is_possible = match action {
        Action::Retry => matches!(
            wanted,
            DeliveryState::Dead
                | DeliveryState::Cancelled
                | DeliveryState::Pending
                | DeliveryState::Refused
        ),
        Action::Cancel => {
            matches!(wanted, DeliveryState::Dead | DeliveryState::Pending | DeliveryState::Refused)
        }
    };
    if !is_possible {
        let detail = format!("there is nothing to {} in what is {wanted}", verb(action));
        return Err(Problem::bad_request(detail));
    }
    let destination = match &which.destination {
        // A destination that left the configuration is allowed: its deliveries can still be
        // cancelled.
        Some(name) => Some(api.destination(name).await?),
        None => None,
    };
    if action == Action::Retry {
        api.control().probe_now(destination.as_ref());
    }
    let suffix = which.destination.map(|name| format!(" at {name}")).unwrap_or_default();
    let selection = Selection { alert: None, destination, state: Some(wanted) };
    let deed = operator.deed(verb(action), format!("all {wanted}{suffix}"));
    let changes = api.ground.store.act(selection, action, Some(deed.clone())).await?;
    log(&deed, changes.changed);
    Ok(Json(Changed::new(&changes)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestQuery {
    severity: Option<String>,
}

/// Handles `POST /destinations/{name}/test`.
pub(super) async fn test(
    State(api): Shared,
    operator: Operator,
    Path(name): Path<String>,
    Params(query): Params<TestQuery>,
    _: NoBody,
) -> Answer<TestReport> {
    let severity = query.severity.as_deref().map_or(Ok(RiskLevel::High), severity)?;
    let tested = api.control().test(&parsed(&name)?, severity).await;
    let tested = tested.map_err(|why| match why {
        NoTest::Unknown => unknown_destination(&name),
        NoTest::Read => Problem::conflict(format!(
            "nothing is sent to `{name}`, it is read: a test through the front door (send-test \
             without a destination) is given to its reader"
        )),
    })?;
    // After the test, since the entry says whether it was delivered.
    let deed = operator.deed("test", format!("destination {name}"));
    note(&api, deed, u64::from(tested.delivered)).await;
    Ok(Json(TestReport {
        destination: name,
        alert_id: tested.alert.to_string(),
        delivered: tested.delivered,
        reference: Reference::new(&tested.reference),
        attempt: Attempt::new(&tested.attempt),
    }))
}

impl Api {
    /// Returns the name of a configured destination.
    fn configured_one(&self, name: &str) -> Result<DestinationName, Problem> {
        let destination = parsed(name)?;
        let all = self.control().destinations();
        let is_configured = all.iter().any(|one| one.name == destination);
        if is_configured { Ok(destination) } else { Err(unknown_destination(name)) }
    }

    /// Returns the name of a destination that is configured or has deliveries left.
    pub(super) async fn destination(&self, name: &str) -> Result<DestinationName, Problem> {
        let destination = parsed(name)?;
        if self.configured_one(name).is_ok() {
            return Ok(destination);
        }
        let stats = self.ground.store.stats().await?;
        let is_orphaned = stats.destinations.iter().any(|(known, _)| *known == destination);
        if is_orphaned { Ok(destination) } else { Err(unknown_destination(name)) }
    }
}

fn parsed(name: &str) -> Result<DestinationName, Problem> {
    DestinationName::new(name).map_err(|_no_name| unknown_destination(name))
}

fn unknown_destination(name: &str) -> Problem {
    Problem::not_found(format!("there is no destination `{name}`"))
}

const fn verb(action: Action) -> &'static str {
    match action {
        Action::Retry => "retry",
        Action::Cancel => "cancel",
    }
}
