//! What an unfinished delivery waits for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    trouble::{Bad, Trouble},
};

/// What an unfinished delivery waits for, and until when.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Waiting {
    /// A [`WaitKind`]'s word.
    pub kind: String,
    /// When it is tried next, as far as that is known: not before then.
    pub next_try_at: Option<Timestamp>,
    /// One sentence for a person.
    pub reason: String,
}

/// Every way in which a delivery can stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// An attempt is under way.
    Attempt,
    /// Nothing is in its way: it is tried as soon as it is its turn.
    Turn,
    /// The next try after one that failed.
    Retry,
    /// The destination asked to be left alone for a time.
    Asked,
    /// The next try after it was refused again and again, without evidence against the alert.
    Refused,
    /// The destination's breaker is open.
    Breaker,
    /// An operator has paused the destination.
    Pause,
    /// A reader of the feed.
    Reader,
    /// An operator: its destination is not configured any more.
    Orphaned,
    /// An operator: it was given up.
    Dead,
}

impl WaitKind {
    /// All of them.
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

    /// The word in the API.
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

    /// Says what is so, in one sentence.
    const fn what(self) -> &'static str {
        match self {
            Self::Attempt => "An attempt is under way.",
            Self::Turn => "Nothing is in its way but others before it.",
            Self::Retry => "The last attempt failed; the next one has its time.",
            Self::Asked => {
                "The destination asked to be left alone for a time (429, `Retry-After`)."
            }
            Self::Refused => {
                "The destination refused it three times or more, and accepts no others."
            }
            Self::Breaker => "The destination's breaker is open.",
            Self::Pause => "An operator has paused the destination.",
            Self::Reader => "It is in a feed, and no reader has passed it.",
            Self::Orphaned => "Its destination is not configured any more.",
            Self::Dead => "It was given up.",
        }
    }

    /// Says where an operator sees it.
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
