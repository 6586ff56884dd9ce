//! What a person should know of a relay.

use serde::{Deserialize, Serialize};

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
    /// No request with a good signature comes, and others do.
    Signing,
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
    pub const ALL: [Self; 13] = [
        Self::NotReady,
        Self::Signing,
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
            Self::Signing => "signing",
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
}
