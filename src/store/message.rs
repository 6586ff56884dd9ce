//! Messages that `intake` hands over: the role [`Inbox`].

use std::{collections::BTreeSet, fmt};

use async_trait::async_trait;
use bytes::Bytes;

use super::{CursorMove, StoreError};
use crate::{
    clock::Timestamp,
    ids::{AppName, DestinationName, MessageKey, MessageTs},
};

/// The largest raw message that is stored. Slack's requests are limited to a quarter of it.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The way by which a message reached the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Slack sent the message in a request.
    Push,
    /// The catch-up poller found the message.
    CatchUp,
    /// An operator asked for the history.
    Backfill,
}

impl Source {
    /// All sources, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Push, Self::CatchUp, Self::Backfill];

    /// Returns the word used in alerts, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::CatchUp => "catch_up",
            Self::Backfill => "backfill",
        }
    }
}

/// A Slack message that holds at least one incident.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Identity of the message. Two messages with the same identity are the same message.
    pub key: MessageKey,
    /// Time of the post: `ts`, or else `event_ts`, or else `event_time`.
    pub posted_at: MessageTs,
    /// Source that brought the message. The store remembers each source that ever brings it.
    pub source: Source,
    /// Slack's `event_id`, or empty if the message was not pushed.
    pub event_id: String,
    /// Slack's `team_id`, or empty.
    pub team: String,
    /// Time at which the message reached the relay.
    pub received_at: Timestamp,
    /// Exact bytes of the inner event. If they are empty and no alert has a destination, only the
    /// identity is stored, as if retention had removed the rest: the message counts as known and
    /// is not listed.
    pub raw: Bytes,
    /// `true` if the message was edited. The bytes of a known message are then kept as a revision,
    /// once for each edit.
    pub is_edit: bool,
    /// Slack's timestamp of the edit, whichever source brought it, or empty.
    pub edited_ts: String,
    /// Incidents of the message, at least one.
    pub alerts: Vec<NewAlert>,
}

/// Reason why a message can never be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the message does not have an alert")]
    NoAlert,
    #[error("two alerts of the message have the same ordinal")]
    SameOrdinal,
}

impl NewMessage {
    /// Removes everything but the identity, so that a later copy of the message is a duplicate.
    #[must_use]
    pub fn into_identity(mut self) -> Self {
        self.raw = Bytes::new();
        self.is_edit = false;
        self.edited_ts.clear();
        for alert in &mut self.alerts {
            alert.destinations.clear();
            alert.search.clear();
        }
        self
    }

    /// Returns `true` if only the identity is to be stored.
    pub(super) fn is_identity(&self) -> bool {
        self.raw.is_empty() && self.alerts.iter().all(|alert| alert.destinations.is_empty())
    }

    /// Returns the reason why no engine can store the message, if there is one.
    pub(super) fn unusable(&self) -> Option<Unusable> {
        if self.alerts.is_empty() {
            return Some(Unusable::NoAlert);
        }
        // Alerts nearly always come in order; only others need a set.
        if self.alerts.is_sorted_by(|one, next| one.ordinal < next.ordinal) {
            return None;
        }
        let ordinals: BTreeSet<u32> = self.alerts.iter().map(|alert| alert.ordinal).collect();
        (ordinals.len() < self.alerts.len()).then_some(Unusable::SameOrdinal)
    }
}

/// One incident of a message.
#[derive(Clone, Debug)]
pub struct NewAlert {
    /// Index among the attachments that match, from 0.
    pub ordinal: u32,
    /// Index among all attachments, from 0, by which the incident is found again in `raw`.
    pub attachment: u32,
    /// Canonical severity, by which lists are filtered.
    pub level: &'static str,
    /// Text that a search looks through: category, script, host, title.
    pub search: String,
    /// Names of the fields that could not be read. They are counted once the alert is stored, and
    /// are not stored themselves, since they can be derived again.
    pub problems: Vec<&'static str>,
    /// Destinations that get a pending delivery each. If empty, the alert is `unrouted`.
    pub destinations: Vec<DestinationName>,
}

/// Result of storing one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Some alerts of the message were new and are stored now.
    New {
        /// Number of new alerts.
        alerts: u32,
    },
    /// Every alert of the message was known.
    Duplicate,
    /// Every alert of the message was known, and the edit is kept as a revision.
    Revision,
}

/// The role that takes messages in.
#[async_trait]
pub trait Inbox: fmt::Debug + Send + Sync {
    /// Stores messages, their alerts, one pending delivery for each routed destination, and the
    /// cursor if one is given, in one transaction. Everything is durable when this returns.
    ///
    /// Deliveries are due at `hold_until`, or at once. Results are in the order of the batch. A
    /// message that cannot be stored (larger than [`MESSAGE_MAX_BYTES`], without an alert, or with
    /// an ordinal twice) gets [`StoreError::Item`] as its result; the others are stored, and the
    /// cursor moves. The cursor never goes back. A move under an older term, or to more than
    /// [`CURSOR_AHEAD`](super::CURSOR_AHEAD) after the store's own time, is ignored.
    ///
    /// A message is known if it is stored under any id of its channel
    /// ([`History::chains`](super::History::chains)). A new one is stored under the first of these
    /// ids. Both are decided in the same transaction.
    ///
    /// # Errors
    /// Nothing was stored, or the result is unknown. The sender tries again.
    async fn accept(
        &self,
        batch: Vec<NewMessage>,
        hold_until: Option<Timestamp>,
        cursor: Option<CursorMove>,
    ) -> Result<Vec<Result<Accepted, StoreError>>, StoreError>;

    /// Keeps the start of a body that could not be parsed, at most 64 KiB of each of the newest
    /// 100. Never waits; a body may be dropped while the store is busy.
    fn quarantine(&self, app: &AppName, body: &[u8]);
}
