//! Pauses and resumes a destination.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Deserialize;

use super::{
    Answer, Api, Meant, NoBody, NoQuery, Params, Shared,
    operator::{Operator, log},
};
use crate::{
    ops::{
        Problem,
        view::{self, PauseState},
    },
    store::{Pause, Paused},
};

/// Longest pause with an end; a longer one is set without an end.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Longest reason of a pause, in characters.
const REASON_CHARS: usize = 200;

/// Length and reason of a pause; both may be absent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseRequest {
    /// Duration such as `2h`; an empty text is an absent one.
    #[serde(rename = "for")]
    length: Option<String>,
    reason: Option<String>,
}

/// `POST /destinations/{name}/pause[?for=2h&reason=...]`, or both in a body of JSON
pub(super) async fn pause(
    State(api): Shared,
    operator: Operator,
    Path(name): Path<String>,
    Meant(asked): Meant<PauseRequest>,
) -> Answer<PauseState> {
    let length = asked.length.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let length = length.map(|text| api.length(text)).transpose()?;
    let reason = asked.reason.unwrap_or_default().trim().to_owned();
    if reason.chars().count() > REASON_CHARS {
        let detail = format!("reason: has at most {REASON_CHARS} characters");
        return Err(Problem::bad_request(detail));
    }
    set_paused(&api, &operator, &name, Paused::Yes(Pause { length, reason })).await
}

/// Handles `POST /destinations/{name}/resume`.
pub(super) async fn resume(
    State(api): Shared,
    operator: Operator,
    Path(name): Path<String>,
    Params(NoQuery {}): Params<NoQuery>,
    _: NoBody,
) -> Answer<PauseState> {
    set_paused(&api, &operator, &name, Paused::No).await
}

async fn set_paused(
    api: &Api,
    operator: &Operator,
    name: &str,
    paused: Paused,
) -> Answer<PauseState> {
    let destination = api.destination(name).await?;
    let before = api.pause_of(&destination).await?;
    let deed = match &paused {
        Paused::Yes(pause) => operator.deed("pause", described(name, pause)),
        Paused::No => {
            // A resume says that the destination works, so an open breaker does not delay it.
            api.control().probe_now(Some(&destination));
            operator.deed("resume", format!("destination {name}"))
        }
    };
    api.ground.store.set_paused(&destination, paused, Some(deed.clone())).await?;
    let after = api.pause_of(&destination).await?;
    // A pause that is repeated without a difference counts as no change.
    log(&deed, u64::from(before != after));
    Ok(Json(PauseState { destination: name.to_owned(), paused: after.is_some(), pause: after }))
}

/// Describes the object of the action for the log and the journal.
fn described(name: &str, pause: &Pause) -> String {
    let mut text = format!("destination {name}");
    if let Some(length) = pause.length {
        text.extend([" for ", &length.as_secs().to_string(), " s"]);
    }
    if !pause.reason.is_empty() {
        text.extend([" (", &pause.reason, ")"]);
    }
    text
}

impl Api {
    async fn pause_of(
        &self,
        destination: &crate::ids::DestinationName,
    ) -> Result<Option<view::Pause>, Problem> {
        let stats = self.ground.store.stats().await?;
        let found = stats.destinations.into_iter().find(|(known, _)| known == destination);
        Ok(found.and_then(|(_, stats)| stats.pause).map(view::Pause::from))
    }

    fn length(&self, text: &str) -> Result<Duration, Problem> {
        let length = self.control().duration(text);
        let length = length.filter(|length| !length.is_zero() && *length <= LONGEST);
        length.ok_or_else(|| {
            Problem::bad_request(format!(
                "for: `{text}` is not a duration such as 30m, 2h or 3d, of a year at most"
            ))
        })
    }
}
