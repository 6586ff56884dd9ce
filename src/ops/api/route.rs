//! Routing what no destination wanted when it was accepted, by the configuration in use. An alert
//! that was routed to any destination stays as it is: routing is decided once.

use std::collections::BTreeMap;

use axum::Json;

use super::{
    Answer, Api,
    actions::{Who, note},
};
use crate::{
    ids::{AlertId, DestinationName},
    ops::{
        NoRouting, Problem, Routing,
        view::{Changed, Delivery, Routed},
    },
    store::{AlertQuery, AlertView},
};

/// Unrouted alerts that are looked at together.
const PAGE: u32 = 200;

/// What became of one unrouted alert.
enum Fate {
    /// These destinations get it; so many deliveries were made for that.
    Routed(Vec<DestinationName>, u64),
    /// It stays unrouted, and why.
    Left(String),
}

/// Routes one alert, to one destination only if that is meant.
pub(super) async fn one(
    api: &Api,
    who: &Who,
    alert: &AlertView,
    only: Option<&DestinationName>,
) -> Answer<Changed> {
    let id = &alert.id;
    let (names, changed) = match route(api, alert, only).await? {
        Fate::Routed(names, changed) => (names, changed),
        Fate::Left(reason) => return Err(Problem::conflict(reason)),
    };
    let to: Vec<&str> = names.iter().map(DestinationName::as_str).collect();
    let deed = who.deed("retry", format!("unrouted alert {id}, routed to {}", to.join(", ")));
    note(api, deed, changed).await;
    let after = api.alert(&id.to_string()).await?.deliveries;
    let configured = api.configured();
    let by_destination = names.iter().map(|name| (name.to_string(), 1)).collect();
    let routed = Routed { alerts: 1, by_destination, ..Routed::default() };
    Ok(Json(Changed {
        changed,
        deliveries: after.iter().map(|one| Delivery::new(one, &configured)).collect(),
        // Somebody else was faster, by another configuration perhaps.
        routed: (changed > 0).then_some(routed),
    }))
}

/// Routes every unrouted alert whose message is kept.
pub(super) async fn all(api: &Api, who: &Who, only: Option<&DestinationName>) -> Answer<Changed> {
    let (mut changed, mut routed, mut before) = (0, Routed::default(), None);
    loop {
        let query = AlertQuery { unrouted: true, before, limit: PAGE, ..AlertQuery::default() };
        let page = api.parts.store.alerts(query).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.seq);
        for listed in &page {
            // A list has no messages.
            let Some(alert) = api.parts.store.alert(&listed.id).await? else { continue };
            match route(api, &alert, only).await? {
                Fate::Routed(_, 0) => {}
                Fate::Routed(names, made) => {
                    changed += made;
                    let by_destination: BTreeMap<_, _> =
                        names.iter().map(|name| (name.to_string(), 1)).collect();
                    routed.add(Routed { alerts: 1, by_destination, ..Routed::default() });
                }
                Fate::Left(reason) => {
                    routed.add(Routed { left: 1, reason, ..Routed::default() });
                }
            }
        }
    }
    let suffix = only.map(|name| format!(" at {name}")).unwrap_or_default();
    note(api, who.deed("retry", format!("all unrouted{suffix}")), changed).await;
    Ok(Json(Changed { changed, deliveries: Vec::new(), routed: Some(routed) }))
}

async fn route(
    api: &Api,
    alert: &AlertView,
    only: Option<&DestinationName>,
) -> Result<Fate, Problem> {
    let id = &alert.id;
    let mut routing = match api.parts.control.route(alert) {
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
    for name in &routing.wanted_by {
        api.parts.control.hurry(Some(name));
    }
    let made = api.parts.store.route(id, &routing.wanted_by).await?;
    Ok(Fate::Routed(routing.wanted_by, made))
}

/// Says which part of each destination's `when` stands in the way.
fn refusal(id: &AlertId, routing: &Routing) -> String {
    let refused: Vec<String> = routing
        .refused_by
        .iter()
        .map(|(name, key)| format!("`{name}` refuses it by `when.{key}`"))
        .collect();
    let why = if refused.is_empty() { "there is none".to_owned() } else { refused.join(", ") };
    format!("no destination takes alert {id} by the configuration in use: {why}")
}
