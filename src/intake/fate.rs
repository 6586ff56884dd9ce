//! The final outcome of an event, and the counters of each.

use std::sync::Arc;

use metrics::Counter;

use super::{admission::Certainty, notes::Notes};
use crate::{
    code_defender::verdict::Reason,
    metrics::{Metric, Metrics},
    store::Accepted,
};

/// Outcome of a message with incidents that the store has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Acceptance {
    /// The alerts are new and at least one destination takes them.
    Routed,
    /// The alerts are new, and the channel may not be one of the app's: a configured channel name
    /// is not resolved yet.
    Unconfirmed,
    /// The alerts are new and no destination takes them.
    Unrouted,
    /// The message was stored before.
    Duplicate,
    /// A revision of a message that was stored before.
    KnownEdit,
}

/// Outcome of an event. Each has one pair of metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// The store has the message.
    Stored(Acceptance),
    /// A message that is not accepted as an incident.
    Ignored(Reason),
    /// An event that is not a message.
    Type,
    /// A change of the app or of a channel.
    Lifecycle,
    /// An authentic body that cannot be parsed.
    Unparsable,
    /// An authentic event of a workspace that is not any configured app's `team`.
    Team,
    /// An authentic event of the workspace of an app whose secret may not have been rotated yet.
    Unsettled,
    /// A request to the path of an app that is not configured.
    UnknownApp,
    /// A request with a wrong signature.
    BadSignature,
    /// A request with a timestamp too far from now.
    Stale,
    /// A request whose body or head exceeds the limits.
    TooLarge,
    /// A request whose body did not arrive in time.
    Slow,
    /// A request that was shed because others fill the limits.
    Overload,
    /// An event that could not be stored.
    Store,
}

impl Acceptance {
    /// Returns the outcome of the store's answer.
    pub(super) fn of(accepted: Accepted, is_routed: bool, channel: Certainty) -> Self {
        match (accepted, channel) {
            (Accepted::New { .. }, _) if !is_routed => Self::Unrouted,
            (Accepted::New { .. }, Certainty::Unresolved) => Self::Unconfirmed,
            (Accepted::New { .. }, Certainty::Certain) => Self::Routed,
            (Accepted::Duplicate, _) => Self::Duplicate,
            (Accepted::Revision, _) => Self::KnownEdit,
        }
    }

    /// Returns the metric labels `outcome` and `reason`.
    pub(super) const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Routed => ("accepted", ""),
            Self::Unconfirmed => ("accepted", "channel_unresolved"),
            Self::Unrouted => ("accepted", "no_destination"),
            Self::Duplicate => ("duplicate", ""),
            Self::KnownEdit => ("ignored", "known_edit"),
        }
    }
}

impl Fate {
    pub(super) const ALL: [Self; 24] = [
        Self::Stored(Acceptance::Routed),
        Self::Stored(Acceptance::Unconfirmed),
        Self::Stored(Acceptance::Unrouted),
        Self::Stored(Acceptance::Duplicate),
        Self::Stored(Acceptance::KnownEdit),
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

    /// Returns the metric labels `outcome` and `reason`.
    pub(super) const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Stored(acceptance) => acceptance.labels(),
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

/// Event counters of one app. Every series exists from the start.
#[derive(Debug)]
pub(super) struct FateCounters {
    app: String,
    counters: Vec<(Fate, Counter)>,
    notes: Arc<Notes>,
}

impl FateCounters {
    /// Creates the counters; `app` is empty for events that belong to no app.
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
