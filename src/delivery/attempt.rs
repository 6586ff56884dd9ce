//! One attempt: make the alert, hand it to the destination, record what became of it.

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
        outcome::{Situation, Verdict, decide, describe},
    },
    destination::{DeliveryError, Destination, Receipt},
    ids::DestinationName,
    logging::chain,
    shutdown::Shutdown,
    store::{self, Delivery, Lease, Next, Outcome, Projection, Recorded, Store, Unrecorded},
};

/// Between two tries to record an outcome while the store fails.
const RECORD_PAUSE: Duration = Duration::from_millis(250);

/// What attempts at one destination share.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) destination: Arc<Destination>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    pub(super) matcher: Arc<ArcSwap<Matcher>>,
    pub(super) max_age: Duration,
    pub(super) health: Mutex<Health>,
    /// Outcomes that the store has not taken yet: while there are any, nothing new begins.
    pub(super) unrecorded: AtomicUsize,
    /// An attempt failed at an alert that seems to be too old.
    pub(super) overdue: AtomicBool,
    /// The destination works again, or it is not known: what waits for that may be tried.
    pub(super) recovered: AtomicBool,
    pub(super) numbers: Numbers,
}

/// What is known of the destination's health.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) breaker: Breaker,
    /// The destination asked to be left alone until then.
    pub(super) quiet_until: Option<Moment>,
    /// The newest attempt that failed, for whoever asks why.
    pub(super) last_failure: Option<store::Attempt>,
}

/// What an attempt did to the breaker.
#[derive(Clone, Copy)]
enum Change {
    Opened,
    /// It was open for that long.
    Closed(Duration),
}

/// What the destination made of an alert.
type Attempted = Result<Receipt, DeliveryError>;

impl Attempts {
    /// Makes one attempt and records it. Ends only when the outcome is durable, or the lease has
    /// passed and the attempt will be made again.
    pub(super) async fn make(self: Arc<Self>, lease: Lease) {
        let started_at = self.clock.now();
        let (began, started) = (self.clock.moment(), self.clock.instant());
        let (projection, result) = self.deliver(lease.delivery().clone()).await;
        let duration = self.clock.instant().saturating_duration_since(started);
        let next = self.judge(lease.delivery(), &result, began);
        let attempt = describe(&result, started_at, duration);
        self.numbers.attempted(attempt.class);
        if !matches!(next, Next::Dead { .. }) {
            log(lease.delivery(), &attempt, &next);
        }
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
            (None, Err(DeliveryError::Refused { answer: None, reason }))
        })
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, delivery: &Delivery, result: &Attempted, began: Moment) -> Next {
        let (now, jitter) = (self.clock.now(), self.clock.jitter());
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
            Verdict::Works => {
                health.quiet_until = None;
                health.breaker.success(ended).map(Change::Closed)
            }
            Verdict::Fault(fault) => {
                health.breaker.fault(fault, began, ended, jitter).then_some(Change::Opened)
            }
            Verdict::FaultFor(wait) => {
                health.quiet_until = health.quiet_until.max(Some(ended + wait));
                let fault = Fault::Answered;
                health.breaker.fault(fault, began, ended, jitter).then_some(Change::Opened)
            }
        };
        drop(health);
        if let Some(change) = change {
            self.note_change(&delivery.destination, change);
        }
        if matches!(next, Next::Retry { .. }) && now >= delivery.pending_since + self.max_age {
            self.overdue.store(true, Ordering::Relaxed);
        }
        next
    }

    fn note_change(&self, destination: &DestinationName, change: Change) {
        match change {
            Change::Opened => tracing::warn!(
                %destination,
                "{destination} failed several times in a row: only one alert at a time is tried \
                 until it works again; the others wait"
            ),
            Change::Closed(open_for) => {
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
        // The body may be large.
        let delivery = Delivery { raw: Bytes::new(), ..lease.delivery().clone() };
        let attempt = outcome.attempt.clone();
        let next = outcome.next.clone();
        let recorded = match self.store.record(lease, outcome).await {
            Ok(recorded) => Some(recorded),
            Err(unrecorded) => {
                self.unrecorded.fetch_add(1, Ordering::Relaxed);
                let recorded = self.insist(unrecorded).await;
                self.unrecorded.fetch_sub(1, Ordering::Relaxed);
                recorded
            }
        };
        match recorded {
            // A stale one may be ours, committed by a call that could not tell.
            Some(Recorded::Kept | Recorded::Stale) => {
                self.note_recorded(&delivery, &attempt, &next);
            }
            Some(Recorded::Anew) => tell_anew(&delivery),
            None => {}
        }
    }

    /// Tries until the outcome is recorded or the lease has passed.
    async fn insist(&self, mut unrecorded: Unrecorded) -> Option<Recorded> {
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

    /// An alert's death is told when it is durable: until then the store may decide otherwise.
    fn note_recorded(&self, delivery: &Delivery, attempt: &store::Attempt, next: &Next) {
        match next {
            Next::Delivered(_) => {
                let (received_at, posted_at) = (delivery.received_at, delivery.posted_at);
                self.numbers.delivered(self.clock.now(), received_at, posted_at);
            }
            Next::Dead { reason } => {
                log(delivery, attempt, next);
                self.numbers.died(reason);
            }
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
        .map_err(|error| DeliveryError::Refused { answer: None, reason: error.to_string() })
}

/// A better mapping than the one at accept also puts lists and searches right.
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
