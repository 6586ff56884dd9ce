//! `/livez`, `/readyz`, `/healthz` and `/metrics`: without a token, and without a word about a
//! destination.
//!
//! The relay is alive while its internal loops run. It is ready while the store takes a durable
//! write; a destination that is down or a silent Slack does not take the relay out of service.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Mutex;

use super::Controls;
use crate::{
    clock::{Moment, Timestamp},
    ground::Ground,
    ids::DestinationName,
    logging::chain,
    metrics::Metric,
    store::DestinationStats,
};

/// Silence after which a loop counts as dead. Each loop shows a sign of life at least every 10 s.
const SILENCE: Duration = Duration::from_secs(30);

/// Time for which the result of a durable probe is used again.
const PROBE_CACHED: Duration = Duration::from_secs(5);

/// Longest duration of a probe, below the timeout of a kubelet's.
const PROBE_BUDGET: Duration = Duration::from_millis(1_500);

/// States of deliveries that have a gauge for each destination.
const STATES: [&str; 6] = ["pending", "refused", "leased", "dead", "paused", "orphaned"];

/// Health of the relay, with the result of the newest probe. The API asks it too.
#[derive(Debug)]
pub(super) struct Health {
    ground: Ground,
    /// Names the configured destinations; any other with unfinished deliveries is orphaned.
    controls: Controls,
    probed: Mutex<Option<(Moment, Result<(), String>)>>,
    /// Destinations that have gauges. A destination without deliveries stays, at 0.
    gauged: Mutex<BTreeSet<DestinationName>>,
}

/// Returns the routes for health and metrics.
pub(super) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/healthz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn livez(State(health): State<Arc<Health>>) -> Response {
    let ground = &health.ground;
    let silent = ground.shutdown.silent_loops(ground.clock.instant(), SILENCE);
    if silent.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("not alive: silent for over 30 s: {}\n", silent.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    match health.ready().await {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
        }
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    health.refresh_gauges().await;
    let text = health.ground.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

impl Health {
    pub(super) fn new(ground: Ground, controls: Controls) -> Self {
        Self { ground, controls, probed: Mutex::new(None), gauged: Mutex::default() }
    }

    /// Returns whether the relay should receive requests, or the reason why not.
    pub(super) async fn ready(&self) -> Result<(), String> {
        if self.ground.shutdown.is_draining() {
            return Err("draining".to_owned());
        }
        let mut probed = self.probed.lock().await;
        let now = self.ground.clock.moment();
        if let Some((at, result)) = probed.as_ref()
            && now.since(*at) < PROBE_CACHED
        {
            return result.clone();
        }
        let result = match tokio::time::timeout(PROBE_BUDGET, self.ground.store.probe()).await {
            Ok(result) => result.map_err(|error| chain(&error)),
            Err(_elapsed) => Err("the store did not take a write in time".to_owned()),
        };
        *probed = Some((now, result.clone()));
        result
    }

    /// Updates the gauges whose values are in the store. Called when metrics are read.
    async fn refresh_gauges(&self) {
        let stats = match self.ground.store.stats().await {
            Ok(stats) => stats,
            Err(error) => {
                return self.ground.outages.failed("read its statistics", &error);
            }
        };
        self.gauge_near_misses().await;
        let metrics = &self.ground.metrics;
        metrics.gauge(Metric::StoreUsed, &[]).set(count(stats.used_bytes));
        metrics.gauge(Metric::StoreFree, &[]).set(count(stats.free_bytes));
        let configured: BTreeSet<_> =
            self.controls.current().destinations().into_iter().map(|one| one.name).collect();
        let mut gauged = self.gauged.lock().await;
        // A destination that has had gauges is set each time: otherwise they would keep their last
        // values after its deliveries are gone.
        gauged.extend(configured.iter().cloned());
        gauged.extend(stats.destinations.iter().map(|(name, _)| name.clone()));
        for name in &*gauged {
            let known = stats.destinations.iter().find(|(known, _)| known == name);
            let stats = known.map(|(_, stats)| stats.clone()).unwrap_or_default();
            self.set_gauges(name, &stats, configured.contains(name));
        }
    }

    async fn gauge_near_misses(&self) {
        let unread = match self.ground.store.to_review().await {
            Ok(review) => review.unread_of,
            Err(error) => {
                return tracing::debug!(error = chain(&error), "could not count near misses");
            }
        };
        for app in self.controls.current().apps() {
            let number = unread.iter().find(|(name, _)| *name == app).map_or(0, |(_, n)| *n);
            self.ground.metrics.gauge(Metric::NearMisses, &[app.as_str()]).set(count(number));
        }
    }

    fn set_gauges(&self, name: &DestinationName, stats: &DestinationStats, is_configured: bool) {
        let mut numbers = [0; 6];
        let [pending, refused, leased, dead, paused, orphaned] = &mut numbers;
        if is_configured {
            if stats.pause.is_some() {
                *paused = stats.pending + stats.refused;
            } else {
                *pending = stats.pending;
                *refused = stats.refused;
            }
            *leased = stats.leased;
            *dead = stats.dead;
        } else {
            *orphaned = stats.pending + stats.refused + stats.leased + stats.dead;
        }
        let metrics = &self.ground.metrics;
        for (state, number) in STATES.into_iter().zip(numbers) {
            metrics.gauge(Metric::Deliveries, &[name.as_str(), state]).set(count(number));
        }
        // Nothing attempts orphaned deliveries, so their age would not tell that a destination is
        // behind.
        let oldest = stats.oldest_pending.filter(|_oldest| is_configured);
        let oldest = oldest.map_or(0.0, Timestamp::seconds_f64);
        metrics.gauge(Metric::OldestPending, &[name.as_str()]).set(oldest);
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a metric is a float")]
fn count(number: u64) -> f64 {
    number as f64
}
