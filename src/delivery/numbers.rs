//! One destination's metrics, and the log's line of an alert that died of its age.

use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::{
    clock::Timestamp,
    delivery::outcome::{DEAD_REASONS, TOO_OLD},
    ids::{AlertId, DestinationName, MessageTs},
    logging::chain,
    metrics::{Metric, Metrics},
    store::Queue,
};

/// All of them are known from the start.
#[derive(Debug)]
pub(super) struct Numbers {
    destination: DestinationName,
    attempts: Vec<(&'static str, Counter)>,
    dead: Vec<(&'static str, Counter)>,
    delivery_seconds: Histogram,
    end_to_end_seconds: Histogram,
}

const CLASSES: [&str; 7] =
    ["delivered", "duplicate", "destination_fault", "auth", "throttled", "refused", "timeout"];

impl Numbers {
    pub(super) fn new(destination: &DestinationName, metrics: &Metrics) -> Self {
        let name = destination.as_str();
        let counters = |metric, labels: &[&'static str]| {
            labels.iter().map(|label| (*label, metrics.counter(metric, &[name, label]))).collect()
        };
        Self {
            destination: destination.clone(),
            attempts: counters(Metric::DeliveryAttempts, &CLASSES),
            dead: counters(Metric::DeadLetters, &DEAD_REASONS),
            delivery_seconds: metrics.histogram(Metric::Delivery, &[name]),
            end_to_end_seconds: metrics.histogram(Metric::EndToEnd, &[name]),
        }
    }

    /// An attempt of that class has ended.
    pub(super) fn attempted(&self, class: &str) {
        count(&self.attempts, class);
    }

    /// An alert that was received and posted then is delivered now.
    pub(super) fn delivered(&self, now: Timestamp, received_at: Timestamp, posted_at: MessageTs) {
        let posted_at = Timestamp::from_micros(posted_at.micros());
        self.delivery_seconds.record(now.since(received_at).as_secs_f64());
        self.end_to_end_seconds.record(now.since(posted_at).as_secs_f64());
    }

    /// An alert was given up.
    pub(super) fn died(&self, reason: &str) {
        count(&self.dead, reason);
    }

    /// Gives up what waits and is older than that: an alert grows too old while its destination is
    /// left alone, too. `beat` is called now and then.
    pub(super) async fn bury_the_too_old(
        &self,
        store: &dyn Queue,
        max_age: Duration,
        beat: impl Fn(),
    ) {
        let destination = &self.destination;
        loop {
            match store.expire(destination, max_age, TOO_OLD).await {
                Ok(dead) if dead.is_empty() => return,
                Ok(dead) => self.note_expired(&dead),
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(%destination, error, "the store does not say what is too old");
                    return;
                }
            }
            beat();
        }
    }

    /// These died of their age, without an attempt: one line each, as after an attempt, so that
    /// whoever searches the log for an alert finds its end.
    fn note_expired(&self, dead: &[AlertId]) {
        let destination = &self.destination;
        for alert_id in dead {
            self.died(TOO_OLD);
            tracing::error!(
                %alert_id, %destination, outcome = "expired", reason = TOO_OLD,
                "alert {alert_id} given up for {destination}: {TOO_OLD}; \
                 it is kept to be retried by hand"
            );
        }
    }
}

fn count(counters: &[(&'static str, Counter)], label: &str) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == label) {
        counter.increment(1);
    }
}
