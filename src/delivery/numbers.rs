//! Metrics of one destination, and the expiry of its deliveries.

use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::{
    clock::Timestamp,
    delivery::outcome::{AttemptClass, DeadReason},
    ids::{AlertId, DestinationName, MessageTs},
    metrics::{Metric, Metrics},
    store::{Queue, StoreError},
};

/// Metrics of one destination. Every series exists from the start.
#[derive(Debug)]
pub(super) struct Numbers {
    destination: DestinationName,
    attempts: Vec<(AttemptClass, Counter)>,
    dead: Vec<(DeadReason, Counter)>,
    delivery_seconds: Histogram,
    end_to_end_seconds: Histogram,
}

impl Numbers {
    pub(super) fn new(destination: &DestinationName, metrics: &Metrics) -> Self {
        let name = destination.as_str();
        let attempts = |class: AttemptClass| {
            (class, metrics.counter(Metric::DeliveryAttempts, &[name, class.label()]))
        };
        let dead = |reason: DeadReason| {
            (reason, metrics.counter(Metric::DeadLetters, &[name, reason.label()]))
        };
        Self {
            destination: destination.clone(),
            attempts: AttemptClass::ALL.map(attempts).into(),
            dead: DeadReason::ALL.map(dead).into(),
            delivery_seconds: metrics.histogram(Metric::Delivery, &[name]),
            end_to_end_seconds: metrics.histogram(Metric::EndToEnd, &[name]),
        }
    }

    /// Counts an attempt.
    pub(super) fn attempted(&self, class: AttemptClass) {
        count(&self.attempts, class);
    }

    /// Records how long an alert took from its receipt and from its post to its delivery.
    pub(super) fn delivered(&self, now: Timestamp, received_at: Timestamp, posted_at: MessageTs) {
        let posted_at = Timestamp::from_micros(posted_at.micros());
        self.delivery_seconds.record(now.since(received_at).as_secs_f64());
        self.end_to_end_seconds.record(now.since(posted_at).as_secs_f64());
    }

    /// Counts an alert that was given up.
    pub(super) fn died(&self, reason: DeadReason) {
        count(&self.dead, reason);
    }

    /// Gives up deliveries older than `max_age`. They also expire while no attempt is made, so this
    /// is not left to attempts. `beat` is called between batches.
    pub(super) async fn expire_overdue(
        &self,
        store: &dyn Queue,
        max_age: Duration,
        beat: impl Fn(),
    ) -> Result<(), StoreError> {
        let destination = &self.destination;
        let reason = DeadReason::TooOld.label();
        loop {
            match store.expire(destination, max_age, reason).await? {
                dead if dead.is_empty() => return Ok(()),
                dead => self.note_expired(&dead),
            }
            beat();
        }
    }

    /// Logs and counts alerts that expired: one line each, as after an attempt, so that a search
    /// for an alert's id finds its end.
    fn note_expired(&self, dead: &[AlertId]) {
        let destination = &self.destination;
        let reason = DeadReason::TooOld.label();
        for alert_id in dead {
            self.died(DeadReason::TooOld);
            tracing::error!(
                %alert_id, %destination, outcome = "expired", reason,
                "alert {alert_id} given up for {destination}: {reason}; \
                 it is kept to be retried by hand"
            );
        }
    }
}

fn count<L: Copy + PartialEq>(counters: &[(L, Counter)], label: L) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == label) {
        counter.increment(1);
    }
}
