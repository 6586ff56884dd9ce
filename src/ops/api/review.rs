//! Near misses and quarantined bodies, which somebody must look at. A list marks the entries that
//! it shows as read if a person asked for it.

use std::convert::Infallible;

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use serde::Deserialize;

use super::{
    Answer, Api, NoBody, NoQuery, Params, Shared,
    alerts::json_of,
    operator::{Operator, log, note},
};
use crate::{
    ids::AlertId,
    logging::chain,
    ops::{
        NoAdoption, Problem,
        auth::is_json,
        view::{Adopted, NearMiss, NearMissDetail, NearMisses, Quarantine, Quarantined},
    },
    store,
};

/// Default and maximum of the near misses of a page.
const LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

/// Most bodies that the store keeps.
const BODIES: u32 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    before: Option<i64>,
    limit: Option<u32>,
}

/// Handles `GET /near-misses?before=&limit=`.
pub(super) async fn near_misses(
    State(api): Shared,
    reading: Reading,
    Params(which): Params<Which>,
) -> Answer<NearMisses> {
    let limit = which.limit.unwrap_or(LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: from 1 to {MAX_LIMIT}")));
    }
    let found = api.ground.store.near_misses(which.before, limit).await?;
    let is_full = u32::try_from(found.len()).is_ok_and(|length| length == limit);
    let next = found.last().map(|last| last.seq).filter(|_| is_full);
    let unread: Vec<i64> = found.iter().filter(|one| !one.is_read).map(|one| one.seq).collect();
    reading.mark(&api, &unread, &[]).await;
    Ok(Json(NearMisses { near_misses: found.into_iter().map(NearMiss::new).collect(), next }))
}

/// Handles `GET /near-misses/{id}`.
pub(super) async fn near_miss(
    State(api): Shared,
    reading: Reading,
    Path(id): Path<String>,
    Params(NoQuery {}): Params<NoQuery>,
) -> Answer<NearMissDetail> {
    let found = find(&api, &id).await?;
    reading.mark(&api, &[found.seq], &[]).await;
    let raw = json_of(&found.raw);
    Ok(Json(NearMissDetail { near_miss: NearMiss::new(found), raw }))
}

/// Handles `POST /near-misses/{id}/adopt`.
pub(super) async fn adopt(
    State(api): Shared,
    operator: Operator,
    Path(id): Path<String>,
    Params(NoQuery {}): Params<NoQuery>,
    _: NoBody,
) -> Answer<Adopted> {
    let found = find(&api, &id).await?;
    let message = api.control().adopt(&found).map_err(|why| match why {
        NoAdoption::Unknown(app) => {
            Problem::conflict(format!("app {app} is not configured any more"))
        }
        NoAdoption::Unreadable => {
            Problem::conflict(format!("the message of near miss {id} is unreadable"))
        }
    })?;
    let ids = message
        .alerts
        .iter()
        .map(|alert| AlertId { message: message.key.clone(), ordinal: alert.ordinal }.to_string());
    let alert_ids: Vec<String> = ids.collect();
    let accepted = api.ground.store.accept(vec![message], None, None).await?;
    let changed = match accepted.into_iter().next() {
        Some(Ok(store::Accepted::New { alerts })) => u64::from(alerts),
        Some(Ok(store::Accepted::Duplicate | store::Accepted::Revision)) | None => 0,
        Some(Err(error)) => return Err(error.into()),
    };
    // Only after the alerts are stored: if this fails, adopting again finds them known and sets the
    // mark.
    api.ground.store.mark_adopted(found.seq).await?;
    let deed = operator.deed("adopt", format!("near miss {}", found.id));
    if changed > 0 {
        note(&api, deed, changed).await;
    } else {
        log(&deed, changed);
    }
    Ok(Json(Adopted { changed, alert_ids }))
}

/// Handles `GET /quarantine`.
pub(super) async fn quarantine(
    State(api): Shared,
    reading: Reading,
    Params(NoQuery {}): Params<NoQuery>,
) -> Answer<Quarantine> {
    let found = api.ground.store.quarantined(BODIES).await?;
    let unread: Vec<i64> = found.iter().filter(|one| !one.is_read).map(|one| one.id).collect();
    reading.mark(&api, &[], &unread).await;
    Ok(Json(Quarantine { quarantine: found.iter().map(Quarantined::new).collect() }))
}

/// Handles `GET /quarantine/{id}`.
pub(super) async fn quarantined(
    State(api): Shared,
    reading: Reading,
    Path(id): Path<i64>,
    Params(NoQuery {}): Params<NoQuery>,
) -> Answer<Quarantined> {
    let found = api.ground.store.quarantined(BODIES).await?;
    let body = found.iter().find(|one| one.id == id);
    let body = body.ok_or_else(|| Problem::not_found(format!("there is no body {id}")))?;
    reading.mark(&api, &[], &[id]).await;
    Ok(Json(Quarantined::whole(body)))
}

async fn find(api: &Api, id: &str) -> Result<store::NearMiss, Problem> {
    let parsed: AlertId =
        id.parse().map_err(|error| Problem::not_found(format!("no such near miss: {error}")))?;
    let found = api.ground.store.near_miss(&parsed).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no near miss {id}")))
}

/// The kind of client that asks for a list. A page of another site, or a monitor, can ask too, but
/// does not send `Content-Type: application/json`, so only a person's request marks entries as
/// read.
pub(super) struct Reading {
    is_a_persons: bool,
}

impl<S: Sync> FromRequestParts<S> for Reading {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { is_a_persons: is_json(&parts.headers) })
    }
}

impl Reading {
    async fn mark(self, api: &Api, near_misses: &[i64], quarantined: &[i64]) {
        if !self.is_a_persons || near_misses.is_empty() && quarantined.is_empty() {
            return;
        }
        if let Err(error) = api.ground.store.mark_read(near_misses, quarantined).await {
            tracing::warn!(error = chain(&error), "could not mark the listed entries as read");
        }
    }
}
