//! `POST /backfill`: reads history because an operator asks for it.

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;

use super::{
    Answer, Meant, Shared,
    operator::{Operator, note},
};
use crate::ops::{Backfill, NoBackfill, Problem, view::BackfillReport};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    since: Option<String>,
    until: Option<String>,
    #[serde(default)]
    mark_known: bool,
    channel: Option<String>,
    app: Option<String>,
}

/// `POST /backfill?since=24h[&until=TIME][&channel=C][&app=NAME][&mark_known=true]`, or the same as
/// JSON in the body. Answers once all of it has been read.
pub(super) async fn backfill(
    State(api): Shared,
    operator: Operator,
    Meant(history): Meant<History>,
) -> Answer<BackfillReport> {
    let _long = api.long_request()?;
    let History { since, until, mark_known, channel, app } = history;
    let meant = Backfill { since, until, mark_known, channel, app };
    let report = api.control().backfill(&meant).await.map_err(refused)?;
    let place = meant.channel.as_deref().unwrap_or("every channel");
    let from = meant.since.as_deref().unwrap_or("the beginning");
    let to = meant.until.as_deref().unwrap_or("now");
    let action = if meant.mark_known { "mark known" } else { "backfill" };
    let deed = operator.deed(action, format!("{place} since {from} until {to}"));
    note(&api, deed, report.new + report.marked).await;
    Ok(Json(report))
}

fn refused(why: NoBackfill) -> Problem {
    match why {
        NoBackfill::Invalid(detail) => Problem::bad_request(detail),
        NoBackfill::Nothing(detail) => Problem::not_found(detail),
        NoBackfill::Failed(detail) => Problem::new(StatusCode::BAD_GATEWAY, detail),
    }
}
