//! One attempt: make the alert, hand it to the destination, record what became of it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::{
    alert::{
        Alert,
        mapping::{Origin, alert_of_stored},
    },
    clock::{Clock, Timestamp},
    code_defender::matcher::Matcher,
    delivery::{
        breaker::{Breaker, RecentAlerts},
        numbers::Numbers,
        outcome::{Situation, Verdict, decide, describe},
    },
    destination::{DeliveryError, Destination, Receipt},
    ids::MessageTs,
    logging::chain,
    shutdown::Shutdown,
    store::{self, Delivery, Lease, Next, Outcome, Projection, Store, Unrecorded},
};

/// Between two tries to record an outcome while the store fails.
const RECORD_PAUSE: Duration = Duration::from_millis(250);

/// What attempts at one destination share.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) destination: Arc<dyn Destination>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    pub(super) matcher: Arc<ArcSwap<Matcher>>,
    pub(super) max_age: Duration,
    pub(super) health: Mutex<Health>,
    /// Outcomes that the store has not taken yet: while there are any, nothing new begins.
    pub(super) unrecorded: AtomicUsize,
    pub(super) numbers: Numbers,
}

/// What is known of the destination's health.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) breaker: Breaker,
    pub(super) recent: RecentAlerts,
    /// The destination asked to be left alone until then.
    pub(super) quiet_until: Option<Timestamp>,
    /// The newest attempt that failed, for whoever asks why.
    pub(super) last_failure: Option<store::Attempt>,
}

/// What the destination made of an alert.
type Attempted = Result<Receipt, DeliveryError>;

impl Attempts {
    /// Makes one attempt and records it. Ends only when the outcome is durable, or the lease has
    /// passed and the attempt will be made again.
    pub(super) async fn make(self: Arc<Self>, lease: Lease) {
        let started_at = self.clock.now();
        let started = self.clock.instant();
        let (projection, result) = self.deliver(lease.delivery().clone()).await;
        let duration = self.clock.instant().saturating_duration_since(started);
        let next = self.judge(lease.delivery(), &result);
        let attempt = describe(&result, started_at, duration);
        self.numbers.attempted(attempt.class);
        log(lease.delivery(), &attempt, &next);
        if result.is_err() {
            self.health().last_failure = Some(attempt.clone());
        }
        self.record(lease, Outcome { attempt, next, projection }).await;
    }

    /// A panic is somebody's bug, not a reason to lose the alert or the worker: the inner task
    /// catches it, and it counts as a refusal of this alert.
    async fn deliver(self: &Arc<Self>, delivery: Delivery) -> (Option<Projection>, Attempted) {
        let this = Arc::clone(self);
        let attempt = self.shutdown.spawn(async move {
            match alert_of(&delivery, &this.matcher.load()) {
                Ok(alert) => {
                    let projection = projection_of(&alert);
                    let changed = (projection != delivery.projection).then_some(projection);
                    (changed, this.destination.deliver(&alert).await)
                }
                Err(unreadable) => (None, Err(unreadable)),
            }
        });
        attempt.await.unwrap_or_else(|panic| {
            tracing::error!(error = %panic, "an attempt panicked; please report it");
            let reason = "internal error".to_owned();
            (None, Err(DeliveryError::Alert { answer: None, reason }))
        })
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, delivery: &Delivery, result: &Result<Receipt, DeliveryError>) -> Next {
        let now = self.clock.now();
        let mut health = self.health();
        match result {
            Ok(_) => health.recent.note(&delivery.alert, false),
            Err(DeliveryError::Alert { .. }) => health.recent.note(&delivery.alert, true),
            Err(_destination_fault) => {}
        }
        let situation = Situation {
            attempts: delivery.attempts,
            alert_faults: delivery.alert_faults,
            pending_since: delivery.pending_since,
            max_age: self.max_age,
            mostly_refused: health.recent.mostly_refused(),
            now,
            jitter: self.clock.jitter(),
        };
        let (next, verdict) = decide(result, &situation);
        match verdict {
            Verdict::Works => {
                health.breaker.success();
                health.quiet_until = None;
            }
            Verdict::Fault => health.breaker.fault(now),
            Verdict::FaultUntil(until) => {
                health.breaker.fault(now);
                health.quiet_until = health.quiet_until.max(Some(until));
            }
        }
        next
    }

    async fn record(&self, lease: Lease, outcome: Outcome) {
        let (received_at, posted_at) = (lease.delivery().received_at, lease.delivery().posted_at);
        let next = outcome.next.clone();
        let Err(unrecorded) = self.store.record(lease, outcome).await else {
            return self.note_recorded(&next, received_at, posted_at);
        };
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
        if self.insist(unrecorded).await {
            self.note_recorded(&next, received_at, posted_at);
        }
        self.unrecorded.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tries until the outcome is recorded or the lease has passed.
    async fn insist(&self, mut unrecorded: Unrecorded) -> bool {
        loop {
            let Unrecorded { lease, outcome, source } = unrecorded;
            if self.clock.now() >= lease.expires_at() {
                let alert_id = &lease.delivery().alert;
                tracing::error!(
                    %alert_id,
                    error = chain(&source),
                    "the outcome for {alert_id} could not be recorded; it will be attempted again"
                );
                return false;
            }
            self.clock.sleep(RECORD_PAUSE).await;
            match self.store.record(lease, outcome).await {
                Ok(()) => return true,
                Err(again) => unrecorded = again,
            }
        }
    }

    fn note_recorded(&self, next: &Next, received_at: Timestamp, posted_at: MessageTs) {
        match next {
            Next::Delivered(_) => {
                self.numbers.delivered(self.clock.now(), received_at, posted_at);
            }
            Next::Dead { reason } => self.numbers.died(reason),
            Next::Retry { .. } => {}
        }
    }
}

/// The alert of a delivery, as it is read now.
pub(super) fn alert_of(delivery: &Delivery, matcher: &Matcher) -> Result<Alert, DeliveryError> {
    let origin = Origin {
        id: &delivery.alert,
        posted_at: delivery.posted_at,
        source: delivery.source.as_str(),
        event_id: &delivery.event_id,
        team: &delivery.team,
        bot_id: "",
    };
    alert_of_stored(&delivery.raw, delivery.attachment, &origin, matcher)
        .map_err(|error| DeliveryError::Alert { answer: None, reason: error.to_string() })
}

/// A better mapping than the one at accept also puts lists and searches right.
fn projection_of(alert: &Alert) -> Projection {
    Projection { level: alert.severity.level.to_owned(), search: alert.search_text() }
}

/// One line an attempt: the end of an alert's story, or what is next in it.
fn log(delivery: &Delivery, attempt: &store::Attempt, next: &Next) {
    let alert_id = &delivery.alert;
    let destination = &delivery.destination;
    let tries = delivery.attempts.saturating_add(1);
    let duration_ms = u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX);
    let outcome = attempt.class;
    match next {
        Next::Delivered(reference) => tracing::info!(
            %alert_id, %destination, attempt = tries, outcome, duration_ms,
            reference = reference.id,
            "alert {alert_id} delivered to {destination}"
        ),
        Next::Retry { at, .. } => tracing::warn!(
            %alert_id, %destination, attempt = tries, outcome, duration_ms,
            status = attempt.status,
            retry_in_ms = u64::try_from(at.since(attempt.started_at).as_millis()).unwrap_or(0),
            "alert {alert_id} not taken by {destination} ({outcome}); it will be tried again"
        ),
        Next::Dead { reason } => tracing::error!(
            %alert_id, %destination, attempt = tries, outcome, duration_ms,
            status = attempt.status,
            reason,
            "alert {alert_id} given up for {destination}: {reason}; \
             it is kept to be retried by hand"
        ),
    }
}
