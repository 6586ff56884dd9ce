//! What an unfinished delivery waits for.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// What an unfinished delivery waits for, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}
