//! What `delivery` takes from the store and gives back: leases and outcomes.

use std::time::Duration;

use bytes::Bytes;

use super::{Source, StoreError};
use crate::{
    clock::{Moment, Timestamp},
    ids::{AlertId, DestinationName, MessageTs},
};

/// One alert on its way to one destination, with everything needed to send it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The store's own number for it.
    pub id: i64,
    /// The alert.
    pub alert: AlertId,
    /// Where it goes.
    pub destination: DestinationName,
    /// Attempts made so far.
    pub attempts: u32,
    /// The refusals that count so far.
    pub refusals: Refusals,
    /// From when its age is counted; a retry by hand starts it anew.
    pub pending_since: Timestamp,
    /// When the message reached the relay.
    pub received_at: Timestamp,
    /// When the message was posted.
    pub posted_at: MessageTs,
    /// Who brought the message first.
    pub source: Source,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// Which attachment of the message it is.
    pub attachment: u32,
    /// The exact bytes of the inner event.
    pub raw: Bytes,
    /// What the store has derived of them.
    pub projection: Projection,
}

/// What is kept of an alert beside its message, for lists and searches. It can always be derived
/// from the message again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// The canonical severity.
    pub level: String,
    /// What a search looks through.
    pub search: String,
}

/// From how many refusals on an alert is shown as refused, and dies if there is evidence that it
/// and not the destination's key, preset or parameters is at fault.
pub const REFUSALS: u32 = 3;

/// How often the destination has refused an alert, and what that proves. Counted anew after a
/// retry by hand, and when the destination's settings or secrets change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// How many there were.
    pub count: u32,
    /// Whether the destination has accepted another alert since the first of them, and before this
    /// delivery was leased: a refusal of the request that begins now is evidence.
    pub accepted: bool,
    /// How many of them answered a request that began after such an acceptance.
    pub evidence: u32,
}

/// How many refusals must answer requests that began after the destination had accepted another
/// alert, for a refused alert to be at fault itself.
const EVIDENCE: u32 = 2;

impl Refusals {
    /// Whether one more refusal proves that the alert is at fault. An acceptance before the refused
    /// request began shows that key, preset and parameters were right at that time.
    pub const fn are_proof_with_one_more(self) -> bool {
        let evidence = if self.accepted { self.evidence.saturating_add(1) } else { self.evidence };
        self.count.saturating_add(1) >= REFUSALS && evidence >= EVIDENCE
    }
}

/// The right to attempt one delivery until it expires. Not `Clone`: recording uses it up.
#[derive(Debug)]
pub struct Lease {
    delivery: Delivery,
    settings: Option<i64>,
    token: u64,
    expires_at: Moment,
}

impl Lease {
    /// Only a store hands out leases.
    pub(in crate::store) const fn new(
        delivery: Delivery,
        settings: Option<i64>,
        token: u64,
        expires_at: Moment,
    ) -> Self {
        Self { delivery, settings, token, expires_at }
    }

    /// The mark of the destination's settings when the lease was given. A refusal counts only while
    /// they are still in use.
    pub(in crate::store) const fn settings(&self) -> Option<i64> {
        self.settings
    }

    /// What is to be delivered.
    pub const fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// The fencing token: an outcome is recorded only while the store knows this token.
    pub(in crate::store) const fn token(&self) -> u64 {
        self.token
    }

    /// When another worker may take it.
    pub const fn expires_at(&self) -> Moment {
        self.expires_at
    }
}

/// What the destination made of the alert: its own id for it, and where to look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// The created case's id, or empty.
    pub id: String,
    /// A link to it, or empty.
    pub url: String,
}

/// How one attempt went.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// One of the closed list of attempt classes.
    pub class: &'static str,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The beginning of the answer, or what went wrong. No secrets.
    pub excerpt: String,
}

/// What happens to a delivery after an attempt.
#[derive(Clone, Debug)]
pub enum Next {
    /// The destination has it.
    Delivered(Reference),
    /// Try again after a wait, which begins when this is recorded.
    Retry {
        /// How long.
        wait: Duration,
        /// What for.
        because: Because,
    },
    /// Given up, kept, to be retried by hand.
    Dead {
        /// Why, as a metric label.
        reason: &'static str,
    },
}

impl Next {
    /// Returns whether this follows from a refusal, which may be counted, or be the last one.
    pub(in crate::store) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Dead { .. } | Self::Retry { because: Because::Refused, .. })
    }
}

/// Why a delivery waits for its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The destination was at fault: once it works again, the wait is over.
    Fault,
    /// The destination asked for that wait.
    Asked,
    /// The destination refused the alert.
    Refused,
}

/// Whose wait ends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hasten {
    /// Those that wait because the destination was at fault: it works again, or it is not known.
    Recovered,
    /// Those that are to wait for longer than they were when the wait began: the clock has been set
    /// back since.
    Misdated,
}

/// The end of a lease: how the attempt went, and what is next.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The attempt, to be kept for whoever asks later.
    pub attempt: Attempt,
    /// What is next.
    pub next: Next,
    /// What is kept beside the message from now on, if it came out otherwise than before.
    pub projection: Option<Projection>,
}

/// What a store has made of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is kept as it was given.
    Kept,
    /// The attempt is kept. It was refused, and meanwhile the destination's settings have changed,
    /// or its refusals are counted anew: that proves nothing, and the delivery is due now.
    Anew,
    /// The lease had passed to somebody else: the outcome is ignored.
    Stale,
}

/// An outcome that is not stored. Lease and outcome come back, so that the worker tries again.
#[derive(Debug, thiserror::Error)]
#[error("the outcome of delivery {} is not recorded", lease.delivery.id)]
pub struct Unrecorded {
    /// The lease, still held.
    pub lease: Lease,
    /// The outcome.
    pub outcome: Outcome,
    /// Why it could not be recorded.
    #[source]
    pub source: StoreError,
}
