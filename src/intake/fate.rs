//! What became of an event: counted once, logged once.

use metrics::Counter;

use crate::{
    code_defender::matcher::Reason,
    ids::AppName,
    intake::Certainty,
    metrics::{Metric, Metrics},
    slack::message::Message,
    store::Accepted,
};

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
    BadSignature,
    Stale,
    TooLarge,
    Slow,
    Overload,
    Store,
}

impl Fate {
    const ALL: [Self; 21] = [
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
    fn labels(self) -> (&'static str, &'static str) {
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
pub(super) struct FateCounters(Vec<(Fate, Counter)>);

impl FateCounters {
    pub(super) fn new(app: &AppName, metrics: &Metrics) -> Self {
        let counter = |fate: Fate| {
            let (outcome, reason) = fate.labels();
            (fate, metrics.counter(Metric::Events, &[app.as_str(), outcome, reason]))
        };
        Self(Fate::ALL.into_iter().map(counter).collect())
    }

    pub(super) fn count(&self, fate: Fate) {
        self.count_many(fate, 1);
    }

    pub(super) fn count_many(&self, fate: Fate, times: u64) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == fate) {
            counter.increment(times);
        }
    }
}

/// The vendor may have renamed its title: somebody must look.
pub(super) fn log_near_miss(app: &AppName, message: &Message<'_>, reason: Reason) {
    if reason == Reason::NearMiss {
        tracing::warn!(
            %app,
            channel = %message.channel,
            ts = %message.ts,
            "message {} in {} looks like an incident but for its title; \
             see `match.titles` in the configuration",
            message.ts,
            message.channel
        );
    }
}

pub(super) fn log_accepted(key: &str, event_id: &str, accepted: Accepted, routed: bool) {
    match accepted {
        Accepted::New { alerts } if routed => {
            tracing::info!(message_key = key, event_id, alerts, "message {key} accepted");
        }
        Accepted::New { alerts } => tracing::warn!(
            message_key = key,
            event_id,
            alerts,
            "message {key} stored, but no destination takes it"
        ),
        Accepted::Duplicate => tracing::debug!(message_key = key, event_id, "{key} is known"),
        Accepted::Revision => {
            tracing::info!(message_key = key, event_id, "edit of the known message {key} kept");
        }
    }
}
