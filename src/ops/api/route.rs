//! Routes unrouted alerts again, by the configuration in use. An alert that was routed to any
//! destination stays as it is: routing is decided once.

use std::collections::BTreeMap;

use axum::Json;

use super::{
    Answer, Api,
    operator::{Operator, log, note},
};
use crate::{
    ids::{AlertId, DestinationName},
    ops::{
        NoRouting, Problem, Routing,
        view::{Changed, Routed},
    },
    store::{AlertQuery, AlertView, Deed, EntryId},
};

/// Unrouted alerts that are read from the store at once.
const PAGE: u32 = 200;

/// Result of routing one unrouted alert.
enum Fate {
    /// The alert is routed to these destinations, with the number of new deliveries and the entry
    /// in the journal.
    Routed(Vec<DestinationName>, u64, Option<EntryId>),
    /// The alert stays unrouted, for this reason.
    Left(String),
}

/// Routes one alert, to the destination `only` if given.
pub(super) async fn one(
    api: &Api,
    operator: &Operator,
    alert: &AlertView,
    only: Option<&DestinationName>,
) -> Answer<Changed> {
    let deed =
        |to: &str| operator.deed("retry", format!("unrouted alert {}, routed to {to}", alert.id));
    let new_entry = |to: &str| Deed::New(deed(to));
    let (names, made) = match route(api, alert, only, new_entry).await? {
        Fate::Routed(names, made, _) => (names, made),
        Fate::Left(reason) => return Err(Problem::conflict(reason)),
    };
    log(&deed(&list(&names)), made);
    let mut changed = Changed::default();
    add(&mut changed, &alert.id, names, made);
    Ok(Json(changed))
}

/// Routes every unrouted alert whose message is kept. Each step is stored together with the journal
/// entry, so that the entry tells after a failure how many alerts were routed.
pub(super) async fn all(
    api: &Api,
    operator: &Operator,
    only: Option<&DestinationName>,
) -> Answer<Changed> {
    let suffix = only.map(|name| format!(" at {name}")).unwrap_or_default();
    let deed = operator.deed("retry", format!("all unrouted{suffix}"));
    let mut journal = Deed::New(deed.clone());
    let mut changed = Changed { routed: Some(Routed::default()), ..Changed::default() };
    let ended = route_all(api, only, &mut journal, &mut changed).await;
    match journal {
        Deed::New(deed) => note(api, deed, 0).await,
        Deed::More(_) => log(&deed, changed.changed),
    }
    ended.map(|()| Json(changed))
}

async fn route_all(
    api: &Api,
    only: Option<&DestinationName>,
    journal: &mut Deed,
    changed: &mut Changed,
) -> Result<(), Problem> {
    let mut before = None;
    loop {
        let query = AlertQuery { unrouted: true, before, limit: PAGE, ..AlertQuery::default() };
        let page = api.ground.store.alerts(query).await?;
        let Some(last) = page.last() else { return Ok(()) };
        before = Some(last.seq);
        for listed in &page {
            // A list has no messages.
            let Some(alert) = api.ground.store.alert(&listed.id).await? else { continue };
            match route(api, &alert, only, |_to| journal.clone()).await? {
                Fate::Routed(names, made, entry) => {
                    if let Some(entry) = entry {
                        *journal = Deed::More(entry);
                    }
                    add(changed, &alert.id, names, made);
                }
                Fate::Left(reason) => {
                    let left = Routed { left: 1, reason, ..Routed::default() };
                    changed.routed.get_or_insert_default().add(left);
                }
            }
        }
    }
}

/// Adds a routed alert to the answer, unless another operator had already routed it.
fn add(changed: &mut Changed, alert: &AlertId, names: Vec<DestinationName>, made: u64) {
    if made == 0 {
        return;
    }
    let by_destination: BTreeMap<_, _> = names.iter().map(|name| (name.to_string(), 1)).collect();
    let named: Vec<_> = names.into_iter().map(|name| (alert.clone(), name)).collect();
    changed.add(made, &named);
    let routed = Routed { alerts: 1, by_destination, ..Routed::default() };
    changed.routed.get_or_insert_default().add(routed);
}

fn list(names: &[DestinationName]) -> String {
    names.iter().map(DestinationName::as_str).collect::<Vec<_>>().join(", ")
}

/// Routes an alert by the configuration in use. `deed` returns the journal entry for the names of
/// the destinations.
async fn route(
    api: &Api,
    alert: &AlertView,
    only: Option<&DestinationName>,
    deed: impl FnOnce(&str) -> Deed,
) -> Result<Fate, Problem> {
    let id = &alert.id;
    let mut routing = match api.control().route(alert) {
        Ok(routing) => routing,
        Err(NoRouting::Gone) => {
            return Ok(Fate::Left(format!(
                "the message of alert {id} is gone, as retention says: it cannot be routed"
            )));
        }
        Err(NoRouting::Unreadable) => {
            return Ok(Fate::Left(format!(
                "the stored message of alert {id} is unreadable: it cannot be routed"
            )));
        }
    };
    if let Some(only) = only {
        routing.wanted_by.retain(|name| name == only);
        routing.refused_by.retain(|(name, _)| name == only);
    }
    if routing.wanted_by.is_empty() {
        return Ok(Fate::Left(refusal(id, &routing)));
    }
    // Before the deliveries exist, so that an open breaker does not hold them back.
    for name in &routing.wanted_by {
        api.control().probe_now(Some(name));
    }
    let deed = deed(&list(&routing.wanted_by));
    let routed = api.ground.store.route(id, &routing.wanted_by, Some(deed)).await?;
    Ok(Fate::Routed(routing.wanted_by, routed.made, routed.entry))
}

/// Returns which key of each destination's `when` refuses the alert.
fn refusal(id: &AlertId, routing: &Routing) -> String {
    let refused: Vec<String> = routing
        .refused_by
        .iter()
        .map(|(name, key)| format!("`{name}` refuses it by `when.{key}`"))
        .collect();
    let why = if refused.is_empty() { "there is none".to_owned() } else { refused.join(", ") };
    format!("no destination takes alert {id} by the configuration in use: {why}")
}
