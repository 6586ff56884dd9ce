//! Reading history once more, because an operator asks for it.

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;

use super::{
    Answer, Meant, Shared,
    actions::{Who, note},
};
use crate::ops::{Backfill, NoBackfill, Problem, view::BackfillReport};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    since: String,
    channel: Option<String>,
    app: Option<String>,
}

/// `POST /backfill?since=24h[&channel=C][&app=NAME]`, or the same as JSON in the body: answers when
/// it has been read.
pub(super) async fn backfill(
    State(api): Shared,
    who: Who,
    Meant(history): Meant<History>,
) -> Answer<BackfillReport> {
    let History { since, channel, app } = history;
    let meant = Backfill { since, channel, app };
    let read = api.parts.control.backfill(&meant).await.map_err(refused)?;
    let place = meant.channel.as_deref().unwrap_or("every channel");
    note(&api, who.deed("backfill", format!("{place} since {}", meant.since)), read.new).await;
    Ok(Json(BackfillReport { found: read.found, new: read.new, known: read.known }))
}

fn refused(why: NoBackfill) -> Problem {
    match why {
        NoBackfill::Meaningless(detail) => Problem::bad_request(detail),
        NoBackfill::Nothing(detail) => Problem::not_found(detail),
        NoBackfill::Failed(detail) => Problem::new(StatusCode::BAD_GATEWAY, detail),
    }
}
