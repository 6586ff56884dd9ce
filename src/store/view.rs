//! Alerts and numbers as operators see them, and operators' actions: the role [`Desk`].

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Deed, EntryId, OperatorAction, PauseView, Reference, Source, StoreError};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName, MessageTs},
};

/// State of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting until it is due.
    Pending,
    /// Waiting, after [`REFUSALS`](super::REFUSALS) or more refusals.
    Refused,
    /// Waiting because an operator has paused the destination.
    Paused,
    /// Unfinished or dead, with a destination that is no longer configured.
    Orphaned,
    /// Leased by a worker for an attempt.
    Leased,
    /// Accepted by the destination.
    Delivered,
    /// Given up and kept: a dead letter.
    Dead,
    /// Ended by an operator.
    Cancelled,
}

impl State {
    /// All states, in the order of lists.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Refused,
        Self::Leased,
        Self::Dead,
        Self::Paused,
        Self::Orphaned,
        Self::Delivered,
        Self::Cancelled,
    ];

    /// Returns `true` if another attempt follows without an operator's retry.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Pending | Self::Refused | Self::Paused)
    }

    /// Returns the state if the destination is no longer configured.
    #[must_use]
    pub const fn without_destination(self) -> Self {
        match self {
            Self::Delivered | Self::Cancelled => self,
            Self::Pending
            | Self::Refused
            | Self::Leased
            | Self::Dead
            | Self::Paused
            | Self::Orphaned => Self::Orphaned,
        }
    }

    /// Returns the word used in the API and in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Paused => "paused",
            Self::Orphaned => "orphaned",
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

/// Deliveries to which an operator's action applies.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// One alert, or all alerts.
    pub alert: Option<AlertId>,
    /// One destination, or all destinations.
    pub destination: Option<DestinationName>,
    /// One state, or all states that the action can change. Pending includes refused deliveries
    /// and those whose destination is paused.
    pub state: Option<State>,
}

/// An operator's action on deliveries. Neither sends anything by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes dead, cancelled and pending deliveries pending and due now. Age and refusals start
    /// again, attempts are kept. Leased and delivered ones do not change.
    Retry,
    /// Cancels pending and dead deliveries. Leased and delivered ones do not change.
    Cancel,
}

/// The largest number of changed deliveries that [`Changes::named`] lists.
pub const CHANGES_NAMED: usize = 1000;

/// Deliveries that an action changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Number of changed deliveries.
    pub changed: u64,
    /// Alert and destination of the first [`CHANGES_NAMED`] of them.
    pub named: Vec<(AlertId, DestinationName)>,
}

impl Changes {
    /// Adds the deliveries that one transaction changed.
    pub(in crate::store) fn add(&mut self, piece: Vec<(AlertId, DestinationName)>) {
        self.changed += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let room = CHANGES_NAMED.saturating_sub(self.named.len());
        self.named.extend(piece.into_iter().take(room));
    }
}

/// Result of routing an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Number of new deliveries: one for each destination, or 0.
    pub made: u64,
    /// Journal entry of the action, if one was asked for.
    pub entry: Option<EntryId>,
}

/// One delivery as an operator sees it.
#[derive(Clone, Debug)]
pub struct DeliveryView {
    /// Name of the destination.
    pub destination: DestinationName,
    /// State of the delivery. Never [`State::Orphaned`], since the store does not know the
    /// configuration.
    pub state: State,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Time of the next attempt, if the delivery waits.
    pub due_at: Option<Timestamp>,
    /// Time at which the delivery ended, if it has.
    pub finished_at: Option<Timestamp>,
    /// Reason for a dead letter, or empty.
    pub dead_reason: String,
    /// Object that the destination created for the alert.
    pub reference: Reference,
    /// Attempts that are kept, oldest first. Filled only by [`Desk::alert`].
    pub log: Vec<AttemptView>,
}

/// An edited version of a known message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Time at which the edit reached the relay.
    pub received_at: Timestamp,
    /// Exact bytes of the inner event.
    pub raw: Bytes,
}

/// Number of revisions of one message that are kept, the newest ones.
pub const REVISIONS_KEPT: u32 = 20;

/// Number of attempts of one delivery that are kept, the newest ones.
pub const ATTEMPTS_KEPT: u32 = 50;

/// One attempt as an operator sees it.
#[derive(Clone, Debug)]
pub struct AttemptView {
    /// Time at which the attempt began.
    pub started_at: Timestamp,
    /// Duration of the attempt.
    pub duration: Duration,
    /// One of the closed list of attempt classes.
    pub class: String,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Start of the answer, or the error.
    pub excerpt: String,
}

/// One alert as an operator sees it.
#[derive(Clone, Debug)]
pub struct AlertView {
    /// Number of the alert in the store. Later alerts have larger numbers.
    pub seq: i64,
    /// Identity of the alert.
    pub id: AlertId,
    /// Time of the post.
    pub posted_at: MessageTs,
    /// Time at which the message reached the relay.
    pub received_at: Timestamp,
    /// Source that brought the message first.
    pub source: Source,
    /// All sources that have brought the message.
    pub sources: Vec<Source>,
    /// Slack's `event_id`, or empty.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// Canonical severity of the incident.
    pub level: String,
    /// Text that a search looks through.
    pub search: String,
    /// Index of the attachment that holds the incident.
    pub attachment: u32,
    /// Exact bytes of the inner event; `None` in lists, and once retention has removed them.
    pub raw: Option<Bytes>,
    /// Revisions of the message, oldest first, the newest [`REVISIONS_KEPT`] of them. Filled only
    /// by [`Desk::alert`].
    pub revisions: Vec<Revision>,
    /// Deliveries of the alert. If empty, the alert is `unrouted`.
    pub deliveries: Vec<DeliveryView>,
}

/// Selection of alerts to list. Alerts that retention has emptied are not listed.
#[derive(Clone, Debug, Default)]
pub struct AlertQuery {
    /// Only alerts with a delivery in this state.
    pub state: Option<State>,
    /// Only alerts without any delivery.
    pub unrouted: bool,
    /// The configured destinations, which decide on [`State::Orphaned`]. `None` stands for all.
    pub configured: Option<Vec<DestinationName>>,
    /// Only alerts of this severity.
    pub level: Option<String>,
    /// Only alerts whose id or search text contains this text, ignoring case.
    pub text: Option<String>,
    /// Only alerts with a smaller [`AlertView::seq`]: that of the last row of the previous page.
    pub before: Option<i64>,
    /// The largest number of rows to return.
    pub limit: u32,
}

/// Numbers of one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationStats {
    /// Waiting deliveries, due or not, except refused ones.
    pub pending: u64,
    /// Waiting deliveries after [`REFUSALS`](super::REFUSALS) or more refusals.
    pub refused: u64,
    /// Deliveries that are leased.
    pub leased: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// The pause in force, if the destination is paused.
    pub pause: Option<PauseView>,
    /// Time at which the oldest unfinished delivery was accepted.
    pub oldest_pending: Option<Timestamp>,
}

/// Numbers of a store, for metrics and status.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Numbers of each destination that has unfinished or dead deliveries, or is paused.
    pub destinations: Vec<(DestinationName, DestinationStats)>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes left until the limit, or free on the disk if that is less.
    pub free_bytes: u64,
    /// Reason why messages are refused, or empty.
    pub problem: String,
}

/// The role that shows alerts to operators and applies their actions.
#[async_trait]
pub trait Desk: fmt::Debug + Send + Sync {
    /// Returns one alert with its message, deliveries and attempts. The id may name the channel by
    /// any id that the channel has had.
    ///
    /// # Errors
    /// The engine failed.
    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, StoreError>;

    /// Returns a page of alerts, newest first, without raw messages, revisions and attempts.
    ///
    /// # Errors
    /// The engine failed.
    async fn alerts(&self, query: AlertQuery) -> Result<Vec<AlertView>, StoreError>;

    /// Applies an operator's action, in transactions of bounded size. Returns what changed. The
    /// deed, if one is given, is added to the journal with the first transaction, even if nothing
    /// changes.
    ///
    /// # Errors
    /// The engine failed. Earlier transactions of this call stay, and the same call does the rest.
    async fn act(
        &self,
        selection: Selection,
        action: Action,
        deed: Option<OperatorAction>,
    ) -> Result<Changes, StoreError>;

    /// Adds a delivery to each of these destinations, due now, to an alert that does not have any
    /// delivery. An alert with a delivery does not change, nor does one whose message retention has
    /// removed. The deed, if one is given, is added to the journal even if nothing changes.
    ///
    /// # Errors
    /// The engine failed; nothing was changed.
    async fn route(
        &self,
        alert: &AlertId,
        destinations: &[DestinationName],
        deed: Option<Deed>,
    ) -> Result<Routed, StoreError>;

    /// Returns the numbers for metrics and status.
    ///
    /// # Errors
    /// The engine failed.
    async fn stats(&self) -> Result<Stats, StoreError>;
}
