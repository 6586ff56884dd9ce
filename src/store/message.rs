//! What `intake` hands to the store, and what it hears back.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    ids::{AppName, ChannelId, DestinationName, MessageKey, MessageTs},
};

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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Push, Self::CatchUp, Self::Backfill];

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
    /// The exact bytes of the inner event. Without any and without a destination, only the identity
    /// is kept, as after retention: the message is known from now on, and is not listed.
    pub raw: Bytes,
    /// It was edited: if the message is known, these bytes are kept as a revision, once for each
    /// edit.
    pub is_edit: bool,
    /// Which edit it is, however it came: Slack's timestamp of it, or empty.
    pub edited_ts: String,
    /// Its incidents, at least one.
    pub alerts: Vec<NewAlert>,
}

/// Why a message can never be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the message has no alert")]
    NoAlert,
    #[error("two alerts of the message have the same ordinal")]
    SameOrdinal,
}

impl NewMessage {
    /// Leaves the identity only: whoever brings the message later finds it known.
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

    /// Whether only the identity is to be kept.
    pub(super) fn is_identity(&self) -> bool {
        self.raw.is_empty() && self.alerts.iter().all(|alert| alert.destinations.is_empty())
    }

    /// Why it can never be stored, in whatever engine, if so.
    pub(super) fn unusable(&self) -> Option<Unusable> {
        if self.alerts.is_empty() {
            return Some(Unusable::NoAlert);
        }
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
    /// Which of the matching attachments it is, from 0.
    pub ordinal: u32,
    /// Which of all attachments it is, from 0: by this the incident is found again in `raw`.
    pub attachment: u32,
    /// The canonical severity, to filter lists by.
    pub level: &'static str,
    /// What a search looks through: category, script, host, title.
    pub search: String,
    /// What could not be read of it. Counted once it is stored, and not kept: it can be derived.
    pub problems: Vec<&'static str>,
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

/// When the history of a channel was first to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// When.
    pub at: Timestamp,
    /// Slack had confirmed the time.
    pub is_sure: bool,
}

/// A move of the catch-up cursor, committed together with the last page it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// The app.
    pub app: AppName,
    /// The channel.
    pub channel: ChannelId,
    /// History was read from here on. A cursor that lies before this does not move: what lies
    /// between was not read.
    pub from: MessageTs,
    /// History is read up to here.
    pub to: MessageTs,
    /// The newest message that was really seen; kept beside the cursor, and never goes back.
    pub seen: Option<MessageTs>,
    /// The term under which the poller reads; a store refuses the cursor of an older term.
    pub term: u64,
}
