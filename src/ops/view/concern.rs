//! What a person should know of a relay.

use serde::{Deserialize, Serialize};

use crate::trouble::{Bad, LogLine, Trouble};

/// Something that a person should know, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concern {
    /// A [`ConcernKind`]'s word.
    pub kind: String,
    /// Whether the relay needs a person for it: it does not go away by itself, or alerts wait.
    pub needs_person: bool,
    /// The part that it concerns, such as a destination or an app; or empty.
    pub about: String,
    /// What is so.
    pub message: String,
    /// What to do, and the command that helps.
    pub advice: String,
}

/// What a concern can be about, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcernKind {
    /// The relay takes no alerts.
    NotReady,
    /// The newest configuration was refused.
    Configuration,
    /// A destination fails.
    BreakerOpen,
    /// A destination refuses alerts, and has accepted none since.
    Refused,
    /// Alerts were given up.
    Dead,
    /// A destination is paused.
    Paused,
    /// Alerts are for a destination that is not configured any more.
    Orphaned,
    /// Alerts that no destination wanted.
    Unrouted,
    /// History is not read.
    CatchUp,
    /// Slack did not push incidents that it should have pushed.
    MissedPush,
    /// Alerts of a destination wait for long, and nobody has to act yet.
    Behind,
    /// A destination takes alerts, and something about it is wrong.
    Destination,
}

impl ConcernKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NotReady,
        Self::Configuration,
        Self::BreakerOpen,
        Self::Refused,
        Self::Dead,
        Self::Paused,
        Self::Orphaned,
        Self::Unrouted,
        Self::CatchUp,
        Self::MissedPush,
        Self::Behind,
        Self::Destination,
    ];

    /// The word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::Configuration => "configuration",
            Self::BreakerOpen => "breaker_open",
            Self::Refused => "refused",
            Self::Dead => "dead",
            Self::Paused => "paused",
            Self::Orphaned => "orphaned",
            Self::Unrouted => "unrouted",
            Self::CatchUp => "catch_up",
            Self::MissedPush => "missed_push",
            Self::Behind => "behind",
            Self::Destination => "destination",
        }
    }

    /// Whether the relay needs a person for it.
    pub const fn needs_person(self) -> bool {
        !matches!(self, Self::Behind | Self::Destination)
    }

    /// Makes a concern of this kind.
    pub(in crate::ops) fn concern(self, about: &str, message: String, advice: String) -> Concern {
        Concern {
            kind: self.as_str().to_owned(),
            needs_person: self.needs_person(),
            about: about.to_owned(),
            message,
            advice,
        }
    }

    /// Says where an operator sees it.
    pub const fn trouble(self) -> Trouble {
        let (what, level, text, said, series, bad) = match self {
            Self::NotReady => (
                "The store is full, its disk is, its files are gone, or the database does \
                 not answer: alerts are answered 503.",
                "ERROR",
                "could not be stored",
                "takes no alerts",
                r#"events_total{outcome="rejected",reason="store"}"#,
                Bad::AboveZero,
            ),
            Self::Configuration => (
                "The newest configuration has a mistake; the one before it is in use.",
                "ERROR",
                "the new configuration is refused",
                "the newest configuration was refused",
                "config_last_reload_successful",
                Bad::Zero,
            ),
            Self::BreakerOpen => (
                "A destination failed five times in a row: one alert at a time is tried.",
                "WARN",
                "failed several times in a row",
                "its breaker is open",
                "breaker_open",
                Bad::AboveZero,
            ),
            Self::Refused => (
                "A destination refuses alerts and accepts no others.",
                "WARN",
                "(refused); it will be tried again",
                "has accepted none since",
                r#"deliveries{state="refused"}"#,
                Bad::AboveZero,
            ),
            Self::Dead => (
                "Alerts were given up.",
                "ERROR",
                "given up for",
                "given up:",
                r#"deliveries{state="dead"}"#,
                Bad::AboveZero,
            ),
            Self::Paused => (
                "An operator has paused a destination.",
                "INFO",
                "pause destination",
                "was paused",
                r#"deliveries{state="paused"}"#,
                Bad::AboveZero,
            ),
            Self::Orphaned => (
                "A destination left the configuration, and alerts are for it.",
                "WARN",
                "which is not configured any more",
                "is not configured any more",
                r#"deliveries{state="orphaned"}"#,
                Bad::AboveZero,
            ),
            Self::Unrouted => (
                "No destination wanted an alert.",
                "INFO",
                "accepted, but no destination takes it",
                "no destination wanted",
                r#"events_total{outcome="accepted",reason="no_destination"}"#,
                Bad::AboveZero,
            ),
            Self::CatchUp => (
                "History is not read.",
                "ERROR",
                "has stopped",
                "history is not read",
                r#"slack_api_calls_total{result="token"}"#,
                Bad::AboveZero,
            ),
            Self::MissedPush => (
                "Slack did not push incidents that catch-up found.",
                "WARN",
                "Slack did not push",
                "did not push",
                r#"missed_push_total{cause="push"}"#,
                Bad::AboveZero,
            ),
            Self::Behind => (
                "Alerts wait for more than 5 minutes, and the relay goes on trying.",
                "WARN",
                "it will be tried again",
                "the oldest for",
                "oldest_pending_timestamp_seconds",
                Bad::AboveZero,
            ),
            Self::Destination => (
                "Alerts are delivered, and something about it is wrong, such as a \
                 recipient that a mail server refuses.",
                "WARN",
                "refuses the recipient",
                "the others get the mail",
                r#"delivery_attempts_total{class="delivered"}"#,
                Bad::AboveZero,
            ),
        };
        Trouble { word: self.as_str(), what, log: LogLine { level, text }, said, series, bad }
    }
}
