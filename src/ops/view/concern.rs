//! Concerns: the conditions of a relay that a person should know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::trouble::{Bad, Trouble};

/// A condition that a person should know, and advice about it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Concern {
    /// Word of the [`ConcernKind`].
    pub kind: String,
    /// `true` if a person has to act: the condition does not go away by itself, or alerts wait.
    pub needs_person: bool,
    /// Part of the relay, such as a destination or an app; or empty.
    pub about: String,
    /// Description of the condition.
    pub message: String,
    /// Advice, with the command that helps.
    pub advice: String,
}

/// Every kind of concern, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcernKind {
    /// The relay does not take alerts.
    NotReady,
    /// Requests have a wrong signature, and none has verified since.
    Signing,
    /// The newest configuration was refused.
    Configuration,
    /// A destination fails and its breaker is open.
    BreakerOpen,
    /// A destination refuses alerts and has accepted none since.
    Refused,
    /// Alerts were given up.
    Dead,
    /// A destination is paused.
    Paused,
    /// Alerts are for a destination that is no longer configured.
    Orphaned,
    /// No destination's `when` took an alert.
    Unrouted,
    /// Messages that may be incidents, and that no operator has seen.
    NearMisses,
    /// Authentic bodies that could not be parsed, and that no operator has seen.
    Quarantine,
    /// History cannot be read.
    CatchUp,
    /// Slack did not push incidents that catch-up found.
    MissedPush,
    /// Alerts of a destination have waited for long, and no person has to act yet.
    Behind,
    /// A destination accepts alerts, and something about it is wrong.
    Destination,
    /// Messages with an incident's title were not taken.
    NotTaken,
}

impl ConcernKind {
    /// Every kind, the most urgent first.
    pub const ALL: [Self; 16] = [
        Self::NotReady,
        Self::Signing,
        Self::Configuration,
        Self::BreakerOpen,
        Self::Refused,
        Self::Dead,
        Self::Paused,
        Self::Orphaned,
        Self::Unrouted,
        Self::NearMisses,
        Self::Quarantine,
        Self::CatchUp,
        Self::MissedPush,
        Self::Behind,
        Self::Destination,
        Self::NotTaken,
    ];

    /// Returns the word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::Signing => "signing",
            Self::Configuration => "configuration",
            Self::BreakerOpen => "breaker_open",
            Self::Refused => "refused",
            Self::Dead => "dead",
            Self::Paused => "paused",
            Self::Orphaned => "orphaned",
            Self::Unrouted => "unrouted",
            Self::NearMisses => "near_misses",
            Self::Quarantine => "quarantine",
            Self::CatchUp => "catch_up",
            Self::MissedPush => "missed_push",
            Self::Behind => "behind",
            Self::Destination => "destination",
            Self::NotTaken => "not_taken",
        }
    }

    /// Returns whether a person has to act.
    pub const fn needs_person(self) -> bool {
        !matches!(self, Self::Behind | Self::Destination | Self::NotTaken)
    }

    /// Returns a concern of this kind.
    pub(in crate::ops) fn concern(self, about: &str, message: String, advice: String) -> Concern {
        Concern {
            kind: self.as_str().to_owned(),
            needs_person: self.needs_person(),
            about: about.to_owned(),
            message,
            advice,
        }
    }

    /// Returns one sentence that describes the condition.
    const fn what(self) -> &'static str {
        match self {
            Self::NotReady => {
                "The store is full, its disk is, its files are gone, or the database does \
                 not answer: alerts are answered 503."
            }
            Self::Signing => {
                "Requests look like Slack's, have a wrong signature, and none has verified since."
            }
            Self::Configuration => {
                "The newest configuration has a mistake; the one before it is in use."
            }
            Self::BreakerOpen => {
                "A destination failed five times in a row: one alert at a time is tried."
            }
            Self::Refused => "A destination refuses alerts and accepts no others.",
            Self::Dead => "Alerts were given up.",
            Self::Paused => "An operator has paused a destination.",
            Self::Orphaned => "A destination left the configuration, and alerts are for it.",
            Self::Unrouted => "No destination wanted an alert.",
            Self::NearMisses => "A message may be an incident and is not an alert: look at it.",
            Self::Quarantine => "An authentic request could not be read: look at it.",
            Self::CatchUp => "History is not read.",
            Self::MissedPush => "Slack did not push incidents that catch-up found.",
            Self::Behind => "Alerts wait for more than 5 minutes, and the relay goes on trying.",
            Self::Destination => {
                "Alerts are delivered, and something about it is wrong, such as a recipient \
                 that a mail server refuses."
            }
            Self::NotTaken => {
                "A message with the title of incidents is by a person, by a bot or in a channel \
                 that is not configured, or is an unfurled link."
            }
        }
    }

    /// Returns the places where an operator sees the condition.
    pub const fn trouble(self) -> Trouble {
        let (log, said, series) = match self {
            Self::NotReady => (
                "ERROR is not stored, and Slack will send it again",
                "takes no alerts",
                r#"events_total{outcome="rejected",reason="store"}"#,
            ),
            Self::Signing => (
                "WARN events are refused with 401",
                "a wrong signature",
                r#"events_total{outcome="rejected",reason="bad_signature"}"#,
            ),
            Self::Configuration => (
                "ERROR the new configuration is refused",
                "the newest configuration was refused",
                "config_last_reload_successful",
            ),
            Self::BreakerOpen => {
                ("WARN failed several times in a row", "its breaker is open", "breaker_open")
            }
            Self::Refused => (
                "WARN (refused); it will be tried again",
                "has accepted none since",
                r#"deliveries{state="refused"}"#,
            ),
            Self::Dead => ("ERROR given up for", "given up:", r#"deliveries{state="dead"}"#),
            Self::Paused => {
                ("INFO pause destination", "was paused", r#"deliveries{state="paused"}"#)
            }
            Self::Orphaned => (
                "WARN which is not configured any more",
                "is not configured any more",
                r#"deliveries{state="orphaned"}"#,
            ),
            Self::Unrouted => (
                "INFO accepted, but no destination takes it",
                "no destination wanted",
                r#"events_total{outcome="accepted",reason="no_destination"}"#,
            ),
            Self::NearMisses => {
                ("WARN is kept as a near miss", "messages that may be incidents", "near_misses")
            }
            Self::Quarantine => (
                "WARN cannot be read",
                "authentic requests that could not be read",
                r#"events_total{outcome="ignored",reason="unparsable"}"#,
            ),
            Self::CatchUp => (
                "ERROR has stopped",
                "history is not read",
                r#"slack_api_calls_total{result="token"}"#,
            ),
            Self::MissedPush => {
                ("WARN Slack did not push", "did not push", r#"missed_push_total{cause="push"}"#)
            }
            Self::Behind => (
                "WARN it will be tried again",
                "the oldest for",
                "oldest_pending_timestamp_seconds",
            ),
            Self::Destination => (
                "WARN refuses the recipient",
                "the others get the mail",
                r#"delivery_attempts_total{class="delivered"}"#,
            ),
            Self::NotTaken => (
                "WARN has the title of incidents and is not taken",
                "with the title of incidents were not taken",
                r#"events_total{outcome="ignored",reason="no_bot"}"#,
            ),
        };
        Trouble { word: self.as_str(), what: self.what(), log, said, series, bad: self.bad() }
    }

    /// Returns which values of the series are bad.
    const fn bad(self) -> Bad {
        match self {
            Self::Configuration => Bad::Zero,
            Self::NotReady
            | Self::Signing
            | Self::BreakerOpen
            | Self::NearMisses
            | Self::Quarantine
            | Self::NotTaken
            | Self::Refused
            | Self::Dead
            | Self::Paused
            | Self::Orphaned
            | Self::Unrouted
            | Self::CatchUp
            | Self::MissedPush
            | Self::Behind
            | Self::Destination => Bad::AboveZero,
        }
    }
}
