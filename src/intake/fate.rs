//! What became of an event: counted once, logged once.

mod seen;

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use metrics::Counter;

pub use self::seen::outcomes;
use crate::{
    code_defender::{incident::PARSE_PROBLEMS, matcher::Reason},
    ids::MessageKey,
    intake::{Certainty, notes::Notes},
    logging::chain,
    metrics::{Metric, Metrics},
    store::{Accepted, NewAlert, NewMessage, StoreError},
};

pub(super) const RETRY_NUM: HeaderName = HeaderName::from_static("x-slack-retry-num");
pub(super) const RETRY_REASON: HeaderName = HeaderName::from_static("x-slack-retry-reason");

/// Proxies and load balancers name requests so.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Accepted,
    /// Accepted from a channel that may be none of ours: a name is not resolved yet.
    Unconfirmed,
    Unrouted,
    Duplicate,
    KnownEdit,
    Ignored(Reason),
    Type,
    Lifecycle,
    Unparsable,
    /// Authentic, and for a workspace that no app is configured for.
    Team,
    /// Authentic, and for the workspace of an app whose secret may not have been rotated yet.
    Unsettled,
    /// Posted to the path of an app that is not configured.
    UnknownApp,
    BadSignature,
    Stale,
    TooLarge,
    Slow,
    Overload,
    Store,
}

impl Fate {
    const ALL: [Self; 24] = [
        Self::Accepted,
        Self::Unconfirmed,
        Self::Unrouted,
        Self::Duplicate,
        Self::KnownEdit,
        Self::Ignored(Reason::Title),
        Self::Ignored(Reason::NearMiss),
        Self::Ignored(Reason::NoBot),
        Self::Ignored(Reason::BotNotAllowed),
        Self::Ignored(Reason::Channel),
        Self::Ignored(Reason::Unfurl),
        Self::Ignored(Reason::Subtype),
        Self::Type,
        Self::Lifecycle,
        Self::Unparsable,
        Self::Team,
        Self::Unsettled,
        Self::UnknownApp,
        Self::BadSignature,
        Self::Stale,
        Self::TooLarge,
        Self::Slow,
        Self::Overload,
        Self::Store,
    ];

    /// What the store's answer means for the event.
    pub(super) fn of(accepted: Accepted, is_routed: bool, channel: Certainty) -> Self {
        match (accepted, channel) {
            (Accepted::New { .. }, _) if !is_routed => Self::Unrouted,
            (Accepted::New { .. }, Certainty::Unresolved) => Self::Unconfirmed,
            (Accepted::New { .. }, Certainty::Certain) => Self::Accepted,
            (Accepted::Duplicate, _) => Self::Duplicate,
            (Accepted::Revision, _) => Self::KnownEdit,
        }
    }

    /// Outcome and reason, as the metric's labels.
    pub(super) const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Accepted => ("accepted", ""),
            Self::Unconfirmed => ("accepted", "channel_unresolved"),
            Self::Unrouted => ("accepted", "no_destination"),
            Self::Duplicate => ("duplicate", ""),
            Self::KnownEdit => ("ignored", "known_edit"),
            Self::Ignored(reason) => ("ignored", reason.label()),
            Self::Type => ("ignored", "type"),
            Self::Lifecycle => ("ignored", "lifecycle"),
            Self::Unparsable => ("ignored", "unparsable"),
            Self::Team => ("ignored", "team"),
            Self::Unsettled => ("rejected", "team"),
            Self::UnknownApp => ("rejected", ""),
            Self::BadSignature => ("rejected", "bad_signature"),
            Self::Stale => ("rejected", "stale"),
            Self::TooLarge => ("rejected", "too_large"),
            Self::Slow => ("rejected", "slow"),
            Self::Overload => ("rejected", "overload"),
            Self::Store => ("rejected", "store"),
        }
    }
}

/// One app's counters, all known from the start.
#[derive(Debug)]
pub(super) struct FateCounters {
    app: String,
    counters: Vec<(Fate, Counter)>,
    notes: Arc<Notes>,
}

impl FateCounters {
    /// `app` is empty where no app can be told.
    pub(super) fn new(app: &str, metrics: &Metrics, notes: &Arc<Notes>) -> Self {
        let counter = |fate: Fate| {
            let (outcome, reason) = fate.labels();
            (fate, metrics.counter(Metric::Events, &[app, outcome, reason]))
        };
        let counters = Fate::ALL.into_iter().map(counter).collect();
        Self { app: app.to_owned(), counters, notes: Arc::clone(notes) }
    }

    pub(super) fn count(&self, fate: Fate) {
        self.count_many(fate, 1);
    }

    pub(super) fn count_many(&self, fate: Fate, times: u64) {
        if let Some((_, counter)) = self.counters.iter().find(|(known, _)| *known == fate) {
            counter.increment(times);
        }
        if let ("ignored", reason) = fate.labels() {
            self.notes.count(&self.app, reason, times);
        }
    }
}

/// One app's counters of what could not be read of its alerts, all known from the start.
#[derive(Debug)]
pub(super) struct ProblemCounters(Vec<(&'static str, Counter)>);

impl ProblemCounters {
    pub(super) fn new(app: &str, metrics: &Metrics) -> Self {
        let counter =
            |label: &'static str| (label, metrics.counter(Metric::ParseProblems, &[app, label]));
        Self(PARSE_PROBLEMS.into_iter().map(counter).collect())
    }

    /// Counts what could not be read of the alerts that are stored now.
    pub(super) fn count(&self, trace: &Trace, accepted: Accepted) {
        for problem in trace.problems_of_new(accepted) {
            if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == problem) {
                counter.increment(1);
            }
        }
    }
}

/// Everything by which an alert is found in the log, taken before the store takes the message.
#[derive(Debug)]
pub(super) struct Trace {
    /// The ids of the message's alerts, with a space between them.
    ids: String,
    key: MessageKey,
    event_id: String,
    team: String,
    /// What could not be read, with how many alerts of the message come after it.
    problems: Vec<(usize, &'static str)>,
}

/// What Slack said of one request beside its body.
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

    /// The proxy's name for the request, if it is fit for a log.
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
        let (event_id, team) = (message.event_id.clone(), message.team.clone());
        let from_the_end = (0..).zip(message.alerts.iter().rev());
        let problems = from_the_end
            .flat_map(|(after, alert)| alert.problems.iter().map(move |problem| (after, *problem)))
            .collect();
        Self { ids, key: message.key.clone(), event_id, team, problems }
    }

    /// The one line of an accepted message. Whoever searches the log for the id of an alert finds
    /// this line, then one for each attempt.
    pub(super) fn log_accepted(&self, arrival: Option<&Arrival>, duration: Duration, fate: Fate) {
        let Self { ids, key, event_id, team, problems: _ } = self;
        let (outcome, reason) = fate.labels();
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match fate {
            Fate::Accepted | Fate::Unconfirmed | Fate::Unrouted => tracing::info!(
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
                if fate == Fate::Unrouted { ", but no destination takes it" } else { "" }
            ),
            Fate::KnownEdit => tracing::info!(
                alert_id = ids,
                outcome,
                reason,
                slack.event_id = event_id,
                "an edit of the message of alert {ids} is kept"
            ),
            Fate::Duplicate
            | Fate::Ignored(_)
            | Fate::Type
            | Fate::Lifecycle
            | Fate::Unparsable
            | Fate::Team
            | Fate::Unsettled
            | Fate::UnknownApp
            | Fate::BadSignature
            | Fate::Stale
            | Fate::TooLarge
            | Fate::Slow
            | Fate::Overload
            | Fate::Store => tracing::debug!(
                alert_id = ids,
                outcome,
                slack.event_id = event_id,
                "alert {ids} is known"
            ),
        }
    }

    /// Returns what could not be read of the alerts that were not known. Where some were, those are
    /// the first ones of the message.
    pub(super) fn problems_of_new(&self, accepted: Accepted) -> impl Iterator<Item = &'static str> {
        let new = match accepted {
            Accepted::New { alerts } => usize::try_from(alerts).unwrap_or(usize::MAX),
            Accepted::Duplicate | Accepted::Revision => 0,
        };
        let of_new =
            move |(after, problem): &(usize, &'static str)| (*after < new).then_some(*problem);
        self.problems.iter().filter_map(of_new)
    }

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
