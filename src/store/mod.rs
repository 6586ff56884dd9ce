//! The store: where an alert is kept from Slack's request until every destination has it.
//!
//! `intake` calls [`Store::accept`], `delivery` leases and records, `ops` looks and acts. The trait
//! knows no engine; `contract` holds the promises that every backend is tested against.
//! What is stored is the raw inner message; incidents and alerts are derived from it again.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    clock::Timestamp,
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageKey, MessageTs},
};

#[cfg(test)]
mod contract;
pub mod sqlite;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The writer's queue is full; the same call may succeed a moment later.
    #[error("the store has too much waiting to be written")]
    Busy,
    /// 95 % of `max_size` is in use, or the disk is full.
    #[error("the store is full")]
    Full,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
    /// One item cannot be stored, whatever is tried; its neighbours are.
    #[error("the item cannot be stored")]
    Item(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The engine failed; the same call may succeed later.
    #[error("the store failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How a message reached the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Slack sent it to us.
    Push,
    /// The catch-up poller found it.
    CatchUp,
    /// An operator asked for history.
    Backfill,
}

impl Source {
    /// The word in alerts, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::CatchUp => "catch_up",
            Self::Backfill => "backfill",
        }
    }
}

/// A Slack message that holds at least one incident, as `intake` hands it over.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its identity. A second message with this identity is the same message.
    pub key: MessageKey,
    /// When it was posted: `ts`, else `event_ts`, else `event_time`.
    pub posted_at: MessageTs,
    /// Who brought it. Each source that ever brings it is remembered.
    pub source: Source,
    /// Slack's `event_id`; empty if it did not come by push.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// When it reached us.
    pub received_at: Timestamp,
    /// The exact bytes of the inner event.
    pub raw: Bytes,
    /// It is a `message_changed`: if the message is known, these bytes are kept as a revision.
    pub is_edit: bool,
    /// Its incidents, at least one.
    pub alerts: Vec<NewAlert>,
}

/// One incident of a message.
#[derive(Clone, Debug)]
pub struct NewAlert {
    /// Which of the matching attachments it is, from 0.
    pub ordinal: u32,
    /// Which of all attachments it is, from 0: by this the incident is found again in `raw`.
    pub attachment: u32,
    /// The canonical severity, to filter lists by.
    pub level: &'static str,
    /// What a search looks through: category, script, host, title.
    pub search: String,
    /// Where it goes: one pending delivery each. None: it is stored as `unrouted`.
    pub destinations: Vec<DestinationName>,
}

/// What became of one message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It has this many alerts that were not known; they are stored now.
    New {
        /// How many.
        alerts: u32,
    },
    /// Every alert of it was known.
    Duplicate,
    /// Every alert of it was known, and the edit is kept as a revision.
    Revision,
}

/// A move of the catch-up cursor, committed together with the last page it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// The app.
    pub app: AppName,
    /// The channel.
    pub channel: ChannelId,
    /// History is read up to here.
    pub to: MessageTs,
    /// The term under which the poller reads; a store refuses the cursor of an older term.
    pub term: u64,
}

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
    /// Attempts so far that failed through this alert's own fault.
    pub alert_faults: u32,
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
}

/// The right to attempt one delivery until it expires. Not `Clone`: recording uses it up.
#[derive(Debug)]
pub struct Lease {
    delivery: Delivery,
    token: u64,
    expires_at: Timestamp,
}

impl Lease {
    /// Only a store hands out leases.
    pub(in crate::store) const fn new(
        delivery: Delivery,
        token: u64,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            delivery,
            token,
            expires_at,
        }
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
    pub const fn expires_at(&self) -> Timestamp {
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
    /// Try again at that time.
    Retry {
        /// When.
        at: Timestamp,
        /// Whether the attempt failed through this alert's own fault.
        alert_fault: bool,
    },
    /// Given up, kept, to be retried by hand.
    Dead {
        /// Why, as a metric label.
        reason: &'static str,
    },
}

/// The end of a lease: how the attempt went, and what is next.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The attempt, to be kept for whoever asks later.
    pub attempt: Attempt,
    /// What is next.
    pub next: Next,
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

/// Where one delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting for its time.
    Pending,
    /// An attempt is being made.
    Leased,
    /// The destination has it.
    Delivered,
    /// Given up, kept.
    Dead,
    /// Ended by an operator.
    Cancelled,
}

impl State {
    /// The word in the API, in lists and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which deliveries an operator means.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// One alert, or all.
    pub alert: Option<AlertId>,
    /// One destination, or all.
    pub destination: Option<DestinationName>,
    /// Only those in this state; all that the action applies to if none.
    pub state: Option<State>,
}

/// What an operator does to deliveries. Neither sends anything by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dead or cancelled ones become pending, due now, their age counted anew, attempts kept;
    /// pending ones become due now.
    Retry,
    /// Pending and dead ones end; leased and delivered ones are left alone.
    Cancel,
}

/// One delivery as an operator sees it.
#[derive(Clone, Debug)]
pub struct DeliveryView {
    /// Where it goes.
    pub destination: DestinationName,
    /// Where it stands.
    pub state: State,
    /// Attempts made so far.
    pub attempts: u32,
    /// When it is due, if it is pending.
    pub due_at: Option<Timestamp>,
    /// When it ended, if it has.
    pub finished_at: Option<Timestamp>,
    /// Why it is dead, or empty.
    pub dead_reason: String,
    /// What the destination made of it.
    pub reference: Reference,
    /// Every attempt kept, oldest first; filled only by [`Store::alert`].
    pub log: Vec<AttemptView>,
}

/// One attempt as an operator sees it.
#[derive(Clone, Debug)]
pub struct AttemptView {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// How the destination answered.
    pub class: String,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The beginning of the answer, or what went wrong.
    pub excerpt: String,
}

/// One alert as an operator sees it.
#[derive(Clone, Debug)]
pub struct AlertView {
    /// The store's own number; later alerts have larger ones.
    pub seq: i64,
    /// Its identity.
    pub id: AlertId,
    /// When it was posted.
    pub posted_at: MessageTs,
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// Who brought it first.
    pub source: Source,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// Its severity.
    pub level: String,
    /// What a search looks through.
    pub search: String,
    /// Which attachment of the message it is.
    pub attachment: u32,
    /// The raw message; `None` in lists, and once retention has removed it.
    pub raw: Option<Bytes>,
    /// Its deliveries. None: it is `unrouted`.
    pub deliveries: Vec<DeliveryView>,
}

/// Which alerts to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct AlertQuery {
    /// Only alerts with a delivery in this state.
    pub state: Option<State>,
    /// Only alerts without any delivery.
    pub unrouted: bool,
    /// Only this severity.
    pub level: Option<String>,
    /// Only alerts whose id or search text contains this, whatever the case.
    pub text: Option<String>,
    /// Only alerts before this one: the `seq` of the last row of the page before.
    pub before: Option<i64>,
    /// At most that many rows.
    pub limit: u32,
}

/// One destination's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationStats {
    /// Waiting, due or not.
    pub pending: u64,
    /// Being attempted.
    pub leased: u64,
    /// Given up.
    pub dead: u64,
    /// An operator has paused it: nothing is leased.
    pub paused: bool,
    /// When the oldest unfinished one was accepted.
    pub oldest_pending: Option<Timestamp>,
}

/// The store's numbers.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// For each destination that has unfinished or dead deliveries, or is paused.
    pub destinations: Vec<(DestinationName, DestinationStats)>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes left until the limit.
    pub free_bytes: u64,
}

/// How long finished things are kept. Undelivered alerts are never removed.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// After every delivery of an alert was delivered or cancelled, or if it was unrouted.
    pub delivered: Duration,
    /// After its last delivery died.
    pub dead: Duration,
}

/// How long an identity outlives its message, so that an old message found again is still known.
pub const IDENTITY_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// What one round of pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Messages whose text was removed; their identity stays.
    pub messages: u64,
    /// Identities removed.
    pub identities: u64,
}

/// Where alerts are kept. Every promise is a function of the contract suite.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Stores messages, their alerts and one pending delivery for each routed destination, due at
    /// `hold_until` (now, if none), in one transaction, with the cursor if one is given. When this
    /// returns, everything is durable.
    ///
    /// Results are in the order of the batch. An item that cannot be stored is [`StoreError::Item`]
    /// in its own place; its neighbours are stored, and the cursor moves.
    ///
    /// # Errors
    /// Nothing was stored, or it is not known whether it was: the sender tries again.
    async fn accept(
        &self,
        batch: Vec<NewMessage>,
        hold_until: Option<Timestamp>,
        cursor: Option<CursorMove>,
    ) -> Result<Vec<Result<Accepted, StoreError>>, StoreError>;

    /// Keeps the newest bodies that could not be read, at most 100 of 64 KiB; never waits.
    fn quarantine(&self, app: &AppName, body: &[u8]);

    /// Takes up to `n` deliveries of a destination that are due, oldest due first. None while it is
    /// paused. Nobody else gets them until they are recorded, released or expired.
    ///
    /// # Errors
    /// The engine failed; nothing is leased.
    async fn lease_due(
        &self,
        destination: &DestinationName,
        n: usize,
    ) -> Result<Vec<Lease>, StoreError>;

    /// Stores the outcome of an attempt; durable when this returns. A lease that has passed to
    /// another worker is counted and ignored: `Ok`.
    ///
    /// # Errors
    /// Lease and outcome come back, to be recorded later.
    async fn record(&self, lease: Lease, outcome: Outcome) -> Result<(), Unrecorded>;

    /// Gives a lease back unused: due as before, no attempt counted.
    async fn release(&self, lease: Lease);

    /// Gives up what is pending for a destination, not leased, and counts its age from before
    /// `born_before`; returns how many that were. A paused destination's age stands still.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn expire(
        &self,
        destination: &DestinationName,
        born_before: Timestamp,
        reason: &'static str,
    ) -> Result<u64, StoreError>;

    /// When the destination's next delivery is due; `None` if none is waiting, or it is paused.
    ///
    /// # Errors
    /// The engine failed.
    async fn next_due(
        &self,
        destination: &DestinationName,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// A hint that something of this destination may have become due: after an accept, a retry by
    /// hand or a resume. A hint may be missing on a store shared by several processes.
    fn due_hint(&self, destination: &DestinationName) -> Arc<Notify>;

    /// Applies an operator's action; returns how many deliveries it changed.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn act(&self, selection: Selection, action: Action) -> Result<u64, StoreError>;

    /// Pauses or resumes a destination. Survives a restart. Paused time does not count as age.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn set_paused(
        &self,
        destination: &DestinationName,
        paused: Paused,
    ) -> Result<(), StoreError>;

    /// One alert with everything that is known of it.
    ///
    /// # Errors
    /// The engine failed.
    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, StoreError>;

    /// A page of alerts, newest first, without raw messages and attempts.
    ///
    /// # Errors
    /// The engine failed.
    async fn alerts(&self, query: AlertQuery) -> Result<Vec<AlertView>, StoreError>;

    /// Up to where a channel's history was read.
    ///
    /// # Errors
    /// The engine failed.
    async fn cursor(
        &self,
        app: &AppName,
        channel: &ChannelId,
    ) -> Result<Option<MessageTs>, StoreError>;

    /// The term under which this process may poll for the app; `None` if another process does.
    ///
    /// # Errors
    /// The engine failed.
    async fn poller_term(&self, app: &AppName) -> Result<Option<u64>, StoreError>;

    /// The numbers for metrics and status.
    ///
    /// # Errors
    /// The engine failed.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Removes what retention allows, a bounded piece at a time.
    ///
    /// # Errors
    /// The engine failed.
    async fn prune(&self, retention: Retention) -> Result<Pruned, StoreError>;

    /// Proves that a write becomes durable now.
    ///
    /// # Errors
    /// It does not; [`StoreError::Full`] also when accepts would be refused for lack of space.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Finishes what is queued and closes; later calls answer [`StoreError::Closed`].
    async fn close(&self);
}

/// Whether a destination is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paused {
    /// Nothing is leased.
    Yes,
    /// Deliveries go on.
    No,
}
