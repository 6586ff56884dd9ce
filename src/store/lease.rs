//! Leases, outcomes and waits: the role [`Queue`], from which `delivery` takes its work.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::{Source, StoreError};
use crate::{
    clock::{Moment, Timestamp},
    ids::{AlertId, DestinationName, MessageTs},
};

/// One alert on its way to one destination, with everything needed to send it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Number of the delivery in the store.
    pub id: i64,
    /// Identity of the alert.
    pub alert: AlertId,
    /// Name of the destination.
    pub destination: DestinationName,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Refusals that count so far.
    pub refusals: Refusals,
    /// Time from which the age of the delivery is counted. A retry by hand resets it.
    pub pending_since: Timestamp,
    /// Time at which the message reached the relay.
    pub received_at: Timestamp,
    /// Time of the post.
    pub posted_at: MessageTs,
    /// Source that brought the message first.
    pub source: Source,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// Index of the attachment that holds the incident.
    pub attachment: u32,
    /// Exact bytes of the inner event.
    pub raw: Bytes,
    /// Values that were derived from the bytes when they were stored or last attempted.
    pub projection: Projection,
}

/// Columns that are kept beside the message for lists and searches. They can always be derived
/// from the message again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// Canonical severity of the incident.
    pub level: String,
    /// Text that a search looks through.
    pub search: String,
}

/// Number of refusals from which an alert is shown as refused, and becomes a dead letter if there
/// is evidence that the alert and not the destination's key, preset or parameters is at fault.
pub const REFUSALS: u32 = 3;

/// Refusals of one delivery, and the evidence in them. Both start again after a retry by hand, and
/// when the destination's settings or secrets change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Number of refusals.
    pub count: u32,
    /// `true` if the destination has accepted another alert between the first refusal and this
    /// lease. A refusal of the request that begins now is then evidence.
    pub accepted: bool,
    /// Number of refusals of requests that began after such an acceptance.
    pub evidence: u32,
}

/// Number of refusals that must be evidence before the alert itself is at fault.
const EVIDENCE: u32 = 2;

impl Refusals {
    /// Returns `true` if one more refusal proves that the alert is at fault. An acceptance before
    /// the refused request began shows that key, preset and parameters were right at that time.
    pub const fn are_proof_with_one_more(self) -> bool {
        let evidence = if self.accepted { self.evidence.saturating_add(1) } else { self.evidence };
        self.count.saturating_add(1) >= REFUSALS && evidence >= EVIDENCE
    }
}

/// The right to attempt one delivery until it expires. Not `Clone`: recording an outcome uses the
/// lease up.
#[derive(Debug)]
pub struct Lease {
    delivery: Delivery,
    settings: Option<i64>,
    token: u64,
    expires_at: Moment,
}

impl Lease {
    /// Creates a lease. Only a store hands out leases.
    pub(in crate::store) const fn new(
        delivery: Delivery,
        settings: Option<i64>,
        token: u64,
        expires_at: Moment,
    ) -> Self {
        Self { delivery, settings, token, expires_at }
    }

    /// Returns the mark of the destination's settings at the time of the lease. A refusal counts
    /// only while the same settings are in use.
    pub(in crate::store) const fn settings(&self) -> Option<i64> {
        self.settings
    }

    /// Returns the delivery to attempt.
    pub const fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Returns the fencing token. An outcome is recorded only while the store knows this token.
    pub(in crate::store) const fn token(&self) -> u64 {
        self.token
    }

    /// Returns the time from which another worker may lease the delivery.
    pub const fn expires_at(&self) -> Moment {
        self.expires_at
    }
}

/// The object that the destination created for the alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// Id of the created case, or empty.
    pub id: String,
    /// Link to the created case, or empty.
    pub url: String,
}

/// Record of one attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Time at which the attempt began.
    pub started_at: Timestamp,
    /// Duration of the attempt.
    pub duration: Duration,
    /// One of the closed list of attempt classes.
    pub class: &'static str,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Start of the answer, or the error. Contains no secrets.
    pub excerpt: String,
}

/// State of a delivery after an attempt.
#[derive(Clone, Debug)]
pub enum Next {
    /// The destination has the alert.
    Delivered(Reference),
    /// Another attempt follows after a wait, which begins when the outcome is recorded.
    Retry {
        /// Length of the wait.
        wait: Duration,
        /// Reason for the wait.
        because: Because,
    },
    /// The delivery is a dead letter: kept, and retried only by hand.
    Dead {
        /// Reason, as a metric label.
        reason: &'static str,
    },
}

impl Next {
    /// Returns `true` for the consequences of a refusal: one that is counted, or the last one.
    pub(in crate::store) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Dead { .. } | Self::Retry { because: Because::Refused, .. })
    }
}

/// Reason why a delivery waits for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The destination was at fault. The wait ends when the destination works again.
    Fault,
    /// The destination asked for this wait.
    Asked,
    /// The destination refused the alert.
    Refused,
}

/// Deliveries whose waits [`Queue::hasten`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hasten {
    /// Deliveries that wait because the destination was at fault, now that it works again or its
    /// state is unknown.
    Recovered,
    /// Deliveries that would wait for longer than their waits were meant to last, because the
    /// clock has been set back since.
    Misdated,
}

/// The end of a lease: the attempt, and the state that follows.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The attempt, kept for operators.
    pub attempt: Attempt,
    /// State of the delivery from now on.
    pub next: Next,
    /// The projection, if the attempt derived another one than the stored one.
    pub projection: Option<Projection>,
}

/// Result of recording an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The outcome is stored as given.
    Kept,
    /// The attempt is stored. It was refused, but since the lease was given the destination's
    /// settings have changed or the refusals were reset, so the refusal does not count and the
    /// delivery is due now.
    Anew,
    /// Another worker holds the lease by now. The outcome is ignored.
    Stale,
}

/// An outcome that is not stored, with its lease, so that the worker can try again.
#[derive(Debug, thiserror::Error)]
#[error("the outcome of delivery {} is not recorded", lease.delivery.id)]
pub struct Unrecorded {
    /// The lease, which is still held.
    pub lease: Lease,
    /// The outcome to record.
    pub outcome: Outcome,
    /// Error of the store.
    #[source]
    pub source: StoreError,
}

/// The role that hands out deliveries to attempt and takes their outcomes.
#[async_trait]
pub trait Queue: fmt::Debug + Send + Sync {
    /// Leases up to `n` deliveries of a destination that are due, the earliest due time first.
    /// Returns none while the destination is paused. A leased delivery is not leased again until
    /// it is recorded or released, or the lease expires.
    ///
    /// # Errors
    /// The engine failed; nothing is leased.
    async fn lease_due(
        &self,
        destination: &DestinationName,
        n: usize,
    ) -> Result<Vec<Lease>, StoreError>;

    /// Leases the delivery of the destination's oldest alert, due or not, to probe whether the
    /// destination works again. A delivery that waits for another reason than
    /// [`Because::Fault`] is skipped until it is due. Returns none while the destination is paused.
    ///
    /// # Errors
    /// The engine failed; nothing is leased.
    async fn lease_oldest(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Lease>, StoreError>;

    /// Stores the outcome of an attempt, and returns once it is durable. The outcome of a lease
    /// that another worker holds by now is counted and ignored.
    ///
    /// A delivered alert is evidence against the alerts that the destination has refused before:
    /// later leases of these have [`Refusals::accepted`]. An attempt under settings that have been
    /// replaced since the lease is no evidence either way, and its refusal does not end the
    /// delivery. This is decided in the same transaction.
    ///
    /// # Errors
    /// The error holds lease and outcome, to be recorded later.
    async fn record(&self, lease: Lease, outcome: Outcome) -> Result<Recorded, Unrecorded>;

    /// Returns an unused lease. The delivery is due as before, and no attempt is counted.
    async fn release(&self, lease: Lease);

    /// Returns the time at which the destination's next delivery is due, or `None` if nothing
    /// waits or the destination is paused. If all waiting deliveries are leased, returns the end
    /// of the first lease.
    ///
    /// # Errors
    /// The engine failed.
    async fn next_due(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Returns the hint that a delivery of this destination may have become due: after an accept, a
    /// retry by hand, a resume or a release. A hint wakes one waiter, and is kept until a task
    /// waits for it. It may be missing if several processes share the store.
    fn due_hint(&self, destination: &DestinationName) -> Arc<Notify>;

    /// Turns pending deliveries of a destination that are not leased and older than `max_age` into
    /// dead letters. Returns their alerts, a bounded number; call again until the result is empty.
    /// Time in a pause does not count as age.
    ///
    /// The age is measured by a time of day that has been steady for some minutes
    /// ([`SteadyTime`](crate::clock::SteadyTime)). A clock that is wrong for a while therefore ages
    /// nothing, and an alert from before the store was opened does not expire at once.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn expire(
        &self,
        destination: &DestinationName,
        max_age: Duration,
        reason: &'static str,
    ) -> Result<Vec<AlertId>, StoreError>;

    /// Makes some waiting deliveries of the destination due now. Returns their number.
    ///
    /// # Errors
    /// The engine failed. Earlier transactions of this call stay, and the same call does the rest.
    async fn hasten(&self, destination: &DestinationName, whom: Hasten) -> Result<u64, StoreError>;

    /// Stores the mark of the settings under which the destination is attempted from now on. If the
    /// mark has changed, refusals are reset and refused deliveries are due now. Returns their
    /// number.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn note_settings(
        &self,
        destination: &DestinationName,
        mark: u16,
    ) -> Result<u64, StoreError>;
}
