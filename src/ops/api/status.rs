//! `GET /status`: everything that a person looks at first. Answers even while the store does not.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};

use super::{Answer, Api, NoQuery, Params, Shared};
use crate::{
    ids::{AppName, DestinationName},
    logging::chain,
    ops::{
        DestinationHealth,
        concerns::concerns,
        view::{self, App, Destination, Status, StoreUse},
    },
    store::{AlertQuery, DestinationStats, Stats, StoreError, ToReview},
};

/// Longest wait for the store; the status is then answered without it.
const STORE_PATIENCE: Duration = Duration::from_secs(3);

/// Maximum up to which unrouted alerts are counted.
const UNROUTED_COUNTED: u32 = 500;

/// Handles `GET /status`.
pub(super) async fn status(
    State(api): Shared,
    Params(NoQuery {}): Params<NoQuery>,
) -> Answer<Status> {
    let ready = api.health.ready().await;
    let stats = within(api.ground.store.stats()).await;
    let has_store = stats.is_ok();
    // The destinations that are configured are still shown, and why nothing is known of them.
    let stats = stats.unwrap_or_else(|problem| Stats { problem, ..Stats::default() });
    let unrouted = if has_store { api.unrouted().await } else { None };
    let now = api.ground.clock.now();
    let apps = apps(&api, has_store).await;
    let review = if has_store {
        within(api.ground.store.to_review()).await
    } else {
        Ok(ToReview::default())
    };
    let review = review.unwrap_or_default();
    let mut ignored = by_name(api.control().ignored(""));
    for (reason, count) in apps.iter().flat_map(|app| &app.ignored) {
        *ignored.entry(reason.clone()).or_default() += count;
    }
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: Some(now),
        started_at: api.started_at,
        uptime_seconds: now.since(api.started_at).as_secs(),
        healthy: false,
        concerns: Vec::new(),
        ready: ready.is_ok(),
        not_ready_reason: ready.err().unwrap_or_default(),
        configuration: api.control().configuration().into(),
        store: StoreUse {
            answers: has_store,
            used_bytes: stats.used_bytes,
            free_bytes: stats.free_bytes,
            problem: stats.problem.clone(),
        },
        unrouted,
        apps,
        ignored,
        near_misses: review.near_misses.into(),
        quarantine: review.quarantine.into(),
        destinations: destinations(&api.control().destinations(), &stats),
    };
    status.concerns = concerns(&status, now);
    status.healthy = !status.concerns.iter().any(|concern| concern.needs_person);
    for destination in &mut status.destinations {
        let own = status.concerns.iter().filter(|concern| concern.about == destination.name);
        let messages: Vec<&str> = own.map(|concern| concern.message.as_str()).collect();
        destination.problem = messages.join("; ");
    }
    Ok(Json(status))
}

impl Api {
    async fn unrouted(&self) -> Option<u64> {
        let query = AlertQuery { unrouted: true, limit: UNROUTED_COUNTED, ..AlertQuery::default() };
        let found = within(self.ground.store.alerts(query)).await.ok()?;
        u64::try_from(found.len()).ok()
    }
}

/// Returns the answer of the store, or why there is none.
async fn within<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(STORE_PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_elapsed) => {
            Err(format!("the store does not answer within {} s", STORE_PATIENCE.as_secs()))
        }
    }
}

/// Returns the state of each Slack app, without the numbers of the store if `has_store` is `false`.
async fn apps(api: &Api, has_store: bool) -> Vec<App> {
    let store = api.ground.store.as_ref();
    let control = api.control();
    if has_store && let Err(error) = within(control.write_counts(store)).await {
        // The status is needed most when the store takes nothing; it shows the numbers of before.
        tracing::debug!(error, "could not write the newest counts to the store");
    }
    let mut signing = control.signing();
    let mut catch_ups = control.catch_up();
    let mut apps = Vec::new();
    for name in control.apps() {
        let catch_up = take(&mut catch_ups, &name);
        let bots = if has_store { within(store.posters(&name)).await } else { Ok(Vec::new()) };
        let bots = bots.unwrap_or_default().into_iter().map(view::Bot::new).collect();
        apps.push(App {
            signing: take(&mut signing, &name).unwrap_or_default(),
            catch_up,
            bots,
            ignored: by_name(control.ignored(name.as_str())),
            refused: control.refused(&name),
            name: name.to_string(),
        });
    }
    apps
}

/// Removes and returns the value of an app.
fn take<T>(values: &mut Vec<(AppName, T)>, app: &AppName) -> Option<T> {
    let at = values.iter().position(|(name, _)| name == app)?;
    Some(values.swap_remove(at).1)
}

fn by_name(counts: BTreeMap<&'static str, u64>) -> view::Ignored {
    counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
}

/// Returns the configured destinations in their order, then those that are no longer configured.
fn destinations(configured: &[DestinationHealth], stats: &Stats) -> Vec<Destination> {
    let known = |name: &DestinationName| configured.iter().any(|one| one.name == *name);
    let orphaned = stats.destinations.iter().filter(|(name, _)| !known(name));
    let orphaned = orphaned.map(|(name, stats)| destination(name, None, stats.clone()));
    let configured = configured.iter().map(|one| {
        let found = stats.destinations.iter().find(|(known, _)| *known == one.name);
        let stats = found.map(|(_, stats)| stats.clone()).unwrap_or_default();
        destination(&one.name, Some(one), stats)
    });
    configured.chain(orphaned).collect()
}

fn destination(
    name: &DestinationName,
    health: Option<&DestinationHealth>,
    stats: DestinationStats,
) -> Destination {
    let failure = health.and_then(|health| health.last_failure.as_ref());
    let breaker = health.and_then(|health| health.breaker);
    Destination {
        name: name.to_string(),
        configured: health.is_some(),
        paused: stats.pause.is_some(),
        pause: stats.pause.map(view::Pause::from),
        breaker_open: breaker.is_some(),
        breaker,
        quiet_until: health.and_then(|health| health.quiet_until),
        read: health.is_some_and(|health| health.is_read),
        pending: stats.pending,
        refused: stats.refused,
        leased: stats.leased,
        dead: stats.dead,
        oldest_pending_at: stats.oldest_pending,
        // Filled in later, from the concerns about this view.
        problem: String::new(),
        notice: health.map(|health| health.problem.clone()).unwrap_or_default(),
        last_failure: failure.map(view::Attempt::new),
        last_read_at: health.and_then(|health| health.last_read),
    }
}
