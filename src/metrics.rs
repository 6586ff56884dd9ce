//! Every metric the relay exports: one enum, from which the documentation is made as well.
//!
//! A [`Metrics`] is a value, not a global: two relays in one test do not count into one another.

use std::{fmt, sync::Arc};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution of seconds, in buckets.
    Histogram,
}

macro_rules! metrics {
    ($($variant:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        /// The name of a metric. The help text says what the metric means.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the help text beside each says it")]
        pub enum Metric { $($variant),+ }

        impl Metric {
            /// Every metric, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the name with the prefix.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!("slack_soar_relay_", $name)),+ }
            }

            /// Returns one sentence that describes the metric.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),+ }
            }

            /// Returns the kind of the metric.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind),+ }
            }

            /// Returns the names of the labels, in the order in which values are given.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*]),+ }
            }
        }
    };
}

metrics! {
    EventsReceived Counter "events_received_total" ["app", "source"]
        "Messages that reached us: push (signed requests), catch_up, backfill or test (send-test).";
    SlackRetries Counter "slack_retries_total" ["reason"]
        "Requests that Slack marked as a retry, by Slack's reason.";
    Events Counter "events_total" ["app", "outcome", "reason"]
        "Events by what became of them: accepted, duplicate, ignored or rejected, and why.";
    EventAge Histogram "event_age_seconds" []
        "How old a pushed event was when it arrived, by Slack's event_time.";
    Ack Histogram "ack_seconds" []
        "From the request's head to the answer to Slack.";
    Commit Histogram "commit_seconds" []
        "One commit, flush to disk included; with the insert where one round trip does both.";
    Deliveries Gauge "deliveries" ["destination", "state"]
        "Deliveries not finished well: pending, refused, leased, dead, paused or orphaned.";
    DeliveryAttempts Counter "delivery_attempts_total" ["destination", "class"]
        "Attempts to deliver, by how the destination answered.";
    Delivery Histogram "delivery_seconds" ["destination"]
        "From receiving the event to the destination's acceptance.";
    EndToEnd Histogram "end_to_end_seconds" ["destination"]
        "From the message's Slack timestamp to the destination's acceptance.";
    OldestPending Gauge "oldest_pending_timestamp_seconds" ["destination"]
        "When the oldest undelivered alert of the destination was accepted; 0 when there is none.";
    DeadLetters Counter "dead_letters_total" ["destination", "reason"]
        "Deliveries given up: kept, visible, to be retried by hand.";
    BreakerOpen Gauge "breaker_open" ["destination"]
        "1 while the destination's breaker is open and only probes are sent.";
    MissedPush Counter "missed_push_total" ["app", "channel", "cause"]
        "Incidents that only catch-up brought, ten minutes after they were posted.";
    CatchUpLastSuccess Gauge "catch_up_last_success_timestamp_seconds" ["app", "channel"]
        "When the channel's history was last read to its end.";
    NearMisses Gauge "near_misses" ["app"]
        "Messages that may be incidents, are not alerts, and no operator has seen.";
    SlackApiCalls Counter "slack_api_calls_total" ["method", "result"]
        "Calls of Slack's Web API.";
    AppRateLimited Counter "app_rate_limited_total" ["app"]
        "Minutes in which Slack withheld events because of its rate limit.";
    ClockSkew Gauge "clock_skew_seconds" []
        "Our clock minus Slack's, by the newest authentic request. At 300 all are refused.";
    StoreUsed Gauge "store_used_bytes" []
        "Bytes in use in the store, write-ahead log included.";
    StoreFree Gauge "store_free_bytes" []
        "Bytes left for alerts: until the store's max_size, or on its disk if that is less.";
    PrunedEarly Counter "pruned_early_total" []
        "Delivered messages whose text went before retention said so, since space was short.";
    ParseProblems Counter "parse_problems_total" ["app", "problem"]
        "What could not be read of accepted alerts, by the words of `parse_problems`.";
    LogLinesDropped Counter "log_lines_dropped_total" []
        "Log lines that were dropped, since nobody read standard error fast enough.";
    StaleLeases Counter "stale_leases_total" []
        "Outcomes that came after their lease had passed to another worker, and were not recorded.";
    ConnectionsEvicted Counter "connections_evicted_total" ["listener"]
        "Connections closed to make room for new ones, by listener: public or ops.";
    ConfigReload Gauge "config_last_reload_successful" []
        "1 if the newest configuration is in use, 0 if it was refused and the one before it is.";
    BuildInfo Gauge "build_info" ["version", "commit"]
        "Always 1; the labels say what is running.";
}

/// Returns the reference of the metrics as Markdown.
pub fn reference() -> String {
    let mut page = METRICS_HEAD.to_owned();
    for metric in Metric::ALL {
        let kind = match metric.kind() {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> =
            metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let (name, help) = (metric.name(), metric.help());
        page.extend(["| `", name, "` | ", kind, " | ", &labels.join(", "), " | ", help, " |\n"]);
    }
    page
}

const METRICS_HEAD: &str = "\
# Metrics

`GET /metrics` on the operators' listener, in Prometheus' text format. Made from the program; a test
keeps it current. What to do when one of them looks bad is in [operations](operations.md).

Every series that an alert rule needs is there at 0 from the start. Moments are timestamps, not
ages: subtract them from `time()`. Histograms are in seconds.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
";

/// Upper bounds of the buckets in seconds, from a commit on a fast disk to beyond Slack's limit of
/// 3 seconds.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 3.0, 10.0,
    60.0, 300.0, 3600.0,
];

/// The values of one relay's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<PrometheusRecorder>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Returns a registry that describes every metric and has no series yet.
    ///
    /// # Panics
    /// Never: the buckets are a constant that is not empty.
    #[expect(clippy::expect_used, reason = "the buckets are a constant, and not empty")]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .expect("SECONDS is not empty")
            .build_recorder();
        for metric in Metric::ALL {
            let (name, help) = (metric.name().into(), metric.help().into());
            match metric.kind() {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        Self(Arc::new(recorder))
    }

    /// Returns the counter with these label values. The series is exported from now on, at 0 at
    /// first.
    pub fn counter(&self, metric: Metric, values: &[&str]) -> Counter {
        self.0.register_counter(&key(metric, values), &METADATA)
    }

    /// Returns the gauge with these label values. The series is exported from now on, at 0 at
    /// first.
    pub fn gauge(&self, metric: Metric, values: &[&str]) -> Gauge {
        self.0.register_gauge(&key(metric, values), &METADATA)
    }

    /// Returns the histogram with these label values.
    pub fn histogram(&self, metric: Metric, values: &[&str]) -> Histogram {
        self.0.register_histogram(&key(metric, values), &METADATA)
    }

    /// Returns every series in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.handle().render()
    }

    /// Moves recorded values into their buckets. Each value takes 8 bytes until then, so a loop
    /// calls this function every few seconds.
    pub fn upkeep(&self) {
        self.0.handle().run_upkeep();
    }
}

const METADATA: Metadata<'static> = Metadata::new("slack_soar_relay", Level::INFO, None);

fn key(metric: Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels().len(), values.len(), "{}", metric.name());
    let labels: Vec<Label> = metric
        .labels()
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(metric.name(), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_exported_at_zero_as_soon_as_it_is_known() {
        let metrics = Metrics::new();
        let counter = metrics.counter(Metric::Events, &["main", "accepted", ""]);
        let series = "slack_soar_relay_events_total{app=\"main\",outcome=\"accepted\",reason=\"\"}";
        assert!(metrics.render().contains(&format!("{series} 0\n")), "{}", metrics.render());
        counter.increment(2);
        assert!(metrics.render().contains(&format!("{series} 2\n")));
        assert!(!Metrics::new().render().contains(series), "two relays share nothing");
    }

    #[test]
    fn a_histogram_has_buckets() {
        let metrics = Metrics::new();
        metrics.histogram(Metric::Commit, &[]).record(0.002);
        assert!(metrics.render().contains("commit_seconds_bucket{le=\"0.0025\"} 1\n"));
    }
}
