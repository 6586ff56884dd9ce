//! Log lines and parse problems of a message with incidents.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use metrics::Counter;

use super::fate::Acceptance;
use crate::{
    code_defender::incident::PARSE_PROBLEMS,
    ids::MessageKey,
    logging::chain,
    metrics::{Metric, Metrics},
    store::{Accepted, NewAlert, NewMessage, StoreError},
};

/// Header with the number of a Slack retry.
const RETRY_NUM: HeaderName = HeaderName::from_static("x-slack-retry-num");

/// Header with the reason of a Slack retry.
const RETRY_REASON: HeaderName = HeaderName::from_static("x-slack-retry-reason");

/// Header in which proxies and load balancers pass the id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Fields by which an alert is found in the log. Taken before the message is given to the store.
#[derive(Debug)]
pub(super) struct Trace {
    /// Ids of the message's alerts, separated by spaces.
    ids: String,
    key: MessageKey,
    event_id: String,
    team: String,
    /// Parse problems, each with the number of alerts that follow the problem's in the message.
    problems: Vec<(usize, &'static str)>,
}

/// Time and headers of a request from Slack.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) started: Instant,
    retry_num: Option<HeaderValue>,
    retry_reason: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
}

impl Arrival {
    pub(super) fn new(started: Instant, headers: &HeaderMap) -> Self {
        let header = |name| headers.get(name).cloned();
        Self {
            started,
            retry_num: header(&RETRY_NUM),
            retry_reason: header(&RETRY_REASON),
            request_id: header(&REQUEST_ID),
        }
    }

    /// Returns Slack's reason for a retry, empty if unreadable; `None` for a first attempt.
    pub(super) fn retry_reason(&self) -> Option<&str> {
        let number = self.retry_num.as_ref();
        number.map(|_retry| text(self.retry_reason.as_ref()).unwrap_or_default())
    }

    /// Returns the proxy's id of the request if it is short and holds no unusual characters.
    fn request_id(&self) -> Option<&str> {
        let is_safe = |id: &&str| {
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:=+/".contains(&byte);
            !id.is_empty() && id.len() <= 64 && id.bytes().all(safe)
        };
        text(self.request_id.as_ref()).filter(is_safe)
    }
}

fn text(header: Option<&HeaderValue>) -> Option<&str> {
    header.and_then(|value| value.to_str().ok())
}

impl Trace {
    pub(super) fn of(message: &NewMessage) -> Self {
        let mut ids = String::with_capacity(64);
        for NewAlert { ordinal, .. } in &message.alerts {
            let separator = if ids.is_empty() { "" } else { " " };
            // Writing to a string does not fail.
            write!(ids, "{separator}{}:{ordinal}", message.key).unwrap_or_default();
        }
        let from_the_end = (0..).zip(message.alerts.iter().rev());
        let problems = from_the_end
            .flat_map(|(after, alert)| alert.problems.iter().map(move |problem| (after, *problem)))
            .collect();
        Self {
            ids,
            key: message.key.clone(),
            event_id: message.event_id.clone(),
            team: message.team.clone(),
            problems,
        }
    }

    /// Logs that the store has taken the message: one line, which a search for an alert's id finds
    /// before the lines of the delivery attempts.
    pub(super) fn log_stored(
        &self,
        arrival: Option<&Arrival>,
        duration: Duration,
        acceptance: Acceptance,
    ) {
        let Self { ids, key, event_id, team, problems: _ } = self;
        let (outcome, reason) = acceptance.labels();
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match acceptance {
            Acceptance::Routed | Acceptance::Unconfirmed | Acceptance::Unrouted => tracing::info!(
                alert_id = ids,
                outcome,
                reason,
                duration_ms,
                request_id = arrival.and_then(Arrival::request_id),
                slack.team_id = team,
                slack.channel = key.channel.as_str(),
                slack.ts = %key.ts,
                slack.event_id = event_id,
                slack.retry_num = arrival.and_then(|arrival| text(arrival.retry_num.as_ref())),
                slack.retry_reason =
                    arrival.and_then(|arrival| text(arrival.retry_reason.as_ref())),
                "alert {ids} accepted{}",
                if acceptance == Acceptance::Unrouted {
                    ", but no destination takes it"
                } else {
                    ""
                }
            ),
            Acceptance::KnownEdit => tracing::info!(
                alert_id = ids,
                outcome,
                reason,
                slack.event_id = event_id,
                "an edit of the message of alert {ids} is kept"
            ),
            Acceptance::Duplicate => tracing::debug!(
                alert_id = ids,
                outcome,
                slack.event_id = event_id,
                "alert {ids} is known"
            ),
        }
    }

    /// Returns the parse problems of the alerts that are new to the store. If only some alerts of
    /// the message are new, those are the last ones.
    pub(super) fn problems_of_new(&self, accepted: Accepted) -> impl Iterator<Item = &'static str> {
        let new = match accepted {
            Accepted::New { alerts } => usize::try_from(alerts).unwrap_or(usize::MAX),
            Accepted::Duplicate | Accepted::Revision => 0,
        };
        let of_new =
            move |(after, problem): &(usize, &'static str)| (*after < new).then_some(*problem);
        self.problems.iter().filter_map(of_new)
    }

    /// Logs that the message could not be stored and Slack was answered 503.
    pub(super) fn log_refused(&self, arrival: &Arrival, error: &StoreError) {
        let ids = &self.ids;
        let error = chain(error);
        tracing::error!(
            alert_id = ids,
            outcome = "rejected",
            reason = "store",
            error,
            request_id = arrival.request_id(),
            slack.event_id = self.event_id,
            slack.retry_num = text(arrival.retry_num.as_ref()),
            "alert {ids} is not stored, and Slack will send it again: {error}"
        );
    }
}

/// Parse problem counters of one app. Every series exists from the start.
#[derive(Debug)]
pub(super) struct ProblemCounters(Vec<(&'static str, Counter)>);

impl ProblemCounters {
    pub(super) fn new(app: &str, metrics: &Metrics) -> Self {
        let counter =
            |label: &'static str| (label, metrics.counter(Metric::ParseProblems, &[app, label]));
        Self(PARSE_PROBLEMS.into_iter().map(counter).collect())
    }

    /// Counts the parse problems of the alerts that are new to the store.
    pub(super) fn count(&self, trace: &Trace, accepted: Accepted) {
        for problem in trace.problems_of_new(accepted) {
            if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == problem) {
                counter.increment(1);
            }
        }
    }
}
