//! Lists of alerts, and one alert in detail.

use std::str::FromStr;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Answer, Api, NoQuery, Params, Shared};
use crate::{
    alert::mapping::{Origin, alert_of_stored},
    code_defender::risk_level::RiskLevel,
    ids::{AlertId, DestinationName},
    ops::{
        Problem,
        view::{Delivery, Detail, Page, Revision, Row},
        waiting::waiting,
    },
    slack,
    store::{AlertQuery, AlertView, DeliveryView, State as DeliveryState},
};

/// Default and maximum of the rows of a page.
const LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

/// Word for alerts without deliveries, in place of a state.
pub(super) const UNROUTED: &str = "unrouted";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    state: Option<String>,
    severity: Option<String>,
    q: Option<String>,
    before: Option<String>,
    limit: Option<String>,
}

/// Handles `GET /alerts`.
pub(super) async fn list(State(api): Shared, Params(list): Params<List>) -> Answer<Page> {
    let limit = number("limit", list.limit.as_deref())?.unwrap_or(LIMIT);
    if limit == 0 || limit > MAX_LIMIT {
        return Err(Problem::bad_request(format!("limit must be from 1 to {MAX_LIMIT}")));
    }
    let unrouted = list.state.as_deref() == Some(UNROUTED);
    let configured = api.configured();
    let query = AlertQuery {
        state: match list.state.as_deref() {
            None | Some("" | UNROUTED) => None,
            Some(word) => Some(state(word)?),
        },
        unrouted,
        configured: Some(configured.clone()),
        level: match list.severity.as_deref() {
            None | Some("") => None,
            Some(word) => Some(severity(word)?.as_str().to_owned()),
        },
        text: list.q.filter(|text| !text.is_empty()),
        before: number("before", list.before.as_deref())?,
        // One more than is shown says whether there is another page.
        limit: limit + 1,
    };
    let mut found = api.ground.store.alerts(query).await?;
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_more = found.len() > shown;
    found.truncate(shown);
    let next = found.last().filter(|_| is_more).map(|last| last.seq);
    Ok(Json(Page { alerts: found.iter().map(|view| Row::new(view, &configured)).collect(), next }))
}

/// Parses a number. An empty text stands for an absent one, as a form sends an empty field.
pub(super) fn number<T: FromStr>(key: &str, text: Option<&str>) -> Result<Option<T>, Problem> {
    let text = text.filter(|text| !text.is_empty());
    let parse = |text: &str| {
        text.parse().map_err(|_| Problem::bad_request(format!("{key}: `{text}` is not a number")))
    };
    text.map(parse).transpose()
}

/// Returns the state with that name.
pub(super) fn state(word: &str) -> Result<DeliveryState, Problem> {
    let known = DeliveryState::ALL;
    known.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
        let words: Vec<&str> = known.iter().map(|state| state.as_str()).collect();
        let words = words.join(", ");
        Problem::bad_request(format!("`{word}` is not a state: use {words} or unrouted"))
    })
}

/// Returns the severity with that name.
pub(super) fn severity(word: &str) -> Result<RiskLevel, Problem> {
    RiskLevel::parse(word).ok_or_else(|| {
        Problem::bad_request(format!(
            "`{word}` is not a severity: use informative, low, medium, high or critical"
        ))
    })
}

/// Handles `GET /alerts/{id}`.
pub(super) async fn show(
    State(api): Shared,
    Path(id): Path<String>,
    Params(NoQuery {}): Params<NoQuery>,
) -> Answer<Detail> {
    let view = api.alert(&id).await?;
    let (alert, alert_problem) = match derived(&api, &view) {
        Ok(alert) => (Some(alert), String::new()),
        Err(problem) => (None, problem),
    };
    let healths = api.control().destinations();
    let configured: Vec<DestinationName> = healths.iter().map(|one| one.name.clone()).collect();
    // Only for what is paused the store is asked once more.
    let is_paused = |one: &DeliveryView| one.state == DeliveryState::Paused;
    let stats = if view.deliveries.iter().any(is_paused) {
        api.ground.store.stats().await?.destinations
    } else {
        Vec::new()
    };
    let now = api.ground.clock.now();
    let delivery = |one: &DeliveryView| {
        let health = healths.iter().find(|health| health.name == one.destination);
        let pause = stats.iter().find(|(name, _)| *name == one.destination);
        let pause = pause.and_then(|(_, stats)| stats.pause.as_ref());
        let waiting = waiting(one, health, pause, now);
        Delivery { waiting, ..Delivery::with_attempts(one, &configured) }
    };
    let revision = |one: &crate::store::Revision| Revision {
        received_at: one.received_at,
        raw: json_of(&one.raw),
    };
    Ok(Json(Detail {
        row: Row {
            deliveries: view.deliveries.iter().map(delivery).collect(),
            ..Row::new(&view, &configured)
        },
        alert,
        alert_problem,
        raw: view.raw.as_deref().map(json_of),
        revisions: view.revisions.iter().map(revision).collect(),
        event_id: view.event_id,
        team: view.team,
    }))
}

impl Api {
    /// Returns the names of the configured destinations.
    pub(super) fn configured(&self) -> Vec<DestinationName> {
        self.control().destinations().into_iter().map(|one| one.name).collect()
    }

    /// Returns an alert. A text that is not an id is the id of an unknown alert.
    pub(super) async fn alert(&self, id: &str) -> Result<AlertView, Problem> {
        let id: AlertId =
            id.parse().map_err(|error| Problem::not_found(format!("no such alert: {error}")))?;
        let found = self.ground.store.alert(&id).await?;
        found.ok_or_else(|| Problem::not_found(format!("there is no alert {id}")))
    }
}

/// Maps a stored message to the alert that a destination would get now.
fn derived(api: &Api, view: &AlertView) -> Result<Box<RawValue>, String> {
    let raw = view.raw.as_ref().ok_or("the message is gone, as retention says")?;
    let origin = Origin {
        id: &view.id,
        posted_at: view.posted_at,
        source: view.source.as_str(),
        event_id: &view.event_id,
        team: &view.team,
        bot_id: "",
    };
    let alert = alert_of_stored(raw, view.attachment, &origin, &api.control().matcher());
    let alert = alert.map_err(|error| error.to_string())?;
    to_raw_value(&alert).map_err(|error| error.to_string())
}

/// Returns the bytes as the JSON that they hold, or else as a JSON string.
pub(super) fn json_of(raw: &[u8]) -> Box<RawValue> {
    let text = slack::readable(raw).into_owned();
    RawValue::from_string(text).unwrap_or_else(|_no_json| {
        to_raw_value(&String::from_utf8_lossy(raw))
            .unwrap_or_else(|_never_for_text| RawValue::NULL.to_owned())
    })
}
