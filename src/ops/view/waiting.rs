//! Reasons for which an unfinished delivery waits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    trouble::{Bad, Trouble},
};

/// Reason for which an unfinished delivery waits, and until when.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Waiting {
    /// Word of the [`WaitKind`].
    pub kind: String,
    /// Earliest time of the next attempt; null if it is not known.
    pub next_try_at: Option<Timestamp>,
    /// One sentence for a person.
    pub reason: String,
}

/// Every reason for which a delivery can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// An attempt is under way.
    Attempt,
    /// Only other deliveries are before this one.
    Turn,
    /// The last attempt failed, and the next one is not due yet.
    Retry,
    /// The destination asked for no requests for a time.
    Asked,
    /// The destination refused the alert repeatedly, without evidence against the alert.
    Refused,
    /// The destination's breaker is open.
    Breaker,
    /// An operator has paused the destination.
    Pause,
    /// No reader of the feed has passed the item.
    Reader,
    /// The destination is no longer configured; an operator has to act.
    Orphaned,
    /// The delivery was given up; an operator has to act.
    Dead,
}

impl WaitKind {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Attempt,
        Self::Turn,
        Self::Retry,
        Self::Asked,
        Self::Refused,
        Self::Breaker,
        Self::Pause,
        Self::Reader,
        Self::Orphaned,
        Self::Dead,
    ];

    /// Returns the word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Turn => "turn",
            Self::Retry => "retry",
            Self::Asked => "asked",
            Self::Refused => "refused",
            Self::Breaker => "breaker",
            Self::Pause => "pause",
            Self::Reader => "reader",
            Self::Orphaned => "orphaned",
            Self::Dead => "dead",
        }
    }

    /// Returns one sentence that describes the reason.
    const fn what(self) -> &'static str {
        match self {
            Self::Attempt => "An attempt is under way.",
            Self::Turn => "Other deliveries of the destination are ahead.",
            Self::Retry => "The last attempt failed; the next one is scheduled.",
            Self::Asked => {
                "The destination asked to be left alone for a time (429, `Retry-After`)."
            }
            Self::Refused => {
                "The destination refused the alert three times or more, and accepts no others."
            }
            Self::Breaker => "The destination's breaker is open.",
            Self::Pause => "An operator has paused the destination.",
            Self::Reader => "The delivery is in a feed, and no reader has confirmed it.",
            Self::Orphaned => "The destination is not configured any more.",
            Self::Dead => "The delivery was given up.",
        }
    }

    /// Returns the places where an operator sees the reason.
    pub const fn trouble(self) -> Trouble {
        let (log, said, series) = match self {
            Self::Attempt => {
                ("INFO accepted", "an attempt is under way", r#"deliveries{state="leased"}"#)
            }
            Self::Turn => ("INFO accepted", "waits for its turn", r#"deliveries{state="pending"}"#),
            Self::Retry => {
                ("WARN it will be tried again", "failed", r#"deliveries{state="pending"}"#)
            }
            Self::Asked => (
                "WARN (throttled); it will be tried again",
                "asked to be left alone",
                r#"deliveries{state="pending"}"#,
            ),
            Self::Refused => (
                "WARN (refused); it will be tried again",
                "it was refused",
                r#"deliveries{state="refused"}"#,
            ),
            Self::Breaker => (
                "WARN failed several times in a row",
                "the breaker has been open for",
                "breaker_open",
            ),
            Self::Pause => (
                "INFO pause destination",
                "an operator has paused its destination",
                r#"deliveries{state="paused"}"#,
            ),
            Self::Reader => ("INFO accepted", "it is in a feed", r#"deliveries{state="pending"}"#),
            Self::Orphaned => (
                "WARN which is not configured any more",
                "its destination is not configured any more",
                r#"deliveries{state="orphaned"}"#,
            ),
            Self::Dead => ("ERROR given up for", "it was given up", r#"deliveries{state="dead"}"#),
        };
        let bad = Bad::AboveZero;
        Trouble { word: self.as_str(), what: self.what(), log, said, series, bad }
    }
}
