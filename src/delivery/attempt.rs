//! One attempt: derives the alert, gives it to the destination, and records the outcome.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::{
    alert::{
        Alert,
        mapping::{Origin, alert_of_stored},
    },
    clock::{Clock, Moment},
    code_defender::matcher::Matcher,
    delivery::{
        breaker::{Breaker, Fault},
        numbers::Numbers,
        outcome::{AttemptClass, DeadReason, DestinationVerdict, Situation, decide, describe},
    },
    destination::{DeliveryError, Destination, Receipt},
    ground::StoreOutages,
    ids::DestinationName,
    logging::chain,
    shutdown::Shutdown,
    store::{self, Delivery, Lease, Next, Outcome, Projection, Recorded, Store, Unrecorded},
};

/// Pause between two tries to record an outcome while the store fails.
const RECORD_PAUSE: Duration = Duration::from_millis(250);

/// Parts and state that all attempts at one destination share.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) destination: Arc<Destination>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    pub(super) outages: StoreOutages,
    pub(super) matcher: Arc<ArcSwap<Matcher>>,
    pub(super) max_age: Duration,
    pub(super) health: Mutex<Health>,
    /// Number of outcomes that the store has not taken yet. No attempt begins while there are any.
    pub(super) unrecorded: AtomicUsize,
    /// An attempt failed whose alert seems to be older than `max_age`.
    pub(super) overdue: AtomicBool,
    /// The destination works again, or its state before the start is not known: alerts that wait
    /// for that become due.
    pub(super) recovered: AtomicBool,
    pub(super) numbers: Numbers,
}

/// Health of the destination.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) breaker: Breaker,
    /// End of the pause that the destination has asked for.
    pub(super) quiet_until: Option<Moment>,
    /// Newest attempt that failed, shown to operators.
    pub(super) last_failure: Option<store::Attempt>,
}

/// Change of the breaker by an attempt.
#[derive(Clone, Copy)]
enum BreakerChange {
    Opened,
    /// The breaker was open for this time.
    Closed(Duration),
}

/// Result of giving an alert to the destination.
type Attempted = Result<Receipt, DeliveryError>;

impl Attempts {
    /// Makes one attempt and records the outcome. Returns when the outcome is durable, or when the
    /// lease has ended and the delivery will be attempted again.
    pub(super) async fn make(self: Arc<Self>, lease: Lease) {
        let started_at = self.clock.now();
        let began = self.clock.moment();
        let started = self.clock.instant();
        let (projection, result) = self.deliver(lease.delivery().clone()).await;
        let duration = self.clock.instant().saturating_duration_since(started);
        let next = self.judge(lease.delivery(), &result, began);
        let attempt = describe(&result, started_at, duration);
        self.numbers.attempted(AttemptClass::of(&result));
        // A dead letter is logged when it is recorded: until then the store may decide otherwise.
        if !matches!(next, Next::Dead { .. }) {
            log(lease.delivery(), &attempt, &next);
        }
        if result.is_err() {
            self.health().last_failure = Some(attempt.clone());
        }
        self.record(lease, Outcome { attempt, next, projection }).await;
    }

    /// Derives the alert and gives it to the destination. Returns the alert's new projection if
    /// that has changed, and the result.
    async fn deliver(self: &Arc<Self>, delivery: Delivery) -> (Option<Projection>, Attempted) {
        let this = Arc::clone(self);
        // A task of its own, so that a panic loses neither the alert nor the worker: it counts as a
        // refusal of this alert.
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
            (None, Err(DeliveryError::Refused { answer: None, reason }))
        })
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides the next state of the delivery, and updates the breaker.
    fn judge(&self, delivery: &Delivery, result: &Attempted, began: Moment) -> Next {
        let now = self.clock.now();
        let jitter = self.clock.jitter();
        let mut health = self.health();
        let situation = Situation {
            attempts: delivery.attempts,
            refusals: delivery.refusals,
            pending_since: delivery.pending_since,
            max_age: self.max_age,
            is_failing: health.breaker.is_failing(),
            now,
            jitter,
        };
        let (next, verdict) = decide(result, &situation);
        let ended = self.clock.moment();
        let change = match verdict {
            DestinationVerdict::Works => {
                health.quiet_until = None;
                health.breaker.success(ended).map(BreakerChange::Closed)
            }
            DestinationVerdict::Fault(fault) => {
                health.breaker.fault(fault, began, ended, jitter).then_some(BreakerChange::Opened)
            }
            DestinationVerdict::FaultFor(wait) => {
                health.quiet_until = health.quiet_until.max(Some(ended + wait));
                let fault = Fault::Answered;
                health.breaker.fault(fault, began, ended, jitter).then_some(BreakerChange::Opened)
            }
        };
        drop(health);
        if let Some(change) = change {
            self.note_change(&delivery.destination, change);
        }
        // Only noted: giving up for age is left to `expire_overdue`, since alerts also grow too old
        // while nothing is attempted.
        if matches!(next, Next::Retry { .. }) && now >= delivery.pending_since + self.max_age {
            self.overdue.store(true, Ordering::Relaxed);
        }
        next
    }

    fn note_change(&self, destination: &DestinationName, change: BreakerChange) {
        match change {
            BreakerChange::Opened => tracing::warn!(
                %destination,
                "{destination} failed several times in a row: only one alert at a time is tried \
                 until it works again; the others wait"
            ),
            BreakerChange::Closed(open_for) => {
                self.recovered.store(true, Ordering::Relaxed);
                let seconds = open_for.as_secs();
                tracing::info!(
                    %destination,
                    open_seconds = seconds,
                    "{destination} works again after {seconds} s: what waits is sent"
                );
            }
        }
    }

    async fn record(&self, lease: Lease, outcome: Outcome) {
        // Without the message, which may be large.
        let delivery = Delivery { raw: Bytes::new(), ..lease.delivery().clone() };
        let attempt = outcome.attempt.clone();
        let next = outcome.next.clone();
        let recorded = match self.store.record(lease, outcome).await {
            Ok(recorded) => Some(recorded),
            Err(unrecorded) => {
                self.unrecorded.fetch_add(1, Ordering::Relaxed);
                let recorded = self.record_until_lease_ends(unrecorded).await;
                self.unrecorded.fetch_sub(1, Ordering::Relaxed);
                recorded
            }
        };
        match recorded {
            // A stale outcome may be our own, committed by a call whose answer was lost.
            Some(Recorded::Kept | Recorded::Stale) => {
                self.note_recorded(&delivery, &attempt, &next);
            }
            Some(Recorded::Anew) => tell_anew(&delivery),
            None => {}
        }
    }

    /// Tries to record an outcome until that succeeds or the lease has ended.
    async fn record_until_lease_ends(&self, mut unrecorded: Unrecorded) -> Option<Recorded> {
        loop {
            let Unrecorded { lease, outcome, source } = unrecorded;
            if self.clock.moment() >= lease.expires_at() {
                let alert_id = &lease.delivery().alert;
                tracing::error!(
                    %alert_id,
                    error = chain(&source),
                    "the outcome for {alert_id} could not be recorded; it will be attempted again"
                );
                return None;
            }
            self.clock.sleep(RECORD_PAUSE).await;
            match self.store.record(lease, outcome).await {
                Ok(recorded) => return Some(recorded),
                Err(again) => unrecorded = again,
            }
        }
    }

    /// Counts an outcome that is durable, and logs a dead letter.
    fn note_recorded(&self, delivery: &Delivery, attempt: &store::Attempt, next: &Next) {
        match next {
            Next::Delivered(_) => {
                self.numbers.delivered(self.clock.now(), delivery.received_at, delivery.posted_at);
            }
            // An attempt gives up for one reason only; age is decided without one.
            Next::Dead { .. } => {
                log(delivery, attempt, next);
                self.numbers.died(DeadReason::Refused);
            }
            Next::Retry { .. } => {}
        }
    }
}

/// Derives the alert of a delivery from the stored message.
///
/// # Errors
/// [`DeliveryError::Refused`] if the stored message cannot be read.
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
        .map_err(|error| DeliveryError::Refused { answer: None, reason: error.to_string() })
}

/// Returns the fields of an alert that lists and searches use. They are derived anew with each
/// attempt, so a better mapping also corrects lists and searches.
fn projection_of(alert: &Alert) -> Projection {
    Projection { level: alert.severity.level.to_owned(), search: alert.search_text() }
}

fn tell_anew(delivery: &Delivery) {
    let alert_id = &delivery.alert;
    let destination = &delivery.destination;
    tracing::info!(
        %alert_id, %destination,
        "{destination} refused alert {alert_id} under settings that are not in use any more: it is \
         tried anew"
    );
}

/// Logs one line for an attempt: the outcome and what follows.
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
        Next::Retry { wait, .. } => tracing::warn!(
            %alert_id, %destination, attempt = tries, outcome, duration_ms,
            status = attempt.status,
            retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
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
