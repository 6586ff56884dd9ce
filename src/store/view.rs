//! What operators and metrics see of the store, and what they ask of it.

use std::{fmt, time::Duration};

use bytes::Bytes;

use super::{EntryId, PauseView, Reference, Source};
use crate::{
    clock::Timestamp,
    ids::{AlertId, DestinationName, MessageTs},
};

/// Where one delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting for its time.
    Pending,
    /// Waiting, after [`REFUSALS`](super::REFUSALS) or more refusals.
    Refused,
    /// Waiting for its destination, which an operator has paused.
    Paused,
    /// Unfinished or dead, and its destination is not configured any more.
    Orphaned,
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
    /// All of them.
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

    /// Whether an attempt is still to come, sooner or later.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Pending | Self::Refused | Self::Paused)
    }

    /// The state of a delivery whose destination is not configured any more.
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

    /// The word in the API, in lists and in the store.
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

/// Which deliveries an operator means.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// One alert, or all.
    pub alert: Option<AlertId>,
    /// One destination, or all.
    pub destination: Option<DestinationName>,
    /// Only those in this state; all that the action applies to if none. Pending includes refused
    /// ones and those whose destination is paused.
    pub state: Option<State>,
}

/// What an operator does to deliveries. Neither sends anything by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dead or cancelled ones become pending; they and pending ones are due now, their age and
    /// their refusals counted anew, attempts kept. Leased and delivered ones are left alone.
    Retry,
    /// Pending and dead ones end; leased and delivered ones are left alone.
    Cancel,
}

/// How many of the deliveries that an action changed are named.
pub const CHANGES_NAMED: usize = 1000;

/// What an action changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// How many deliveries.
    pub changed: u64,
    /// The first [`CHANGES_NAMED`] of them: whose they are, and where they go.
    pub named: Vec<(AlertId, DestinationName)>,
}

impl Changes {
    /// Adds a piece.
    pub(in crate::store) fn add(&mut self, piece: Vec<(AlertId, DestinationName)>) {
        self.changed += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let room = CHANGES_NAMED.saturating_sub(self.named.len());
        self.named.extend(piece.into_iter().take(room));
    }
}

/// What routing an alert has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// How many deliveries: one for each destination, or none.
    pub made: u64,
    /// Where the journal keeps it, if it does.
    pub entry: Option<EntryId>,
}

/// One delivery as an operator sees it.
#[derive(Clone, Debug)]
pub struct DeliveryView {
    /// Where it goes.
    pub destination: DestinationName,
    /// Where it stands; never [`State::Orphaned`], since the store knows no configuration.
    pub state: State,
    /// Attempts made so far.
    pub attempts: u32,
    /// When it is due, if it waits.
    pub due_at: Option<Timestamp>,
    /// When it ended, if it has.
    pub finished_at: Option<Timestamp>,
    /// Why it is dead, or empty.
    pub dead_reason: String,
    /// What the destination made of it.
    pub reference: Reference,
    /// Every attempt kept, oldest first; filled only by [`Store::alert`](super::Store::alert).
    pub log: Vec<AttemptView>,
}

/// A later version of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// The exact bytes of the inner event.
    pub raw: Bytes,
}

/// How many revisions of one message are kept.
pub const REVISIONS_KEPT: u32 = 20;

/// How many attempts of one delivery are kept, the newest ones.
pub const ATTEMPTS_KEPT: u32 = 50;

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
    /// Everyone who has brought it.
    pub sources: Vec<Source>,
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
    /// Later versions of the message that brought nothing new, oldest first, the newest
    /// [`REVISIONS_KEPT`] of them; filled only by [`Store::alert`](super::Store::alert).
    pub revisions: Vec<Revision>,
    /// Its deliveries. None: it is `unrouted`.
    pub deliveries: Vec<DeliveryView>,
}

/// Which alerts to list, newest first. Those that retention has emptied are not listed.
#[derive(Clone, Debug, Default)]
pub struct AlertQuery {
    /// Only alerts with a delivery in this state.
    pub state: Option<State>,
    /// Only alerts without any delivery.
    pub unrouted: bool,
    /// The destinations that are configured, for [`State::Orphaned`]; if none is given, all are.
    pub configured: Option<Vec<DestinationName>>,
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
    /// Waiting, due or not, without the refused ones.
    pub pending: u64,
    /// Waiting, after [`REFUSALS`](super::REFUSALS) or more refusals.
    pub refused: u64,
    /// Being attempted.
    pub leased: u64,
    /// Given up.
    pub dead: u64,
    /// The pause, if an operator has paused it: nothing is leased.
    pub pause: Option<PauseView>,
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
    /// Bytes left until the limit, or on the disk if that is less.
    pub free_bytes: u64,
    /// Why no alert is taken, or empty.
    pub problem: String,
}

/// How long finished things are kept. Undelivered alerts are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
