//! One window of one channel to be read, and the use of what it brings. Pure.

use std::time::Duration;

use super::window::Window;
use crate::{
    ids::{ChannelId, MessageTs},
    store::{CursorMove, Source},
};

/// Use of the incidents that a reading finds and the store does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Store and deliver them.
    Deliver,
    /// Store only their identities, because they were handled elsewhere: they are never delivered.
    MarkKnown,
}

/// A window to be read.
#[derive(Clone, Debug)]
pub(super) struct WindowTask {
    pub(super) channel: ChannelId,
    /// Start of the reading by the uptime clock. A channel id for which Slack has answered since
    /// then is in use.
    pub(super) began: Duration,
    pub(super) window: Window,
    pub(super) source: Source,
    pub(super) purpose: Purpose,
    /// Cursor move that is stored with the last page; the newest message seen is filled in then.
    pub(super) cursor: Option<CursorMove>,
    /// Earliest time that any clock shows. A later message is from the future and does not show how
    /// far history was read.
    pub(super) now: MessageTs,
    /// Newest message that an earlier reading has counted.
    pub(super) counted_to: Option<MessageTs>,
}

impl WindowTask {
    /// Returns whether no earlier reading has counted the message.
    pub(super) fn is_fresh(&self, ts: Option<MessageTs>) -> bool {
        ts.is_none_or(|ts| self.counted_to.is_none_or(|counted| ts > counted))
    }

    /// Returns whether an incident with this timestamp may be stored. An incident that is marked as
    /// known is never delivered, so one beyond the window, which Slack was not asked for, is left.
    pub(super) fn may_take(&self, ts: Option<MessageTs>) -> bool {
        match self.purpose {
            Purpose::Deliver => true,
            Purpose::MarkKnown => ts.is_some_and(|ts| ts <= self.window.latest),
        }
    }
}
