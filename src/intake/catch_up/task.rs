//! A window of one channel that is to be read, and what becomes of what it brings. Pure.

use std::time::Duration;

use super::window::Window;
use crate::{
    ids::{ChannelId, MessageTs},
    store::{CursorMove, Source},
};

/// What becomes of incidents that are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They are stored and delivered.
    Deliver,
    /// Their identities are kept, since somebody else has brought them: they go nowhere.
    MarkKnown,
}

/// What to read, and on whose account.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) channel: ChannelId,
    /// When the window was begun: ids that Slack has answered for since are in use.
    pub(super) began: Duration,
    pub(super) window: Window,
    pub(super) source: Source,
    pub(super) purpose: Purpose,
    /// Moves with the last page. What it has seen is filled in then.
    pub(super) cursor: Option<CursorMove>,
    /// Messages from later than this are from the future, and say nothing about the past.
    pub(super) now: MessageTs,
    /// Messages up to here have been counted before.
    pub(super) counted_to: Option<MessageTs>,
}

impl Task {
    /// Returns whether the message has not been counted by an earlier reading.
    pub(super) fn is_fresh(&self, ts: Option<MessageTs>) -> bool {
        ts.is_none_or(|ts| self.counted_to.is_none_or(|counted| ts > counted))
    }

    /// Returns whether an incident at that time may be taken in. Slack was asked for nothing later
    /// than the window, and what is marked as known is never delivered.
    pub(super) fn may_take(&self, ts: Option<MessageTs>) -> bool {
        match self.purpose {
            Purpose::Deliver => true,
            Purpose::MarkKnown => ts.is_some_and(|ts| ts <= self.window.latest),
        }
    }
}
